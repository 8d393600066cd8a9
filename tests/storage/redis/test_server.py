"""The server that the tests start, what `check()` says of servers, and TLS."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mcp_tasks.clock import SystemClock
from mcp_tasks.errors import ConfigurationError, StorageUnavailableError
from mcp_tasks.storage.base import ChangeSource, Checkable, Reopenable
from mcp_tasks.storage.redis import RedisBackend
from mcp_tasks.storage.redis.checks import examine
from mcp_tasks.testing.servers.process import free_port
from mcp_tasks.testing.servers.redis import BINARY, RedisServer


if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from mcp_tasks.storage.redis.driver import Connection


# --- the server of the tests ---------------------------------------------------------------------


def test_it_comes_back_with_what_it_had() -> None:
    """After a crash as after an orderly end, at once, under the same address."""
    with RedisServer() as server:
        server.ask("SET", "kept", "one")
        for end in (server.kill, server.stop):
            url = server.url
            end()
            server.start()
            assert server.ask("GET", "kept") == "$3\r\none\r\n"
            assert server.url == url
        folder = server.folder
    assert not folder.exists()


def test_one_that_is_to_forget_forgets() -> None:
    """To see what a server without persistence does."""
    with RedisServer(settings={"appendonly": "no"}) as server:
        server.ask("SET", "kept", "one")
        server.kill()
        server.start()
        assert server.ask("GET", "kept") == "$-1\r\n"


def test_the_environment_names_another_binary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To test on the server that one runs; and what goes wrong is said in its words."""
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\necho no such option\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv(BINARY, str(program))
    server = RedisServer()
    with pytest.raises(
        ConfigurationError, match="did not come up; its last words:\nno such option"
    ):
        server.start()
    server.close()


# --- check() -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, []),
        (
            {"appendonly": "no"},
            [r"^The Redis server keeps nothing on disk: .* Set 'appendonly yes'"],
        ),
        ({"appendonly": "no", "save": "60 1"}, ["^The Redis server keeps snapshots only: "]),
        ({"appendfsync": "everysec"}, [r"\(appendfsync is everysec\).*Set 'appendfsync always'"]),
        ({"appendfsync": "no"}, [r"\(appendfsync is no\)"]),
        (
            {"maxmemory-policy": "allkeys-lru"},
            [r"throws tasks away .*\(maxmemory-policy is allkeys"],
        ),
        ({"maxmemory-policy": "volatile-ttl"}, [r"\(maxmemory-policy is volatile-ttl\)"]),
        ({"appendonly": "no", "maxmemory-policy": "allkeys-lru"}, ["nothing on disk", "throws"]),
    ],
)
async def test_a_check_warns_of_what_is_risky(settings: Mapping[str, str], says: list[str]) -> None:
    """A sentence each, with what to do; nothing about a server that keeps what it acknowledges."""
    with RedisServer(settings=settings) as server:
        backend = RedisBackend.from_url(server.url)
        warnings = await backend.check()
        assert server.ask("DBSIZE") == ":0\r\n"
        await backend.close()

    assert len(warnings) == len(says)
    for warning, pattern in zip(warnings, says, strict=True):
        with pytest.raises(AssertionError, match=pattern):
            raise AssertionError(warning)


@pytest.mark.parametrize(
    ("appendonly", "says"), [("no", ["The Redis server keeps snapshots only:"]), ("yes", [])]
)
async def test_a_server_that_keeps_its_settings_to_itself_is_checked_too(
    appendonly: str, says: list[str]
) -> None:
    """As managed services do: what can be seen is said."""
    with RedisServer(settings={"appendonly": appendonly, "appendfsync": "no"}) as server:
        server.ask("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config")
        backend = RedisBackend.from_url(server.url.replace("//", "//app:pw@"))
        assert [warning[:38] for warning in await backend.check()] == says
        await backend.close()


async def test_an_old_server_is_refused(wire: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lacks what the scripts need."""
    for version, is_old in (("6.0.20", True), ("5.0.0", True), ("6.2.0", False), ("10.1.0", False)):

        async def ask(commands: object, *, version: str = version) -> list[object]:
            del commands
            return [f"redis_version:{version}\r\naof_enabled:1\r\n".encode(), [], []]

        monkeypatch.setattr(wire, "ask", ask)
        if is_old:
            with pytest.raises(ConfigurationError, match=f"version {version}; 6.2 or later"):
                await examine(wire, "single")
        else:
            assert await examine(wire, "single") == []


async def test_a_check_of_nothing_is_an_error() -> None:
    """It does not wait for long, and says that the server is not there."""
    backend = RedisBackend.from_url(f"redis://127.0.0.1:{free_port()}?connect_timeout=0.5")
    with pytest.raises(StorageUnavailableError, match="Connection refused"):
        await backend.check()
    await backend.close()


def test_it_has_every_ability_of_a_backend() -> None:
    """Servers look for them by these names."""
    backend = RedisBackend.from_url("redis://db")

    assert isinstance(backend, Reopenable)
    assert isinstance(backend, ChangeSource)
    assert isinstance(backend, Checkable)


# --- TLS -----------------------------------------------------------------------------------------


async def test_tls_is_the_drivers_and_it_looks_at_the_certificate(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """One that nobody vouches for is refused; nothing ever goes out in plain text."""
    _certify(tmp_path)
    async with _tls_before(redis_server, tmp_path) as port:
        trusting = f"127.0.0.1:{port}?ssl_ca_certs={tmp_path / 'cert.pem'}&prefix=tls"
        for number, scheme in enumerate(("rediss", "valkeys"), 1):
            backend = RedisBackend.from_url(f"{scheme}://{trusting}")
            assert await backend.put("ada:t1", b"x") == number
            await backend.close()

        blind = RedisBackend.from_url(f"rediss://127.0.0.1:{port}?connect_timeout=0.5")
        with pytest.raises(StorageUnavailableError, match="TLS failed: CERTIFICATE_VERIFY_FAILED"):
            await blind.get("ada:t1")
        await blind.close()

        plain = RedisBackend.from_url(f"redis://127.0.0.1:{port}?connect_timeout=0.5")
        with pytest.raises(StorageUnavailableError):
            await plain.get("ada:t1")
        await plain.close()


@asynccontextmanager
async def _tls_before(server: RedisServer, folder: Path) -> AsyncGenerator[int]:
    """Take TLS off what comes in on a port, for the server of the tests has none."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
        sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(carry(reader, onward), carry(there, writer))

    front = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with front:
        yield front.sockets[0].getsockname()[1]


def _certify(folder: Path) -> None:
    """Write a key, and a certificate for 127.0.0.1 that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
