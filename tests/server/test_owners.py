"""Whose a task is: principals, this machine's user, and everybody else."""

# ruff: noqa: TC001 - what tools are annotated with is read at run time

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mcp.client import Client
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

from mcp_tasks import ConfigurationError, TaskContext, Tasks, TasksClient, TaskStore
from mcp_tasks.storage.memory import MemoryBackend
from mcp_tasks.storage.sqlite import SqliteBackend


if TYPE_CHECKING:
    from pathlib import Path

    from mcp.server.context import ServerRequestContext

    from .conftest import Serve

METHODS = ("tasks/get", "tasks/update", "tasks/cancel")
SCOPES = ["run"]


class Verifier:
    """Knows two people who use the same client."""

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return who it is."""
        if token not in ("ada", "bob"):
            return None
        return AccessToken(
            token=token,
            client_id="app",
            scopes=SCOPES,
            subject=token,
            claims={"iss": "https://issuer.example"},
        )


def with_auth(store: Any = "memory://", **options: Any) -> tuple[MCPServer[Any], Tasks]:
    """Make a server that wants a token."""
    url = AnyHttpUrl("https://issuer.example")
    settings = AuthSettings(issuer_url=url, resource_server_url=None, required_scopes=SCOPES)
    server: MCPServer[Any] = MCPServer(
        "auth", token_verifier=Verifier(), auth=settings, log_level="ERROR"
    )
    tasks = Tasks.install(server, store, signals=False, **options)

    @tasks.tool()
    async def who(task: TaskContext) -> list[str | None]:
        principal = task.principal
        assert get_access_token() is None, "the caller's token must not reach the body"
        assert principal is not None
        return [principal.client_id, principal.issuer, principal.subject, *principal.scopes]

    return server, tasks


def tenant(ctx: ServerRequestContext[Any, Any]) -> str | None:
    """Let a tenant own the tasks of its people."""
    assert ctx.request is not None
    return ctx.request.headers.get("x-tenant")


@pytest.mark.requirement("T-090")
async def test_the_task_of_another_principal_does_not_exist(serve: Serve) -> None:
    """Foreign and unknown are the same bytes, for people who share a client too."""
    server, _ = with_auth()
    async with serve(server) as wire:
        ada, bob = wire.bearer("ada"), wire.bearer("bob")
        task_id = await ada.create("who")
        for method in METHODS:
            params: dict[str, Any] = {"inputResponses": {}} if "update" in method else {}
            foreign, unknown = [
                await bob.post(method, {"taskId": task, **params}, task)
                for task in (task_id, "0" * 36)
            ]
            assert (foreign.status, foreign.body) == (unknown.status, unknown.body)
            assert foreign.error["code"] == -32602
        task = await ada.outcome(task_id)

    assert task["result"]["structuredContent"] == {
        "result": ["app", "https://issuer.example", "ada", "run"]
    }


async def test_a_task_is_stored_without_its_callers_token(serve: Serve) -> None:
    """What the database holds must not let anybody act as the caller."""
    backend = MemoryBackend()
    server, _ = with_auth(backend)
    async with serve(server) as wire:
        await wire.bearer("ada").create("who")
        stored = [data for data, _, _ in backend._entries.values()]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    assert stored
    assert not [data for data in stored if b"Bearer" in data or b'"token"' in data]


async def test_the_owner_rule_can_be_replaced(serve: Serve) -> None:
    """Here a tenant owns tasks, and its people see one another's."""
    server, _ = with_auth(owner_of=tenant)
    async with serve(server) as wire:
        ada, bob = wire.bearer("ada"), wire.bearer("bob")
        ada.headers["X-Tenant"] = bob.headers["X-Tenant"] = "physics"
        task_id = await ada.create("who")
        assert (await bob.outcome(task_id))["status"] == "completed"
        bob.headers["X-Tenant"] = "chemistry"
        assert (await bob.get(task_id)).error["code"] == -32602
        del bob.headers["X-Tenant"]
        assert (await bob.get(task_id)).error["code"] == -32602


NO_OWNERS = [
    ("", "an empty name"),
    ("anonymous", "'anonymous', which other callers have"),
    ("local", "'local', which other callers have"),
    ("9:principal:[1, 2]", "'9:principal:', which other callers have"),
    (5, "a value of type int; it must return a str"),
    (b"physics", "a value of type bytes; it must return a str"),
]


