"""Behind Sentinel and in a cluster: the way to the right server, also when that changes."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import (
    ConfigurationError,
    StorageUnavailableError,
    VersionConflictError,
)
from mcp_tasks.storage.redis import RedisBackend
from mcp_tasks.testing.servers.process import free_port
from mcp_tasks.testing.servers.redis import RedisCluster, RedisServer, Sentinel


if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from mcp_tasks.storage.redis import RedisOptions


FAR_AHEAD = datetime(2200, 1, 1, tzinfo=UTC)


# --- Sentinel ------------------------------------------------------------------------------------


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """Give a primary."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def sentinel(own_server: RedisServer) -> Iterator[Sentinel]:
    """Give a sentinel that watches it."""
    with Sentinel(own_server) as sentinel:
        yield sentinel


async def test_the_sentinels_name_the_server(own_server: RedisServer, sentinel: Sentinel) -> None:
    """Whichever of them answers; and the server is checked like any other."""
    url = sentinel.url.replace("127.0.0.1", f"127.0.0.1:{free_port()},127.0.0.1", 1)
    backend = RedisBackend.from_url(url)

    assert await backend.put("ada:t1", b"x") == 1
    assert await backend.check() == []
    assert own_server.ask("EXISTS", "mcp_tasks:{ada}:r:t1").startswith(":1")
    await backend.close()


async def test_a_service_that_no_sentinel_knows_is_an_error(sentinel: Sentinel) -> None:
    """At once, with its name."""
    backend = RedisBackend.from_url(sentinel.url.replace("/tasks", "/task"))

    for call in (backend.check(), backend.get("ada:t1"), backend.put("ada:t1", b"x")):
        with pytest.raises(ConfigurationError, match="know no service 'task'"):
            await call
    await backend.close()


async def test_sentinels_may_have_a_password_of_their_own(
    own_server: RedisServer, sentinel: Sentinel
) -> None:
    """It is not the server's."""
    sentinel.ask("ACL", "SETUSER", "default", ">spw")
    own_server.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")
    url = sentinel.url.replace("//", "//app:pw@")
    backend = RedisBackend.from_url(f"{url}?sentinel_password=spw")
    without = RedisBackend.from_url(url)

    assert await backend.put("ada:t1", b"x") == 1
    with pytest.raises(ConfigurationError, match="does not let this user in"):
        await without.get("ada:t1")
    await backend.close()
    await without.close()


async def test_a_failover_is_followed(own_server: RedisServer) -> None:
    """The primary dies, and what comes later goes to the replica that took over."""
    with RedisServer(settings={"replicaof": f"127.0.0.1 {own_server.port}"}) as replica:
        async with asyncio.timeout(30):
            while f"port={replica.port},state=online" not in own_server.ask("INFO", "replication"):  # noqa: ASYNC110 - the server's
                await asyncio.sleep(0.05)
        with Sentinel(own_server) as sentinel:
            async with asyncio.timeout(30):
                while str(replica.port) not in sentinel.ask("SENTINEL", "REPLICAS", "tasks"):  # noqa: ASYNC110 - the server's
                    await asyncio.sleep(0.05)
            backend = RedisBackend.from_url(f"{sentinel.url}?connect_timeout=30")
            for number in range(100):
                await backend.put(f"ada:t{number:02d}", b"x")
            await _catch_up(own_server, replica)
            own_server.kill()
            await asyncio.sleep(0.05)  # the end of the connection arrives

            async with asyncio.timeout(40):
                assert await backend.put_if_version("ada:t00", b"y", 1) == 2
            assert replica.ask("ROLE").startswith("*3\r\n$6\r\nmaster")
            assert len((await backend.list_by_prefix("ada:")).records) == 100
            await backend.close()


