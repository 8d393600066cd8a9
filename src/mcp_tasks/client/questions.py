"""What a task asks, put to the app's own callbacks.

A question of a task goes where the same request goes when it comes on its own: to the elicitation,
sampling or roots callback of the `Client`. Same trust, same dialog.

Spec: 2026-07-28 tasks, T-046 and T-091.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.client.session import ClientRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_REQUEST, ElicitRequest, ErrorData, InputRequest
from pydantic import TypeAdapter, ValidationError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.client.session import ClientSession


_requests: TypeAdapter[InputRequest] = TypeAdapter(InputRequest)


async def ask(session: ClientSession, key: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Put one question to the app and return its answer, as it goes into `inputResponses`.

    A callback that refuses an elicitation has declined it for the person, and the task is told so.
    Sampling and roots know no "no": there a refusal is an error of the call.

    Args:
        session: Whose callbacks are asked.
        key: The question's key; callbacks see it as the request's id.
        question: `method` and `params`.

    Raises:
        MCPError: There is no callback for it, it refused, or nobody knows such a request.
    """
    try:
        request = _requests.validate_python(question, by_name=False)
    except ValidationError as error:
        message = f"the task asks for {question.get('method')!r} in a form that MCP does not have"
        raise MCPError(INVALID_REQUEST, message) from error
    meta = request.params.meta if request.params is not None else None
    context = ClientRequestContext(session=session, request_id=key, meta=meta)
    answer = await session.dispatch_input_request(context, request)
    if isinstance(answer, ErrorData):
        if isinstance(request, ElicitRequest):
            return {"action": "decline"}
        raise MCPError.from_error_data(answer)
    return answer.model_dump(by_alias=True, mode="json", exclude_none=True)
