"""What a finished request adds to, and that no flood of names makes series without end."""

from time import perf_counter

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.fakes.clock import ManualClock
from weir.core.exchange import Attempt, Exchange, Trace
from weir.core.types import Endpoint, Principal, Window
from weir.telemetry import Telemetry
from weir.telemetry.exposition import exposition
from weir.telemetry.logs import logger_class
from weir.telemetry.metrics import Metrics
from weir.telemetry.names import ALL, OTHER, SERIES_MAX, TEAMS_MAX

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain"


def exchange(team: str | None = "search", **fields: object) -> Exchange:
    made = Exchange("id-1", "chat", started=100.0)
    made.principal = Principal(team, "key1", "d" * 64) if team is not None else None
    made.model, made.status, made.streaming = "m", 200, True
    made.asked, made.admitted = 100.0004, 100.0008
    made.sent, made.answered, made.first_byte, made.ended = 100.001, 100.101, 100.102, 101.0
    made.attempts.append(Attempt("http://a/v1", "m", 100.001, 101.0, "ok", 200))
    made.input_tokens, made.output_tokens, made.tokens_from = 11, 3, "reported"
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def recorded(*exchanges: Exchange) -> Metrics:
    metrics = Metrics()
    for one in exchanges:
        metrics.record(one)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def series(registry: CollectorRegistry) -> int:
    return sum(len(metric.samples) for metric in registry.collect())


ENDPOINT = {"model": "m", "endpoint": "http://a/v1"}
REQUEST = {"team": "search", "model": "m", "operation": "chat"}


class TestRecord:
    def test_requests_by_how_they_ended(self) -> None:
        metrics = recorded(exchange(), exchange(), exchange(outcome="upstream_error", status=502))
        assert value(metrics, "weir_requests_total", **REQUEST, outcome="ok", status="2xx") == 2
        assert value(metrics, "weir_requests_total", **REQUEST, outcome="upstream_error", status="5xx") == 1

    def test_tokens_by_direction_and_source(self) -> None:
        metrics = recorded(exchange(), exchange(tokens_from="counted", output_tokens=5))
        labels = {"team": "search", "model": "m"}
        assert value(metrics, "weir_tokens_total", **labels, direction="input", source="reported") == 11
        assert value(metrics, "weir_tokens_total", **labels, direction="output", source="reported") == 3
        assert value(metrics, "weir_tokens_total", **labels, direction="output", source="counted") == 5

    def test_times(self) -> None:
        metrics = recorded(exchange())
        assert value(metrics, "weir_request_duration_seconds_sum", model="m", operation="chat") == pytest.approx(1.0)
        assert value(metrics, "weir_time_to_first_token_seconds_sum", model="m") == pytest.approx(0.102)
        assert value(metrics, "weir_overhead_seconds_sum") == pytest.approx(0.002)

    def test_time_per_output_token_is_what_is_behind_the_first(self) -> None:
        metrics = recorded(exchange(output_tokens=10), exchange(output_tokens=1), exchange(outcome="client_disconnect"))
        name = "weir_time_per_output_token_seconds"
        assert value(metrics, f"{name}_count", model="m") == 1
        assert value(metrics, f"{name}_sum", model="m") == pytest.approx((101.0 - 100.102) / 9)

    def test_a_single_answer_has_no_first_token(self) -> None:
        metrics = recorded(exchange(streaming=False))
        assert not value(metrics, "weir_time_to_first_token_seconds_count", model="m")
        assert value(metrics, "weir_upstream_first_byte_seconds_sum", **ENDPOINT) == pytest.approx(0.1)

    def test_a_wait_for_a_place(self) -> None:
        metrics = recorded(exchange(queued=0.25), exchange())
        assert value(metrics, "weir_queue_wait_seconds_count", model="m") == 1
        assert value(metrics, "weir_queue_wait_seconds_sum", model="m") == 0.25

    def test_each_attempt_by_what_came_of_it(self) -> None:
        tried = exchange()
        tried.attempts.insert(0, Attempt("http://b/v1", "m", 100.0, 100.5, "503", 503))
        metrics = recorded(tried, exchange())
        name = "weir_upstream_attempts_total"
        assert value(metrics, name, **ENDPOINT, result="ok") == 2
        assert value(metrics, name, model="m", endpoint="http://b/v1", result="503") == 1

    def test_parts_of_tokens_and_their_price(self) -> None:
        metrics = recorded(exchange(cached_tokens=8, reasoning_tokens=2, cost=0.25), exchange(cost=0.5))
        labels = {"team": "search", "model": "m"}
        assert value(metrics, "weir_tokens_total", **labels, direction="cached_input", source="reported") == 8
        assert value(metrics, "weir_tokens_total", **labels, direction="reasoning_output", source="reported") == 2
        assert value(metrics, "weir_cost_usd_total", **labels) == 0.75

    def test_how_good_the_estimate_was(self) -> None:
        metrics = recorded(exchange(estimated_input=22), exchange(estimated_input=5, tokens_from="counted"))
        assert value(metrics, "weir_prompt_estimate_ratio_sum", model="m") == 2
        assert value(metrics, "weir_prompt_estimate_ratio_count", model="m") == 1

    def test_nothing_of_requests_where_it_is_switched_off(self) -> None:
        metrics = Metrics(requests=False)
        metrics.record(exchange())
        assert value(metrics, "weir_requests_total", **REQUEST, outcome="ok", status="2xx") is None
        assert value(metrics, "weir_config_generation") == 1

    def test_no_first_token_where_none_came(self) -> None:
        metrics = recorded(exchange(first_byte=0.0, outcome="upstream_timeout", status=504))
        assert not value(metrics, "weir_time_to_first_token_seconds_count", model="m")

    def test_limit_decisions(self) -> None:
        metrics = recorded(
            exchange(shadow_refusals=("key requests",), degraded=True),
            exchange(admitted=0.0, sent=0.0, limit="team tokens", status=429),
        )
        name = "weir_limit_decisions_total"
        assert value(metrics, name, team="search", limit="all", decision="allowed") == 1
        assert value(metrics, name, team="search", limit="key_requests", decision="shadow") == 1
        assert value(metrics, name, team="search", limit="team_tokens", decision="refused") == 1
        assert value(metrics, "weir_degraded_requests_total", team="search") == 1

    def test_somebody_unknown_has_no_team_and_no_model(self) -> None:
        metrics = recorded(exchange(None, model="", status=401, outcome="refused_key", sent=0.0, first_byte=0.0))
        labels = {"team": "", "model": OTHER, "operation": "chat", "outcome": "refused_key", "status": "4xx"}
        assert value(metrics, "weir_requests_total", **labels) == 1


