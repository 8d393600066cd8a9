"""One task for one idempotency key: repeated, at once on two servers, killed anywhere."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from tests.store.wrappers import Fault, Faulty, Watched

from mcp_tasks.domain.record import Call, Policy, inline
from mcp_tasks.domain.status import TaskStatus
from mcp_tasks.errors import (
    IdempotencyKeyError,
    InvalidValueError,
    QuotaExceededError,
    RecordFormatError,
    StoreUnavailableError,
)
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.store import StoreConfig, TaskStore
from mcp_tasks.testing.clocks import ManualClock
from mcp_tasks.testing.task_samples import CALL, claim


if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.store.wrappers import Seen

    from mcp_tasks.domain.record import TaskRecord
    from mcp_tasks.storage.base import StorageBackend


KEY = "order-4711"
OTHER = Call("report", inline(b'{"folder":"/home"}'))


async def tasks_of(store: TaskStore, owner: str = "ada") -> list[TaskRecord]:
    """Return all tasks of an owner."""
    return (await store.list(owner)).tasks


async def test_a_repeated_call_gets_the_task_that_is_there(store: TaskStore) -> None:
    """Whatever became of the first answer, there is one task."""
    first = await store.create_once("ada", KEY, CALL)
    again = await store.create_once("ada", KEY, CALL)

    assert again == first
    assert await tasks_of(store) == [first]
    assert await store.find_once("ada", "report", KEY, CALL.arguments) == first
    assert (first.status, first.attempt, first.worker) == (TaskStatus.WORKING, 0, None)
    ready = await store.backend.list_by_prefix(store.keys.readies())
    assert [record.key for record in ready.records] == [store.keys.ready(first.task_id, 1)]


async def test_a_repeated_call_gets_the_task_as_it_is_now(store: TaskStore) -> None:
    """Running, ended, whoever ran it: a repeat starts nothing and changes nothing."""
    task = await store.create_once("ada", KEY, CALL)
    running = (await claim(store, task)).record
    assert await store.create_once("ada", KEY, CALL) == running

    ended = await store.fail("ada", task.task_id, -32603, "no")
    assert await store.create_once("ada", KEY, CALL) == ended


@pytest.mark.parametrize("arguments", [b'{"folder":"/home"}', b"{}", b'{"folder":["/tmp"]}'])
async def test_the_same_key_with_other_arguments_is_refused(
    store: TaskStore, arguments: bytes
) -> None:
    """Neither the old result nor a second task is what the caller meant."""
    first = await store.create_once("ada", KEY, CALL)

    with pytest.raises(IdempotencyKeyError, match="with other arguments; no task was created"):
        await store.create_once("ada", KEY, Call("report", inline(arguments)))
    with pytest.raises(IdempotencyKeyError):
        await store.find_once("ada", "report", KEY, inline(arguments))

    assert IdempotencyKeyError().code == -32602
    assert await tasks_of(store) == [first]


async def test_the_order_of_the_names_of_arguments_means_nothing(store: TaskStore) -> None:
    """Objects have none in JSON, and clients do not keep it."""
    one = Call("report", inline(b'{"a":1,"b":{"c":2,"d":3}}'))
    two = Call("report", inline(b'{"b":{"d":3,"c":2},"a":1}'))

    assert await store.create_once("ada", KEY, one) == await store.create_once("ada", KEY, two)


async def test_owners_tools_and_namespaces_have_keys_of_their_own(
    store: TaskStore, clock: ManualClock
) -> None:
    """Nobody meets another's task by choosing the same word."""
    elsewhere = TaskStore(store.backend, namespace="other", clock=clock)
    made = [
        await store.create_once("ada", KEY, CALL),
        await store.create_once("bob", KEY, CALL),
        await store.create_once("ada", KEY, Call("reports", CALL.arguments)),
        await store.create_once("ada", "s" + KEY, CALL),
        await elsewhere.create_once("ada", KEY, CALL),
    ]

    assert len({task.task_id for task in made}) == len(made)
    assert await store.find_once("eve", "report", KEY, CALL.arguments) is None


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "ü", "\x7f", 7, None, ["a"], "x" * 256])
async def test_what_is_no_key_is_refused(store: TaskStore, key: Any) -> None:
    """It is compared byte by byte by many programs, so it is plain and short."""
    with pytest.raises(InvalidValueError, match="the idempotency key cannot be accepted"):
        await store.create_once("ada", key, CALL)
    with pytest.raises(InvalidValueError):
        await store.find_once("ada", "report", key, CALL.arguments)

    assert await tasks_of(store) == []
    await store.create_once("ada", "!~" + "x" * 253, CALL)


