"""What all contracts share."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend


class Coroutines:
    """Tests that are plain coroutines, and need a plugin that runs them."""

    @pytest.fixture(autouse=True)
    def _need_a_plugin(self, request: pytest.FixtureRequest) -> None:
        test: Any = getattr(request, "function", None)
        if inspect.iscoroutinefunction(test) and not _is_run_by_a_plugin(request):
            pytest.fail(
                "the tests of a contract are coroutines, and no plugin runs them: set "
                'anyio_mode = "auto" in the settings of pytest (or asyncio_mode = "auto" for '
                "pytest-asyncio)",
                pytrace=False,
            )


def _is_run_by_a_plugin(request: pytest.FixtureRequest) -> bool:
    if "anyio_backend" in request.fixturenames:  # anyio's plugin asks for it where it runs a test
        return True
    if request.node.get_closest_marker("asyncio") is not None:
        return True
    try:
        mode = request.config.getoption("asyncio_mode", None) or request.config.getini(
            "asyncio_mode"
        )
    except ValueError:  # pytest-asyncio is not here
        return False
    return str(mode) == "auto"


class Contract(Coroutines):
    """Inherit one or more of the contracts, and bring the fixture `backend`."""

    @pytest.fixture
    def backend(self) -> StorageBackend:
        """Give an empty backend, one to each test; yours replaces this one and closes it."""
        message = f"{type(self).__name__} brings no fixture `backend`"
        raise NotImplementedError(message)

    @pytest.fixture(scope="class")
    @classmethod
    def anyio_backend(cls) -> str:
        """Run on asyncio, which is what backends are written for."""
        return "asyncio"
