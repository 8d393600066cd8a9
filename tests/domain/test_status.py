"""The status table, whole."""

from __future__ import annotations

import pytest

from mcp_tasks.domain.status import FOLLOWERS, TERMINAL, TaskStatus, check_transition
from mcp_tasks.errors import InvalidTransitionError, TaskTerminalError


W, I, C, F, X = TaskStatus  # noqa: E741 - a matrix wants short names
ALLOWED = {(W, I), (W, C), (W, F), (W, X), (I, W), (I, C), (I, F), (I, X)}


@pytest.mark.parametrize("wanted", TaskStatus)
@pytest.mark.parametrize("current", TaskStatus)
def test_a_status_is_followed_by_just_those_of_the_table(
    current: TaskStatus, wanted: TaskStatus
) -> None:
    """All twenty-five pairs; a status does not follow itself."""
    if (current, wanted) in ALLOWED:
        check_transition(current, wanted)
        return
    with pytest.raises(InvalidTransitionError) as refused:
        check_transition(current, wanted)
    assert isinstance(refused.value, TaskTerminalError) == (current in {C, F, X})
    assert f"'{current}'" in str(refused.value)
    assert (refused.value.current, refused.value.wanted) == (current, wanted)
    assert refused.value.code == -32602


def test_three_statuses_are_final() -> None:
    """A client that sees one of them may stop looking."""
    assert set(TERMINAL) == {C, F, X} == {status for status in TaskStatus if status.is_terminal}
    assert all(not FOLLOWERS[status] for status in TERMINAL)
    assert set(FOLLOWERS) == set(TaskStatus)


def test_a_refusal_says_what_is_and_what_was_asked() -> None:
    """In words, not in the notation of an enum."""
    assert str(InvalidTransitionError(W, W)) == (
        "the task is already 'working'; nothing was changed"
    )
    assert str(InvalidTransitionError(W, I)) == (
        "a task that is 'working' cannot become 'input_required'; nothing was changed"
    )
    assert str(TaskTerminalError(C, W)) == "the task has ended as 'completed'; nothing was changed"
