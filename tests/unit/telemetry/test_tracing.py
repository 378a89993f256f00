"""Where a request stands in its trace, what its spans say, and that nothing of it is decided twice."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from weir.api import models as models_api
from weir.api import ops, public
from weir.core.exchange import Attempt, Exchange, Trace
from weir.core.types import Principal
from weir.telemetry import conventions
from weir.telemetry.metrics import Metrics
from weir.telemetry.tracing import Tracing

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()
UNSAMPLED = f"00-{TRACE}-{PARENT}-00".encode()
STARTED = 100.0


class Made:
    """Tracing whose spans stay here."""

    def __init__(self, **options: Any) -> None:
        self.metrics = Metrics()
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(self.exporter, self.metrics.spans, **({"sample": 1.0} | options))

    def spans(self) -> list[ReadableSpan]:
        self.tracing.close()
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def of(self, exchange: Exchange) -> dict[str, ReadableSpan]:
        """The spans of one exchange by their names."""
        self.tracing.record(exchange)
        return {span.name: span for span in self.spans()}


@pytest.fixture
def make() -> Iterator[Callable[..., Made]]:
    made: list[Made] = []

    def maker(**options: Any) -> Made:
        made.append(Made(**options))
        return made[-1]

    yield maker
    for one in made:
        one.tracing.close()


def exchange(made: Made, *attempts: Attempt, parent: bytes | None = None, **fields: Any) -> Exchange:
    """A stream that went well, but for `fields`."""
    one = Exchange("id-1", "chat", "10.0.0.1", "/v1/chat/completions", started=STARTED)
    one.trace = made.tracing.begin(parent, None)
    one.principal = Principal("search", "key1", "d" * 64)
    one.model, one.status, one.streaming, one.finish_reason = "llama", 200, True, "stop"
    one.asked, one.admitted = 100.001, 100.003
    one.sent, one.answered, one.first_byte, one.ended = 100.004, 100.2, 100.201, 101.0
    one.input_tokens, one.output_tokens, one.tokens_from = 11, 3, "reported"
    one.attempts.extend(attempts or [attempt()])
    for one_attempt in one.attempts:
        made.tracing.headers(one.trace, one_attempt)
    for name, value in fields.items():
        setattr(one, name, value)
    return one


def attempt(
    began: float = 100.004, ended: float = 101.0, result: str = "ok", status: int = 200, **more: Any
) -> Attempt:
    known = {"endpoint": "http://vllm-0:8000/v1", "model": "llama", "upstream_model": "llama-3.3-70b"}
    return Attempt(**(known | more), began=began, ended=ended, result=result, status=status)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def identity(span: ReadableSpan) -> tuple[str, str, str | None]:
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


class TestBegin:
    @pytest.mark.parametrize(
        ("parent", "sample", "sampled"),
        [
            pytest.param(SAMPLED, 0.0, True, id="the-caller-samples"),
            pytest.param(UNSAMPLED, 1.0, False, id="the-caller-does-not"),
            pytest.param(SAMPLED[:-2] + b"03", 0.0, True, id="with-the-flag-of-a-random-id"),
            pytest.param(SAMPLED[:-2] + b"02", 1.0, False, id="with-that-flag-alone"),
            pytest.param(b"cc" + SAMPLED[2:], 0.0, True, id="of-a-version-to-come"),
        ],
    )
    def test_a_callers_choice_stands(
        self, make: Callable[..., Made], parent: bytes, sample: float, sampled: bool
    ) -> None:
        trace = make(sample=sample).tracing.begin(parent, b"vendor=1")
        assert (trace.trace_id, trace.parent, trace.state, trace.sampled) == (TRACE, parent, b"vendor=1", sampled)
        assert trace.span_id not in (PARENT, "")

    def test_a_new_trace_has_ids_of_its_own(self, make: Callable[..., Made]) -> None:
        traces = [make().tracing.begin(None, None) for _ in range(100)]
        assert len({trace.trace_id for trace in traces} | {trace.span_id for trace in traces}) == 200
        assert {(len(trace.trace_id), len(trace.span_id)) for trace in traces} == {(32, 16)}
        assert all(trace.parent is None and trace.state is None for trace in traces)

    def test_who_is_not_trusted_chooses_neither_the_trace_nor_that_it_is_kept(self, make: Callable[..., Made]) -> None:
        tracing = make(sample=0.0, trust_callers=False).tracing
        trace = tracing.begin(SAMPLED, b"vendor=1")
        assert (trace.parent, trace.state, trace.sampled) == (None, None, False)
        assert trace.trace_id != TRACE
        assert make(sample=1.0, trust_callers=False).tracing.begin(UNSAMPLED, None).sampled

    @pytest.mark.parametrize("sample", [0.0, 0.25, 1.0])
    def test_the_ratio_is_what_was_asked_for(self, make: Callable[..., Made], sample: float) -> None:
        tracing = make(sample=sample).tracing
        sampled = sum(tracing.begin(None, None).sampled for _ in range(10_000))
        assert sampled / 10_000 == pytest.approx(sample, abs=0.03 if 0 < sample < 1 else 0)

    @pytest.mark.parametrize("sample", [0.0, 0.001, 0.01, 0.5, 1.0])
    @pytest.mark.parametrize("parent", [None, SAMPLED, UNSAMPLED], ids=["new", "sampled", "unsampled"])
    def test_the_sdk_decides_alike(self, make: Callable[..., Made], sample: float, parent: bytes | None) -> None:
        tracing, theirs = make(sample=sample).tracing, ParentBased(TraceIdRatioBased(sample))
        flags = TraceFlags(int(parent[-2:], 16)) if parent else TraceFlags()
        remote = SpanContext(int(TRACE, 16), int(PARENT, 16), is_remote=True, trace_flags=flags)
        context = set_span_in_context(NonRecordingSpan(remote)) if parent else None
        for _ in range(500):
            ours = tracing.begin(parent, None)
            decided = theirs.should_sample(context, int(ours.trace_id, 16), "a request")
            assert decided.decision.is_sampled() is ours.sampled

    def test_at_the_very_bound_too(self) -> None:
        """The bound is the SDK's, and the comparison: below it is sampled."""
        bound = TraceIdRatioBased.get_bound_for_rate(0.5)
        theirs = TraceIdRatioBased(0.5)
        assert theirs.should_sample(None, bound - 1, "").decision.is_sampled()
        assert not theirs.should_sample(None, bound, "").decision.is_sampled()


