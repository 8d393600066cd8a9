"""Every test of the contract is tested: by a backend that is broken in just that way.

A test of the contract without a saboteur is an opinion. To add one, write a `MemoryBackend` that
does one thing wrong in the module that fits, and say with `breaks` which test has to notice.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from tests.kit import (
    saboteurs_of_expiry,
    saboteurs_of_life,
    saboteurs_of_listings,
    saboteurs_of_records,
)
from tests.kit.registry import SABOTEURS
from tests.kit.saboteurs_of_life import Shared
from tests.kit.saboteurs_of_listings import SimpleListing

from mcp_tasks.testing import ChangeSourceContract, ReopenableContract, StorageBackendContract


if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp_tasks.storage.memory import MemoryBackend


MODULES = (
    saboteurs_of_expiry,
    saboteurs_of_life,
    saboteurs_of_listings,
    saboteurs_of_records,
)


class Everything(StorageBackendContract, ReopenableContract, ChangeSourceContract):
    """All contracts of a backend."""


CONTRACT = sorted(name for name in dir(Everything) if name.startswith("test_"))

# Tests that nobody has managed to break yet. Every name here is a debt.
WITHOUT_SABOTEUR: set[str] = set()


class TestSimpleListing(StorageBackendContract):
    """What the saboteurs of listings start from is right, so what they fail is their own doing."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[MemoryBackend]:
        """Give an empty one."""
        backend = SimpleListing()
        yield backend
        await backend.close()


class TestShared(StorageBackendContract, ReopenableContract, ChangeSourceContract):
    """So is what those that are opened twice start from."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[MemoryBackend]:
        """Give an empty one."""
        backend = Shared()
        yield backend
        await backend.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the contract wait for a fraction of its time: here it waits in vain."""
    patient = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda delay: patient(delay / 20))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("test", sorted(SABOTEURS))
async def test_the_contract_catches(test: str) -> None:
    """The saboteur fails the test that is there for it."""
    backend = SABOTEURS[test]()
    run = getattr(Everything(), test)

    # A failing test raises anything: an assertion, the backend's own error, a timeout. Only a
    # skipped one would not have looked.
    with pytest.raises((Exception, pytest.fail.Exception, BaseExceptionGroup)) as caught:
        await run(backend)
    assert not isinstance(caught.value, pytest.skip.Exception)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("saboteur", sorted(set(SABOTEURS.values()), key=repr))
async def test_a_saboteur_is_not_broken_altogether(saboteur: type[MemoryBackend]) -> None:
    """One that can do nothing would prove nothing about the test that it fails."""
    contract = Everything()
    passed = 0
    for name in CONTRACT:
        with suppress(Exception, pytest.fail.Exception, pytest.skip.Exception):
            await getattr(contract, name)(saboteur())
            passed += 1

    assert passed > len(CONTRACT) / 5


def test_every_test_of_the_contract_has_a_saboteur() -> None:
    """Or stands in the list of those that have none; and no saboteur is for a test that is gone."""
    assert set(CONTRACT) - set(SABOTEURS) == WITHOUT_SABOTEUR
    assert set(SABOTEURS) - set(CONTRACT) == set()
