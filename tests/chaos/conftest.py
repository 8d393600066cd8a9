"""What all chaos tests share: how much to do, the seed, the fork server, the stores."""

from __future__ import annotations

import os
import random
import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from tests.chaos.harness import nursery

from mcp_tasks.storage.base import Initializable
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.servers import server_named
from mcp_tasks.testing.servers.dynamodb import CREDENTIALS


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.chaos.harness import Nursery

    from mcp_tasks.testing.servers import ServerProcess


if sys.platform == "win32":
    collect_ignore_glob = ["test_*.py"]  # they fork, and send POSIX signals

ROUNDS = int(os.environ.get("MCP_TASKS_CHAOS_ROUNDS") or 0)
MANY = 20
"""Rounds from which on everything is done; with fewer, or none given, a little of it."""
SEED = int(os.environ.get("MCP_TASKS_CHAOS_SEED") or 0) or random.randrange(1, 2**32)  # noqa: S311


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark of what only `make chaos` does known."""
    config.addinivalue_line("markers", "long: takes minutes, so only `make chaos` does it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless many rounds are asked for."""
    if ROUNDS < MANY:
        late = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]


class Stores:
    """One server of each kind, started when it is first asked for, and a new SQLite file each time.

    Attributes:
        servers: Those that run, by name.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._files = 0
        self.servers: dict[str, ServerProcess] = {}

    async def url(self, kind: str, folder: Path) -> str:
        """Return the URL of a store of this kind; a file would lie in `folder`."""
        if kind == "sqlite":
            return f"sqlite:///{(folder / 'tasks.db').as_posix()}"
        if kind not in self.servers:
            self.servers[kind] = self._stack.enter_context(server_named(kind))
            backend = open_backend(self.servers[kind].url)
            if isinstance(backend, Initializable):
                await backend.initialize()
            await backend.close()
        return self.servers[kind].url


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Runners are asyncio's."""
    return "asyncio"


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """Give the stores of this run."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield Stores(tmp_path_factory.mktemp("stores"), stack)


@pytest.fixture(scope="session")
async def children(
    anyio_backend: str, stores: Stores, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Nursery]:
    """Give the fork server of this run, whose processes hold their locks in a folder of ours."""
    locks = tmp_path_factory.mktemp("locks")
    async with nursery({**CREDENTIALS, "XDG_STATE_HOME": str(locks)}) as server:
        yield server


@pytest.fixture
def rounds() -> Callable[[int, int], int]:
    """Give how often to do something: as told by `N=`, else a few times."""

    def rounds(few: int, most: int) -> int:
        return min(max(ROUNDS, few), most)

    return rounds


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Give the dice of a test. What they were made from is shown when it fails."""
    print(f"seed {SEED}: repeat with SEED={SEED}")  # noqa: T201 - shown when it fails
    return random.Random(f"{SEED} {request.node.name}")  # noqa: S311


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Give a folder for the files of cycles, which goes with them."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)
