"""One request and its answer: the one mutable record, written by the conductor, read once by telemetry at the end."""

from dataclasses import dataclass, field
from time import perf_counter

from weir.core.types import Principal, TokensFrom


@dataclass(slots=True)
class Exchange:
    """Times are `perf_counter` seconds; 0.0 means that it never came to that.

    `sent` is when upstream had the request, `answered` when the first byte of its answer was here (of a JSON answer the
    last), `first_byte` when that was out. Overhead, our time alone, is what lies between `started` and `sent`, less the
    wait for a place, and between `answered` and `first_byte`.
    """

    request_id: str
    operation: str
    client: str = ""  # its address
    trace_id: str = ""
    started: float = field(default_factory=perf_counter)
    principal: Principal | None = None
    model: str = ""
    endpoint: str = ""
    attempts: list[tuple[str, str]] = field(default_factory=list)  # URLs that were asked, each with what came of it
    streaming: bool = False
    status: int = 0
    outcome: str = "ok"
    code: str = ""
    reason: str = ""
    queued: float = 0.0  # seconds that it waited for a place
    sent: float = 0.0
    answered: float = 0.0
    first_byte: float = 0.0
    ended: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    reserved_tokens: int = 0
    estimated_input: int = 0
    tokens_from: TokensFrom = "none"
    limit: str = ""  # the one that refused, as "key tokens"
    shadow_refusals: tuple[str, ...] = ()
    finish_reason: str = ""

    def mark_answered(self) -> None:
        self.answered = perf_counter()

    def mark_first_byte(self) -> None:
        self.first_byte = perf_counter()

    @property
    def duration(self) -> float:
        return self.ended - self.started

    @property
    def overhead(self) -> float:
        """Seconds spent in the gateway itself, Redis included, up to the first byte out."""
        if not self.sent:
            return self.ended - self.started
        inbound = self.sent - self.started - self.queued
        outbound = self.first_byte - self.answered if self.first_byte and self.answered else 0.0
        return inbound + max(outbound, 0.0)
