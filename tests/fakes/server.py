"""An upstream server without a network: the client's own `Connection`, on a transport that answers from a list."""

import asyncio
from collections.abc import Sequence

from weir.backend.http1 import Connection, Origin, Pool

# What is said to one request, piece by piece; None closes the connection, an error is why there is none.
Says = Sequence[bytes | None] | Exception


class _Transport(asyncio.Transport):
    def __init__(self, server: "Server", connection: Connection) -> None:
        super().__init__()
        self._server = server
        self._connection = connection
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._server.heard.append(bytes(data))
        for piece in self._server.next():
            asyncio.get_running_loop().call_soon(self._say, piece)

    def _say(self, piece: bytes | None) -> None:
        if self._closing:
            return
        if piece is None:
            self.abort()
        else:
            self._connection.data_received(piece)

    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._server.open -= 1
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Server(Pool):
    """See `Pool`. `script` is what it says to each request in turn; the last for ever. An empty answer is silence."""

    def __init__(self, *script: Says) -> None:
        super().__init__(Origin("fake", 80, tls=False), idle_seconds=4.0)
        self._script = list(script)
        self.heard: list[bytes] = []
        self.open = 0
        self.opened = 0

    def next(self) -> Sequence[bytes | None]:
        says = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        assert not isinstance(says, Exception), "there is nobody to say this to"
        return says

    async def acquire(self, connect_seconds: float) -> Connection:
        if self._idle:
            return await super().acquire(connect_seconds)
        if isinstance(self._script[0], Exception):
            raise self._script.pop(0) if len(self._script) > 1 else self._script[0]  # type: ignore[misc]
        connection = Connection(asyncio.get_running_loop())
        connection.connection_made(_Transport(self, connection))
        self.open += 1
        self.opened += 1
        return connection
