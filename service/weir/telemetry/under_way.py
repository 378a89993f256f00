"""Requests under way in this process, as a person wants to see them: who, what, since when, and how far it has come."""

import os
from collections.abc import Mapping
from heapq import nsmallest
from time import perf_counter
from typing import Any

from weir.core.exchange import Exchange


class UnderWay:
    """`live` is Telemetry's. `processes` tells the reader how much of the whole one process can know of."""

    def __init__(self, live: Mapping[int, Exchange], processes: int = 1) -> None:
        self._live = live
        self._processes = processes

    def __call__(self, limit: int) -> dict[str, Any]:
        """The oldest `limit` of them, oldest first."""
        now = perf_counter()
        oldest = nsmallest(limit, self._live.values(), key=lambda exchange: exchange.started)
        return {
            "pid": os.getpid(),
            "processes": self._processes,
            "count": len(self._live),
            "requests": [one_of(exchange, now) for exchange in oldest],
        }


def one_of(exchange: Exchange, now: float) -> dict[str, Any]:
    principal = exchange.principal
    return {
        "request_id": exchange.request_id,
        "team": principal.team if principal else None,
        "key_id": principal.key_id if principal else None,
        "model": exchange.model or None,
        "endpoint": exchange.endpoint or None,
        "operation": exchange.operation,
        "streaming": exchange.streaming,
        "phase": phase(exchange),
        "age_seconds": round(now - exchange.started, 3),
        "time_to_first_token": round(exchange.first_byte - exchange.started, 3) if exchange.first_byte else None,
    }


def phase(exchange: Exchange) -> str:
    """What it waits for: its key's look-up, its own body, its limits, a place, the model; then both sides."""
    if exchange.first_byte:
        return "streaming"
    if exchange.sent:
        return "upstream"
    if exchange.admitted:
        return "queued"
    if exchange.asked:
        return "admission"
    return "reading" if exchange.principal is not None else "authenticating"