async def test_a_replica_is_never_read(own_server: RedisServer, sentinel: Sentinel) -> None:
    """Also when the sentinels still take it for the primary: it may not have what was written."""
    with RedisServer() as other:
        own_server.ask("REPLICAOF", "127.0.0.1", str(other.port))
        backend = RedisBackend.from_url(f"{sentinel.url}?connect_timeout=0.3")
        with pytest.raises(StorageUnavailableError, match="the primary is being replaced"):
            await backend.get("ada:t1")
        await backend.close()
        own_server.kill()  # the other would not end before that has all it wrote


async def test_a_server_that_was_demoted_is_left(
    own_server: RedisServer, sentinel: Sentinel
) -> None:
    """It refuses the write, so nothing is unknown: the write goes to whom the sentinels name."""
    with RedisServer() as other:
        backend = RedisBackend.from_url(f"{sentinel.url}?connect_timeout=20")
        await backend.put("ada:t1", b"x")
        sentinel.ask("SENTINEL", "REMOVE", "tasks")
        own_server.ask("REPLICAOF", "127.0.0.1", str(other.port))
        sentinel.ask("SENTINEL", "MONITOR", "tasks", "127.0.0.1", str(other.port), "1")

        assert await backend.put("ada:t2", b"x") == 1
        assert other.ask("EXISTS", "mcp_tasks:{ada}:r:t2").startswith(":1")
        await backend.close()
        own_server.kill()  # the other would not end before that has all it wrote


async def test_who_watches_waits_for_sentinels_that_forgot(
    own_server: RedisServer, sentinel: Sentinel
) -> None:
    """A hint is worth waiting for; whoever writes hears of the trouble."""
    backend = RedisBackend.from_url(sentinel.url)
    hints = backend.watch()
    async with asyncio.timeout(15):
        await anext(hints)
        sentinel.ask("SENTINEL", "REMOVE", "tasks")
        own_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await anext(hints)  # it was cut
        waiting = asyncio.ensure_future(anext(hints))
        await asyncio.sleep(1.3)
        assert not waiting.done()
        sentinel.ask("SENTINEL", "MONITOR", "tasks", "127.0.0.1", str(own_server.port), "1")
        await waiting
    await backend.close()


# --- cluster -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Give a cluster whose slots come and go, and come back."""
    with RedisCluster() as cluster:
        yield cluster


class Move:
    """Moves the slot of a partition from the node that serves it to another, step by step."""

    def __init__(self, cluster: RedisCluster, front: str) -> None:
        self._front = front
        place = cluster.place(front)
        self.slot = cluster.nodes[0].ask("CLUSTER", "KEYSLOT", front)[1:].strip()
        self.source, self.target = cluster.nodes[place], cluster.nodes[place - 1]
        self.source_id, self.target_id = _id(self.source), _id(self.target)

    def begin(self) -> None:
        """Have new keys go to the target."""
        self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", self.source_id)
        self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", self.target_id)

    def carry(self, *names: str) -> None:
        """Move some keys."""
        keys = [self._front + name for name in names]
        port = str(self.target.port)
        said = self.source.ask("MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS", *keys)
        assert said.startswith("+OK"), said

    def end(self) -> None:
        """Have the target serve the slot."""
        for node in (self.target, self.source):
            node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", self.target_id)


@contextmanager
def moving(cluster: RedisCluster, prefix: str) -> Generator[Move]:
    """Give a move, and undo it."""
    move = Move(cluster, f"{prefix}:{{ada}}:")
    yield move
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    for node in cluster.nodes:
        node.ask("CLUSTER", "SETSLOT", move.slot, "NODE", move.source_id)


