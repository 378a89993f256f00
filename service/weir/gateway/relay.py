"""Passes an answer on: the bytes as they come, the client's pace, and the meter reading aside.

While the client has not read what it was sent, nothing more is read from upstream: that is the back-pressure.
"""

import asyncio
from collections.abc import Awaitable

from weir.backend import BackendResponse, Sink
from weir.core.asgi import Headers
from weir.core.errors import UpstreamBusy, UpstreamFailed
from weir.core.exchange import Exchange, Listener
from weir.core.types import EMBEDDED
from weir.gateway.replies import EVENTS, PING, STREAM_HEADERS, Reply
from weir.gateway.watch import CLIENT, UPSTREAM, Watch
from weir.gateway.wire import Rest, Wire
from weir.usage import BodyScanner, Meter
from weir.usage.body_scanner import WHOLE_MAX
from weir.usage.typed_scanner import StreamScanner, scanner_for

ERROR_MAX = 1 << 20
LINGER_SECONDS = 1.0  # for the transport's end behind the terminator, so that the connection can be used again


async def relay(
    response: BackendResponse, reply: Reply, watch: Watch, meter: Meter, exchange: Exchange, *, strip_usage: bool
) -> None:
    """Relay the whole answer, whatever it is.

    Raises UpstreamFailed, UpstreamBusy; what the watch finds comes through as a cancellation.
    """
    trace = exchange.trace
    if trace is not None and trace.listener is not None:
        response = _Overheard(response, trace.listener)
    if response.status != 200:
        await _relay_refusal(response, reply, watch, meter, exchange)
    elif response.content_type.startswith(EVENTS):
        scanner = meter.scanner = reply.scanner = scanner_for(exchange.operation, strip_usage=strip_usage)
        reply.streaming = True
        await _EventRelay(scanner, reply, watch, exchange).run(response)
        exchange.finish_reason = scanner.finish_reason or ""
        if scanner.failed:
            exchange.outcome, exchange.code = "upstream_error", "error event"
    elif b"json" in response.content_type and not reply.started:
        await _relay_json(response, reply, watch, meter, exchange)
    elif reply.errors.operation.opaque and not reply.started and not response.content_type.startswith(b"text/html"):
        await _relay_opaque(response, reply, watch, meter, exchange)
    else:
        meter.refused()
        raise UpstreamFailed(reason=f"200 with content-type {response.content_type[:60]!r}")


class _Overheard:
    """An answer that a trace is to hold too: what passes is heard, and is what it was."""

    __slots__ = ("_listener", "_response", "content_type", "headers", "status")

    def __init__(self, response: BackendResponse, listener: Listener) -> None:
        self._response = response
        self._listener = listener
        self.status, self.content_type, self.headers = response.status, response.content_type, response.headers

    async def read(self) -> bytes:
        chunk = await self._response.read()
        self._listener.said(chunk)
        return chunk

    async def pump(self, sink: Sink) -> None:
        def overhear(chunk: bytes, framed: bytes | None = None) -> Rest:
            rest = sink(chunk, framed)
            self._listener.said(chunk)
            return rest

        await self._response.pump(overhear)


class _EventRelay:
    """One event stream on its way to the client."""

    __slots__ = ("_begun", "_ending", "_exchange", "_reply", "_scanner", "_watch", "_write")

    def __init__(self, scanner: StreamScanner, reply: Reply, watch: Watch, exchange: Exchange) -> None:
        self._scanner = scanner
        self._reply = reply
        self._watch = watch
        self._exchange = exchange
        self._write = reply.wire.write
        self._ending = asyncio.timeout(None)
        self._begun = False  # the client has its first byte

    async def run(self, response: BackendResponse) -> None:
        scanner, reply, watch = self._scanner, self._reply, self._watch
        self._exchange.status = 200
        if not reply.started:
            rest = reply.start(200, response.content_type, [*STREAM_HEADERS, *response.headers])
            if rest is not None:
                await rest
        watch.ping = self._ping
        try:
            async with self._ending:
                await response.pump(self._pass_on)
        except (UpstreamFailed, TimeoutError):
            # Behind the terminator, or upstream's own error, only the connection can be lost.
            if not scanner.complete:
                raise
        watch.ping = None
        watch.turn(CLIENT)
        held = scanner.flush()
        if not scanner.complete:
            raise UpstreamFailed("The model's server ended its stream before it was complete.", reason="no [DONE]")
        reply.ended = True
        if (rest := self._write(held, more=False)) is not None:
            await rest

    def _pass_on(self, chunk: bytes, framed: bytes | None = None) -> Rest:
        """One piece, at once where the client keeps up. One clock reading, no task, no copy."""
        watch, scanner = self._watch, self._scanner
        watch.since = watch.now()
        watch.waiting_for = UPSTREAM
        if not self._begun:
            self._exchange.mark_answered()
        out = scanner.feed(chunk)
        if scanner.finished:
            self._ending.reschedule(watch.since + LINGER_SECONDS)
        if not out:
            return None
        rest = self._write(out, framed if out is chunk else None)
        if not self._begun:
            self._begun = True
            self._exchange.mark_first_byte()
        if rest is None:
            return None
        watch.waiting_for = CLIENT
        return self._taken(rest)

    async def _taken(self, rest: Awaitable[None]) -> None:
        """The client has read what there was: from now on it is upstream again that we wait for."""
        await rest
        self._watch.turn(UPSTREAM)

    def _ping(self) -> Rest:
        """A comment, where one may stand: looked at and written in the same moment."""
        if not self._scanner.at_boundary:
            return None
        return self._write(PING)


