"""Traces (opentelemetry-sdk): one span for a request, one for its limits, one for each sending to a model's server.

Spans are made from the finished record, with ids that were drawn while it ran: a request that is not sampled costs one
comparison, nothing is held across an `await`, and no context is attached or detached. Only whoever wants traces imports
this module: it costs a tenth of a second and 20 MB.
"""

import os
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from random import getrandbits
from time import perf_counter, time_ns
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.propagate import set_global_textmap
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from weir import __version__
from weir.core.asgi import Headers
from weir.core.exchange import Attempt, Exchange, Trace
from weir.telemetry import conventions as names
from weir.telemetry.content import Content
from weir.telemetry.conventions import CONVENTIONS, Semconv
from weir.telemetry.export import (
    BATCH,
    BATCH_WITH_CONTENT,
    WAITING_MAX,
    WAITING_MAX_WITH_CONTENT,
    Export,
    Processor,
)

CLOSE_SECONDS = 3.0
NOT_TRACED = "/livez$,/readyz$,/metrics$"  # asked for ever, and they say nothing
_LOW = TraceIdRatioBased.TRACE_ID_LIMIT
_NOTHING = Context()

Attributes = dict[str, AttributeValue]


class Tracing:
    """`count` gives the counter for what became of a span: exported, failed, dropped.

    `sample` is the share of traces that are kept, of those that begin here; a caller's own choice stands. Where callers
    are not trusted every trace begins here: who may choose can fill the collector, and crowd out what others look for.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        count: Callable[[str], Any],
        *,
        sample: float,
        trust_callers: bool = True,
        capture_content: bool = False,
        semconv: Semconv = "v1.41",
    ) -> None:
        waiting_max = WAITING_MAX_WITH_CONTENT if capture_content else WAITING_MAX
        batch = BATCH_WITH_CONTENT if capture_content else BATCH
        self._bound = TraceIdRatioBased.get_bound_for_rate(sample)
        self._trust_callers = trust_callers
        self._capture_content = capture_content
        self._conventions = CONVENTIONS[semconv]
        self._ids = _Ids()
        self._export = Export(exporter, count, waiting_max)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=_resource(),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(Processor(self._export, count, waiting_max=waiting_max, batch=batch))
        self._tracer = self._provider.get_tracer("weir", __version__, self._conventions.schema_url)

    def begin(self, parent: bytes | None, state: bytes | None) -> Trace:
        """A request's place in its trace: the caller's, or a new one. Sampled by the SDK's own rule."""
        span_id = f"{getrandbits(64) or 1:016x}"
        if parent is None or not self._trust_callers:
            drawn = getrandbits(128) or 1
            trace = Trace(f"{drawn:032x}", span_id, sampled=drawn & _LOW < self._bound)
        else:
            sampled = int(parent[53:55], 16) & TraceFlags.SAMPLED != 0
            trace = Trace(parent[3:35].decode(), span_id, parent, state, sampled)
        if trace.sampled and self._capture_content:
            trace.listener = Content()
        return trace

    def headers(self, trace: Trace, attempt: Attempt) -> Headers:
        """What tells the upstream of this attempt where it stands."""
        attempt.span_id = f"{getrandbits(64) or 1:016x}"
        line = f"00-{trace.trace_id}-{attempt.span_id}-0{trace.sampled:d}"
        if trace.state is None:
            return [(b"traceparent", line.encode())]
        return [(b"traceparent", line.encode()), (b"tracestate", trace.state)]

    def record(self, exchange: Exchange) -> None:
        """All spans of a finished request, if it is sampled."""
        trace = exchange.trace
        if trace is not None and trace.sampled:
            _Record(self._tracer.start_span, self._ids, self._conventions, exchange, trace).write()

    def instrument(self, app: Any) -> None:
        """Spans of a FastAPI application too; without those of each message, which cost eight times as much CPU."""
        # Read once by the instrumentation: without it, it would still speak the names of before 2023.
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        if not self._trust_callers:
            set_global_textmap(CompositePropagator([]))  # the instrumentation asks no other
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=NOT_TRACED,
            exclude_spans=["send", "receive"],
            server_request_hook=_without_query,
        )

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """What waits goes out, for at most so long; where nobody is there, it is lost at once."""
        if self._export.away:
            self._export.shutdown()  # ends its pause before the next try
        # The SDK would wait for half a minute for a collector that hangs.
        closing = threading.Thread(target=self._provider.shutdown, name="weir spans", daemon=True)
        closing.start()
        closing.join(seconds)


def _without_query(span: Span, _: Mapping[str, Any]) -> None:
    """Nothing on that side reads a query, and somebody may put a key there."""
    if span.is_recording():
        span.set_attribute(names.URL_QUERY, "")


