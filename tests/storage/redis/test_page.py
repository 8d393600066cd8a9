"""What `docs/backends/redis.md` shows is what there is."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import ConfigurationError, RecordNotFoundError, VersionConflictError
from mcp_tasks.storage.redis import RedisBackend, RedisOptions
from mcp_tasks.storage.redis.backend import MAX_RECORD_BYTES
from mcp_tasks.storage.redis.options import parse
from mcp_tasks.storage.urls import open_backend
from mcp_tasks.testing.servers.redis import RedisServer


PAGE = (Path(__file__).parents[3] / "docs" / "backends" / "redis.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.DOTALL)


def test_every_option_has_its_row_and_its_default() -> None:
    """And the URL takes it."""
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    options = asdict(RedisOptions())

    assert set(shown) == set(options)
    for name, default in options.items():
        wanted = str(default).lower() if isinstance(default, bool) else default
        assert shown[name] == (f"{wanted:g}" if isinstance(wanted, float) else wanted)
        assert parse(f"redis://db?{name}={shown[name]}") == parse("redis://db")


def test_every_url_opens() -> None:
    """As it is written there."""
    urls = re.findall(r"^\| `(\w\S*://\S+)` \|", PAGE, re.MULTILINE)

    assert BLOCKS[0].strip() == urls[0]
    assert [parse(url)[0].kind for url in urls] == ["single", "single", "sentinel", "cluster"]
    for url in [*urls, *re.findall(r"`(valkeys?://)` is", PAGE)]:
        assert isinstance(open_backend(url), RedisBackend)
    assert f"{MAX_RECORD_BYTES >> 20} MiB" in PAGE


async def test_the_configuration_leaves_nothing_to_warn_of() -> None:
    """Whoever copies it is done."""
    settings = dict(line.split(" ", 1) for line in BLOCKS[1].splitlines())
    with RedisServer(settings=settings) as server:
        backend = RedisBackend.from_url(server.url)
        assert await backend.check() == []
        await backend.close()

    assert settings == {
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
    }


async def test_the_keys_are_those_of_the_table() -> None:
    """With these types, and no others."""
    rows = re.findall(r"^\| `(mcp_tasks:\S+)` \| ([\w ]+) \|", PAGE, re.MULTILINE)
    with RedisServer() as server:
        backend = RedisBackend.from_url(server.url)
        await backend.put("owner:task", b"x", expires_at=SystemClock().now() + timedelta(hours=1))
        await backend.close()
        types = {"hash": "+hash\r\n", "sorted set": "+zset\r\n"}

        assert len(rows) == 3
        assert server.ask("DBSIZE") == ":3\r\n"
        for key, kind in rows:
            assert server.ask("TYPE", key) == types[kind]


async def test_the_rights_are_enough_and_none_is_too_many() -> None:
    """A user with exactly these can do everything; without one of them, not."""
    words = BLOCKS[2].split()
    rights = [word for word in words if word.startswith("+")]
    # More that `check` can say, and hints.
    optional = {"+config|get", "+publish", "+subscribe", "+ping"}
    with RedisServer() as server:
        assert server.ask(*words) == "+OK\r\n"
        backend = RedisBackend.from_url(server.url.replace("//", "//app:password@"))
        await _use_all(backend)
        await backend.close()

        for right in rights:
            if server.ask("ACL", "SETUSER", "app", right.replace("+", "-")) != "+OK\r\n":
                continue  # Redis 6.2 cannot take away a part of a command
            backend = RedisBackend.from_url(server.url.replace("//", "//app:password@"))
            if right in optional:
                await _use_all(backend)
            else:
                with pytest.raises(ConfigurationError, match="does not let this user in, or not"):
                    await _use_all(backend)
            await backend.close()
            server.ask("ACL", "SETUSER", "app", right)


async def _use_all(backend: RedisBackend) -> None:
    assert await backend.check() == []
    soon = SystemClock().now() + timedelta(hours=1)
    await backend.delete("ada:t1")
    await backend.put("ada:t2", b"x", expires_at=SystemClock().now() - timedelta(hours=1))
    assert await backend.put_if_version("ada:t1", b"x", 0, expires_at=soon) == 1
    assert await backend.put("ada:t1", b"x") == 2
    with pytest.raises(VersionConflictError):
        await backend.put_if_version("ada:t1", b"x", 1)
    with pytest.raises(RecordNotFoundError):
        await backend.get("ada:t2")
    for reverse in (False, True):
        assert len((await backend.list_by_prefix("ada:", reverse=reverse)).records) == 1
    await backend.cleanup_expired(SystemClock().now())
    hints = backend.watch()
    await anext(hints)
