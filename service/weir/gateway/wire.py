"""The client's side of one request: its body, its answer, its leaving.

Any ASGI server will do. Our own (cli/protocol.py) offers more than ASGI can say, as the extension `weir.wire`: an
answer of one write, a chunk without a coroutine, the client's leaving as a call and not as a task that waits for it.
That is 25 us of a request.
"""

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol

from weir.core.asgi import Headers, Receive, Scope, Send

EXTENSION = "weir.wire"
# What is still to do of a write: nothing, nearly always; else to be awaited, because the client reads too slowly.
Rest = Awaitable[None] | None


class Wire(Protocol):
    """What the request path asks of a server. After the client has left, writing is silently nothing."""

    def body(self) -> bytes | None:
        """The request's whole body, if it is here already."""

    async def receive(self) -> Any:
        """ASGI's `receive`: the body's next part."""

    def listen(self, gone: Callable[[], None] | None) -> None:
        """Call `gone` when the client leaves, until told None. While a body still comes, `receive` may be the one that
        hears it.
        """

    def answer(self, status: int, headers: Headers, body: bytes) -> Rest:
        """The whole answer; its content-length is added."""

    def start(self, status: int, headers: Headers) -> Rest:
        """The head of an answer whose length nobody knows."""

    def write(self, chunk: bytes, framed: bytes | None = None, *, more: bool = True) -> Rest:
        """The next part of the answer. `framed` is it as a chunk of HTTP/1.1, where somebody has made that already."""

    def buffered(self) -> int:
        """Bytes that wait for the client; what changes here shows that it reads. 0 where the server does not say."""

    def left(self) -> bool:
        """The client has left and nobody could hear it, because nothing is read of what it sent before."""

    def cut(self) -> None:
        """Close the connection at once, with whatever is still to be written."""


def wire_of(scope: Scope, receive: Receive, send: Send) -> Wire:
    """The server's own wire, where it has one; taken out of the scope, or the two would hold each other in a circle."""
    extensions = scope.get("extensions") or {}
    own: Wire | None = extensions.pop(EXTENSION, None)
    return own or AsgiWire(receive, send, extensions.get("weir.cut", _no_cut))


class AsgiWire:
    """A wire over plain ASGI."""

    __slots__ = ("_coming", "_gone", "_listener", "_receive", "_send", "cut")

    def __init__(self, receive: Receive, send: Send, cut: Callable[[], None]) -> None:
        self.cut = cut
        self._receive: Callable[[], Any] = receive
        self._send = send
        self._coming = False  # a body, of which the last message was not the end
        self._gone: Callable[[], None] | None = None
        self._listener: asyncio.Task[Any] | None = None

    def body(self) -> bytes | None:
        return None

    async def receive(self) -> Any:
        message = await self._receive()
        self._coming = message.get("more_body", False)
        self.listen(self._gone)
        return message

    def listen(self, gone: Callable[[], None] | None) -> None:
        self._gone = gone
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None
        if gone is not None and not self._coming:  # else a listener would take the body's next part
            self._listener = asyncio.get_running_loop().create_task(self._receive())
            self._listener.add_done_callback(lambda listener: listener.cancelled() or gone())

    def answer(self, status: int, headers: Headers, body: bytes) -> Rest:
        return begin(self._answer(status, [*headers, (b"content-length", b"%d" % len(body))], body))

    def start(self, status: int, headers: Headers) -> Rest:
        return begin(self._send({"type": "http.response.start", "status": status, "headers": headers}))

    def write(self, chunk: bytes, framed: bytes | None = None, *, more: bool = True) -> Rest:  # noqa: ARG002 - the port
        return begin(self._send({"type": "http.response.body", "body": chunk, "more_body": more}))

    def buffered(self) -> int:
        return 0

    def left(self) -> bool:
        return False

    async def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _no_cut() -> None:
    """The server closes the connection itself when it sees that the answer stays unfinished."""


def begin(sending: Awaitable[None]) -> Rest:
    """Run a `send` as far as it goes: nearly always to its end, and then there is nothing to wait for.

    Where it stops, because the client reads too slowly, the rest of it is to be awaited.
    """
    running = sending.__await__()
    try:
        waits_for = next(running)
    except StopIteration:
        return None
    return _rest_of(running, waits_for)


@types.coroutine
def _rest_of(running: Generator[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """What is still to do, from where `running` yielded `waits_for`."""
    while True:
        try:
            sent = yield waits_for
        except BaseException as error:  # noqa: BLE001 - a cancellation goes to where the waiting is done
            step: Callable[[Any], Any] = running.throw
            value = error
        else:
            step, value = running.send, sent
        try:
            waits_for = step(value)
        except StopIteration:
            return