class TestSeriesAreBounded:
    def test_by_team(self) -> None:
        """Ten thousand teams: those above the cap share one series, and nothing that they did is lost."""
        metrics = recorded(*(exchange(f"team-{number}") for number in range(100)))
        per_team = (series(metrics.registry) - series(recorded().registry)) / 100
        metrics = recorded(*(exchange(f"team-{number}") for number in range(10_000)))
        assert series(metrics.registry) <= (TEAMS_MAX + 2) * per_team + series(recorded(exchange()).registry)
        other = {"team": OTHER, "model": "m", "operation": "chat", "outcome": "ok", "status": "2xx"}
        assert value(metrics, "weir_requests_total", **other) == 10_000 - TEAMS_MAX
        assert value(metrics, "weir_limit_decisions_total", team=OTHER, limit="all", decision="allowed") == (
            10_000 - TEAMS_MAX
        )

    def test_a_team_that_has_its_series_keeps_it(self) -> None:
        metrics = recorded(*(exchange(f"team-{number}") for number in range(TEAMS_MAX + 10)), exchange("team-0"))
        labels = {"team": "team-0", "model": "m", "operation": "chat", "outcome": "ok", "status": "2xx"}
        assert value(metrics, "weir_requests_total", **labels) == 2

    def test_by_status(self) -> None:
        metrics = recorded(*(exchange(status=status, outcome="upstream_refused") for status in range(400, 500)))
        labels = {**REQUEST, "outcome": "upstream_refused", "status": "4xx"}
        assert value(metrics, "weir_requests_total", **labels) == 100
        few = recorded(exchange(status=400, outcome="upstream_refused"))
        assert series(metrics.registry) == series(few.registry)

    def test_by_model_and_endpoint(self) -> None:
        """Even configured names are bounded: a configuration may be reloaded for ever."""
        few = series(recorded(exchange()).registry)
        metrics = recorded(*(exchange(model=f"model-{number}") for number in range(SERIES_MAX + 500)))
        assert (
            value(
                metrics, "weir_requests_total", **REQUEST | {"team": OTHER, "model": OTHER}, outcome="ok", status="2xx"
            )
            == 500
        )
        assert series(metrics.registry) < few * (SERIES_MAX + 2)

    def test_every_metric_is_in_the_catalogue(self) -> None:
        ours = {metric.name for metric in recorded(exchange()).registry.collect() if metric.name.startswith("weir_")}
        assert ours == {metric.name.removesuffix("_total") for metric in ALL}


