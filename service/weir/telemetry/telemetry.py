"""The room's door: reads a finished exchange once, into one log line and a few metrics."""

from collections.abc import Mapping
from typing import Any

import structlog

from weir.core.exchange import Exchange
from weir.telemetry.logs import where
from weir.telemetry.metrics import Metrics


class Telemetry:
    """Never raises into a request."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._log: Any = structlog.get_logger()

    def begin(self, exchange: Exchange) -> None:  # noqa: ARG002 - spans will begin here
        self.metrics.in_flight.inc()

    def record(self, exchange: Exchange) -> None:
        """The one line and the few numbers of a finished request."""
        self.metrics.in_flight.dec()
        self.metrics.record(exchange)
        principal = exchange.principal
        first = exchange.first_byte
        line: dict[str, Any] = {
            "event": "request",
            "request_id": exchange.request_id,
            "trace_id": exchange.trace_id or None,
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
            line["attempts"] = exchange.attempts
        if exchange.queued > 0.001:
            line["queued_ms"] = round(exchange.queued * 1000, 3)
        if exchange.code:
            line["code"] = exchange.code
        if exchange.reason:
            line["reason"] = exchange.reason
        if exchange.finish_reason:
            line["finish_reason"] = exchange.finish_reason
        if exchange.shadow_refusals:
            line["shadow_refusals"] = exchange.shadow_refusals
        self._log.whole(line)

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
        self.metrics.upstream_events.labels(model, endpoint, event).inc()
        if event == "ejected":
            self._log.warning("endpoint ejected", **fields)
        elif event == "restored":
            self._log.info("endpoint restored", **fields)

    def note(self, event: str, **fields: object) -> None:
        """A change of state of the process: started, draining, stopped."""
        self._log.info(event, **fields)

    def warn(self, event: str, **fields: object) -> None:
        self._log.warning(event, **fields)