class TestHeaders:
    @pytest.mark.parametrize(
        ("parent", "state", "flags"),
        [
            pytest.param(SAMPLED, b"vendor=1,other=2", b"01", id="sampled-with-state"),
            pytest.param(SAMPLED, None, b"01", id="sampled"),
            pytest.param(UNSAMPLED, b"vendor=1", b"00", id="unsampled"),
        ],
    )
    def test_a_callers_trace_goes_on(
        self, make: Callable[..., Made], parent: bytes, state: bytes | None, flags: bytes
    ) -> None:
        tracing, first, second = make().tracing, attempt(), attempt()
        trace = tracing.begin(parent, state)
        for one in (first, second):
            headers = tracing.headers(trace, one)
            line = b"00-" + TRACE.encode() + b"-" + one.span_id.encode() + b"-" + flags
            assert headers == [(b"traceparent", line), *([(b"tracestate", state)] if state else [])]
        assert len({first.span_id, second.span_id, trace.span_id}) == 3

    def test_an_unsampled_trace_is_passed_on_too(self, make: Callable[..., Made]) -> None:
        tracing, one = make(sample=0.0).tracing, attempt()
        trace = tracing.begin(None, None)
        assert tracing.headers(trace, one) == [(b"traceparent", f"00-{trace.trace_id}-{one.span_id}-00".encode())]


