"""Traces (opentelemetry-sdk): one span for a request, one for its limits, one for each sending to a model's server.

Spans are made from the finished record, with ids that were drawn while it ran: a request that is not sampled costs one
comparison, nothing is held across an `await`, and no context is attached or detached.
"""

from typing import Protocol

from weir.core.asgi import Headers
from weir.core.exchange import Attempt, Exchange, Trace


class Tracing(Protocol):
    """See the module."""

    def begin(self, parent: bytes | None, state: bytes | None) -> Trace: ...
    def headers(self, trace: Trace, attempt: Attempt) -> Headers: ...
    def record(self, exchange: Exchange) -> None: ...
    def close(self) -> None: ...
