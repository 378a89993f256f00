"""A collector that is there, goes, hangs and comes back: what is counted, what is said, and how long anybody waits."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tests.fakes.otlp import Collector
from weir.core.exchange import Exchange
from weir.telemetry.export import WAITING_MAX, exporter
from weir.telemetry.metrics import Metrics
from weir.telemetry.tracing import Tracing


class ScriptedExporter(SpanExporter):
    """Succeeds while `there`; waits while `hangs`."""

    def __init__(self) -> None:
        self.there = True
        self.flows = threading.Event()
        self.flows.set()
        self.arrived = 0
        self.tries = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.tries += 1
        self.flows.wait(30)
        self.arrived += len(spans) if self.there else 0
        return SpanExportResult.SUCCESS if self.there else SpanExportResult.FAILURE


class Sent:
    """Tracing that sends at once, what it counted, and what it logged."""

    def __init__(self, to: SpanExporter, **options: Any) -> None:
        self.metrics = Metrics()
        self.tracing = Tracing(to, self.metrics.spans, **({"sample": 1.0} | options))

    def send(self, requests: int = 1) -> None:
        for _ in range(requests):
            one = Exchange("id", "chat", path="/v1/chat/completions")
            one.trace = self.tracing.begin(None, None)
            one.status, one.ended = 200, one.started + 0.001
            self.tracing.record(one)

    def counted(self) -> dict[str, int]:
        results = ("exported", "failed", "dropped")
        found = {r: self.metrics.registry.get_sample_value("weir_spans_total", {"result": r}) for r in results}
        return {result: int(value or 0) for result, value in found.items()}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def made() -> Iterator[Callable[..., Sent]]:
    with ExitStack() as stack:

        def make(to: SpanExporter, **options: Any) -> Sent:
            sent = Sent(to, **options)
            stack.callback(sent.tracing.close, 1.0)
            return sent

        yield make


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with structlog.testing.capture_logs() as logged:
        yield logged


@pytest.fixture
def written() -> Iterator[list[str]]:
    """What libraries log, as it comes to where Weir puts its bridge."""
    lines: list[str] = []
    bridge = logging.Handler()
    bridge.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(bridge)
    yield lines
    logging.getLogger().removeHandler(bridge)


def until(true: Callable[[], object], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


class TestWhatIsSaid:
    def test_every_result_is_a_series_from_the_start(self, made: Callable[..., Sent]) -> None:
        sent = made(ScriptedExporter())
        assert sent.counted() == {"exported": 0, "failed": 0, "dropped": 0}
        text = [sample.labels for metric in sent.metrics.registry.collect() for sample in metric.samples]
        assert {"result": "dropped"} in text

    def test_one_line_when_it_goes_and_one_when_it_is_back(self, made: Callable[..., Sent], lines: list[Any]) -> None:
        to = ScriptedExporter()
        sent = made(to)
        for there in (True, False, True):
            to.there = there
            for _ in range(3):
                tries = to.tries
                sent.send()
                until(lambda tries=tries: to.tries > tries)
        until(lambda: sum(sent.counted().values()) == 9)
        assert sent.counted() == {"exported": 6, "failed": 3, "dropped": 0}
        assert [(line["event"], line["log_level"]) for line in lines] == [
            ("collector is away", "warning"),
            ("collector is there", "info"),
        ]

    def test_the_line_is_written_in_the_loops_thread(self, made: Callable[..., Sent]) -> None:
        threads: list[threading.Thread] = []

        def keep(*_: Any) -> Any:
            threads.append(threading.current_thread())
            raise structlog.DropEvent

        async def lose() -> None:
            structlog.configure(processors=[keep])
            to = ScriptedExporter()
            to.there = False
            made(to).send()
            while not threads:
                await asyncio.sleep(0.01)

        try:
            asyncio.run(asyncio.wait_for(lose(), 10))
        finally:
            structlog.reset_defaults()
        assert threads == [threading.main_thread()]


class TestBounds:
    @pytest.mark.parametrize("content", [False, True], ids=["usual", "with-content"])
    def test_what_waits_has_a_bound(self, made: Callable[..., Sent], content: bool) -> None:
        to = ScriptedExporter()
        sent = made(to, capture_content=content)
        to.flows.clear()
        sent.send()
        until(lambda: to.tries)  # it hangs with the first span in its hands
        began = time.perf_counter()
        sent.send(WAITING_MAX + 500)
        assert (time.perf_counter() - began) / (WAITING_MAX + 500) < 0.001
        kept = 256 if content else WAITING_MAX
        assert sent.counted() == {"exported": 0, "failed": 0, "dropped": WAITING_MAX + 500 - kept}
        to.flows.set()
        until(lambda: sent.counted()["exported"] == kept + 1)
        sent.send()
        until(lambda: sent.counted()["exported"] == kept + 2)

    def test_closing_sends_what_waits(self, made: Callable[..., Sent], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
        to = ScriptedExporter()
        sent = made(to)
        sent.send(10)
        sent.tracing.close()
        assert to.arrived == 10

    def test_closing_does_not_wait_for_one_that_hangs(self, made: Callable[..., Sent]) -> None:
        to = ScriptedExporter()
        sent = made(to)
        to.flows.clear()
        sent.send()
        until(lambda: to.tries)
        began = time.monotonic()
        sent.tracing.close(0.5)
        assert time.monotonic() - began < 2
        to.flows.set()


def test_a_redirect_is_no_arrival(made: Callable[..., Sent], lines: list[Any]) -> None:
    """The address of a collector that has moved to https: spans are lost there, and so they have failed."""
    with Collector() as collector:
        collector.moved_to = f"{collector.endpoint}/elsewhere"
        sent = made(exporter(collector.endpoint, "http/protobuf", {"authorization": "Bearer sesame"}))
        sent.send(3)
        until(lambda: sent.counted()["failed"] == 3)
        until(lambda: lines)
        assert lines[0]["event"] == "collector is away"
        assert "308" in lines[0]["why"]
        assert sent.counted()["exported"] == 0
        sent.tracing.close()
        assert collector.headers == [], "and nothing is sent to where nobody told us to"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
class TestARealCollector:
    def test_spans_arrive_with_our_headers(self, made: Callable[..., Sent], protocol: Any) -> None:
        with Collector(protocol) as collector:
            sent = made(exporter(collector.endpoint, protocol, {"Authorization": "Bearer sesame"}))
            sent.send(3)
            until(lambda: len(collector.spans) == 3)
            assert collector.headers[0]["authorization"] == "Bearer sesame"
            assert collector.paths[0] == ("Export" if protocol == "grpc" else "/v1/traces")
            assert collector.spans[0].resource["service.name"] == "weir"
            assert collector.spans[0].schema_url == "https://opentelemetry.io/schemas/1.41.0"
            sent.tracing.close()

    def test_it_goes_and_comes_back(
        self,
        made: Callable[..., Sent],
        lines: list[Any],
        protocol: Any,
        monkeypatch: pytest.MonkeyPatch,
        written: list[str],
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        with Collector(protocol) as collector:
            sent = made(exporter(collector.endpoint, protocol, {}))
            sent.send()
            until(lambda: len(collector.spans) == 1)
            collector.refuse()
            sent.send()
            until(lambda: sent.counted()["failed"])
            collector.heal()
            until(lambda: sent.send() or len(collector.spans) > 1, 20)
            collector.hang()
            sent.send()
            until(lambda: [line["event"] for line in lines].count("collector is away") == 2)
            collector.heal()
            seen = len(collector.spans)
            until(lambda: sent.send() or len(collector.spans) > seen, 20)
            until(lambda: len(lines) == 4)
            sent.tracing.close()
        assert [line["event"] for line in lines] == ["collector is away", "collector is there"] * 2
        assert lines[0]["why"]
        assert not written, "what the SDK says of every try"

    def test_closing_while_nobody_is_there(
        self, made: Callable[..., Sent], protocol: Any, lines: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        with Collector(protocol) as collector:
            sent = made(exporter(collector.endpoint, protocol, {}))
            collector.refuse()
            sent.send()
            until(lambda: lines, 20)
            sent.send()
            began = time.monotonic()
            sent.tracing.close()
            assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [("", "/v1/traces"), ("/", "/v1/traces"), ("/otlp", "/otlp/v1/traces"), ("/otlp/v1/traces", "/otlp/v1/traces")],
)
def test_where_http_goes(made: Callable[..., Sent], endpoint: str, asked: str) -> None:
    with Collector() as collector:
        sent = made(exporter(collector.endpoint + endpoint, "http/protobuf", {}))
        sent.send()
        until(lambda: collector.paths)
        assert collector.paths == [asked]
        sent.tracing.close()


def test_a_callers_words_are_not_logged(made: Callable[..., Sent], written: list[str]) -> None:
    """The SDK quotes a tracestate that is malformed."""
    sent = made(ScriptedExporter())
    parent = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    one = Exchange("id", "chat", path="/v1/chat/completions", status=200)
    one.trace = sent.tracing.begin(parent, b"CANARY canary!")
    one.ended = one.started
    sent.tracing.record(one)
    assert not written