class TestRecord:
    def test_the_tree_of_a_stream(self, make: Callable[..., Made]) -> None:
        made = make()
        one = exchange(made)
        spans = made.of(one)
        assert list(spans) == ["POST /v1/chat/completions", "admission", "chat llama-3.3-70b"]
        root, admission, call = spans.values()
        assert one.trace is not None
        assert identity(root) == (one.trace.trace_id, one.trace.span_id, None)
        assert identity(admission)[::2] == (one.trace.trace_id, one.trace.span_id)
        assert identity(call) == (one.trace.trace_id, one.attempts[0].span_id, one.trace.span_id)
        assert [span.kind.name for span in spans.values()] == ["SERVER", "INTERNAL", "CLIENT"]
        assert [span.status.status_code.name for span in spans.values()] == ["UNSET"] * 3

    def test_what_the_servers_span_says(self, make: Callable[..., Made]) -> None:
        made = make()
        assert attributes(made.of(exchange(made, cost=0.5))["POST /v1/chat/completions"]) == {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "url.path": "/v1/chat/completions",
            "url.scheme": "http",
            "client.address": "10.0.0.1",
            "weir.request_id": "id-1",
            "weir.team": "search",
            "weir.key_id": "key1",
            "weir.model": "llama",
            "weir.outcome": "ok",
            "weir.degraded": False,
            "weir.cost_usd": 0.5,
        }

    def test_what_the_models_span_says(self, make: Callable[..., Made]) -> None:
        made = make()
        span = made.of(exchange(made, cached_tokens=4, reasoning_tokens=2))["chat llama-3.3-70b"]
        said = attributes(span)
        assert said.pop("gen_ai.response.time_to_first_chunk") == pytest.approx(0.196)
        assert said == {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "llama-3.3-70b",
            "gen_ai.request.stream": True,
            "gen_ai.response.finish_reasons": ("stop",),
            "gen_ai.usage.input_tokens": 11,
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.usage.cache_read.input_tokens": 4,
            "gen_ai.usage.reasoning.output_tokens": 2,
            "http.response.status_code": 200,
            "server.address": "vllm-0",
            "server.port": 8000,
            "weir.tokens_from": "reported",
        }
        (event,) = span.events
        assert event.name == "weir.first_token"
        assert (event.timestamp - (span.start_time or 0)) / 1e9 == pytest.approx(0.197)

    def test_times_are_the_records_on_the_wall_clock(self, make: Callable[..., Made]) -> None:
        made = make()
        one = exchange(made)
        spans = made.of(one)
        root = spans["POST /v1/chat/completions"]
        began = (root.start_time or 0) / 1e9
        for name, start, end in [
            ("POST /v1/chat/completions", 100.0, 101.0),
            ("admission", 100.001, 100.003),
            ("chat llama-3.3-70b", 100.004, 101.0),
        ]:
            span = spans[name]
            assert (span.start_time or 0) / 1e9 - began == pytest.approx(start - STARTED, abs=1e-6)
            assert (span.end_time or 0) / 1e9 - began == pytest.approx(end - STARTED, abs=1e-6)

    def test_under_a_callers_span(self, make: Callable[..., Made]) -> None:
        made = make(sample=0.0)
        one = exchange(made, parent=SAMPLED)
        assert one.trace is not None
        one.trace.state = b"vendor=1"
        root = made.of(one)["POST /v1/chat/completions"]
        assert identity(root) == (TRACE, one.trace.span_id, PARENT)
        assert root.parent is not None
        assert root.parent.is_remote
        assert root.context is not None
        assert root.context.trace_state.to_header() == "vendor=1"

    def test_after_a_callers_trace_a_new_one_has_its_own_id(self, make: Callable[..., Made]) -> None:
        """What was drawn for one request is not left over for the next."""
        made = make()
        first, second = exchange(made, parent=SAMPLED), exchange(made)
        for one in (first, second):
            made.tracing.record(one)
        assert first.trace is not None
        assert second.trace is not None
        roots = [identity(span) for span in made.spans() if span.kind.name == "SERVER"]
        assert {trace_id for trace_id, _, _ in roots} == {TRACE, second.trace.trace_id}

    def test_nothing_of_an_unsampled_one_or_one_that_never_began(self, make: Callable[..., Made]) -> None:
        made = make()
        made.tracing.record(exchange(made, parent=UNSAMPLED))
        made.tracing.record(exchange(made, trace=None))
        assert made.spans() == []

    @pytest.mark.parametrize(
        ("fields", "status", "code", "error"),
        [
            pytest.param({}, "UNSET", 200, None, id="ok"),
            pytest.param({"status": 401, "outcome": "refused_key"}, "UNSET", 401, "refused_key", id="the-callers-error"),
            pytest.param({"status": 502, "outcome": "upstream_error"}, "ERROR", 502, "upstream_error", id="a-502"),
            pytest.param({"outcome": "upstream_error"}, "ERROR", 200, "upstream_error", id="a-stream-that-broke"),
            pytest.param({"outcome": "client_disconnect"}, "ERROR", 200, "client_disconnect", id="a-stream-left"),
            pytest.param({"outcome": "drained"}, "ERROR", 200, "drained", id="a-stream-drained"),
            pytest.param({"status": 499, "outcome": "client_disconnect"}, "ERROR", None, "client_disconnect", id="left-before-a-byte"),
            pytest.param({"status": 0, "outcome": "killed"}, "ERROR", None, "killed", id="killed"),
        ],
    )  # fmt: skip
    def test_how_it_ended(
        self, make: Callable[..., Made], fields: dict[str, Any], status: str, code: int | None, error: str | None
    ) -> None:
        made = make()
        root = made.of(exchange(made, **fields))["POST /v1/chat/completions"]
        said = attributes(root)
        assert root.status.status_code.name == status
        assert (said.get("http.response.status_code"), said.get("error.type")) == (code, error)
        assert said["weir.outcome"] == (error or "ok")

    def test_what_was_refused_before_its_limits_has_one_span(self, make: Callable[..., Made]) -> None:
        made = make()
        one = exchange(made, principal=None, model="", status=401, outcome="refused_key", asked=0.0, admitted=0.0)
        one.attempts.clear()
        assert list(made.of(one)) == ["POST /v1/chat/completions"]

    def test_a_limit_that_refused(self, make: Callable[..., Made]) -> None:
        made = make()
        fields = {"status": 429, "outcome": "refused_tokens", "limit": "key tokens", "admitted": 0.0, "queued": 0.0}
        one = exchange(made, ended=100.005, **fields)
        one.attempts.clear()
        spans = made.of(one)
        assert list(spans) == ["POST /v1/chat/completions", "admission"]
        admission = spans["admission"]
        assert attributes(admission) == {
            "weir.degraded": False,
            "weir.limit": "key tokens",
            "error.type": "refused_tokens",
        }
        assert admission.status.status_code.name == "UNSET"
        assert ((admission.end_time or 0) - (admission.start_time or 0)) / 1e9 == pytest.approx(0.004, abs=1e-6)

    def test_limits_that_could_not_be_asked(self, make: Callable[..., Made]) -> None:
        made = make()
        one = exchange(made, status=503, outcome="store_unavailable", admitted=0.0)
        one.attempts.clear()
        assert made.of(one)["admission"].status.status_code.name == "ERROR"

    @pytest.mark.parametrize(
        ("fields", "seconds", "error"),
        [
            pytest.param({"queued": 0.2}, 0.2, None, id="until-a-place-came-free"),
            pytest.param({"attempts": [], "queued": 0.0, "status": 503, "outcome": "refused_overload"}, 0.997, "refused_overload", id="in-vain"),
            pytest.param({"queued": 0.0}, None, None, id="not-at-all"),
            pytest.param({"attempts": [], "queued": 0.0, "admitted": 0.0}, None, None, id="never-came-so-far"),
        ],
    )  # fmt: skip
    def test_a_wait_for_a_place(
        self, make: Callable[..., Made], fields: dict[str, Any], seconds: float | None, error: str | None
    ) -> None:
        made = make()
        queue = made.of(exchange(made, **fields)).get("queue")
        if seconds is None:
            assert queue is None
            return
        assert queue is not None
        assert ((queue.end_time or 0) - (queue.start_time or 0)) / 1e9 == pytest.approx(seconds, abs=1e-6)
        assert attributes(queue).get("error.type") == error

    def test_each_attempt_is_a_span(self, make: Callable[..., Made]) -> None:
        made = make()
        tries = [
            attempt(100.004, 100.01, "503", 503),
            attempt(100.02, 100.03, "unreachable", 0),
            attempt(100.04, 101.0, model="spare", upstream_model="small"),
        ]
        one = exchange(made, *tries)
        made.tracing.record(one)
        calls = [span for span in made.spans() if span.kind.name == "CLIENT"]
        assert [span.name for span in calls] == ["chat llama-3.3-70b", "chat llama-3.3-70b", "chat small"]
        assert [identity(span)[1] for span in calls] == [one_try.span_id for one_try in tries]
        said = [attributes(span) for span in calls]
        assert [one.get("http.request.resend_count") for one in said] == [None, 1, 2]
        assert [one.get("http.response.status_code") for one in said] == [503, None, 200]
        assert [one.get("error.type") for one in said] == ["503", "unreachable", None]
        assert [one.get("gen_ai.usage.input_tokens") for one in said] == [None, None, 11]
        assert [len(span.events) for span in calls] == [0, 0, 1]
        assert [span.status.status_code.name for span in calls] == ["ERROR", "ERROR", "UNSET"]

    @pytest.mark.parametrize(
        ("tried", "outcome", "error"),
        [
            pytest.param(attempt(result="client_disconnect"), "client_disconnect", "client_disconnect", id="left"),
            pytest.param(attempt(), "upstream_error", "upstream_error", id="an-error-event-in-a-stream"),
            pytest.param(attempt(result="", ended=0.0), "killed", "left", id="under-way-until-the-end"),
            pytest.param(attempt(result="400", status=400), "upstream_refused", "400", id="refused-there"),
        ],
    )
    def test_how_an_attempt_ended(self, make: Callable[..., Made], tried: Attempt, outcome: str, error: str) -> None:
        made = make()
        call = made.of(exchange(made, tried, outcome=outcome))["chat llama-3.3-70b"]
        assert attributes(call)["error.type"] == error
        assert call.status.status_code.name == "ERROR"
        assert ((call.end_time or 0) - (call.start_time or 0)) / 1e9 == pytest.approx(0.996, abs=1e-6)

    def test_a_single_answer_has_no_first_chunk(self, make: Callable[..., Made]) -> None:
        made = make()
        call = made.of(exchange(made, streaming=False))["chat llama-3.3-70b"]
        assert "gen_ai.response.time_to_first_chunk" not in attributes(call)
        assert not call.events

    def test_usage_that_nobody_knows_is_not_nought(self, make: Callable[..., Made]) -> None:
        made = make()
        call = made.of(exchange(made, tokens_from="none", input_tokens=0, output_tokens=0))["chat llama-3.3-70b"]
        assert not [name for name in attributes(call) if "usage" in name]

    @pytest.mark.parametrize(
        ("endpoint", "address", "port"),
        [
            ("https://api.openai.com/v1", "api.openai.com", 443),
            ("http://10.0.0.7/v1", "10.0.0.7", 80),
            ("http://[::1]:8000", "::1", 8000),
        ],
    )
    def test_where_a_model_is(self, make: Callable[..., Made], endpoint: str, address: str, port: int) -> None:
        made = make()
        one = exchange(made)
        one.attempts[0].endpoint = endpoint
        said = attributes(made.of(one)["chat llama-3.3-70b"])
        assert (said["server.address"], said["server.port"]) == (address, port)

    def test_an_embedded_model_is_in_this_process(self, make: Callable[..., Made]) -> None:
        made = make()
        one = exchange(made)
        one.attempts[0].endpoint = "embedded"
        call = made.of(one)["chat llama-3.3-70b"]
        assert call.kind.name == "INTERNAL"
        assert attributes(call)["gen_ai.provider.name"] == "weir"
        assert "server.address" not in attributes(call)


