"""Every test of `TaskStoreContract` is tested too: by a mistake, planted into our own store."""

from __future__ import annotations

import asyncio
import inspect
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from tests.kit.store_mistakes import MISTAKES

from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.store import TaskStore
from mcp_tasks.testing import TaskStoreContract
from mcp_tasks.testing.clocks import ManualClock


if TYPE_CHECKING:
    from collections.abc import Iterator


CONTRACT = sorted(name for name in dir(TaskStoreContract) if name.startswith("test_"))
PLANTED = sorted((name, test) for name, (_, tests) in MISTAKES.items() for test in tests)


def cases(test: str) -> Iterator[dict[str, Any]]:
    """Yield the arguments of every case of a test."""
    marks = getattr(getattr(TaskStoreContract, test), "pytestmark", [])
    names = [mark.args[0] for mark in marks if mark.name == "parametrize"]
    values = [list(mark.args[1]) for mark in marks if mark.name == "parametrize"]
    for chosen in product(*values):
        yield dict(zip(names, chosen, strict=True))


async def run(test: str, case: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Run one case of a test, as pytest would."""
    caplog.clear()
    clock, backend = ManualClock(), MemoryBackend()
    store = TaskStore(backend, clock=clock)
    given = {"clock": clock, "backend": backend, "store": store, "caplog": caplog, **case}
    call = getattr(TaskStoreContract(), test)
    wanted = inspect.signature(call).parameters
    try:
        async with asyncio.timeout(20):
            await call(**{name: value for name, value in given.items() if name in wanted})
    finally:
        await backend.close()


@pytest.mark.parametrize(("mistake", "test"), PLANTED)
async def test_the_contract_notices(
    mistake: str, test: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the mistake in the store the test fails, and without it it does not."""
    for case in cases(test):
        await run(test, case, caplog)

    MISTAKES[mistake][0](monkeypatch)
    for case in cases(test):
        try:
            await run(test, case, caplog)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - tests fail by any of them
            return
    pytest.fail(f"{test} passes although the store {mistake.replace('_', ' ')}")


def test_every_test_of_the_contract_has_a_mistake_to_notice() -> None:
    """One that nothing can fail is no test."""
    assert {test for _, test in PLANTED} == set(CONTRACT)
