"""Rates and quantiles between two scrapes, as read back from what our own exposition says."""

from math import inf

import pytest

from weir.core.exchange import Exchange
from weir.core.types import Principal
from weir.telemetry.exposition import exposition
from weir.telemetry.metrics import Metrics
from weir.telemetry.reading import Scrape, TeamRates, between, quantile, read


def exchange(team: str = "search", outcome: str = "ok", status: int = 200, *, ttft: float = 0.1) -> Exchange:
    made = Exchange("id-1", "chat", started=100.0)
    made.principal = Principal(team, "key1", "d" * 64)
    made.model, made.outcome, made.status, made.streaming = "m", outcome, status, True
    made.ended = 101.0
    if status == 200:
        made.sent, made.answered, made.first_byte = 100.0015, 100.0 + ttft, 100.0 + ttft
        made.input_tokens, made.output_tokens, made.cached_tokens, made.tokens_from = 30, 10, 20, "reported"
    return made


def scrape(metrics: Metrics, at: float) -> Scrape:
    return read(exposition(metrics.registry, "")[0].decode(), at)


def test_rates_between_two_scrapes() -> None:
    metrics = Metrics()
    for _ in range(50):
        metrics.record(exchange())  # before the first look
    before = scrape(metrics, 10.0)
    for _ in range(8):
        metrics.record(exchange())
    for _ in range(4):
        metrics.record(exchange("ads", "refused_tokens", 429))
    metrics.record(exchange("ads", "refused_requests", 429))
    metrics.record(exchange("ads", "upstream_unreachable", 502))
    metrics.in_flight.set(7)
    metrics.degraded.set(1)
    metrics.ejected("m", "http://a/v1").set(1)
    frame = between(before, scrape(metrics, 14.0))
    assert (frame.seconds, frame.requests, frame.errors) == (4.0, 14 / 4, 1 / 4)
    assert frame.refused_by == {"tokens": 1.0, "requests": 0.25}
    assert frame.refusals == 1.25
    assert (frame.input_tokens, frame.output_tokens) == (60.0, 20.0)
    assert frame.teams == (TeamRates("search", 2.0, 80.0, 0.0), TeamRates("ads", 1.5, 0.0, 1.25))
    assert (frame.in_flight, frame.degraded, frame.draining, frame.endpoints_ejected) == (7, True, False, 1)


def test_latencies_are_those_of_the_interval_alone() -> None:
    metrics = Metrics()
    for _ in range(1000):
        metrics.record(exchange(ttft=200.0))
    before = scrape(metrics, 0.0)
    for _ in range(100):
        metrics.record(exchange(ttft=0.1))
    frame = between(before, scrape(metrics, 1.0))
    p50, p99 = frame.time_to_first_token
    assert p50 is not None
    assert p99 is not None
    assert 0.08 <= p50 <= p99 <= 0.16, "within the bucket of 0.1 s"
    assert frame.overhead[0] is not None
    assert 0.001 <= frame.overhead[0] <= 0.002


def test_nothing_happened() -> None:
    metrics = Metrics()
    metrics.record(exchange())
    frame = between(scrape(metrics, 0.0), scrape(metrics, 2.0))
    assert (frame.requests, frame.refusals, frame.refused_by, frame.teams) == (0.0, 0.0, {}, ())
    assert (frame.overhead, frame.time_to_first_token) == ((None, None), (None, None))


def test_a_process_that_has_begun_anew_counts_from_nothing() -> None:
    old, new = Metrics(), Metrics()
    for _ in range(100):
        old.record(exchange(ttft=200.0))
    for _ in range(6):
        new.record(exchange())
    frame = between(scrape(old, 0.0), scrape(new, 2.0))
    assert (frame.requests, frame.output_tokens) == (3.0, 30.0)
    assert frame.time_to_first_token[1] is not None
    assert frame.time_to_first_token[1] < 1.0


QUANTILES = [
    # share  buckets                                        expected
    pytest.param(0.5, {}, None, id="no-buckets"),
    pytest.param(0.5, {1.0: 0, inf: 0}, None, id="nothing-in-them"),
    pytest.param(0.5, {1.0: 10, 2.0: 10, inf: 10}, 0.5, id="first"),
    pytest.param(0.5, {1.0: 0, 2.0: 10, inf: 10}, 1.5, id="second"),
    pytest.param(0.99, {1.0: 90, 2.0: 100, inf: 100}, 1.9, id="p99"),
    pytest.param(0.99, {1.0: 0, 2.0: 0, inf: 10}, 2.0, id="beyond-the-last"),
]


@pytest.mark.parametrize(("share", "buckets", "expected"), QUANTILES)
def test_quantile(share: float, buckets: dict[float, float], expected: float | None) -> None:
    assert quantile(share, buckets) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("text", ["", "<html>", "up 1\n"])
def test_what_is_no_weir_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(text, 0.0)
