"""The port to an inference server."""

from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from weir.core.asgi import Headers
from weir.core.types import Endpoint, Timeouts


class Upload(Protocol):
    """The rest of a body that still comes from the client; `Call.body` goes before it.

    `rest` is how many bytes that will be, None where nobody knows: then they go in chunks. `begun` says that something
    of it was read, so that it cannot be sent to anybody else.
    """

    content_type: bytes
    rest: int | None
    begun: bool

    async def read(self) -> bytes:
        """The next piece; b"" at the end. Raises whatever ends the request: the client left, or sent too much."""
        ...


class Call(NamedTuple):
    """One request as it goes upstream: built, never copied. `path` is below the endpoint's URL; with // in front it is
    counted from the server's root. The body is JSON, or the beginning of an `upload`. Where long data stands in it, it
    goes on in the pieces of `data`, of which nobody makes a copy.
    """

    path: str
    body: bytes
    headers: Headers
    timeouts: Timeouts
    upload: Upload | None = None
    data: Sequence[bytes | memoryview] = ()

    @property
    def size(self) -> int:
        """Bytes of the body, without an upload's rest."""
        return len(self.body) + sum(map(len, self.data))

    @property
    def whole(self) -> bytes:
        """The body in one piece."""
        return b"".join((self.body, *self.data)) if self.data else self.body


class Sink(Protocol):
    """Takes what has come, at once; gives back what has to be awaited before more may come, if anything.

    `framed` is the same as one chunk of HTTP/1.1 (RFC 9112, section 7.1), where it came as that: whoever sends chunks
    need not make it again.
    """

    def __call__(self, chunk: bytes, framed: bytes | None = None, /) -> Awaitable[None] | None: ...


class BackendResponse(Protocol):
    """The beginning of an answer. `headers` are those that may go on to the client, names in small letters."""

    status: int
    content_type: bytes
    headers: Headers

    async def read(self) -> bytes:
        """The next bytes as they came; b"" at the proper end.

        Raises:
            UpstreamFailed: the answer broke off.

        """
        ...

    async def pump(self, sink: Sink) -> None:
        """Hand every piece to `sink` the moment it comes, until the proper end; raises what `read` and `sink` raise.

        Where `sink` gives something back, nothing more is read until that is done: the back-pressure.
        """
        ...


class Backend(Protocol):
    """One way of asking a model."""

    def send(self, endpoint: Endpoint, call: Call) -> AbstractAsyncContextManager[BackendResponse]:
        """Ask; the answer's beginning is there when the block is entered.

        Leaving the block before the answer's end aborts the request upstream at once.

        Raises:
            UpstreamUnreachable: nobody is there.
            UpstreamTimeout: nobody took the connection within `timeouts.connect` seconds.
            UpstreamBroke: the connection ended before a byte of an answer.
            UpstreamFailed: what came is no answer.

        """
        ...

    async def close(self) -> None: ...