@pytest.mark.parametrize(("owner", "problem"), NO_OWNERS, ids=repr)
async def test_a_rule_cannot_name_an_owner_that_others_share(
    serve: Serve, owner: Any, problem: str
) -> None:
    """A tenant who may choose the name `anonymous` would share tasks with every stranger."""
    backend = MemoryBackend()
    server: MCPServer[Any] = MCPServer("tenants", log_level="ERROR")
    tasks = Tasks.install(server, backend, signals=False, owner_of=lambda _: owner)

    @tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with serve(server) as wire:
        errors = [(await wire.call("ping")).error, (await wire.get("0" * 36)).error]

    for error in errors:
        assert error["code"] == -32603
        assert error["message"].startswith(f"this server's owner_of returned {problem}")
    store = TaskStore(backend, namespace="tenants")
    assert [(await store.list(name)).tasks for name in ("anonymous", "local")] == [[], []]


async def test_a_rule_that_names_nobody_leaves_the_usual_one(serve: Serve) -> None:
    """A caller without a tenant is who they are otherwise, and a tenant is called as it is."""
    backend = MemoryBackend()
    server: MCPServer[Any] = MCPServer("tenants", log_level="ERROR")
    tasks = Tasks.install(server, backend, signals=False, owner_of=tenant)

    @tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with serve(server) as wire:
        nobodys = await wire.create("ping")
        wire.headers["X-Tenant"] = "10:physics"
        theirs = await wire.create("ping")

    store = TaskStore(backend, namespace="tenants")
    for owner, task_id in (("anonymous", nobodys), ("10:physics", theirs)):
        assert [task.task_id for task in (await store.list(owner)).tasks] == [task_id]


@pytest.mark.requirement("T-088")
@pytest.mark.requirement("T-089")
async def test_without_authentication_the_id_is_the_key(serve: Serve) -> None:
    """Callers over HTTP cannot be told apart, so they are one owner, and ids are unguessable."""
    backend = MemoryBackend()
    server: MCPServer[Any] = MCPServer("open", log_level="ERROR")
    tasks = Tasks.install(server, backend, signals=False)

    @tasks.tool()
    async def ping() -> None:
        """Do nothing."""

    async with serve(server) as wire:
        ids = [await wire.create("ping") for _ in range(5)]

    store = TaskStore(backend, namespace="open")
    assert {task.task_id for task in (await store.list("anonymous")).tasks} == set(ids)
    assert len({task_id[10:] for task_id in ids}) == 5
    assert (await store.list("local")).tasks == []


async def test_callers_on_this_machine_are_its_user(tmp_path: Path) -> None:
    """In process, with a store on this machine, there is one person."""
    for backend in (MemoryBackend(), SqliteBackend(tmp_path / "tasks.db")):
        server: MCPServer[Any] = MCPServer("here", log_level="ERROR")
        tasks = Tasks.install(server, backend, signals=False)

        @tasks.tool()
        async def ping() -> str:
            return "pong"

        async with Client(server, extensions=[TasksClient()]) as client:
            await client.call_tool("ping", {})
            store = TaskStore(backend, namespace="here")
            assert len((await store.list("local")).tasks) == 1
        await backend.close()


async def test_a_shared_store_makes_even_local_callers_anonymous() -> None:
    """Over stdio with a database that others use, `local` would be everybody's."""
    backend: Any = _Remote()
    server: MCPServer[Any] = MCPServer("there", log_level="ERROR")
    tasks = Tasks.install(server, backend, signals=False)

    @tasks.tool()
    async def ping() -> str:
        return "pong"

    async with Client(server, extensions=[TasksClient()]) as client:
        await client.call_tool("ping", {})
        store = TaskStore(backend, namespace="there")
        assert len((await store.list("anonymous")).tasks) == 1


class _Remote:
    """A backend that is none of those that keep data on this machine."""

    def __init__(self) -> None:
        self._inner = MemoryBackend()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_server_without_a_name_may_not_share_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker would run the tools of any other server without a name."""
    url = f"sqlite:///{(tmp_path / 'tasks.db').as_posix()}"
    with pytest.raises(ConfigurationError, match=r"Name it, MCPServer\('my-server'\)"):
        Tasks.install(MCPServer(), url)
    monkeypatch.setenv("MCP_TASKS_STORE", url)
    with pytest.raises(ConfigurationError, match="namespace='my-server'"):
        Tasks.install(MCPServer())

    Tasks.install(MCPServer(), url, namespace="mine")
    Tasks.install(MCPServer("named"), url)
    Tasks.install(MCPServer(), "memory://")
    assert list(tmp_path.iterdir()) == [], "installing opens nothing"
