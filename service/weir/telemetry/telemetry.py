"""The room's door: reads a finished exchange once, into one log line, a few metrics, and the spans of a trace."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any

import structlog

from weir.core.asgi import Headers
from weir.core.exchange import Attempt, Exchange, Trace
from weir.core.types import Endpoint, Window
from weir.telemetry.levels import Change, Level, Levels, as_fields, details, shows
from weir.telemetry.logs import count_dropped, where
from weir.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from weir.telemetry.tracing import Tracing  # a tenth of a second and 20 MB, for whoever wants traces

LAG_SECONDS = 0.25  # between two looks at how late the loop is
# Finished requests are written down together: one by one it costs three times as much, because nothing of it is in the
# processor's caches by then. So many take the loop for half a millisecond.
RECORD_SECONDS, RECORD_MAX = 0.05, 32


class Telemetry:
    """Never raises into a request. `live` are the requests under way."""

    def __init__(self, metrics: Metrics, tracing: "Tracing | None" = None, levels: Levels | None = None) -> None:
        self.metrics = metrics
        self.levels = levels or Levels()
        self.live: dict[int, Exchange] = {}
        self._tracing = tracing
        self._log: Any = structlog.get_logger()
        self._endpoints: set[tuple[str, str]] = set()
        self._finished: list[Exchange] = []
        count_dropped(metrics.log_dropped.inc)

    def begin(self, exchange: Exchange) -> None:
        self.live[id(exchange)] = exchange

    def trace(self, parent: bytes | None, state: bytes | None) -> Trace:
        """A request's place in its trace, from the caller's traceparent and tracestate, which are well-formed."""
        if self._tracing is not None:
            return self._tracing.begin(parent, state)
        return Trace(parent[3:35].decode() if parent else "", parent=parent, state=state)

    def headers(self, trace: Trace, attempt: Attempt) -> Headers:
        """What tells the upstream of this attempt where it stands; without tracing of ours the caller's own words."""
        if self._tracing is not None:
            return self._tracing.headers(trace, attempt)
        if trace.parent is None:
            return []
        headers = [(b"traceparent", trace.parent)]
        return headers if trace.state is None else [*headers, (b"tracestate", trace.state)]

    def instrument(self, app: Any) -> None:
        """Spans of a FastAPI application's own requests, where there are traces at all."""
        if self._tracing is not None:
            self._tracing.instrument(app)

    def stand(self, exchange: Exchange, windows: Sequence[Window]) -> None:
        """How the limits of its caller stood just now."""
        principal = exchange.principal
        if windows and principal is not None:
            self.metrics.stand(principal, windows)
            if not self.levels.plain and self.levels.of(principal) == "debug":
                exchange.windows = windows

    def record(self, exchange: Exchange) -> None:
        """A request is finished: its one line, its few numbers and its spans are written within RECORD_SECONDS."""
        self.live.pop(id(exchange), None)
        self._finished.append(exchange)
        if len(self._finished) >= RECORD_MAX:
            self.catch_up()
        elif len(self._finished) == 1:
            try:
                asyncio.get_running_loop().call_later(RECORD_SECONDS, self.catch_up)
            except RuntimeError:  # outside of a loop nothing waits
                self.catch_up()

    def catch_up(self) -> None:
        """Write down what is finished; in the loop's thread. Whoever reads the metrics calls it first."""
        finished, self._finished = self._finished, []
        to_wall = datetime.now(UTC).timestamp() - perf_counter()
        self.metrics.record(*finished)
        for exchange in finished:
            self._write(exchange, to_wall)
        self.metrics.in_flight.set(len(self.live))

    def _write(self, exchange: Exchange, to_wall: float) -> None:
        if self._tracing is not None:
            self._tracing.record(exchange)
        level: Level = "info" if self.levels.plain else self.levels.of(exchange.principal)
        if level == "info" or shows(level, exchange):
            self._log.whole(_line(exchange, to_wall))
        if level == "debug":
            self._log.whole(details(exchange), "debug")

    def report(self, bug: Exception, exchange: Exchange) -> None:
        """A bug of ours: where it was, and of what kind. Its text may quote the request, so it is not logged."""
        self._log.error("bug", request_id=exchange.request_id, kind=type(bug).__name__, where=where(bug))

    def redis_changed(self, up: bool, why: str) -> None:  # noqa: FBT001 - a callback's form
        """Once per change of state."""
        self.metrics.degraded.set(0 if up else 1)
        if up:
            self._log.info("redis is there")
        else:
            self._log.error("redis is away", why=why)

    def reloaded(self, needs_restart: list[str]) -> None:
        """A new configuration is live; `needs_restart` names what of it is not."""
        self.metrics.generation.inc()
        self._log.info("configuration reloaded", needs_restart=needs_restart or None)

    def reload_refused(self, problems: list[str]) -> None:
        self.metrics.reload_failures.inc()
        self._log.error("configuration refused; the last good one stays", problems=problems)

    def upstream(self, event: str, fields: Mapping[str, object]) -> None:
        """A retry or fallback is only counted; an endpoint's change of state is logged too."""
        model, endpoint = str(fields.get("model", "")), str(fields.get("endpoint", ""))
        self.metrics.upstream_events(model, endpoint, event).inc()
        if event == "ejected":
            self._log.warning("endpoint ejected", **fields)
        elif event == "restored":
            self._log.info("endpoint restored", **fields)

    def show_endpoints(self, endpoints: Iterable[Endpoint]) -> None:
        """The state of those that there are now; of others nothing is said any more."""
        metrics, now = self.metrics, set[tuple[str, str]]()
        for endpoint in endpoints:
            labels = (endpoint.model, endpoint.url)
            now.add(labels)
            metrics.ejected(*labels).set(endpoint.ejected)
            metrics.endpoint_in_flight(*labels).set(endpoint.in_flight)
        if now != self._endpoints:
            metrics.keep_endpoints(now)
            self._endpoints = now

    async def watch_loop(self) -> None:
        """For ever: how late the loop wakes whoever waits."""
        while True:
            due = perf_counter() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.metrics.loop_lag.observe(max(perf_counter() - due, 0.0))

    def level_changed(self, change: Change) -> None:
        """Whatever the level of the process is: who reads fewer lines from now on should know."""
        fields = as_fields(change)
        self._log.whole({"event": "log level set" if change.now else "log level ended", **fields})

    def draining(self, in_flight: int) -> None:
        self.metrics.draining.set(1)
        self.note("draining", in_flight=in_flight)

    def close(self) -> None:
        """Spans that are finished go out, within a bound."""
        if self._tracing is not None:
            self._tracing.close()

    def note(self, event: str, **fields: object) -> None:
        """A change of state of the process: started, draining, stopped."""
        self._log.info(event, **fields)

    def warn(self, event: str, **fields: object) -> None:
        self._log.warning(event, **fields)


