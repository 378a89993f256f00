"""One request and its answer: the one mutable record, written on its way through `gateway`, read once at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from weir.core.types import Principal, TokensFrom, Usage, Window


class Listener(Protocol):
    """Hears a request and its answer as they pass, where a trace is to hold them. Never fails, and keeps little."""

    def asked(self, operation: str, body: bytes) -> None: ...
    def said(self, chunk: bytes) -> None: ...


@dataclass(slots=True)
class Trace:
    """Where a request stands in a trace (W3C Trace Context): ids in hexadecimal, 32 digits and 16.

    `parent` is the caller's traceparent and `state` its tracestate, None where the trace begins here. Where nothing is
    traced, `span_id` is "", and so is `trace_id` if the caller traces nothing either.
    """

    trace_id: str
    span_id: str = ""
    parent: bytes | None = None
    state: bytes | None = None
    sampled: bool = False
    listener: Listener | None = None


@dataclass(slots=True)
class Attempt:
    """One sending to one endpoint. `model` is its route's, which may be a fallback's, `upstream_model` what that is
    called there; times are `perf_counter` seconds.

    `result` says what came of it: "ok", a status, or a word for what went wrong; "" while it is under way.
    """

    endpoint: str
    model: str
    began: float
    ended: float = 0.0
    result: str = ""
    status: int = 0
    span_id: str = ""
    request_bytes: int = 0  # of the body that went there
    upstream_model: str = ""
    provider: str = "openai"


@dataclass(slots=True)
class Exchange:
    """Times are `perf_counter` seconds; 0.0 means that it never came to that.

    `reading` is when its body was begun to read and `read` when that was done; `asked` when the limits were asked,
    `admitted` when they said yes, `sent` when upstream had the request, `answered` when the first byte of its answer
    was here (of a JSON answer the last), `first_byte` when that was out.
    Overhead, our time alone, is what lies between `started` and `sent`, less the waits for its body and for a place,
    and between `answered` and `first_byte`.
    """

    request_id: str
    operation: str
    client: str = ""  # its address
    path: str = ""
    trace: Trace | None = None
    started: float = field(default_factory=perf_counter)
    principal: Principal | None = None
    model: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    streaming: bool = False
    status: int = 0
    outcome: str = "ok"
    code: str = ""
    reason: str = ""
    reading: float = 0.0
    read: float = 0.0
    asked: float = 0.0
    admitted: float = 0.0
    queued: float = 0.0  # seconds that it waited for a place
    sent: float = 0.0
    answered: float = 0.0
    first_byte: float = 0.0
    ended: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # of the input
    reasoning_tokens: int = 0  # of the output
    cost: float = 0.0  # US dollars
    reserved_tokens: int = 0
    estimated_input: int = 0
    tokens_from: TokensFrom = "none"
    degraded: bool = False  # admitted by local limits
    limit: str = ""  # the one that refused, as "key tokens"
    shadow_refusals: tuple[str, ...] = ()
    finish_reason: str = ""
    windows: Sequence[Window] = ()  # the limits as they stood; kept only where its details are wanted

    def mark_reading(self) -> None:
        self.reading = perf_counter()

    def mark_read(self) -> None:
        self.read = perf_counter()

    def mark_asked(self) -> None:
        self.asked = perf_counter()

    def mark_admitted(self, reserved_tokens: int, shadow_refusals: tuple[str, ...], *, degraded: bool) -> None:
        self.admitted = perf_counter()
        self.reserved_tokens, self.shadow_refusals, self.degraded = reserved_tokens, shadow_refusals, degraded

    def mark_placed(self, *, waited: bool) -> None:
        """It has a place with the model."""
        if waited:
            self.queued = perf_counter() - self.admitted

    def mark_used(self, usage: Usage) -> None:
        self.input_tokens, self.output_tokens, self.cached_tokens, self.reasoning_tokens = usage

    def mark_answered(self) -> None:
        self.answered = perf_counter()

    def mark_first_byte(self) -> None:
        self.first_byte = perf_counter()

    @property
    def endpoint(self) -> str:
        """Where it was sent last."""
        return self.attempts[-1].endpoint if self.attempts else ""

    @property
    def fell_back(self) -> bool:
        """Another model than the one that was asked for was sent to last."""
        return bool(self.attempts) and self.attempts[-1].model != self.model

    @property
    def duration(self) -> float:
        return self.ended - self.started

    @property
    def overhead(self) -> float:
        """Seconds spent in the gateway itself, Redis included, up to the first byte out."""
        body = (self.read or self.ended) - self.reading if self.reading else 0.0
        if not self.sent:
            # Who was admitted and not sent has waited for a place since.
            return (self.admitted or self.ended) - self.started - body
        inbound = self.sent - self.started - self.queued - body
        outbound = self.first_byte - self.answered if self.first_byte and self.answered else 0.0
        return inbound + max(outbound, 0.0)
