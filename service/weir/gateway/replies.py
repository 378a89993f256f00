"""The two ways to fail, and the headers of every answer. Only this file knows both: a status before the first byte,
an error event and the end of the stream after it.
"""

import asyncio
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import orjson

from weir.core.asgi import Headers
from weir.core.errors import ClientGone, GatewayError, UpstreamFailed
from weir.core.operations import CHAT, MESSAGES, RESPONSES, Operation
from weir.core.types import Window
from weir.dialect import anthropic_errors
from weir.gateway.wire import Rest, Wire
from weir.usage.typed_scanner import StreamScanner

JSON = (b"content-type", b"application/json")
EVENTS = b"text/event-stream"
LAST = (b"connection", b"close")
STREAM_HEADERS: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
DEGRADED = (b"x-weir-degraded", b"1")  # Redis is away: this process alone decided
FAREWELL_SECONDS = 5.0
PING = b": ping\n\n"


class Errors(NamedTuple):
    """How a failure is told in the dialect of an operation: a whole answer, or an event and the end of a stream."""

    operation: Operation

    def body(self, error: GatewayError, request_id: str) -> bytes:
        if self.operation.dialect == "anthropic":
            return anthropic_errors.error_body(error.status, error.text, request_id)
        return error_body(error)

    def event(self, body: bytes, request_id: str) -> bytes:
        """An error's body as an event; also an upstream's refusal, where the head of a stream is out already."""
        try:
            said = orjson.loads(body)
        except orjson.JSONDecodeError:
            said = orjson.loads(self.body(UpstreamFailed(), request_id))
        if self.operation is RESPONSES and isinstance(said, dict) and isinstance(said.get("error"), dict):
            # Who reads typed events finds what it looks for, and who looks for `error` too.
            said = {**said["error"], **said, "type": "error", "sequence_number": 0}
        typed = self.operation in (MESSAGES, RESPONSES)
        return (b"event: error\n" if typed else b"") + b"data: " + orjson.dumps(said) + b"\n\n"


OPENAI = Errors(CHAT)
_POLICIES: dict[tuple[str | int, ...], bytes] = {}
_POLICIES_MAX = 10_000


class Reply:
    """What goes back to one client: knows whether the head is out already.

    `base` are the headers of every answer, `limits` those of the caller's limits; `last` asks the client not to use the
    connection again.
    """

    __slots__ = ("base", "ended", "errors", "limits", "request_id", "scanner", "started", "streaming", "wire")

    def __init__(self, wire: Wire, request_id: str, errors: Errors = OPENAI, *, last: bool = False) -> None:
        self.wire = wire
        self.errors = errors
        self.request_id = request_id
        self.base: Headers = [(b"x-request-id", request_id.encode())]
        if errors.operation.dialect == "anthropic":
            self.base.append((b"request-id", request_id.encode()))  # where Anthropic's clients look
        if last:
            self.base.append(LAST)
        self.started = False
        self.ended = False  # the last byte is written, and may wait for the client
        self.streaming = False
        self.limits: Headers = []
        self.scanner: StreamScanner | None = None

    @property
    def delivered(self) -> bool:
        """The client has the whole stream, its terminator included."""
        return self.scanner is not None and self.scanner.finished

    def start(self, status: int, content_type: bytes, headers: Headers) -> Rest:
        self.started = True
        return self.wire.start(status, [(b"content-type", content_type), *headers, *self.limits, *self.base])

    def answer(self, status: int, content_type: bytes, headers: Headers, body: bytes) -> Rest:
        """All of it at once."""
        self.started = True
        return self.wire.answer(status, [(b"content-type", content_type), *headers, *self.limits, *self.base], body)

    def begin_early(self) -> Rest:
        """Into the silence of a long prefill: first the head of a stream, then comments.

        From here on, a failure is an event.
        """
        if self.started:
            return self.wire.write(PING)
        self.streaming = True
        return self.start(200, EVENTS, STREAM_HEADERS)

    def event_of(self, body: bytes) -> bytes:
        """An error's JSON body as an event of this stream."""
        return self.errors.event(body, self.request_id)

    async def fail(self, error: GatewayError, windows: Sequence[Window]) -> None:
        """Whichever way is still open; bounded in time, because the client may be the one that does not read."""
        if isinstance(error, ClientGone) or self.ended or (self.started and not self.streaming):
            # A JSON answer that broke off cannot be mended, and the client must not think it whole.
            self.wire.cut()
            return
        rest = self._end_stream(error) if self.started else self._refuse(error, windows)
        if rest is None:
            return
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await rest
        except TimeoutError:
            self.wire.cut()

    def _end_stream(self, error: GatewayError) -> Rest:
        if self.delivered:
            return self.wire.write(b"", more=False)
        # A blank line first where an event is half out, or ours would be read as a part of it.
        head = b"\n\n" if self.scanner is not None and self.scanner.half_out else b""
        return self.wire.write(head + self.event_of(self.errors.body(error, self.request_id)), more=False)

    def _refuse(self, error: GatewayError, windows: Sequence[Window]) -> Rest:
        headers = retry_headers(error)
        if windows:
            self.limits = limit_headers(windows)
        if error.status in (400, 408, 413, 431) and LAST not in self.base:
            headers.append(LAST)  # what is left of the request is not worth reading
        return self.answer(error.status, JSON[1], headers, self.errors.body(error, self.request_id))