class TestWhoWeAre:
    def test_the_resource(self, make: Callable[..., Made]) -> None:
        made = make()
        said = made.of(exchange(made))["admission"].resource.attributes
        assert said["service.name"] == "weir"
        assert said["service.version"]
        assert said["service.instance.id"]
        assert said["telemetry.sdk.language"] == "python"

    def test_the_environment_wins(self, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7,deployment.environment.name=prod")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "weir-of-search")
        made = make()
        said = made.of(exchange(made))["admission"].resource.attributes
        assert said["service.name"] == "weir-of-search"
        assert said["service.instance.id"] == "pod-7"
        assert said["deployment.environment.name"] == "prod"
        assert said["service.version"]


class TestConventions:
    def test_the_names_of_v1_41_are_those_of_the_package(self) -> None:
        """They left it with v1.42 and are only kept there, deprecated; as long as they are, ours are the same."""
        ours = {name: value for name, value in vars(conventions).items() if name.startswith("GEN_AI_")}
        assert len(ours) == 13
        assert ours == {name: getattr(gen_ai_attributes, name) for name in ours}

    @pytest.mark.parametrize(("semconv", "url"), [("v1.41", "https://opentelemetry.io/schemas/1.41.0"), ("latest", "")])
    def test_the_version_is_said(self, make: Callable[..., Made], semconv: str, url: str) -> None:
        made = make(semconv=semconv)
        scope = made.of(exchange(made))["admission"].instrumentation_scope
        assert scope is not None
        assert (scope.name, scope.schema_url or "") == ("weir", url)


class TestContent:
    ASKED = b'{"model":"m","messages":[{"role":"user","content":"canary"}]}'
    SAID = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"song"},"finish_reason":"stop"}]}'

    def call(self, made: Made) -> dict[str, Any]:
        one = exchange(made)
        assert one.trace is not None
        if one.trace.listener is not None:
            one.trace.listener.asked("chat", self.ASKED)
            one.trace.listener.said(self.SAID)
        return attributes(made.of(one)["chat llama-3.3-70b"])

    def test_nobody_listens_unless_told_to(self, make: Callable[..., Made]) -> None:
        assert not {"gen_ai.input.messages", "gen_ai.output.messages"} & self.call(make()).keys()

    def test_nobody_listens_to_what_is_not_sampled(self, make: Callable[..., Made]) -> None:
        assert make(sample=0.0, capture_content=True).tracing.begin(None, None).listener is None

    @pytest.mark.parametrize(
        ("semconv", "ending"), [("v1.41", ',"finish_reason":"stop"'), ("latest", "")], ids=["v1.41", "latest"]
    )
    def test_question_and_answer(self, make: Callable[..., Made], semconv: str, ending: str) -> None:
        said = self.call(make(capture_content=True, semconv=semconv))
        asked = '[{"role":"user","parts":[{"type":"text","content":"canary"}]}]'
        assert said["gen_ai.input.messages"] == asked
        answer = f'[{{"role":"assistant","parts":[{{"type":"text","content":"song"}}]{ending}}}]'
        assert said["gen_ai.output.messages"] == answer
        assert "weir.content_cut" not in said


