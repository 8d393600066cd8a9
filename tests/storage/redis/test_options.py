"""What a URL says, what the driver's errors mean, and that neither shows a password."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any, cast

import pytest
from redis import exceptions

from mcp_tasks.errors import (
    ConfigurationError,
    MCPTasksError,
    StorageCorruptError,
    StorageFullError,
    StorageReadOnlyError,
    StorageUnavailableError,
)
from mcp_tasks.storage.redis import RedisBackend, RedisOptions
from mcp_tasks.storage.redis.driver import ANSWERS, BROKEN, is_passing, reason, translate
from mcp_tasks.storage.redis.options import parse
from mcp_tasks.storage.urls import open_backend


# --- URLs ----------------------------------------------------------------------------------------


def test_our_options_are_taken_out_and_the_rest_is_the_drivers() -> None:
    """Whatever it is."""
    target, options = parse(
        "redis://ada:p%40ss@db:7000/3?prefix=app%3Atasks&hints=off&connect_timeout=2.5&timeout=30"
        "&client_name=mine&socket_keepalive=yes"
    )

    assert options == RedisOptions(prefix="app:tasks", hints=False, connect_timeout=2.5, timeout=30)
    assert (target.kind, target.nodes) == ("single", (("db", 7000),))
    assert target.settings == {
        "username": "ada",
        "password": "p@ss",
        "db": 3,
        "client_name": "mine",
        "socket_keepalive": True,
        "ssl": False,
    }


@pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
def test_every_scheme_of_one_server_is_known(scheme: str) -> None:
    """With an `s` it is TLS, and never plain text."""
    assert isinstance(open_backend(f"{scheme}://db"), RedisBackend)

    target, options = parse(f"{scheme}://db")
    assert (target.kind, target.nodes, options) == ("single", (("db", 6379),), RedisOptions())
    assert target.settings["ssl"] is (scheme in ("rediss", "valkeys"))


def test_what_concerns_tls_reaches_the_driver() -> None:
    """Which file to trust, and whether to."""
    target, _ = parse("rediss://db?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=false")

    assert target.settings == {
        "ssl_ca_certs": "/etc/ca.pem",
        "ssl_check_hostname": False,
        "ssl": True,
    }


def test_a_sentinel_url_names_sentinels_and_service() -> None:
    """The password is the server's; the sentinels may have one of their own."""
    target, options = parse(
        "redis+sentinel://:pw@s1,s2:7001,[::1]:7002/my%20tasks/2"
        "?sentinel_password=spw&sentinel_username=su&ssl=true&ssl_ca_certs=/ca.pem&prefix=p"
    )

    assert target.kind == "sentinel"
    assert target.nodes == (("s1", 26379), ("s2", 7001), ("::1", 7002))
    assert target.service == "my tasks"
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert target.settings == {"password": "pw", "db": 2, **tls}
    assert target.sentinel_settings == {"username": "su", "password": "spw", **tls}
    assert options == RedisOptions(prefix="p")


def test_a_cluster_url_names_some_of_its_nodes() -> None:
    """One would do."""
    target, _ = parse("redis+cluster://ada:pw@a,b:7001/0?hints=false")

    assert (target.kind, target.nodes) == ("cluster", (("a", 6379), ("b", 7001)))
    assert target.settings == {"username": "ada", "password": "pw", "ssl": False}
    assert isinstance(open_backend("redis+cluster://a"), RedisBackend)


@pytest.mark.parametrize(
    "query",
    [
        "hints=perhaps",
        "hints=",
        "timeout=0",
        "timeout=-1",
        "timeout=soon",
        "timeout=nan",
        "connect_timeout=0",
        "connect_timeout=inf",
        "prefix=",
        "prefix={a}",
        "prefix=%C3%A9",
        "ssl=secret",
        "db=secret",
        "secret=1",
        "no_such_option=secret",
        "socket_connect_timeout=secret",
    ],
)
def test_an_option_that_cannot_work_is_an_error(query: str) -> None:
    """At once, and without the URL."""
    for scheme, place in (("redis", "db"), ("redis+sentinel", "db/s"), ("redis+cluster", "db")):
        with pytest.raises(ConfigurationError) as caught:
            open_backend(f"{scheme}://ada:sesame@{place}?{query}")
        assert "sesame" not in str(caught.value)
        assert "secret" not in str(caught.value).replace("'secret'", "")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://:secret@s1", "names the service"),
        ("redis+sentinel://:secret@s1/", "names the service"),
        ("redis+cluster://:secret@a/1", "one database only"),
        ("redis+cluster://:secret@", "host:port"),
        ("redis+cluster://:secret@a:port", "its port is no number"),
        ("redis://:secret@db:port", "its port is no number"),
        ("redis://:secret@db/x", "is a number"),
        ("redis+sentinel://:secret@s1/s/x", "is a number"),
        ("redis://:sec[ret@db", "percent-encoded"),
    ],
)
def test_a_url_that_cannot_work_says_why(url: str, says: str) -> None:
    """And shows nothing of it."""
    with pytest.raises(ConfigurationError, match=says) as caught:
        open_backend(url)

    shown = f"{caught.value} {caught.value.__cause__!r}"
    assert "secret" not in shown
    assert "sec[ret" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@127.0.0.1:1?connect_timeout=0.1",
        "redis://:secret@no-such-host.invalid?connect_timeout=0.1",
        "rediss://:secret@127.0.0.1:1?connect_timeout=0.1&ssl_ca_certs=/secret",
        "redis+sentinel://:secret@127.0.0.1:1/s?connect_timeout=0.1&sentinel_password=secret",
        "redis+cluster://:secret@127.0.0.1:1?connect_timeout=0.1",
    ],
)
async def test_no_error_of_connecting_shows_the_url(url: str) -> None:
    """Not in its own words, and not in those of the driver's error behind it."""
    backend = RedisBackend.from_url(url)
    for call in (backend.check(), backend.get("ada:t1"), backend.put("ada:t1", b"x")):
        with pytest.raises(MCPTasksError) as caught:
            await call
        assert "secret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    await backend.close()


