"""Which backend is broken in just the way that a test of the contract is there to catch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mcp_tasks.storage.memory import MemoryBackend


if TYPE_CHECKING:
    from collections.abc import Callable


SABOTEURS: dict[str, type[MemoryBackend]] = {}

Saboteur = TypeVar("Saboteur", bound=type[MemoryBackend])


def breaks(*tests: str) -> Callable[[Saboteur], Saboteur]:
    """Say which tests of the contract a saboteur must fail."""

    def register(saboteur: Saboteur) -> Saboteur:
        for test in tests:
            name = f"test_{test}"
            if name in SABOTEURS:
                message = f"{name} has a saboteur already"
                raise ValueError(message)
            SABOTEURS[name] = saboteur
        return saboteur

    return register
