"""Settings of a wrong type, and of a wrong size: refused when they are made, by their names."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest

from mcp_tasks import Call, ConfigurationError, Retry, RunnerConfig, StoreConfig, TaskStore
from mcp_tasks.storage.memory import MemoryBackend


HOUR = timedelta(hours=1)


class Number(float):
    """As `numpy.float64` is one."""


@pytest.mark.parametrize(
    ("make", "name", "value", "wanted"),
    [
        (StoreConfig, "poll_interval", 1, "a timedelta, such as timedelta(hours=2)"),
        (StoreConfig, "default_ttl", 5, "a timedelta, such as timedelta(hours=2)"),
        (StoreConfig, "max_ttl", None, "a timedelta, such as timedelta(hours=2)"),
        (StoreConfig, "max_active", 1.5, "a whole number"),
        (StoreConfig, "max_active", "5", "a whole number"),
        (StoreConfig, "max_active", True, "a whole number"),
        (StoreConfig, "max_active", HOUR, "a whole number"),
        (StoreConfig, "settle", HOUR, "a finite number"),
        (StoreConfig, "settle", math.nan, "a finite number"),
        (StoreConfig, "settle", math.inf, "a finite number"),
        (StoreConfig, "max_head_bytes", 10, "4096 or more, or no task has room"),
        (StoreConfig, "max_steps", 0, "positive"),
        (RunnerConfig, "drain", "5", "a finite number"),
        (RunnerConfig, "drain", HOUR, "a finite number"),
        (RunnerConfig, "drain", True, "a finite number"),
        (RunnerConfig, "lease", math.inf, "a finite number"),
        (RunnerConfig, "max_running", 2.0, "a whole number"),
        (RunnerConfig, "look", 0.0, "more than 0"),
    ],
)
def test_what_a_setting_cannot_be_is_refused_by_its_name(
    make: Any, name: str, value: Any, wanted: str
) -> None:
    """At start, and not by the first task in words that name no setting."""
    with pytest.raises(ConfigurationError) as refused:
        make(**{name: value})

    assert str(refused.value) == f"{make.__name__}.{name} is {value!r}; it must be {wanted}"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("attempts", 0, "1 or more"),
        ("attempts", -3, "1 or more"),
        ("attempts", 2.0, "a whole number"),
        ("delay", -1, "0 or more"),
        ("delay", HOUR, "a finite number"),
        ("factor", -2.0, "0 or more"),
        ("max_delay", math.inf, "a finite number"),
        ("on", OSError, "a tuple of classes of Exception, such as (OSError,)"),
        ("on", ("OSError",), "a tuple of classes of Exception, such as (OSError,)"),
        ("on", (KeyboardInterrupt,), "a tuple of classes of Exception, such as (OSError,)"),
    ],
)
def test_a_retry_that_cannot_work_is_refused_before_the_first_try(
    name: str, value: Any, wanted: str
) -> None:
    """It would be found when a step has failed, and hide why it has."""
    setting: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError) as refused:
        Retry(**setting)

    assert str(refused.value).startswith(f"Retry.{name} is ")
    assert str(refused.value).endswith(f"; it must be {wanted}")


def test_the_waits_of_a_retry_grow_up_to_their_bound() -> None:
    """However many there are: a power of the factor would overflow at the 1,025th."""
    assert list(Retry(attempts=5, delay=1, factor=2, max_delay=5).waits()) == [1, 2, 4, 5]
    assert list(Retry(attempts=3, delay=4, factor=0.5).waits()) == [4, 2]
    assert list(Retry(attempts=1).waits()) == []
    assert set(Retry(attempts=5000, delay=1, max_delay=0.5).waits()) == {0.5}


def test_what_will_do_is_taken() -> None:
    """Whole numbers are numbers, and so are the ones of other libraries."""
    assert RunnerConfig(drain=5, look=Number(0.5)).look == 0.5
    assert StoreConfig(settle=5, max_head_bytes=4096).settle == 5


async def test_the_smallest_head_has_room_for_a_task() -> None:
    """The limit is one that works."""
    store = TaskStore(MemoryBackend(), config=StoreConfig(max_head_bytes=4096))
    call = Call("report", store.encode({"text": "x" * 5000}, what="arguments"))

    task = await store.create("a" * 200, call)
    await store.set_variables(task.owner, task.task_id, {"text": "y" * 5000})
    await store.ask(task.owner, task.task_id, "who", "roots/list", {})
    await store.fail(task.owner, task.task_id, -32603, "z" * 1000)

    assert (await store.get(task.owner, task.task_id)).is_terminal