# --- errors --------------------------------------------------------------------------------------

_OURS_ALONE = {
    # Raised by parts of the driver that are not used: pools, locks, transactions, pub/sub clients.
    "DataError",
    "InvalidPipelineStack",
    "LockError",
    "LockNotOwnedError",
    "PubSubError",
    "RedisClusterException",
    "SlotNotCoveredError",
    "WatchError",
    "CrossSlotTransactionError",
    "RedisError",
    "RedisModuleVersionMismatchError",
    "ChildDeadlockedError",
    "ClusterError",
    "IncorrectPolicyType",
}


def _kinds() -> set[type[Exception]]:
    found = cast("dict[str, object]", vars(exceptions))
    return {
        kind
        for kind in found.values()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and kind.__module__ == exceptions.__name__
    }


def test_every_exception_of_the_driver_is_one_that_is_caught() -> None:
    """A new kind is looked at before it reaches a user as something else."""
    missed = {kind.__name__ for kind in _kinds() if not issubclass(kind, (*ANSWERS, *BROKEN))}

    assert len(_kinds()) > 30
    assert missed <= _OURS_ALONE


def test_every_exception_has_its_meaning() -> None:
    """And it can be pickled, which an error that crosses processes is."""
    for kind in _kinds():
        if kind in (exceptions.AskError, exceptions.MovedError):
            error: Exception = kind("1 127.0.0.1:7000")
        elif issubclass(kind, (*ANSWERS, *BROKEN)):
            error = kind("the server's words")
        else:
            continue
        meaning = translate(error)
        assert isinstance(meaning, MCPTasksError)
        assert pickle.loads(pickle.dumps(meaning)).args == meaning.args  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (exceptions.OutOfMemoryError("command not allowed"), StorageFullError),
        (exceptions.ResponseError("Error running script: @user_script: OOM"), StorageFullError),
        (exceptions.ReadOnlyError("You can't write"), StorageReadOnlyError),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), StorageReadOnlyError),
        (exceptions.ResponseError("WRONGTYPE Operation"), StorageCorruptError),
        (exceptions.BusyLoadingError("Redis is loading"), StorageUnavailableError),
        (exceptions.MasterDownError("Link with MASTER is down"), StorageUnavailableError),
        (exceptions.ClusterDownError("The cluster is down"), StorageUnavailableError),
        (exceptions.ResponseError("BUSY Redis is busy"), StorageUnavailableError),
        (exceptions.ResponseError("NOREPLICAS Not enough"), StorageUnavailableError),
        (exceptions.MaxConnectionsError("max number of clients"), StorageUnavailableError),
        (exceptions.ResponseError("something new"), StorageUnavailableError),
        (exceptions.AuthenticationError("WRONGPASS"), ConfigurationError),
        (exceptions.ResponseError("NOAUTH Authentication required."), ConfigurationError),
        (exceptions.NoPermissionError("this user has no permissions"), ConfigurationError),
        (exceptions.ResponseError("ACL failure in script: no"), ConfigurationError),
        (exceptions.MovedError("1 127.0.0.1:7000"), ConfigurationError),
        (ConnectionResetError(104, "reset"), StorageUnavailableError),
        (TimeoutError(), StorageUnavailableError),
    ],
)
def test_what_an_error_means(error: Exception, kind: type[Exception]) -> None:
    """The cause decides what somebody can do about it."""
    assert type(translate(error)) is kind


def test_what_passes_is_waited_for() -> None:
    """What was refused for now, not done; never what will be refused again."""
    passing = ["LOADING x", "CLUSTERDOWN x", "TRYAGAIN x", "BUSY x", "NOREPLICAS x", "READONLY x"]
    lasting = ["OOM x", "MISCONF x", "WRONGTYPE x", "NOAUTH x", "NOPERM x", "ERR x", "x"]

    assert all(is_passing(exceptions.ResponseError(words)) for words in passing)
    assert not any(is_passing(exceptions.ResponseError(words)) for words in lasting)


def test_reasons_are_words() -> None:
    """No address, and nothing of Python's."""
    lost: Any = exceptions.ConnectionError("Error 111 connecting to 10.0.0.1:6379")
    lost.__cause__ = ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 6379)")

    assert reason(lost) == "Connection refused"
    assert reason(exceptions.ConnectionError("closed 10.0.0.1")) == "the connection was lost"
    assert reason(asyncio.IncompleteReadError(b"", None)) == "the connection was lost"
    assert reason(exceptions.TimeoutError("Timeout 10.0.0.1")) == "no answer in time"