async def test_a_slot_that_moves_is_followed(cluster: RedisCluster, options: RedisOptions) -> None:
    """Reads go on meanwhile, here or there; writes wait for the end, and happen once."""
    backend = RedisBackend.from_url(f"{cluster.url}?prefix={options.prefix}&connect_timeout=20")
    await backend.put("ada:t1", b"x")
    await backend.put("bob:t1", b"x")
    with moving(cluster, options.prefix) as move:
        move.begin()
        write = asyncio.create_task(backend.put_if_version("ada:t1", b"y", 1))
        await asyncio.sleep(0.1)
        assert (await backend.get("ada:t1")).version == 1  # it is here still
        move.carry("r:t1", "i")
        assert (await backend.get("ada:t1")).version == 1  # ASK
        assert not write.done()  # TRYAGAIN
        move.end()
        async with asyncio.timeout(10):
            assert await write == 2  # MOVED
            assert await backend.put("ada:t1", b"z") == 3
            with pytest.raises(VersionConflictError):
                await backend.put_if_version("ada:t1", b"a", 2)
            found = (await backend.list_by_prefix("ada:")).records
            assert [record.version for record in found] == [3]
            assert (await backend.get("bob:t1")).version == 1
        redirected = _moved(move.source)
        for _ in range(10):
            await backend.get("ada:t1")
        assert _moved(move.source) == redirected  # it has learned the way
        assert move.target.ask("EXISTS", f"{options.prefix}:{{ada}}:r:t1").startswith(":1")
    await backend.close()


@pytest.mark.parametrize("partition", ["}", "}a", "{", "{}a", "a}b", "ns/@blobs.ada"])
async def test_a_partition_is_on_one_node_whatever_it_is_called(
    cluster: RedisCluster, options: RedisOptions, partition: str
) -> None:
    """Braces mean something to a cluster."""
    backend = RedisBackend.from_url(f"{cluster.url}?prefix={options.prefix}")
    keys = [f"{partition}:t{number}" for number in range(5)]
    for key in keys:
        assert await backend.put(key, b"x", expires_at=FAR_AHEAD) == 1

    records = (await backend.list_by_prefix(f"{partition}:")).records
    assert [record.key for record in records] == keys
    assert [await backend.delete(key) for key in keys] == [True] * 5
    await backend.close()


async def test_the_clean_up_goes_to_every_node(
    cluster: RedisCluster, options: RedisOptions
) -> None:
    """Each holds some of the owners."""
    backend = RedisBackend.from_url(f"{cluster.url}?prefix={options.prefix}")
    for node in cluster.nodes:
        for owner in range(30):
            key = f"{options.prefix}:{{owner{owner}}}:x"
            if node.ask("ZADD", key, "0", "t1").startswith(":1"):
                node.ask("ZADD", key.removesuffix("x") + "i", "0", "t1")
    sizes = [int(node.ask("DBSIZE")[1:]) for node in cluster.nodes]
    assert sum(sizes) == 60
    assert all(sizes)

    await backend.cleanup_expired(SystemClock().now())

    assert [int(node.ask("DBSIZE")[1:]) for node in cluster.nodes] == [0, 0, 0]
    await backend.close()


async def test_the_wrong_kind_of_url_names_the_right_one(
    cluster: RedisCluster, own_server: RedisServer, options: RedisOptions
) -> None:
    """A node of a cluster is not a server of its own, nor the other way round."""
    node = RedisBackend.from_url(f"{cluster.nodes[0].url}?prefix={options.prefix}")
    with pytest.raises(ConfigurationError, match=r"use redis\+cluster://"):
        await node.check()
    with pytest.raises(ConfigurationError, match=r"use redis\+cluster://"):
        await node.put(f"{_owner(cluster, 1, options.prefix)}:t1", b"x")
    alone = RedisBackend.from_url(own_server.url.replace("redis:", "redis+cluster:"))
    for call in (alone.check(), alone.put("ada:t1", b"x"), alone.get("ada:t1")):
        with pytest.raises(ConfigurationError, match="use redis://"):
            await call
    await node.close()
    await alone.close()


