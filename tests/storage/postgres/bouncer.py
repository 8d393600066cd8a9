"""PgBouncer in front of a server, where it is installed."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from mcp_tasks.testing.servers import ServerProcess


if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp_tasks.testing.servers.postgres import PostgresServer


class PgBouncer(ServerProcess):
    """Gives each transaction one of three connections to the server.

    Args:
        server: Where they lead.
    """

    name = "PgBouncer"

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        self._server = server

    @property
    def url(self) -> str:
        """The store URL that a backend is opened with."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def _prepare(self) -> None:
        (self.folder / "users.txt").write_text('"postgres" ""\n')
        (self.folder / "bouncer.ini").write_text(f"""
[databases]
postgres = host=127.0.0.1 port={self._server.port} dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {self.folder}/users.txt
pool_mode = transaction
default_pool_size = 3
""")
        user = self._user()
        if user is not None:
            for place in (self.folder, *self.folder.iterdir()):
                os.chown(place, user, -1)

    def _command(self) -> Sequence[str]:
        found = shutil.which("pgbouncer")
        assert found is not None
        return [found, str(self.folder / "bouncer.ini")]

    def _user(self) -> int | None:
        return 65534 if os.geteuid() == 0 else None