def error_body(error: GatewayError) -> bytes:
    """OpenAI's error object."""
    return orjson.dumps(
        {"error": {"message": error.text, "type": error.type, "param": error.param, "code": error.code}}
    )


def retry_headers(error: GatewayError) -> Headers:
    """`retry-after` in whole seconds, rounded up, and `retry-after-ms`; `x-should-retry` where retrying cannot help.

    The official SDKs otherwise wait as long as they are told, or give up silently above 120 s.
    """
    headers: Headers = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(ceil(error.retry_after), 1)))
        headers.append((b"retry-after-ms", b"%d" % max(ceil(error.retry_after * 1000), 1)))
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    return headers


def limit_headers(windows: Sequence[Window]) -> Headers:
    """OpenAI's x-ratelimit-* for whichever of key and team has less left, and the IETF draft's fields for all.

    draft-ietf-httpapi-ratelimit-headers-10: RateLimit-Policy (q quota, w window in seconds) and RateLimit (r remaining,
    t seconds until it is full). Limits in shadow are not promised to anybody. Concurrency is a number of places and has
    no window, so it is not in these fields.
    """
    requests = tokens = None
    states: list[str] = []
    shape: list[str | int] = []
    for window in windows:
        scope, unit, limit, remaining, seconds, reset, shadow = window
        if shadow or not seconds:
            continue
        shape += (scope, unit, limit, seconds)
        states.append(f'"{scope}-{unit}";r={max(0, remaining)};t={ceil(reset)}')
        if unit == "requests":
            if requests is None or remaining < requests.remaining:
                requests = window
        elif tokens is None or remaining < tokens.remaining:
            tokens = window
    if not states:
        return []
    headers: Headers = [(b"ratelimit-policy", _policy(tuple(shape))), (b"ratelimit", ", ".join(states).encode())]
    if requests is not None:
        _, _, limit, remaining, _, reset, _ = requests
        headers += (
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % max(remaining, 0)),
            (b"x-ratelimit-reset-requests", duration(reset)),
        )
    if tokens is not None:
        _, _, limit, remaining, _, reset, _ = tokens
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % max(remaining, 0)),
            (b"x-ratelimit-reset-tokens", duration(reset)),
        )
    return headers


def duration(seconds: float) -> bytes:
    """As OpenAI writes it: `12ms`, `1s`, `6m0s`, `1h2m3s`; rounded up, so that whoever waits so long is right."""
    if seconds < 1:
        return b"%dms" % ceil(seconds * 1000)
    whole = ceil(seconds)
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return b"%ds" % rest
    hours, minutes = divmod(minutes, 60)
    return b"%dh%dm%ds" % (hours, minutes, rest) if hours else b"%dm%ds" % (minutes, rest)


def _policy(shape: tuple[str | int, ...]) -> bytes:
    """Kept: a caller's limits rarely change. The draft asks for a Structured Field list of strings with parameters.

    `shape` is scope, unit, limit and seconds of each window in turn.
    """
    known = _POLICIES.get(shape)
    if known is None:
        if len(_POLICIES) >= _POLICIES_MAX:
            _POLICIES.clear()
        fields = [iter(shape)] * 4
        known = ", ".join(
            f'"{scope}-{unit}";q={limit};w={w}' for scope, unit, limit, w in zip(*fields, strict=True)
        ).encode()
        _POLICIES[shape] = known
    return known