async def test_nobody_guesses_the_key_of_an_anonymous_caller(store: TaskStore) -> None:
    """All of them are one owner, and the key opens the task as its id does."""
    with pytest.raises(InvalidValueError, match="such as a random UUID"):
        await store.create_once("anonymous", "x" * 31, CALL)

    assert await store.create_once("anonymous", "x" * 32, CALL)


async def test_a_task_that_is_past_its_time_frees_its_key(
    store: TaskStore, clock: ManualClock
) -> None:
    """Else a key would be used up for ever. Until then it stands, and for a longer life longer."""
    hour = timedelta(hours=1)
    first = await store.create_once("ada", KEY, CALL, ttl=hour)
    await store.extend("ada", first.task_id, 2 * hour)
    clock.advance(2 * hour - timedelta(seconds=1))
    assert (await store.create_once("ada", KEY, CALL)).task_id == first.task_id

    clock.advance(timedelta(seconds=1))
    assert await store.find_once("ada", "report", KEY, CALL.arguments) is None
    second = await store.create_once("ada", KEY, OTHER, ttl=hour)

    assert second.task_id != first.task_id
    assert (await store.create_once("ada", KEY, OTHER)).task_id == second.task_id
    # And again when the record itself is gone, with the use still there.
    clock.advance(timedelta(hours=3))
    assert await tasks_of(store) == []
    third = await store.create_once("ada", KEY, CALL)
    assert third.task_id not in (first.task_id, second.task_id)


