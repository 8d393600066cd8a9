"""The judge: what was promised and what bodies did, against what the store says in the end.

It believes the files that processes appended to, and never the system's own word about itself. The
numbers are those of the invariants in `docs/reliability.md`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Raw

from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.jsonio import from_json


if TYPE_CHECKING:
    from collections.abc import Iterable

    from mcp_tasks.domain.record import TaskRecord


class Fault(NamedTuple):
    """One broken promise."""

    task_id: str
    what: str


@dataclass
class Evidence:
    """Everything that is known of a cycle.

    Attributes:
        acks: Lines of the processes about what they were promised, or promised others.
        witness: Lines of the bodies.
        first: The first terminal record that was seen of each task, with its version.
        final: The record and version of each task at the end.
        raised: An error was raised in the middle of it, so a body may end as `failed` for that.
    """

    acks: list[dict[str, Any]]
    witness: list[dict[str, Any]]
    first: dict[str, tuple[int, bytes]] = field(default_factory=dict[str, tuple[int, bytes]])
    final: dict[str, tuple[int, bytes, TaskRecord]] = field(
        default_factory=dict[str, "tuple[int, bytes, TaskRecord]"]
    )
    results: dict[str, Any] = field(default_factory=dict[str, Any])
    raised: bool = False

    def history(self, task_id: str) -> str:
        """Return all that happened to one task, in order: the shortest history that shows it."""
        lines = sorted(
            (line for line in self.acks + self.witness if _concerns(line, task_id)),
            key=lambda line: line["at"],
        )
        start = lines[0]["at"] if lines else 0
        shown = [
            f"  {(line['at'] - start) / 1e6:9.2f} ms  process {line['pid']}: "
            + ", ".join(f"{k}={v}" for k, v in line.items() if k not in ("at", "pid", "task"))
            for line in lines
        ]
        if task_id in self.final:
            shown.append(f"  in the end: {self.final[task_id][2]}")
        return "\n".join(shown)


def judge(evidence: Evidence) -> list[Fault]:
    """Return every broken promise."""
    acks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    seen: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in evidence.acks:
        if "task" in line:
            acks[line["task"]].append(line)
    for line in evidence.witness:
        seen[line["task"]].append(line)
    faults: list[Fault] = []
    for task_id in acks.keys() | seen.keys() | evidence.final.keys():
        problems = _problems(evidence, task_id, acks[task_id], seen[task_id])
        faults += [Fault(task_id, what) for what in problems]
    return faults


def _problems(
    evidence: Evidence, task_id: str, acks: list[dict[str, Any]], seen: list[dict[str, Any]]
) -> Iterable[str]:
    created = next((line for line in acks if line["what"] == "created"), None)
    if task_id not in evidence.final:
        if created is not None:
            yield "I1: it was promised, and is not there"
        return
    version, data, record = evidence.final[task_id]
    if task_id in evidence.first and evidence.first[task_id] != (version, data):
        yield "I2: its terminal record was changed"
    yield from _executions(record, seen)
    if record.status is TaskStatus.COMPLETED and record.call.tool != "none":
        yield from _completion(record, evidence.results[task_id], seen)
    if record.status is TaskStatus.FAILED:
        yield from _failure(record, created is not None, raised=evidence.raised)
    if created is None or created["tool"] == "none":
        return
    if not record.is_terminal:
        yield f"I7: it is {record.status} for ever"
    if any(line["what"] == "cancelled" for line in acks) and created["tool"] == "hold":
        restarted = record.status is TaskStatus.COMPLETED and record.attempt > 1
        failed = record.status is TaskStatus.FAILED and evidence.raised
        if record.status is not TaskStatus.CANCELLED and not restarted and not failed:
            yield f"I9: its cancellation was acknowledged, and it is {record.status}"
    yield from _answers(record, evidence.results.get(task_id), acks)


def _executions(record: TaskRecord, seen: list[dict[str, Any]]) -> Iterable[str]:
    """I8: how often the body was started, and under which numbers."""
    starts = [line["attempt"] for line in seen if line["what"] == "start"]
    if len(starts) != len(set(starts)):
        yield f"I8: two runs had one number: {starts}"
    if not record.policy.is_restartable and len(starts) > 1:
        yield f"I8: at most once, and started {len(starts)} times"
    if starts and max(starts) > record.attempt:
        yield f"I8: attempt {max(starts)} ran, and the record knows of {record.attempt}"
    if record.lost > record.policy.max_attempts:
        yield f"I8: {record.lost} attempts were lost, of {record.policy.max_attempts}"
    got: dict[str, tuple[int, str]] = {}
    for line in seen:
        if line["what"] == "got":
            _, value = got.setdefault(line["step"], (line["attempt"], line["value"]))
            if value != line["value"]:
                yield f"I10: step {line['step']} was {value!r}, and later {line['value']!r}"
        if line["what"] == "ran" and line["step"] in got and line["attempt"] > got[line["step"]][0]:
            yield f"I10: step {line['step']} was recorded, and ran again"


def _completion(record: TaskRecord, result: Any, seen: list[dict[str, Any]]) -> Iterable[str]:
    """I6: what is recorded is of the last attempt, which really came to its end."""
    if result["attempt"] != record.attempt:
        yield f"I6: attempt {result['attempt']} wrote after attempt {record.attempt} was claimed"
    if not any(line["what"] == "end" and line["attempt"] == record.attempt for line in seen):
        yield f"I2: completed, and attempt {record.attempt} never came to its end"


def _failure(record: TaskRecord, promised: bool, *, raised: bool) -> Iterable[str]:  # noqa: FBT001
    error = record.error
    body = error.data if error is not None else None
    reason = from_json(body)["reason"] if isinstance(body, Raw) else None
    if reason == "expired" and record.call.tool == "none":
        return
    if reason == "never_started" and promised:
        yield "I1: it was promised, and taken for one that was not"
    elif reason in ("worker_lost", "worker_stopped"):
        if record.policy.is_restartable:
            yield f"I7: it can be run again, and failed: {reason}"
    elif reason != "never_started" and not raised:
        yield f"I7: it failed, and its tool did not: {error}"


def _answers(record: TaskRecord, result: Any, acks: list[dict[str, Any]]) -> Iterable[str]:
    """I10: an acknowledged answer is in the record, and what the tool was given is one of them."""
    taken = [line for line in acks if line["what"] == "answered" and line["keys"]]
    if not taken:
        return
    recorded = {entry.key for entry in record.journal.tail if entry.kind == "answer"}
    for line in taken:
        if not record.policy.is_restartable and record.status is TaskStatus.FAILED:
            continue
        if any(key not in recorded for key in line["keys"]):
            yield f"I10: an answer of {line['who']} was acknowledged, and is not there"
    if record.status is TaskStatus.COMPLETED and result["answer"] not in _answerers(acks):
        yield f"I10: the tool was given an answer of {result['answer']!r}"


def _answerers(acks: list[dict[str, Any]]) -> set[str]:
    return {line["who"] for line in acks if line["what"] == "answered"} | {
        "subject",
        "survivor",
        "member",
    }


def _concerns(line: dict[str, Any], task_id: str) -> bool:
    return line.get("task") == task_id or line["what"] in ("started", "reaped", "over", "struck")
