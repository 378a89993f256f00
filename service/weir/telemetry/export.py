"""Spans on their way to a collector (OTLP). It may refuse, hang or vanish: requests do not wait for it, memory has a
bound, and a person reads one line when it goes and one when it is back.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

Protocol = Literal["http/protobuf", "grpc"]

WAITING_MAX = 2048  # spans that wait; what comes beyond is dropped
BATCH = 128  # encoded in 5 ms, about as long as one thread may keep the interpreter from another
# With content a span has up to 128 KB. A batch stays below the 4 MB that a gRPC server takes at once.
WAITING_MAX_WITH_CONTENT, BATCH_WITH_CONTENT = 256, 16

TRACES_PATH = "/v1/traces"
WHY_MAX = 200


def exporter(endpoint: str, protocol: Protocol, headers: Mapping[str, str]) -> SpanExporter:
    """To the collector at this address; what else OTEL_EXPORTER_OTLP_* say, of certificates and times, holds."""
    sent = {name.lower(): value for name, value in headers.items()}
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415 - an extra

        return grpc.OTLPSpanExporter(endpoint=endpoint, headers=sent)
    import requests  # noqa: PLC0415 - gRPC does without it
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415 - as above

    def refuse_redirect(answer: requests.Response, *_: object, **__: object) -> None:
        # The exporter follows none, and takes it for a success: every span would be lost, and counted as exported.
        if 300 <= answer.status_code < 400:
            answer.close()
            raise requests.TooManyRedirects(f"{answer.status_code}: it has moved; otlp_endpoint must say where to")

    session = requests.Session()
    session.hooks["response"].append(refuse_redirect)
    whole = endpoint if endpoint.endswith(TRACES_PATH) else endpoint.rstrip("/") + TRACES_PATH
    return http.OTLPSpanExporter(endpoint=whole, headers=sent, session=session)


class Export(SpanExporter):
    """Counts what becomes of spans, and says when the collector goes and comes. Called by the processor's thread."""

    def __init__(self, inner: SpanExporter, count: Callable[[str], Any], waiting_max: int) -> None:
        self._inner = inner
        self._exported, self._failed = count("exported"), count("failed")  # 0 from the start
        self._waiting_max = waiting_max
        self._log: Any = structlog.get_logger()
        self._loop: asyncio.AbstractEventLoop | None = None
        with contextlib.suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()
        self.taken = 0
        self.away = False
        _quieten()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            arrived = result is SpanExportResult.SUCCESS
            (self._exported if arrived else self._failed).inc(len(spans))
            if arrived is self.away:  # then it is so no more
                self.away = not arrived
                self._say()
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def _say(self) -> None:
        """From the loop's thread, to which the log belongs."""
        line = partial(self._log.info, "collector is there")
        if self.away:
            line = partial(self._log.warning, "collector is away", why=_last_words.heard, spans_kept=self._waiting_max)
        if self._loop is None:
            line()
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so has whoever would read this
            self._loop.call_soon_threadsafe(line)


class Processor(BatchSpanProcessor):
    """The SDK's, which would drop the oldest span and log that, each time; this one drops the newest and counts.

    What came in is counted by the loop's thread and what went out by the processor's own, so that no count has two
    writers.
    """

    def __init__(self, export: Export, count: Callable[[str], Any], *, waiting_max: int, batch: int) -> None:
        super().__init__(export, max_queue_size=waiting_max, max_export_batch_size=batch)
        self._export = export
        self._dropped = count("dropped")
        self._waiting_max = waiting_max
        self._came = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self._came - self._export.taken >= self._waiting_max:
            self._dropped.inc()
            return
        self._came += 1
        super().on_end(span)


class _LastWords(logging.Handler):
    """What the SDK last said of a failed export: why the collector is away.

    It warns with the reason of each try that it will repeat, and ends with an error that often has none.
    """

    heard = ""
    _warned = ""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()[:WHY_MAX]
        if record.levelno < logging.ERROR:
            self._warned = said
        else:
            self.heard, self._warned = self._warned or said, ""


_last_words = _LastWords()


def _quieten() -> None:
    """The SDK logs every failed try; and it quotes a caller's tracestate and baggage where they are malformed."""
    of_exports = logging.getLogger("opentelemetry.exporter")
    of_exports.propagate = False
    of_exports.addHandler(_last_words)
    for name in ("opentelemetry.trace.span", "opentelemetry.trace.propagation", "opentelemetry.baggage"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
