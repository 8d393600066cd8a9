"""Answers to a task's questions, as `tasks/update` brings them.

A value of no usable shape under a key that is asked for is refused as a whole, and the question
stays. Whether the content fits the question's schema is for the tool to say: the specification's
own example answers with a property that its schema does not name. What lies under any other key is
ignored, whatever it is. Spec: 2026-07-28 tasks, T-056 and T-057.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mcp_types import (
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitResult,
    ListRootsResult,
)
from pydantic import TypeAdapter, ValidationError

from mcp_tasks.errors import InvalidValueError


if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp_tasks.domain.record import TaskRecord


_SHAPES: Final[Mapping[str, TypeAdapter[Any]]] = {
    "elicitation/create": TypeAdapter(ElicitResult),
    "sampling/createMessage": TypeAdapter(CreateMessageResult | CreateMessageResultWithTools),
    "roots/list": TypeAdapter(ListRootsResult),
}


def check_answers(record: TaskRecord, responses: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answers to questions that are asked, as they came.

    Raises:
        InvalidValueError: One of them has no shape that its question could take. None was stored.
    """
    answers: dict[str, Any] = {}
    for question in record.questions:
        if question.key not in responses:
            continue
        answer = responses[question.key]
        shape = _SHAPES.get(question.method)
        if shape is not None:
            try:
                shape.validate_python(answer, by_alias=True, by_name=False)
            except (ValidationError, RecursionError) as error:
                what = f"the answer to {question.key!r}"
                raise InvalidValueError(what, f"it is no answer to {question.method}") from error
        answers[question.key] = answer
    return answers
