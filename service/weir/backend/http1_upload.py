"""A connection for one request whose body still comes: what the client sends is written as fast as the server takes it,
and an answer is heard whenever it comes.

It is never used a second time. One that was idle may be closing in the moment in which it is used, and what was taken
from a client cannot be sent again.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress

from weir.backend.backend import Upload
from weir.backend.http1 import HIGH_WATER, Connection, Pool

_AT_ONCE = struct.pack("ii", 1, 0)  # linger, for no time (socket(7))


class UploadConnection(Connection):
    """See `Connection`. `body` goes first, then whatever `upload` gives."""

    def __init__(self, loop: asyncio.AbstractEventLoop, body: bytes, upload: Upload) -> None:
        super().__init__(loop)
        self._beginning = body
        self._upload = upload
        self._sent = False
        self._feeding: asyncio.Task[None] | None = None
        self._full: asyncio.Future[None] | None = None  # the server takes no more at the moment

    async def request(self, message: bytes, data: Sequence[bytes | memoryview] = ()) -> None:  # noqa: ARG002 - JSON's
        """Send the head and the whole body, and wait for the head of the answer, which may come before the body's end.

        Raises Broken, and what `Upload.read` raises.
        """
        self._reset()
        self.transport.write(message)
        self._feeding = self._loop.create_task(self._feed())
        self._feeding.add_done_callback(self._fed)
        while not self.status:
            await self._wait()
        if self.status >= 300:
            self._stop()  # who refuses has no use for the rest

    def abort(self) -> None:
        self._stop()
        if self.open and not (self._sent and self._complete):
            # A reset: an end would stand behind all that the server has not taken yet, and so perhaps never come.
            with suppress(OSError):
                self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        super().abort()

    async def _feed(self) -> None:
        upload, piece = self._upload, self._beginning
        self._beginning = b""
        chunked = upload.rest is None
        while piece or (piece := await upload.read()):
            # Three writes and no joining: a copy of each piece would be one more that is held.
            self.transport.writelines([b"%x\r\n" % len(piece), piece, b"\r\n"] if chunked else [piece])
            piece = b""
            if self._full is not None:
                await self._full
        if chunked:
            self.transport.write(b"0\r\n\r\n")
        self._sent = True

    def _fed(self, feeding: asyncio.Task[None]) -> None:
        if feeding.cancelled():
            return
        error = feeding.exception()
        if isinstance(error, Exception):
            self._fault = error
            self._wake()

    def _stop(self) -> None:
        if self._feeding is not None:
            self._feeding.cancel()

    async def _wait(self) -> None:
        self._raise_fault()
        await super()._wait()
        self._raise_fault()

    # -- what the transport says

    def pause_writing(self) -> None:
        self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        full, self._full = self._full, None
        if full is not None and not full.done():
            full.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if exc is not None and not self.status and self.transport.get_extra_info("sslcontext") is None:
            self._hear_last_words()
        super().connection_lost(exc)

    def _hear_last_words(self) -> None:
        """A server that refuses and closes resets a connection on which more comes (RFC 9112, section 9.6). Our writing
        meets the reset before the answer is read, which is in the kernel still: one in five was lost. Under TLS they
        stay lost.
        """
        with suppress(OSError):
            self.data_received(os.read(self.transport.get_extra_info("socket").fileno(), HIGH_WATER))


class UploadPool:
    """What a `Pool` is for one upload: a connection that is made for it, and is gone behind it."""

    __slots__ = ("_make", "_pool")

    def __init__(self, pool: Pool, body: bytes, upload: Upload) -> None:
        self._pool = pool
        self._make: Callable[[asyncio.AbstractEventLoop], Connection] = lambda loop: UploadConnection(
            loop, body, upload
        )

    async def acquire(self, connect_seconds: float) -> Connection:
        """See `Pool`."""
        return await self._pool.connect(connect_seconds, self._make)

    def release(self, connection: Connection) -> None:
        """Whatever is still being sent ends here."""
        connection.abort()