async def test_a_repeat_is_answered_though_the_owner_may_have_no_more_tasks(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """The task is one of those that they have."""
    store = TaskStore(backend, clock=clock, config=StoreConfig(max_active=1))
    task = await store.create_once("ada", KEY, CALL)
    with pytest.raises(QuotaExceededError):
        await store.create_once("ada", "another", CALL)

    assert await store.create_once("ada", KEY, CALL) == task
    await store.cancel("ada", task.task_id)
    # What was refused stands for nothing, and may be called again.
    assert (await store.create_once("ada", "another", CALL)).task_id != task.task_id


async def test_a_damaged_use_is_an_error_and_no_second_task(store: TaskStore) -> None:
    """Nobody knows whether there was a task."""
    await store.create_once("ada", KEY, CALL)
    (use,) = (await store.backend.list_by_prefix(store.keys.uses("ada"))).records
    await store.backend.put(use.key, b"{}")

    with pytest.raises(RecordFormatError, match="idempotency key"):
        await store.create_once("ada", KEY, CALL)


async def test_neither_key_nor_arguments_can_be_read_from_what_is_stored(
    store: TaskStore,
) -> None:
    """A key may be somebody's order number; the record of a task holds its arguments already."""
    await store.create_once("ada", KEY, CALL)
    (use,) = (await store.backend.list_by_prefix(store.keys.uses("ada"))).records

    assert KEY not in use.key
    assert b"folder" not in use.data
    assert KEY.encode() not in use.data


async def test_it_costs_one_write_more_and_a_repeat_two_calls_more(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """A call without a key pays nothing; see `test_cost`."""
    watched = Watched(backend)
    store = TaskStore(watched, clock=clock)
    await store.create("ada", CALL)
    watched.take()

    await store.create("ada", CALL)
    plain = watched.take()
    task = await store.create_once("ada", KEY, CALL)
    keyed = watched.take()

    assert len(keyed) == len(plain) + 1
    assert keyed[0][1].startswith("@keys.ada:")
    await claim(store, task)
    watched.take()
    await store.find_once("ada", "report", KEY, CALL.arguments)
    assert [name for name, _ in watched.take()] == ["get", "get"]


@pytest.mark.parametrize("about", ["@keys.", "@rosters", "@ready", "ada:"])
@pytest.mark.parametrize("fault", [*Fault])
async def test_a_write_that_nobody_answers_makes_no_second_task(
    backend: StorageBackend, clock: ManualClock, about: str, fault: Fault
) -> None:
    """The call is repeated until it is answered, and finds or makes the one task."""
    faulty = Faulty(backend)
    store = TaskStore(faulty, clock=clock)
    faulty.about, faulty.plan = lambda key: key.startswith(about), [fault, fault]
    task: TaskRecord | None = None
    for _ in range(3):
        try:
            task = await store.create_once("ada", KEY, CALL)
        except StoreUnavailableError:
            continue
        break

    assert task is not None
    assert faulty.plan == []
    assert await TaskStore(backend, clock=clock).create_once("ada", KEY, CALL) == task
    assert await tasks_of(store) == [task]
    await store.backend.get(store.keys.ready(task.task_id, 1))


async def test_an_external_task_is_announced_to_no_worker(store: TaskStore) -> None:
    """Not by a repeat either."""
    for _ in range(2):
        await store.create_once("ada", KEY, CALL, policy=Policy(external=True))

    assert (await store.backend.list_by_prefix(store.keys.readies())).records == []


async def stopped(
    store: TaskStore, watched: Watched, about: str
) -> tuple[asyncio.Task[TaskRecord], asyncio.Event]:
    """Begin a call that is stopped before its first write of a key until the event is set."""
    reached, go = asyncio.Event(), asyncio.Event()

    async def gate(seen: Seen) -> None:
        if seen.key.startswith(about) and seen.operation == "swap":
            reached.set()
            await go.wait()

    watched.gate = gate
    hour = timedelta(hours=1)
    call = asyncio.create_task(store.create_once("ada", KEY, CALL, ttl=24 * hour))
    await reached.wait()
    return call, go


async def test_a_task_that_another_caller_makes_is_the_one_that_the_first_began(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """It lives from then, and for as long: until when the key stands was said by the first."""
    watched = Watched(backend)
    call, go = await stopped(TaskStore(watched, clock=clock), watched, "ada:")
    began = clock.now()
    clock.advance(timedelta(seconds=10))

    made = await TaskStore(backend, clock=clock).create_once(
        "ada", KEY, CALL, ttl=timedelta(hours=2)
    )
    go.set()

    assert (made.created_at, made.updated_at, made.ttl) == (began, began, timedelta(hours=24))
    assert await call == made


async def test_a_server_that_slept_for_hours_makes_no_second_task(
    backend: StorageBackend, clock: ManualClock
) -> None:
    """What keeps its task from coming to be stays for as long as that task could live."""
    watched = Watched(backend)
    call, go = await stopped(TaskStore(watched, clock=clock), watched, "ada:")
    clock.advance(timedelta(minutes=2))
    other = TaskStore(backend, clock=clock)
    made = await other.create_once("ada", KEY, CALL)

    clock.advance(timedelta(hours=23))
    go.set()

    assert await call == made
    assert await tasks_of(other) == [made]


# --- every order of two servers, and a kill at every place ---------------------------------------


class Order:
    """Lets the calls of several stores through one at a time, as a list of choices says.

    Args:
        choices: Which of those that wait goes next, by position, first the one that went last; 0
            when the list is used up.
        switches: How often at most it is another one although that one could go on.
        kill: Before which of its calls actor 0 dies, from 0; `None` for never.
        sleep: Before which of them minutes pass, as if it had been stopped there.

    Attributes:
        widths: How many there were to choose from, at each choice.
    """

    def __init__(
        self,
        choices: list[int],
        switches: int,
        kill: int | None = None,
        sleep: int | None = None,
    ) -> None:
        self._choices = choices
        self._switches = switches
        self._kill = kill
        self._sleep = sleep
        self.widths: list[int] = []
        self._waiting: dict[int, list[asyncio.Future[None]]] = {}
        self._dead: set[int] = set()

    async def gate(self, actor: int) -> None:
        """Wait for the turn of one call."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if actor not in self._dead:
            self._waiting.setdefault(actor, []).append(turn)
        await turn

    async def run(self, work: dict[int, asyncio.Task[Any]], clock: ManualClock) -> None:
        """Let all go on to their ends."""
        made = last = 0
        while not all(task.done() for task in work.values()):
            for _ in range(10):  # let everybody get to their next call
                await asyncio.sleep(0)
            ready = sorted(actor for actor, turns in self._waiting.items() if turns)
            if made == self._sleep:
                clock.advance(timedelta(minutes=2))
                self._sleep = None
            if not ready:
                continue
            if last in ready:
                ready = [last, *(actor for actor in ready if actor != last and self._switches > 0)]
            at = len(self.widths)
            actor = ready[self._choices[at] if at < len(self._choices) else 0]
            self._switches -= last in ready and actor != last
            self.widths.append(len(ready))
            last = actor
            if actor == 0:
                if made == self._kill:
                    work[0].cancel()
                    self._dead.add(0)  # what it began beside goes no further either
                    del self._waiting[0]
                    await asyncio.wait([work[0]])
                    continue
                made += 1
            self._waiting[actor].pop(0).set_result(None)


async def nothing(_backend: StorageBackend, _clock: ManualClock) -> None:
    """Begin with a new key."""


async def left(backend: StorageBackend, clock: ManualClock) -> None:
    """Begin with a key whose first caller was killed long ago, before there was a task."""
    watched = Watched(backend)
    store = TaskStore(watched, clock=clock)

    second = asyncio.Event()

    async def gate(_: Seen) -> None:
        if len(watched.calls) > 1:
            second.set()
            await asyncio.get_running_loop().create_future()

    watched.gate = gate
    killed = asyncio.create_task(store.create_once("ada", KEY, CALL))
    await second.wait()
    killed.cancel()
    clock.advance(timedelta(minutes=2))


async def past(backend: StorageBackend, clock: ManualClock) -> None:
    """Begin with a key whose task is past its time, and still there."""
    await TaskStore(backend, clock=clock).create_once("ada", KEY, CALL, ttl=timedelta(minutes=1))
    clock.advance(timedelta(minutes=2))


BEGINNINGS = [nothing, left, past]


async def explore(
    begin: Callable[[StorageBackend, ManualClock], Awaitable[None]] = nothing,
    *,
    kill: int | None = None,
    sleep: int | None = None,
    switches: int = 3,
) -> int:
    """Run two servers and a later repeat in every order. Returns how many orders there were."""
    choices: list[int] = []
    for number in count(1):
        order = Order(choices, switches, kill, sleep)
        clock = ManualClock()
        backend = MemoryBackend(clock=clock)
        await begin(backend, clock)
        old = {task.task_id for task in await tasks_of(TaskStore(backend, clock=clock))}
        work: dict[int, asyncio.Task[Any]] = {}
        for actor in range(2):
            watched = Watched(backend)

            async def gate(_: Seen, order: Order = order, actor: int = actor) -> None:
                await order.gate(actor)

            watched.gate = gate
            store = TaskStore(watched, clock=clock)
            work[actor] = asyncio.create_task(store.create_once("ada", KEY, CALL))
        await order.run(work, clock)

        answers = {task.result().task_id for task in work.values() if not task.cancelled()}
        calm = TaskStore(backend, clock=clock)
        repeat = await calm.create_once("ada", KEY, CALL)
        made = {task.task_id for task in await tasks_of(calm)} - old
        ready = (await backend.list_by_prefix(calm.keys.readies())).records
        assert answers <= {repeat.task_id}, choices
        assert made == {repeat.task_id}, choices
        assert calm.keys.ready(repeat.task_id, 1) in [record.key for record in ready], choices
        assert await calm.quota.holds("ada", repeat.task_id), choices

        # The next order: the last choice that can still go on, goes on.
        widths = order.widths
        choices = (choices + [0] * len(widths))[: len(widths)]
        while choices and choices[-1] + 1 >= widths[len(choices) - 1]:
            choices.pop()
        if not choices:
            return number
        choices[-1] += 1
    raise AssertionError


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back off for no time at all: which order it is, the test says."""

    async def back_off(_: int) -> None:
        await asyncio.sleep(0)

    for module in ("once", "quota"):
        monkeypatch.setattr(f"mcp_tasks.store.{module}.back_off", back_off)


@pytest.mark.usefixtures("_patience")
@pytest.mark.parametrize("begin", BEGINNINGS)
async def test_two_servers_at_once_make_one_task_in_every_order_of_their_calls(
    begin: Callable[[StorageBackend, ManualClock], Awaitable[None]],
) -> None:
    """Nobody waits for the other, and nobody makes a second one."""
    orders = await explore(begin, switches=99 if begin is nothing else 4)

    assert orders > 500


@pytest.mark.usefixtures("_patience")
@pytest.mark.parametrize("begin", BEGINNINGS)
@pytest.mark.parametrize("kill", range(1, 8))
async def test_a_server_killed_before_any_of_its_calls_loses_no_task_and_makes_no_two(
    begin: Callable[[StorageBackend, ManualClock], Awaitable[None]], kill: int
) -> None:
    """Whoever comes then goes on where it stopped."""
    assert await explore(begin, kill=kill) > 5


@pytest.mark.usefixtures("_patience")
@pytest.mark.parametrize("begin", BEGINNINGS)
@pytest.mark.parametrize("sleep", range(1, 8))
async def test_a_server_that_slept_for_minutes_makes_no_second_task(
    begin: Callable[[StorageBackend, ManualClock], Awaitable[None]], sleep: int
) -> None:
    """By then another one may have given its task up and made one of its own."""
    assert await explore(begin, sleep=sleep) > 50