class _Ids(RandomIdGenerator):
    """Hands out what was drawn while the request ran; something random where nothing was, as for the FastAPI side.

    Both make their spans in the loop's thread, so that nobody comes between the giving and the taking.
    """

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        given, self.trace_id = self.trace_id, 0
        return given or super().generate_trace_id()

    def generate_span_id(self) -> int:
        given, self.span_id = self.span_id, 0
        return given or super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        return False  # it is, but our traceparent has the flags of W3C's level 1 alone


class _Record:
    """One finished request as spans."""

    def __init__(
        self,
        start_span: Callable[..., Span],
        ids: _Ids,
        conventions: names.Conventions,
        exchange: Exchange,
        trace: Trace,
    ) -> None:
        self._start_span = start_span
        self._ids = ids
        self._conventions = conventions
        self._exchange = exchange
        self._trace = trace
        self._to_wall = time_ns() - int(perf_counter() * 1e9)

    def write(self) -> None:
        exchange = self._exchange
        inside = set_span_in_context(self._server(), _NOTHING)
        if exchange.asked:
            self._admission(inside)
        if exchange.admitted and (exchange.queued or not exchange.attempts):
            self._queue(inside)
        for number, attempt in enumerate(exchange.attempts):
            self._attempt(number, attempt, inside)

    def _server(self) -> Span:
        exchange, principal = self._exchange, self._exchange.principal
        attributes: Attributes = {
            names.HTTP_REQUEST_METHOD: "POST",
            names.HTTP_ROUTE: exchange.path,
            names.URL_PATH: exchange.path,
            names.URL_SCHEME: "http",  # who speaks TLS stands before us
            names.WEIR_REQUEST_ID: exchange.request_id,
            names.WEIR_OUTCOME: exchange.outcome,
            names.WEIR_DEGRADED: exchange.degraded,
        }
        if exchange.client:
            attributes[names.CLIENT_ADDRESS] = exchange.client
        if principal is not None:
            attributes[names.WEIR_TEAM], attributes[names.WEIR_KEY_ID] = principal.team, principal.key_id
        if exchange.model:
            attributes[names.WEIR_MODEL] = exchange.model
        if exchange.cost:
            attributes[names.WEIR_COST] = exchange.cost
        answered = exchange.status not in (0, 499)  # nobody heard those two
        if answered:
            attributes[names.HTTP_RESPONSE_STATUS_CODE] = exchange.status
        error = exchange.outcome if exchange.outcome != "ok" else ""
        # HTTP's conventions: a 4xx is the caller's error and not this span's; an answer that broke off is ours.
        failed = bool(error) and not (answered and 400 <= exchange.status < 500)
        self._ids.trace_id, self._ids.span_id = int(self._trace.trace_id, 16), int(self._trace.span_id, 16)
        span = self._span(
            f"POST {exchange.path}", SpanKind.SERVER, self._parent(), exchange.started, attributes, error, failed=failed
        )
        self._ids.trace_id = 0  # not asked for where there is a parent
        self._end(span, exchange.ended)
        return span

    def _admission(self, inside: Context) -> None:
        exchange = self._exchange
        attributes: Attributes = {names.WEIR_DEGRADED: exchange.degraded}
        if exchange.limit:
            attributes[names.WEIR_LIMIT] = exchange.limit
        if exchange.shadow_refusals:
            attributes[names.WEIR_SHADOW_REFUSALS] = exchange.shadow_refusals
        error = "" if exchange.admitted else exchange.outcome
        failed = bool(error) and exchange.status >= 500
        span = self._span("admission", SpanKind.INTERNAL, inside, exchange.asked, attributes, error, failed=failed)
        self._end(span, exchange.admitted or exchange.ended)

    def _queue(self, inside: Context) -> None:
        """The wait for a place; whoever was never sent waited until the end."""
        exchange = self._exchange
        error = "" if exchange.attempts else exchange.outcome
        span = self._span("queue", SpanKind.INTERNAL, inside, exchange.admitted, {}, error, failed=bool(error))
        self._end(span, exchange.admitted + exchange.queued if exchange.attempts else exchange.ended)

    def _attempt(self, number: int, attempt: Attempt, inside: Context) -> None:
        exchange = self._exchange
        last = number == len(exchange.attempts) - 1
        server = _server_of(attempt.endpoint)
        model = attempt.upstream_model or attempt.model
        operation = names.OPERATION_NAMES.get(exchange.operation, exchange.operation)
        attributes: Attributes = {
            names.GEN_AI_OPERATION_NAME: operation,
            # By the conventions, which dialect this is and not whose model answers.
            names.GEN_AI_PROVIDER_NAME: attempt.provider if server else "weir",
            names.GEN_AI_REQUEST_MODEL: model,
            names.GEN_AI_REQUEST_STREAM: exchange.streaming,
            **server,
        }
        if number:
            attributes[names.HTTP_REQUEST_RESEND_COUNT] = number
        if attempt.status:
            attributes[names.HTTP_RESPONSE_STATUS_CODE] = attempt.status
        error = attempt.result or "left"
        if error == "ok":
            error = exchange.outcome if last and exchange.outcome != "ok" else ""
        if last:
            attributes |= self._answer(attempt)
        self._ids.span_id = int(attempt.span_id or "0", 16)
        kind = SpanKind.CLIENT if server else SpanKind.INTERNAL  # in this very process
        name = f"{operation} {model}"
        span = self._span(name, kind, inside, attempt.began, attributes, error, failed=bool(error))
        if last and exchange.streaming and exchange.first_byte:
            span.add_event(names.FIRST_TOKEN, timestamp=self._wall(exchange.first_byte))
        self._end(span, attempt.ended or exchange.ended)

    def _answer(self, attempt: Attempt) -> Attributes:
        """What is known of the answer that the last attempt gave."""
        exchange = self._exchange
        attributes: Attributes = {}
        if exchange.tokens_from != "none":
            attributes[names.WEIR_TOKENS_FROM] = exchange.tokens_from
            attributes[names.GEN_AI_USAGE_INPUT_TOKENS] = exchange.input_tokens
            attributes[names.GEN_AI_USAGE_OUTPUT_TOKENS] = exchange.output_tokens
        if exchange.cached_tokens:
            attributes[names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS] = exchange.cached_tokens
        if exchange.reasoning_tokens:
            attributes[names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS] = exchange.reasoning_tokens
        if exchange.finish_reason:
            attributes[names.GEN_AI_RESPONSE_FINISH_REASONS] = (exchange.finish_reason,)
        if exchange.streaming and exchange.answered:
            attributes[names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK] = exchange.answered - attempt.began
        return attributes | self._content()

    def _content(self) -> Attributes:
        """What was asked and said, where that is kept."""
        content = self._trace.listener
        if not isinstance(content, Content):
            return {}
        with_reason = self._conventions.messages_have_finish_reason
        kept = {
            names.GEN_AI_SYSTEM_INSTRUCTIONS: content.instructions(),
            names.GEN_AI_INPUT_MESSAGES: content.question(),
            names.GEN_AI_OUTPUT_MESSAGES: content.answer(with_finish_reason=with_reason),
        }
        attributes: Attributes = {name: text for name, text in kept.items() if text is not None}
        if content.cut:
            attributes[names.WEIR_CONTENT_CUT] = True
        return attributes

    def _span(
        self,
        name: str,
        kind: SpanKind,
        context: Context,
        began: float,
        attributes: Attributes,
        error: str,
        *,
        failed: bool,
    ) -> Span:
        if error:
            attributes[names.ERROR_TYPE] = error
        start = self._wall(began)
        span = self._start_span(name, context=context, kind=kind, attributes=attributes, start_time=start)
        if failed:
            span.set_status(StatusCode.ERROR)
        return span

    def _end(self, span: Span, ended: float) -> None:
        span.end(self._wall(ended))

    def _wall(self, seconds: float) -> int:
        """perf_counter's seconds as nanoseconds since 1970."""
        return int(seconds * 1e9) + self._to_wall

    def _parent(self) -> Context:
        parent, state = self._trace.parent, self._trace.state
        if parent is None:
            return _NOTHING
        context = SpanContext(
            int(parent[3:35], 16),
            int(parent[36:52], 16),
            is_remote=True,
            trace_flags=TraceFlags(TraceFlags.SAMPLED),
            trace_state=TraceState.from_header([state.decode("latin-1")]) if state is not None else None,
        )
        return set_span_in_context(NonRecordingSpan(context), _NOTHING)


@lru_cache(maxsize=1000)
def _server_of(endpoint: str) -> Mapping[str, AttributeValue]:
    """Nothing for a model that is embedded."""
    url = urlsplit(endpoint)
    if not url.hostname:
        return {}
    return {
        names.SERVER_ADDRESS: url.hostname,
        names.SERVER_PORT: url.port or (443 if url.scheme == "https" else 80),
    }


def _resource() -> Resource:
    """Who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win."""
    ours = Resource(
        {
            names.SERVICE_NAME: "weir",
            names.SERVICE_VERSION: __version__,
            names.SERVICE_INSTANCE_ID: str(uuid4()),
        }
    )
    # `create` lets what it is given win over the environment, so what it is given has heard it.
    return Resource.create(dict(ours.merge(OTELResourceDetector().detect()).attributes))