class TestTheFastApiSide:
    """The instrumentation does nothing, and says so nowhere that anybody looks, when FastAPI changes inside."""

    def asked(self, made: Made, app: Any, *paths: str) -> list[ReadableSpan]:
        made.tracing.instrument(app)

        async def ask() -> None:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://weir") as client:
                for path in paths:
                    await client.get(path, headers={"traceparent": SAMPLED.decode()})

        asyncio.run(ask())
        return made.spans()

    def test_a_span_comes_under_the_callers(self, make: Callable[..., Made]) -> None:
        (span,) = self.asked(make(sample=0.0), public.create(models_api.APIRouter(), docs=True), "/")
        assert (span.name, span.kind.name) == ("GET /", "SERVER")
        assert identity(span)[::2] == (TRACE, PARENT)
        said = attributes(span)
        assert (said["http.request.method"], said["http.route"], said["http.response.status_code"]) == ("GET", "/", 200)

    def test_nor_does_the_other_side_trust_who_is_not_trusted(self, make: Callable[..., Made]) -> None:
        before = get_global_textmap()
        try:
            made = make(sample=0.0, trust_callers=False)
            assert self.asked(made, public.create(models_api.APIRouter(), docs=True), "/") == []
        finally:
            set_global_textmap(before)

    def test_what_is_asked_for_ever_has_none(self, make: Callable[..., Made]) -> None:
        app = ops.create(
            why_not_ready=lambda: None,
            catch_up=print,
            exposition=lambda _: (b"", "text/plain"),
            drain=print,
            requests=lambda _: {},
        )
        paths = ("/livez", "/readyz", "/metrics", "/requests", "/models/metrics-of-mine")
        spans = self.asked(make(), app, *paths)
        assert [attributes(span)["url.path"] for span in spans] == ["/requests", "/models/metrics-of-mine"]


class TestWhoPaysForIt:
    # redis-py, where it finds the SDK, takes its metrics; that is the only part that is there without traces.
    TRACES = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.instrumentation", "grpc", "requests")
    SERVER = (
        "import weir.app, weir.settings; from weir.telemetry.metrics import Metrics;"
        "assert weir.app._tracing(weir.settings.Settings().telemetry, Metrics()) is None"
    )

    @pytest.mark.parametrize(
        ("code", "absent"),
        [
            pytest.param("import weir.cli.main", ("opentelemetry", "grpc"), id="the-command-line"),
            pytest.param(SERVER, TRACES, id="a-server-without-traces"),
        ],
    )
    def test_not_who_does_not_want_it(self, code: str, absent: tuple[str, ...]) -> None:
        check = f"import sys; print([name for name in sys.modules if name.startswith({absent})])"
        done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_a_trace_is_small(self) -> None:
        assert Trace.__slots__ == ("trace_id", "span_id", "parent", "state", "sampled", "listener")
