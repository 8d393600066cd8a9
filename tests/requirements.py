"""What the server and the client owe, by id: tests name these ids, and a test checks both ways.

Sources: the Tasks extension (`modelcontextprotocol/ext-tasks`, commit e434597, `tasks.md` and
SEP-2663; ids T-…) and the core specification of 2026-07-28 (`modelcontextprotocol`, commit b0f60ba;
ids C-…, only those that a tasks implementation meets in its own code). Sentences are shortened.
"""

# ruff: noqa: E501 - a table reads better with one row on a line

from __future__ import annotations

from typing import NamedTuple


class Requirement(NamedTuple):
    """One rule.

    Attributes:
        level: As the text has it; `stated` is a sentence without a keyword.
        who: Whom it binds.
        source: Where it stands.
        sentence: What it asks for.
        untested: Why no test of ours names it; empty when tests do.
    """

    level: str
    who: str
    source: str
    sentence: str
    untested: str = ""


REQUIREMENTS: dict[str, Requirement] = {
    "T-001": Requirement(
        "stated",
        "client",
        "2026-07-28 tasks, Capability Negotiation",
        'Declares support on every request: `params._meta["io.modelcontextprotocol/clientCapabilities"].extensions["io.modelcontextprotocol/tasks"]` is `{}`.',
        "a part of the SDK's client: it sends what an extension declares",
    ),
    "T-002": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Capability Negotiation",
        'Declares support in the `server/discover` result: `capabilities.extensions["io.modelcontextprotocol/tasks"]` is `{}`.',
    ),
    "T-003": Requirement(
        "stated",
        "both",
        "2026-07-28 tasks, Capability Negotiation",
        "The extension has no settings; an empty object means supported.",
    ),
    "T-004": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Capability Negotiation",
        "Answers any supported request with `CreateTaskResult` instead of the standard result, deciding request by request.",
    ),
    "T-005": Requirement(
        "stated",
        "both",
        "2026-07-28 tasks, Capability Negotiation",
        "Only the server decides. The client sends no preference, and declaring the extension does not ask for a task.",
    ),
    "T-006": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, Capability Negotiation",
        "Returns `CreateTaskResult` to a request whose own `_meta` lacks the extension, whatever that client declared earlier.",
    ),
    "T-007": Requirement(
        "MUST",
        "client",
        "2026-07-28 tasks, Capability Negotiation; SEP: Backward Compatibility",
        "Once it declares the extension, copes with either `CallToolResult` or `CreateTaskResult` for every supported request. (The SEP repeats this for both result shapes.)",
    ),
    "T-008": Requirement(
        "MUST",
        "client",
        "2026-07-28 tasks, Capability Negotiation",
        "Treats `CreateTaskResult` in answer to an unsupported request type as an invalid response.",
        "a part of the SDK's client: it knows the claim for tools/call alone",
    ),
    "T-009": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Capability Negotiation",
        'When it cannot serve an undeclared client without a task: error `-32021` (Missing Required Client Capability) that names the extension, `data.requiredCapabilities.extensions["io.modelcontextprotocol/tasks"]` = `{}`.',
    ),
    "T-010": Requirement(
        "stated",
        "both",
        "2026-07-28 tasks, Supported Methods",
        "Task execution is defined for `tools/call` only.",
        "says what there is to serve",
    ),
    "T-011": Requirement(
        "SHOULD",
        "both",
        "2026-07-28 tasks, Supported Methods",
        "Is designed so that further request types can be added later.",
        "a matter of design",
    ),
    "T-012": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Polymorphic Results",
        'Sets `resultType` to `"task"` on a `CreateTaskResult`.',
    ),
    "T-013": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, Polymorphic Results",
        'Sets `resultType` to `"task"` on any other result.',
    ),
    "T-014": Requirement(
        "MAY",
        "client",
        "2026-07-28 tasks, SEP: Polymorphic Results; Implementation Considerations",
        "An existing call with a fixed return type may drive the polling inside and return only the final result; new interfaces may expose the life of the task.",
        "what the client's tests do throughout",
    ),
    "T-015": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Tasks",
        "`Task`: `taskId` string; `status` one of `working`, `input_required`, `completed`, `cancelled`, `failed`; `createdAt` and `lastUpdatedAt` ISO 8601; `ttlMs` integer or null, always present; optional `statusMessage` string and `pollIntervalMs` integer. The 2025-11-25 names `ttl` and `pollInterval` are gone.",
    ),
    "T-016": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Tasks",
        "`ttlMs` counts from creation; null means no limit; once it has elapsed the server may discard the task.",
    ),
    "T-017": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Tasks; Task Polling",
        "Changes `ttlMs` and `pollIntervalMs` during a task's life.",
    ),
    "T-018": Requirement(
        "MAY",
        "client",
        "2026-07-28 tasks, Tasks",
        "Shows `statusMessage` to the user or the model.",
    ),
    "T-019": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Task Status",
        "Payload by status, in `tasks/get` and `notifications/tasks`: `input_required` carries `inputRequests`, `completed` carries `result`, `failed` carries `error`; `working` and `cancelled` carry none of them.",
    ),
    "T-020": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Task Status; Task Creation",
        "Starts in `working` (typically; another seed status is allowed). `working` and `input_required` may each become the other or a terminal status. `completed`, `failed` and `cancelled` are terminal and final.",
    ),
    "T-021": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, Task Status; Task Execution Errors",
        "Uses `failed` for anything but a JSON-RPC error during execution; a tool result with `isError: true` is not one.",
    ),
    "T-022": Requirement(
        "MUST",
        "client",
        "2026-07-28 tasks, SEP: Task Status",
        "Looks at `inputRequests` whenever the status is `input_required`.",
        "what the client's tests do throughout",
    ),
    "T-023": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Task Creation",
        "`CreateTaskResult` is a result with the `Task` fields at its top level; there is no `task` wrapper.",
    ),
    "T-024": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, Task Creation",
        "Returns `CreateTaskResult` before the task is durably created, that is, before a `tasks/get` for its `taskId` would resolve.",
    ),
    "T-025": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Creation",
        "In an eventually consistent deployment, waits for consistency before it answers.",
    ),
    "T-026": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, Task Creation; SEP: Composition with MRTR",
        "Finishes every multi round-trip (`InputRequiredResult`) exchange on the original request before it answers with `CreateTaskResult`.",
    ),
    "T-027": Requirement(
        "stated",
        "both",
        "2026-07-28 tasks, SEP: Composition with MRTR",
        "Keys used by the exchange before creation and `inputRequests` keys of the task are separate spaces: uniqueness and deduplication start anew with the task.",
    ),
    "T-028": Requirement(
        "stated",
        "client",
        "2026-07-28 tasks, Task Creation",
        "Uses the returned `taskId` for every later `tasks/get`, `tasks/update` and `tasks/cancel`.",
    ),
    "T-029": Requirement(
        "SHOULD",
        "client",
        "2026-07-28 tasks, Task Polling; Tasks",
        "Respects `pollIntervalMs`, including a changed value.",
    ),
    "T-030": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Task Polling",
        "Rate-limits clients that poll faster than the recorded `pollIntervalMs`. (No error code is given.)",
        "allowed, not used: nobody is limited by how fast they poll",
    ),
    "T-031": Requirement(
        "SHOULD",
        "client",
        "2026-07-28 tasks, Task Polling",
        "Keeps polling until a terminal status or until it sends `tasks/cancel`.",
    ),
    "T-032": Requirement(
        "SHOULD",
        "client",
        "2026-07-28 tasks, Task Polling",
        "Stores task ids durably so that polling can go on after a crash or restart.",
    ),
    "T-033": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "On `tasks/get` (`params.taskId`), checks the task's status and answers with the variant for it (next six rows).",
    ),
    "T-034": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "`working`: a task with status `working`.",
    ),
    "T-035": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "`input_required`: status `input_required` plus `inputRequests`.",
    ),
    "T-036": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "`inputRequests` holds all outstanding requests that block the task.",
    ),
    "T-037": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "`completed`: status `completed` plus `result`, the final result.",
    ),
    "T-038": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "`cancelled`: status `cancelled`.",
    ),
    "T-039": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "`failed`: status `failed` plus the error that occurred.",
    ),
    "T-040": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        '`resultType` of a `tasks/get` result is `"complete"`, whatever the status.',
    ),
    "T-041": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, SEP: Splitting Reads and Writes",
        "`tasks/get` is a pure, idempotent read that may be repeated or cached.",
    ),
    "T-042": Requirement(
        "MAY",
        "client",
        "2026-07-28 tasks, Task Polling: Response",
        "With a non-null `ttlMs`, takes the task as no longer usable when its status shows no update after `createdAt` + `ttlMs`.",
        "allowed, not used: the server says when a task is over",
    ),
    "T-043": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Task Polling: Response",
        "Marks a task `failed` at any time after its TTL, and deletes it at any time after that.",
    ),
    "T-044": Requirement(
        "SHOULD",
        "client",
        "2026-07-28 tasks, Task Update Requests; Task Status",
        "On `input_required`, seen in `tasks/get` or `notifications/tasks`, answers with one or more `tasks/update` requests: `params.taskId`, `params.inputResponses` keyed like `inputRequests`.",
    ),
    "T-045": Requirement(
        "SHOULD",
        "client",
        "2026-07-28 tasks, Task Update Requests",
        "After `tasks/update`, goes on observing by polling or notifications until a terminal status.",
        "what the client's tests do throughout",
    ),
    "T-046": Requirement(
        "MUST",
        "client",
        "2026-07-28 tasks, Task Update Requests",
        "Treats each `inputRequests` entry like the same request sent on its own: same trust model, same user-facing behaviour.",
    ),
    "T-047": Requirement(
        "SHOULD",
        "client",
        "2026-07-28 tasks, Task Update Requests",
        "Deduplicates `inputRequests` keys across polls, so that nothing is put to the user or model twice.",
    ),
    "T-048": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Update Requests",
        "Each `inputRequests` key is unique over the life of the task.",
    ),
    "T-049": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, Task Update Requests",
        "Reuses a key for a later request after a response for it was delivered.",
    ),
    "T-050": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, Task Update Requests",
        "Uses one key for two distinct requests during the task's life.",
    ),
    "T-051": Requirement(
        "MUST",
        "client",
        "2026-07-28 tasks, Task Update Requests: Request",
        "Each key in `inputResponses` is the key of a currently outstanding request.",
        "what the client's tests do throughout",
    ),
    "T-052": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Update Requests: Response",
        "Acknowledges a successful `tasks/update` with an empty result.",
    ),
    "T-053": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Task Update Requests: Response",
        "Acknowledges before `tasks/get` or `notifications/tasks` shows the effect.",
    ),
    "T-054": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, Task Update Requests: Response; SEP: Ack-only Cancellation",
        "Answers `tasks/update` for an unknown `taskId` with a JSON-RPC error (`-32602`, see T-077).",
    ),
    "T-055": Requirement(
        "SHOULD",
        "client",
        "2026-07-28 tasks, Task Update Requests: Response",
        "Tracks keys so that it answers no request twice.",
    ),
    "T-056": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, Task Update Requests: Response",
        "Ignores responses under keys that are not outstanding: never issued, already answered, or superseded.",
    ),
    "T-057": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Task Update Requests: Response",
        "Accepts responses for some of the outstanding keys; the task then stays `input_required` until the rest arrive.",
    ),
    "T-058": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Update Requests: Response",
        '`resultType` of the acknowledgement is `"complete"`.',
    ),
    "T-059": Requirement(
        "MUST NOT",
        "client",
        "2026-07-28 tasks, Task Cancellation",
        "Uses `notifications/cancelled` to cancel a task. (So a server must not take one for the original request as a cancellation of the task.)",
    ),
    "T-060": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Cancellation: Response",
        "Acknowledges `tasks/cancel` (`params.taskId`) with an empty result.",
    ),
    "T-061": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, Task Cancellation: Response; SEP: Ack-only Cancellation",
        "Answers `tasks/cancel` for an unknown `taskId` with a JSON-RPC error (`-32602`, see T-077).",
    ),
    "T-062": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Task Cancellation: Response",
        "Shows a non-terminal status after the acknowledgement, and ends in a terminal status other than `cancelled` when the work finished first.",
    ),
    "T-063": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Task Cancellation: Response",
        "Cancellation is cooperative: only the acknowledgement is owed, not that the work stops.",
    ),
    "T-064": Requirement(
        "MAY",
        "client",
        "2026-07-28 tasks, Task Cancellation: Response",
        "Deletes its state for the task as soon as it has sent the cancellation, without polling further.",
        "allowed, not used",
    ),
    "T-065": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Cancellation: Response",
        '`resultType` of the acknowledgement is `"complete"`.',
    ),
    "T-066": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Task Status Notifications",
        "Pushes `notifications/tasks` in addition to answering polls.",
        "deferred: status notifications come with subscriptions/listen",
    ),
    "T-067": Requirement(
        "stated",
        "client",
        "2026-07-28 tasks, Task Status Notifications",
        "Asks for them with `subscriptions/listen`, `params.notifications.taskIds`: an array of task ids.",
        "deferred: status notifications come with subscriptions/listen",
    ),
    "T-068": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Task Status Notifications",
        "`notifications/subscriptions/acknowledged` lists in `params.notifications.taskIds` the ids it agreed to report on, if any.",
    ),
    "T-069": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Status Notifications; Protocol Errors",
        "`taskIds` from a client that does not declare the extension: error `-32021` with `data.requiredCapabilities` as in T-009.",
    ),
    "T-070": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Task Status Notifications",
        "`params` of each notification is a complete task with its payload, the same as `tasks/get` would return at that moment.",
        "deferred: status notifications come with subscriptions/listen",
    ),
    "T-071": Requirement(
        "MAY",
        "client",
        "2026-07-28 tasks, Task Status Notifications",
        "Goes on polling besides; it need not.",
        "deferred: status notifications come with subscriptions/listen",
    ),
    "T-072": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, Task Status Notifications",
        "Sends `notifications/progress` or `notifications/message` on the listen stream for a task. Neither is supported for tasks at all.",
        "deferred: status notifications come with subscriptions/listen",
    ),
    "T-073": Requirement(
        "MUST",
        "client",
        "2026-07-28 tasks, Streamable HTTP: Routing Headers",
        "Sets `Mcp-Name` to `params.taskId` on `tasks/get`, `tasks/update` and `tasks/cancel`.",
    ),
    "T-074": Requirement(
        "stated",
        "client",
        "2026-07-28 tasks, Streamable HTTP: Routing Headers",
        "Sets `Mcp-Method` to the JSON-RPC method.",
    ),
    "T-075": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Protocol Errors",
        "Uses standard JSON-RPC errors for the protocol errors below.",
    ),
    "T-076": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Protocol Errors",
        "Invalid or unknown `taskId` on `tasks/get`: `-32602`.",
    ),
    "T-077": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, Protocol Errors",
        "The same code on `tasks/update` and `tasks/cancel`.",
    ),
    "T-078": Requirement(
        "MUST", "server", "2026-07-28 tasks, Protocol Errors", "Internal error: `-32603`."
    ),
    "T-079": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Protocol Errors",
        "`tasks/get`, `tasks/update`, `tasks/cancel` from a client that does not declare the extension: `-32021`.",
    ),
    "T-080": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, Protocol Errors",
        "Gives error messages that tell the cause.",
    ),
    "T-081": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Protocol Errors",
        'May answer "not found" (`-32602`) for a task that it has purged after expiry; it need not keep tasks for ever.',
    ),
    "T-082": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, Task Execution Errors",
        "A `failed` task carries `statusMessage` with diagnostic information.",
    ),
    "T-083": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Execution Errors",
        "A `failed` task carries `error`, the JSON-RPC error.",
    ),
    "T-084": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Execution Errors",
        "An error inside the result of a protocol method uses `completed`, with its details in `result`.",
    ),
    "T-085": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Execution Errors",
        "`error` is the error that the underlying request produced.",
    ),
    "T-086": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Task Execution Errors",
        "`result` is what the underlying request would have returned, `isError: true` included.",
    ),
    "T-087": Requirement(
        "stated",
        "both",
        "2026-07-28 tasks, Reservations",
        'The prefixes `tasks/` (methods) and `notifications/tasks/` (notifications), the `resultType` value `"task"` and the label `io.modelcontextprotocol/tasks` belong to this extension.',
    ),
    "T-088": Requirement(
        "MAY",
        "server",
        "2026-07-28 tasks, Security Considerations",
        "Lets a task id serve as a bearer token for stored state.",
    ),
    "T-089": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Security Considerations",
        "Generates ids with enough entropy that no third party can enumerate or guess them.",
    ),
    "T-090": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, Security Considerations",
        "Checks authentication and authorization on every task-related request.",
    ),
    "T-091": Requirement(
        "MUST",
        "client",
        "2026-07-28 tasks, Security Considerations",
        "A host applies to `inputRequests` payloads the same trust model as to standard elicitation and sampling.",
        "a host's duty",
    ),
    "T-092": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, Security Considerations",
        "There is no `tasks/list`, so that one caller's tasks cannot leak to another.",
    ),
    "T-093": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "Under protocol version 2025-11-25, takes this extension's capability as enabling tasks; such requests proceed as if no task capability were declared.",
    ),
    "T-094": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "Under 2026-07-28, treats a client that declares only the legacy `tasks` capability as not declaring the extension.",
    ),
    "T-095": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "If it also serves 2025-11-25 tasks, still lets such clients use `tasks/get` and `tasks/cancel` on tasks created under that flow.",
        "deferred: tasks of 2025-11-25",
    ),
    "T-096": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "Answers `tasks/result` with `-32601`.",
    ),
    "T-097": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "Ignores a `task` parameter on `tools/call` as an unknown field.",
    ),
    "T-098": Requirement(
        "MUST",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "If it used to advertise `tasks.requests.*`, `tasks.cancel`, `tasks.list`, declares the extension instead.",
    ),
    "T-099": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "Advertises those legacy capabilities under a protocol version that includes this extension.",
    ),
    "T-100": Requirement(
        "stated",
        "server",
        "2026-07-28 tasks, SEP: Backward Compatibility",
        "A server that always returns the standard result is compliant.",
        "says what else is allowed",
    ),
    "C-001": Requirement(
        "MUST",
        "server",
        "2026-07-28 core, Transports: Streamable HTTP, Server Validation",
        "Rejects a request whose `MCP-Protocol-Version`, `Mcp-Method` or `Mcp-Name` header is missing where required or differs from the body: HTTP 400 with error `-32020`. Decodes `=?base64?…?=` values of `Mcp-Name` before it compares.",
    ),
    "C-002": Requirement(
        "MUST",
        "both",
        "2026-07-28 core, Transports: Streamable HTTP, Case Sensitivity",
        "Header names compare without regard to case; values with regard to case, after trimming the whitespace around them (RFC 9110, 5.5).",
    ),
    "C-003": Requirement(
        "MUST",
        "server",
        "2026-07-28 core, Basic: error codes; Transports: Streamable HTTP",
        "HTTP status of error answers: 400 for `-32020`, `-32021`, `-32022` and for `-32602` on an invalid `_meta`; 404 for `-32601`.",
    ),
    "C-004": Requirement(
        "MUST", "server", "2026-07-28 core, Schema: `Result`", "Every result has `resultType`."
    ),
    "C-005": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 core, Patterns: MRTR; Client: Elicitation",
        "Puts a request into an `InputRequiredResult` for which the client declared no capability (for example `elicitation/create` without `elicitation`). An empty `elicitation: {}` counts as form support.",
    ),
    "C-006": Requirement(
        "MUST",
        "server",
        "2026-07-28 core, Patterns: MRTR",
        "Treats `requestState` as input from an attacker, and protects its integrity where it matters.",
        "a part of the SDK: it seals requestState",
    ),
    "C-007": Requirement(
        "MUST",
        "server",
        "2026-07-28 core, Patterns: Subscriptions",
        "First message of a subscription is `notifications/subscriptions/acknowledged`; nothing is sent before it.",
        "a part of the SDK",
    ),
    "C-008": Requirement(
        "MUST",
        "server",
        "2026-07-28 core, Patterns: Subscriptions",
        'Every message of the subscription carries `_meta["io.modelcontextprotocol/subscriptionId"]`, the JSON-RPC id of the listen request.',
        "a part of the SDK",
    ),
    "C-009": Requirement(
        "MUST NOT",
        "server",
        "2026-07-28 core, Patterns: Subscriptions",
        "Sends notification types that the client did not ask for.",
        "a part of the SDK",
    ),
    "C-010": Requirement(
        "SHOULD",
        "server",
        "2026-07-28 core, Patterns: Subscriptions, Graceful Closure",
        'When it ends a subscription itself (shutdown), answers the listen request with a `resultType: "complete"` result carrying the subscription id, then closes the stream.',
        "deferred: status notifications come with subscriptions/listen",
    ),
    "X-AROUND": Requirement(
        "MUST",
        "server",
        "Ours",
        "Whatever `around_run` sets up surrounds every run of a tool, the first and later ones.",
    ),
    "X-VARIABLES": Requirement(
        "MUST",
        "server",
        "Ours",
        "Variables show under one key of `_meta`; names that begin with `_` stay on the server.",
    ),
}
