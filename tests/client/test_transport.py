"""The HTTP client for which an unreachable server is an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx2
import pytest
from mcp_types import CONNECTION_CLOSED

from mcp_tasks.client import ReconnectingHttpClient


if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


async def answer_of(handler: Callable[[httpx2.Request], httpx2.Response]) -> httpx2.Response:
    """Send one request to `handler`."""
    async with ReconnectingHttpClient(transport=httpx2.MockTransport(handler)) as client:
        return await client.post("http://server/mcp", json={})


@pytest.mark.parametrize("failure", [httpx2.ConnectError, httpx2.ReadError, httpx2.ReadTimeout])
async def test_a_lost_request_gets_an_answer_that_says_so(
    failure: type[httpx2.TransportError],
) -> None:
    """An exception here would end the SDK's client with all that it waits for."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        raise failure("gone", request=request)

    answer = await answer_of(handler)

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == CONNECTION_CLOSED
    assert "may or may not have been done" in answer.json()["error"]["message"]


async def test_an_answer_that_breaks_off_is_lost_too() -> None:
    """Killed between the head and the body of its answer."""

    class Broken(httpx2.AsyncByteStream):
        """A body that ends too early."""

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'{"jsonrpc":'
            raise httpx2.ReadError("gone")

    def handler(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, stream=Broken())

    answer = await answer_of(handler)

    assert answer.json()["error"]["code"] == CONNECTION_CLOSED


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_proxy_in_front_of_no_server_says_the_same(status: int) -> None:
    """Its page in HTML is no answer of the server."""
    answer = await answer_of(lambda _: httpx2.Response(status, html="<h1>Bad Gateway</h1>"))

    assert answer.json()["error"]["code"] == CONNECTION_CLOSED


async def test_what_the_server_itself_answers_is_left_alone() -> None:
    """A refusal must stay the refusal it is."""
    refusal = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "task not found"}}

    answer = await answer_of(lambda _: httpx2.Response(400, json=refusal))

    assert answer.status_code == 400
    assert json.loads(answer.content) == refusal
