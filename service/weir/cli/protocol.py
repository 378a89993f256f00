"""Our own protocol of uvicorn's: what its parser reads, checked and bounded; and a wire that writes without ASGI."""

import asyncio
import contextlib
import fcntl
import re
import socket
import sys
import termios
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from weir.core.asgi import Headers
from weir.core.errors import BadRequest, GatewayError, HeadersTooLarge, HeadTimeout
from weir.core.outbox import outbox_of
from weir.gateway.head import HEADERS_MAX, new_request_id
from weir.gateway.replies import LAST, error_body
from weir.gateway.wire import EXTENSION, Rest

LINGER_SECONDS = 2.0  # for a client that still sends what nobody wants any more
PIPELINE_MAX = 100  # requests that wait behind another on one connection
_LEFT = (7, 8)  # CLOSE and CLOSE_WAIT, the states of tcp_info of a connection that is reset or whose peer is done
_OTHER_PROTOCOL = re.compile(rb" (?:RTSP|ICE)/1\.0\r\n")


class UvicornWire:
    """See `Wire`: writes what uvicorn's own `send` would, and keeps its books.

    uvicorn searches every header of an answer by two patterns, because an application may have written anything; ours
    are made of numbers, of checked ids and of what its own parser passed in an upstream's answer.
    """

    __slots__ = ("_chunked", "_cycle", "_flow", "_outbox", "_protocol", "_transport", "receive")

    def __init__(self, protocol: "Protocol", cycle: RequestResponseCycle) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._transport = protocol.transport
        self._flow = protocol.flow
        self._outbox = protocol.outbox
        self._chunked = False
        self.receive = cycle.receive

    def body(self) -> bytes | None:
        cycle = self._cycle
        if cycle.more_body:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def listen(self, gone: Callable[[], None] | None) -> None:
        protocol = self._protocol
        if gone is None:
            protocol.listening.pop(self, None)
            return
        protocol.listening[self] = gone
        protocol.flow.resume_reading()  # or nobody would see the end
        if protocol.lost:
            protocol.loop.call_soon(gone)

    def answer(self, status: int, headers: Headers, body: bytes) -> Rest:
        if self._cycle.response_complete:
            return None
        rest = self._write(self._head(status, headers, b"content-length: %d\r\n" % len(body)) + body)
        self._end()
        return rest

    def start(self, status: int, headers: Headers) -> Rest:
        # Whoever speaks HTTP/1.0 knows no chunks: for them the answer ends with the connection.
        self._chunked = self._cycle.scope["http_version"] != "1.0"
        head = self._head(status, headers, b"transfer-encoding: chunked\r\n" if self._chunked else b"")
        return self._write(head)

    def write(self, chunk: bytes, framed: bytes | None = None, *, more: bool = True) -> Rest:
        cycle = self._cycle
        if cycle.response_complete or cycle.disconnected or self._transport.is_closing():
            return None
        if self._chunked:
            chunk = framed or (b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b"")
            if not more:
                chunk += b"0\r\n\r\n"
        self._outbox.write(self._transport, chunk)
        if not more:
            self._end()
        return self._flow.drain() if self._flow.write_paused else None

    def buffered(self) -> int:
        """With what the kernel holds: it takes in large steps, and a slow reader shows there first."""
        here, unread = self._transport.get_write_buffer_size(), bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, unread)
        return here + int.from_bytes(unread, sys.byteorder)

    def left(self) -> bool:
        # Its end stands behind what it sent before; where that is not read, the kernel knows it and the loop does not.
        # Where the kernel cannot take all that was sent, the end is not even here, and nobody knows.
        if not self._flow.read_paused or not hasattr(socket, "TCP_INFO"):
            return False
        with contextlib.suppress(OSError):
            peer = self._transport.get_extra_info("socket")
            return peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT
        return False

    def cut(self) -> None:
        # `close` would wait until the client has read what is buffered, and the one to cut is the one that does not.
        self._transport.abort()

    def _head(self, status: int, headers: Headers, framing: bytes) -> bytes:
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        if LAST in headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers = [*headers, LAST]
        lines = b"\r\n".join(map(b": ".join, (*cycle.default_headers, *headers)))
        return b"%b%b\r\n%b\r\n" % (STATUS_LINE[status], lines, framing)

    def _write(self, data: bytes) -> Rest:
        if self._cycle.disconnected or self._transport.is_closing():
            return None
        self._outbox.write(self._transport, data)
        return self._flow.drain() if self._flow.write_paused else None

    def lose(self) -> None:
        """The client is gone; uvicorn tells only the newest of several requests."""
        self._cycle.disconnected = True

    def _end(self) -> None:
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self._protocol.leave(sending=cycle.more_body)
        cycle.on_response()