async def test_in_a_cluster_a_dead_primary_is_replaced_by_its_replica() -> None:
    """Later writes find who took over; those for other nodes never notice."""
    settings = {"cluster-require-full-coverage": "no", "repl-diskless-sync-delay": "0"}
    with RedisCluster(settings) as cluster, cluster.node() as replica:
        await _replicate(cluster, cluster.nodes[0], replica)
        backend = RedisBackend.from_url(f"{cluster.url}?connect_timeout=20&timeout=2")
        on_dead, elsewhere = _owner(cluster, 0), _owner(cluster, 1)
        assert await backend.put(f"{on_dead}:t1", b"x") == 1
        assert await backend.put(f"{elsewhere}:t1", b"x") == 1
        await _catch_up(cluster.nodes[0], replica)
        cluster.nodes[0].kill()
        await asyncio.sleep(0.05)  # the end of the connection arrives
        write = asyncio.create_task(backend.put_if_version(f"{on_dead}:t1", b"y", 1))
        async with asyncio.timeout(2):
            assert await backend.put(f"{elsewhere}:t1", b"y") == 2
        await asyncio.sleep(0.3)
        assert not write.done()

        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        async with asyncio.timeout(15):
            assert await write == 2
        assert (await backend.get(f"{on_dead}:t1")).data == b"y"
        await backend.close()


async def test_in_a_cluster_a_node_without_a_replica_is_waited_for() -> None:
    """It comes back with what it had; until then its owners hear that nothing was written."""
    with RedisCluster({"cluster-require-full-coverage": "no"}) as cluster:
        backend = RedisBackend.from_url(f"{cluster.url}?connect_timeout=1")
        key = f"{_owner(cluster, 0)}:t1"
        await backend.put(key, b"x")
        cluster.nodes[0].kill()
        await asyncio.sleep(0.05)
        for call in (backend.put(key, b"y"), backend.get(key)):
            with pytest.raises(StorageUnavailableError, match="nothing was written"):
                await call
        patient = RedisBackend.from_url(f"{cluster.url}?connect_timeout=20")
        write = asyncio.create_task(patient.put(key, b"y"))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(cluster.nodes[0].start)

        assert await write == 2
        assert (await backend.get(key)).version == 2
        await backend.close()
        await patient.close()


def _moved(node: RedisServer) -> str:
    """Return how often a node sent somebody elsewhere."""
    return node.ask("INFO", "errorstats").partition("errorstat_MOVED:")[2].partition("\r")[0]


def _id(node: RedisServer) -> str:
    return node.ask("CLUSTER", "MYID").split("\r\n")[1]


def _owner(cluster: RedisCluster, place: int, prefix: str = "mcp_tasks") -> str:
    """Return an owner whose records are on that node."""
    owners = (f"o{number}" for number in range(999))
    return next(owner for owner in owners if cluster.place(f"{prefix}:{{{owner}}}:") == place)


async def _catch_up(primary: RedisServer, replica: RedisServer) -> None:
    """Wait until a replica has what its primary has now.

    `WAIT` would not do: it waits for the writes of its own connection alone.
    """
    written = _field(primary, "master_repl_offset")
    async with asyncio.timeout(30):
        while _field(replica, "slave_repl_offset") < written:  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.02)


def _field(node: RedisServer, name: str) -> int:
    found = node.ask("INFO", "replication").partition(f"\n{name}:")[2].partition("\r")[0]
    return int(found or -1)


async def _replicate(cluster: RedisCluster, primary: RedisServer, replica: RedisServer) -> None:
    """Have a server join and follow a primary."""
    port = primary.settings["cluster-port"]
    replica.ask("CLUSTER", "MEET", "127.0.0.1", str(primary.port), port)
    async with asyncio.timeout(30):
        while not replica.ask("CLUSTER", "REPLICATE", _id(primary)).startswith("+OK"):  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.05)
        while f"port={replica.port}" not in primary.ask("INFO", "replication"):  # noqa: ASYNC110 - the server's
            await asyncio.sleep(0.05)
        for node in cluster.nodes:
            while str(replica.port) not in node.ask("CLUSTER", "NODES"):  # noqa: ASYNC110 - the server's
                await asyncio.sleep(0.05)
