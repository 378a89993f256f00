"""What a finished request adds to, and that no flood of names makes series without end."""

import pytest
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from weir.core.exchange import Exchange
from weir.core.types import Principal
from weir.telemetry import Telemetry
from weir.telemetry.exposition import exposition
from weir.telemetry.logs import logger_class
from weir.telemetry.metrics import Metrics
from weir.telemetry.names import OTHER, TEAMS_MAX

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain"


def exchange(team: str | None = "search", **fields: object) -> Exchange:
    made = Exchange("id-1", "chat", started=100.0)
    made.principal = Principal(team, "key1", "d" * 64) if team is not None else None
    made.model, made.status = "m", 200
    made.sent, made.answered, made.first_byte, made.ended = 100.001, 100.101, 100.102, 101.0
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

    def test_no_first_token_where_none_came(self) -> None:
        metrics = recorded(exchange(first_byte=0.0, outcome="upstream_timeout", status=504))
        assert not value(metrics, "weir_time_to_first_token_seconds_count", model="m")

    def test_limit_decisions(self) -> None:
        metrics = recorded(
            exchange(shadow_refusals=("key requests",)), exchange(sent=0.0, limit="team tokens", status=429)
        )
        name = "weir_limit_decisions_total"
        assert value(metrics, name, team="search", limit="all", decision="allowed") == 1
        assert value(metrics, name, team="search", limit="key_requests", decision="shadow") == 1
        assert value(metrics, name, team="search", limit="team_tokens", decision="refused") == 1

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


class TestGauges:
    def test_in_flight_goes_up_and_down(self) -> None:
        structlog.configure(wrapper_class=logger_class("error"))
        telemetry = Telemetry(Metrics())
        one = exchange()
        telemetry.begin(one)
        telemetry.begin(exchange())
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

    def test_openmetrics_parses(self) -> None:
        body, _ = exposition(recorded(exchange(), exchange('a"b\\c\nd')).registry, OPENMETRICS)
        families = {family.name for family in text_string_to_metric_families(body.decode())}
        assert {"weir_requests", "weir_request_duration_seconds", "weir_tokens", "weir_overhead_seconds"} <= families

    def test_two_processes_do_not_share_a_registry(self) -> None:
        assert recorded(exchange()).registry is not recorded().registry