def _line(exchange: Exchange, to_wall: float) -> dict[str, Any]:
    """The one line of a request; what stands behind the tokens only where there is something to say."""
    principal, first, trace = exchange.principal, exchange.first_byte, exchange.trace
    line: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(exchange.ended + to_wall, UTC),
        "event": "request",
        "request_id": exchange.request_id,
        "trace_id": (trace.trace_id or None) if trace else None,
        "team": principal.team if principal else None,
        "key_id": principal.key_id if principal else None,
        "client": exchange.client or None,
        "operation": exchange.operation,
        "model": exchange.model or None,
        "endpoint": exchange.endpoint or None,
        "stream": exchange.streaming,
        "status": exchange.status,
        "outcome": exchange.outcome,
        "ttft_ms": round((first - exchange.started) * 1000, 3) if first else None,
        "duration_ms": round(exchange.duration * 1000, 3),
        "overhead_ms": round(exchange.overhead * 1000, 3),
        "input_tokens": exchange.input_tokens,
        "output_tokens": exchange.output_tokens,
        "tokens_from": exchange.tokens_from,
    }
    if len(exchange.attempts) > 1:
        line["attempts"] = [(attempt.endpoint, attempt.result) for attempt in exchange.attempts]
    if exchange.queued:
        line["queued_ms"] = round(exchange.queued * 1000, 3)
    for name in ("code", "reason", "finish_reason", "shadow_refusals"):
        if said := getattr(exchange, name):
            line[name] = said
    return line