def window(scope: str, unit: str, limit: int, remaining: int, seconds: int = 60) -> Window:
    return Window(scope, unit, limit, remaining, seconds, 0.0)


class TestHowNearALimitIs:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    def used(self, metrics: Metrics, limit: str) -> float | None:
        metrics.show_limits()
        return value(metrics, "weir_limit_used_ratio", team="search", limit=limit)

    def test_it_refills_without_anybody_asking(self, clock: ManualClock) -> None:
        metrics = Metrics(clock=clock)
        metrics.stand(Principal("search", "key1", ""), [window("team", "tokens", 600, 60)])
        assert self.used(metrics, "team_tokens") == pytest.approx(0.9)
        clock.advance(30)
        assert self.used(metrics, "team_tokens") == pytest.approx(0.4)
        clock.advance(30)
        assert self.used(metrics, "team_tokens") == 0
        assert self.used(metrics, "team_tokens") == 0, "it is forgotten, and still says so"

    def test_of_several_keys_the_fullest(self, clock: ManualClock) -> None:
        metrics = Metrics(clock=clock)
        metrics.stand(Principal("search", "key1", ""), [window("key", "requests", 10, 1)])
        metrics.stand(Principal("search", "key2", ""), [window("key", "requests", 10, 8)])
        assert self.used(metrics, "key_requests") == pytest.approx(0.9)

    def test_the_newest_word_on_a_limit_counts(self, clock: ManualClock) -> None:
        metrics = Metrics(clock=clock)
        team, key = (window(scope, "requests", 10, 1) for scope in ("team", "key"))

        def stand(key_id: str, of_key: int, of_team: int) -> None:
            clock.advance(0.001)
            windows = [key._replace(remaining=of_key), team._replace(remaining=of_team)]
            metrics.stand(Principal("search", key_id, ""), windows)

        stand("key1", 1, 1)
        stand("key2", 8, 0)
        stand("key1", 9, 5)
        assert self.used(metrics, "team_requests") == pytest.approx(0.5, abs=0.01), "by whichever key it came"
        assert self.used(metrics, "key_requests") == pytest.approx(0.2, abs=0.01)
        stand("key2", 10, 9)
        assert self.used(metrics, "team_requests") == pytest.approx(0.1, abs=0.01)
        assert self.used(metrics, "key_requests") == 0, "the fullest one was given back"

    def test_a_hundred_thousand_keys_do_not_hold_the_loop(self, clock: ManualClock) -> None:
        """It is asked once a second in the loop; of keys that were heard of long ago nothing is looked at again."""
        metrics = Metrics(clock=clock)
        windows = [window(scope, unit, 100, 50) for scope in ("key", "team") for unit in ("requests", "tokens")]
        for number in range(100_000):
            metrics.stand(Principal(f"team{number % 100}", f"key{number}", ""), windows)
            if not number % 1000:
                metrics.show_limits()
        metrics.show_limits()
        began = perf_counter()
        metrics.show_limits()
        assert perf_counter() - began < 0.1
        assert value(metrics, "weir_limit_used_ratio", team="team1", limit="key_tokens") == 0.5

    def test_debt_is_more_than_all(self, clock: ManualClock) -> None:
        metrics = Metrics(clock=clock)
        metrics.stand(Principal("search", "key1", ""), [window("team", "tokens", 100, -50)])
        assert self.used(metrics, "team_tokens") == pytest.approx(1.5)

    def test_places_in_use_are_forgotten_after_a_while(self, clock: ManualClock) -> None:
        metrics = Metrics(clock=clock)
        metrics.stand(Principal("search", "key1", ""), [window("team", "concurrency", 4, 1, 0)])
        clock.advance(59)
        assert self.used(metrics, "team_concurrency") == 0.75
        clock.advance(2)
        assert self.used(metrics, "team_concurrency") == 0