async def _relay_json(response: BackendResponse, reply: Reply, watch: Watch, meter: Meter, exchange: Exchange) -> None:
    scanner = BodyScanner()
    parts: list[bytes] = []
    size = 0
    while chunk := await response.read():
        watch.turn(UPSTREAM)
        parts.append(scanner.feed(chunk))
        size += len(chunk)
        if size > WHOLE_MAX:
            break
    # Up to here it is read whole before its head goes out, so that a cut one is still a clean 502.
    whole = size <= WHOLE_MAX
    if whole:
        scanner.flush()
    if not size or scanner.cut:
        raise UpstreamFailed("The model's server broke off in the middle of its answer.", reason="half a JSON body")
    meter.scanner = scanner
    exchange.finish_reason = scanner.finish_reason or ""
    if scanner.failed:
        exchange.outcome, exchange.code = "upstream_error", "error in a 200"
    exchange.status = 200
    exchange.mark_answered()
    watch.turn(CLIENT)
    if whole:
        rest = reply.answer(200, response.content_type, response.headers, b"".join(parts))
        exchange.mark_first_byte()
        if rest is not None:
            await rest
        return
    if (rest := reply.start(200, response.content_type, response.headers)) is not None:
        await rest
    exchange.mark_first_byte()
    await _relay_large(response, reply.wire, watch, scanner, b"".join(parts))


async def _relay_opaque(
    response: BackendResponse, reply: Reply, watch: Watch, meter: Meter, exchange: Exchange
) -> None:
    """Sound: there is nothing in it to read, so it is charged by what was asked."""
    exchange.status = 200
    while chunk := await response.read():
        watch.turn(CLIENT)
        if not reply.started:
            exchange.mark_answered()
            if (rest := reply.start(200, response.content_type, response.headers)) is not None:
                await rest
            exchange.mark_first_byte()
            meter.passed()
        if (rest := reply.wire.write(chunk)) is not None:
            await rest
        watch.turn(UPSTREAM)
    if not reply.started:
        raise UpstreamFailed(reason="200 without a body")
    if (rest := reply.wire.write(b"", more=False)) is not None:
        await rest


async def _relay_large(
    response: BackendResponse, wire: Wire, watch: Watch, scanner: BodyScanner, beginning: bytes
) -> None:
    if (rest := wire.write(beginning)) is not None:
        await rest
    watch.turn(UPSTREAM)
    while chunk := await response.read():
        watch.turn(CLIENT)
        if (rest := wire.write(scanner.feed(chunk))) is not None:
            await rest
        watch.turn(UPSTREAM)
    if (rest := wire.write(b"", more=False)) is not None:
        await rest


async def _relay_refusal(
    response: BackendResponse, reply: Reply, watch: Watch, meter: Meter, exchange: Exchange
) -> None:
    """An upstream's 4xx is the client's, and passes as it is; a refusal of our credentials and a 5xx are ours."""
    meter.refused()
    status = response.status
    if status in (503, 529):
        raise UpstreamBusy(retry_after=_seconds(response.headers), reason=str(status))
    ours = status in (401, 403) and exchange.endpoint != EMBEDDED  # a function's refusal is of its caller
    if not 400 <= status < 500 or ours or b"json" not in response.content_type:
        raise UpstreamFailed(f"The model's server answered with status {status}.", reason=f"status {status}")
    body = bytearray()
    while chunk := await response.read():
        watch.turn(UPSTREAM)
        body += chunk
        if len(body) > ERROR_MAX:
            raise UpstreamFailed(reason=f"status {status} with a body above {ERROR_MAX} bytes")
    exchange.outcome, exchange.code = "upstream_refused", str(status)  # and no first byte: nobody waited for a token
    if reply.started:
        exchange.status = 200
        if (rest := reply.wire.write(reply.event_of(bytes(body)), more=False)) is not None:
            await rest
        return
    exchange.status = status
    if (rest := reply.answer(status, response.content_type, response.headers, bytes(body))) is not None:
        await rest


def _seconds(headers: Headers) -> float:
    """An upstream's retry-after; 1 where it gives none or a date."""
    for name, value in headers:
        if name == b"retry-after" and value.isdigit():
            return float(value)
    return 1.0
