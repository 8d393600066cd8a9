"""Lists of tasks: pages, and the cursors between them."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.errors import InvalidCursorError, InvalidValueError
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.task_samples import CALL


if TYPE_CHECKING:
    from mcp_tasks.storage.base import StorageBackend
    from mcp_tasks.testing.clocks import ManualClock


async def create(store: TaskStore, clock: ManualClock, count: int, owner: str = "ada") -> list[str]:
    """Create tasks, one each millisecond, and return their ids, newest first."""
    created: list[str] = []
    for _ in range(count):
        clock.advance(timedelta(milliseconds=1))
        created.insert(0, (await store.create(owner, CALL)).task_id)
    return created


class PageRules:
    """What `TaskStore.list` returns."""

    async def test_pages_show_each_task_once_newest_first(
        self, store: TaskStore, clock: ManualClock
    ) -> None:
        """Also while tasks are created: those are newer than any page that was begun."""
        created = await create(store, clock, 7)

        seen: list[str] = []
        cursor = None
        for _ in range(4):
            page = await store.list("ada", cursor=cursor, limit=2)
            seen += [task.task_id for task in page.tasks]
            cursor = page.cursor
            await create(store, clock, 1)

        assert seen == created
        assert cursor is None

    async def test_tasks_of_one_millisecond_are_not_lost_between_pages(
        self, store: TaskStore
    ) -> None:
        """The order is whole, ties included."""
        created = {(await store.create("ada", CALL)).task_id for _ in range(9)}

        seen: list[str] = []
        cursor = None
        while True:
            page = await store.list("ada", cursor=cursor, limit=2)
            seen += [task.task_id for task in page.tasks]
            cursor = page.cursor
            if cursor is None:
                break

        assert seen == sorted(created, reverse=True)

    async def test_any_server_reads_a_cursor_that_another_made(
        self, backend: StorageBackend, store: TaskStore, clock: ManualClock
    ) -> None:
        """The next page is asked for wherever the client happens to connect."""
        created = await create(store, clock, 3)
        first = await store.list("ada", limit=2)

        second = await TaskStore(backend, clock=clock).list("ada", cursor=first.cursor)

        assert [task.task_id for task in second.tasks] == created[2:]

    @pytest.mark.parametrize("bad", ["", "x", "é", "====", "A" * 70, "task", "\ud800", "A" * 5000])
    async def test_a_cursor_that_nobody_made_is_refused(self, store: TaskStore, bad: str) -> None:
        """It does not restart at the first page, in silence and for ever."""
        await store.create("ada", CALL)

        with pytest.raises(InvalidCursorError):
            await store.list("ada", cursor=bad)

    async def test_a_cursor_is_of_use_to_its_owner_alone_and_as_a_whole(
        self, backend: StorageBackend, store: TaskStore, clock: ManualClock
    ) -> None:
        """It is sealed: changed, cut, borrowed or brought from a neighbour it is none."""
        await create(store, clock, 3)
        await create(store, clock, 3, "eve")
        other = TaskStore(backend, namespace="other", clock=clock)
        await create(other, clock, 3)
        foreign = (await other.list("ada", limit=1)).cursor
        cursor = (await store.list("ada", limit=1)).cursor
        assert cursor is not None
        assert foreign is not None
        with_other_id = base64.urlsafe_b64encode(
            base64.urlsafe_b64decode(cursor + "==")[:16] + b"0" * 36
        ).decode()

        for owner, bad in (
            ("eve", cursor),
            ("ada", cursor[:-1]),
            ("ada", cursor[1:]),
            ("ada", ("B" if cursor[0] == "A" else "A") + cursor[1:]),
            ("ada", cursor + "AAAA"),
            ("ada", with_other_id),
            ("ada", foreign),
        ):
            with pytest.raises(InvalidCursorError):
                await store.list(owner, cursor=bad)

        assert len((await store.list("ada", cursor=cursor)).tasks) == 2

    async def test_a_page_has_a_size_that_the_caller_may_choose_up_to_a_limit(
        self, backend: StorageBackend, clock: ManualClock
    ) -> None:
        """A page costs what it holds."""
        store = TaskStore(backend, clock=clock, config=StoreConfig(page_size=2, max_page_size=3))
        await create(store, clock, 5)

        assert len((await store.list("ada")).tasks) == 2
        assert len((await store.list("ada", limit=100)).tasks) == 3
        for limit in (0, -1):
            with pytest.raises(InvalidValueError):
                await store.list("ada", limit=limit)

    async def test_a_damaged_record_is_counted_and_hurts_only_itself(
        self,
        backend: StorageBackend,
        store: TaskStore,
        clock: ManualClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """It neither vanishes in silence nor takes the page with it."""
        created = await create(store, clock, 3)
        await backend.put(store.keys.task("ada", created[1]), b'{"format":1,"task_id"')

        page = await store.list("ada")

        assert [task.task_id for task in page.tasks] == [created[0], created[2]]
        assert page.damaged == 1
        assert created[1][:16] in caplog.text

    async def test_nothing_but_tasks_is_listed(self, store: TaskStore) -> None:
        """Values, rosters and entries lie elsewhere, whatever the owner is called."""
        large = type(CALL)("report", store.encode("x" * 10_000, what="arguments"))
        task = await store.create("ada", large)

        for owner in ("", "@blobs", "@rosters", "@ready", "@blobs.ada", "ad"):
            assert (await store.list(owner)).tasks == []
        page = await store.list("ada")
        assert ([found.task_id for found in page.tasks], page.damaged) == ([task.task_id], 0)