class TestGauges:
    def test_an_endpoint_that_is_no_more_says_nothing(self) -> None:
        telemetry = Telemetry(Metrics())
        one, other = (Endpoint(url, model="m", in_flight=2) for url in ("http://a/v1", "http://b/v1"))
        telemetry.show_endpoints([one, other])
        assert value(telemetry.metrics, "weir_endpoint_in_flight", **ENDPOINT) == 2
        telemetry.show_endpoints([other])
        assert value(telemetry.metrics, "weir_endpoint_in_flight", **ENDPOINT) is None
        assert value(telemetry.metrics, "weir_endpoint_ejected", model="m", endpoint="http://b/v1") == 0

    def test_nor_do_its_counters_once_nobody_is_there_any_more(self) -> None:
        """Endpoints come and go with each reload; what they did is not kept for ever."""
        telemetry = Telemetry(Metrics())
        one, other = (Endpoint(url, model="m") for url in ("http://a/v1", "http://b/v1"))
        telemetry.show_endpoints([one, other])
        for endpoint in (one, other):
            attempts = [Attempt(endpoint.url, "m", 100.001, 101.0, "ok", 200)]
            telemetry.metrics.record(exchange(attempts=attempts))
            telemetry.upstream("retry", {"model": "m", "endpoint": endpoint.url})
        names = ("weir_upstream_attempts_total", "weir_upstream_first_byte_seconds", "weir_upstream_events_total")
        telemetry.upstream("fallback", {"model": "m", "to": "n"})
        telemetry.show_endpoints([other])
        telemetry.metrics.record(exchange())  # which had been under way there
        telemetry.show_endpoints([other, Endpoint("http://c/v1", model="m")])
        assert value(telemetry.metrics, names[2], model="m", endpoint="", event="fallback") == 1
        text = exposition(telemetry.metrics.registry, TEXT)[0].decode()
        for name in names:
            assert 'endpoint="http://a/v1"' not in text
            assert any(line.startswith(name) and 'endpoint="http://b/v1"' in line for line in text.splitlines())

    def test_in_flight_goes_up_and_down(self) -> None:
        structlog.configure(wrapper_class=logger_class("error"))
        telemetry = Telemetry(Metrics())
        one = exchange()
        telemetry.begin(one)
        telemetry.begin(exchange())
        telemetry.catch_up()
        assert value(telemetry.metrics, "weir_in_flight_requests") == 2
        telemetry.record(one)
        assert value(telemetry.metrics, "weir_in_flight_requests") == 1
        structlog.reset_defaults()

    def test_degraded_while_redis_is_away(self) -> None:
        telemetry = Telemetry(Metrics())
        telemetry.redis_changed(False, "timeout")
        assert value(telemetry.metrics, "weir_degraded") == 1
        telemetry.redis_changed(True, "")
        assert value(telemetry.metrics, "weir_degraded") == 0


class TestExposition:
    @pytest.mark.parametrize(
        ("accept", "content_type"),
        [
            pytest.param(OPENMETRICS, "application/openmetrics-text", id="openmetrics"),
            pytest.param(TEXT, "text/plain", id="text"),
            pytest.param("", "text/plain", id="nothing-asked"),
            pytest.param("*/*", "text/plain", id="anything"),
        ],
    )
    def test_is_what_was_asked_for(self, *, accept: str, content_type: str) -> None:
        body, said = exposition(recorded(exchange()).registry, accept)
        assert said.startswith(content_type)
        assert b"weir_requests_total" in body

    def test_an_exemplar_leads_to_the_trace_of_a_sampled_request(self) -> None:
        trace = Trace("a" * 32, "b" * 16, sampled=True)
        body, _ = exposition(recorded(exchange(trace=trace)).registry, OPENMETRICS)
        lines = [line for line in body.decode().splitlines() if f'# {{trace_id="{"a" * 32}"}}' in line]
        assert {line.partition("_bucket")[0] for line in lines} == {
            "weir_request_duration_seconds", "weir_time_to_first_token_seconds", "weir_overhead_seconds",
            "weir_time_per_output_token_seconds", "weir_upstream_first_byte_seconds",
        }  # fmt: skip
        trace.sampled = False
        assert b"trace_id" not in exposition(recorded(exchange(trace=trace)).registry, OPENMETRICS)[0]

    def test_openmetrics_parses(self) -> None:
        body, _ = exposition(recorded(exchange(), exchange('a"b\\c\nd')).registry, OPENMETRICS)
        families = {family.name for family in text_string_to_metric_families(body.decode())}
        assert {"weir_requests", "weir_request_duration_seconds", "weir_tokens", "weir_overhead_seconds"} <= families

    def test_two_processes_do_not_share_a_registry(self) -> None:
        assert recorded(exchange()).registry is not recorded().registry