class Flow(FlowControl):
    """uvicorn's, with an event only while somebody waits: one for each connection is 0.7 KB."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self.write_paused = False
        self._written: asyncio.Event | None = None

    async def drain(self) -> None:
        if self.write_paused:
            self._written = self._written or asyncio.Event()
            await self._written.wait()

    def pause_writing(self) -> None:
        self.write_paused = True

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._written is not None:
            self._written.set()
            self._written = None


class Protocol(HttpToolsProtocol):
    """uvicorn's, with bounds on a head's time and size, and strict about what a request is.

    What is not HTTP is refused in our words, and the request path gets a wire of its own.
    """

    # Beside uvicorn's own 28 attributes, and not among them: an instance with more than 30 keeps them in a dictionary
    # of its own, which makes it 1.3 KB larger.
    __slots__ = (
        "_body_open",
        "_head_size",
        "_latest",
        "deaf",
        "head_since",
        "idle_since",
        "listening",
        "lost",
        "outbox",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lost = False
        self.deaf = False  # what comes is not HTTP, and an answer is still on its way: nothing more is read
        self.outbox = outbox_of(self.loop)
        self.listening: dict[UvicornWire, Callable[[], None]] = {}  # who wants to hear that the client has left
        self.head_since: float | None = self.loop.time()  # a head is waited for, or begun; None: not now
        self.idle_since: float | None = None  # all is answered, and nothing more has come
        self._head_size = 0
        self._body_open = False  # of the request that was read last
        self._latest = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = Flow(transport)

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        self.idle_since = None
        if self.head_since is not None and not self._body_open:
            self._head_size += len(data)
        self._latest = data
        super().data_received(data)
        self._latest = b""
        if self.deaf or self.transport.is_closing():
            return
        if self.head_since is None:
            # Blank lines, or the rest of a request that is answered: no idling, and no head yet.
            if self.idle_since is None and self.cycle is not None and self.cycle.response_complete:
                self.head_since = self.loop.time()
        elif self._head_size > HEADERS_MAX * 2:
            self._refuse(HeadersTooLarge())

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self.outbox.flush()  # the next on this connection may write by itself, and must not overtake the one before
        task = self.loop.create_task(self._answer(cycle, app))
        self.tasks.add(task)
        self.outbox.woken()

    async def _answer(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Uvicorn's own way, a callback of the task, costs a turn of the loop for each request."""
        try:
            await cycle.run_asgi(app)
        finally:
            self.tasks.discard(asyncio.current_task(self.loop))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        self.head_since, self._head_size = None, 0
        # What could be two things for two readers is refused: a target that looks like another server's address, a
        # version that frames bodies in another way.
        if not self.url.startswith(b"/") and not (self.url == b"*" and self.parser.get_method() == b"OPTIONS"):
            raise ValueError("a request's target must be a path")
        version = self.parser.get_http_version()
        # The parser takes RTSP/1.0 and ICE/1.0 too, and does not say so.
        if version not in {"1.1", "1.0"} or (version == "1.0" and _OTHER_PROTOCOL.search(self._latest)):
            raise ValueError("the version must be HTTP/1.1 or HTTP/1.0")
        if len(self.pipeline) >= PIPELINE_MAX:
            raise ValueError("too many requests at once on one connection")
        super().on_headers_complete()
        self._body_open = True
        if self.listening:
            self.flow.resume_reading()  # paused for a request behind another, and then nobody would see the end
        self.scope["extensions"] = {EXTENSION: UvicornWire(self, self.cycle)}  # type: ignore[dict-item]

    def on_message_complete(self) -> None:
        self._body_open = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Uvicorn's own arms a timer for each request; here `look` ends who says nothing more."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.idle_since = self.loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        super().connection_lost(exc)
        for wire, gone in tuple(self.listening.items()):
            wire.lose()
            gone()

    def look(self, now: float, head_seconds: float) -> None:
        """End a connection whose head does not come, and one on which nothing comes any more."""
        if self.deaf or self.transport.is_closing():
            return
        if self.head_since is None:
            if self.idle_since is not None and now - self.idle_since > self.timeout_keep_alive:
                self.transport.close()
        elif now - self.head_since > head_seconds:
            if self._body_open:
                self.transport.close()  # answered long ago
            elif self._head_size or (self.cycle is not None and not self.cycle.response_complete):
                self._refuse(HeadTimeout())
            else:
                self.transport.close()  # it never asked anything

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest("The request is not valid HTTP/1.1.", reason=msg))

    def shutdown(self) -> None:
        self.outbox.flush()
        super().shutdown()

    def _refuse(self, error: GatewayError) -> None:
        self.outbox.flush()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            # Whoever asked before gets the answer to that, and then the end.
            cycle.keep_alive = False
            self.deaf, self.head_since = True, None
            return
        body = error_body(error)
        head = (
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-request-id: {new_request_id()}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(STATUS_LINE[error.status] + head.encode() + body)
        self.leave(sending=True)

    def leave(self, *, sending: bool) -> None:
        """Close, when what is written is out. Who is still sending is listened to for a moment: a connection that is
        closed with bytes unread is reset, and a reset overtakes the answer (RFC 9112, section 9.6).
        """
        self.outbox.flush()
        if not sending or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.deaf, self.head_since = True, None
        self.flow.resume_reading()
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)
