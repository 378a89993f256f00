"""What /metrics says, read back: numbers between two scrapes, as `weir top` shows them. See exposition.py."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from weir.telemetry import names
from weir.telemetry.names import Metric

Labels = frozenset[tuple[str, str]]
QUANTILES = (0.5, 0.99)


class Scrape(NamedTuple):
    """All samples of one moment: by name, then by labels. `at` is in seconds of a clock that never goes back."""

    at: float
    samples: Mapping[str, Mapping[Labels, float]]

    def total(self, metric: Metric, **labels: str) -> float:
        """The sum of the series that have these labels."""
        wanted = set(labels.items())
        return sum(value for series, value in self.samples.get(metric.name, {}).items() if wanted <= series)


def read(text: str, at: float) -> Scrape:
    """Raises ValueError where it is no exposition."""
    samples: dict[str, dict[Labels, float]] = defaultdict(dict)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples[sample.name][frozenset(sample.labels.items())] = sample.value
    if names.IN_FLIGHT.name not in samples:
        raise ValueError("this does not speak of Weir")
    return Scrape(at, samples)


class Frame(NamedTuple):
    """What happened between two scrapes, in rates a second and in quantiles in seconds (None where nothing happened);
    `in_flight` to `endpoints_ejected` are how it stands at the second.
    """

    seconds: float
    requests: float
    errors: float
    refusals: float
    refused_by: Mapping[str, float]
    input_tokens: float
    output_tokens: float
    in_flight: int
    waiting: int
    replicas: int
    degraded: bool
    draining: bool
    endpoints_ejected: int
    overhead: tuple[float | None, ...]
    time_to_first_token: tuple[float | None, ...]
    teams: tuple["TeamRates", ...]


class TeamRates(NamedTuple):
    team: str
    requests: float
    tokens: float
    refusals: float


def between(before: Scrape, after: Scrape) -> Frame:
    """Where a counter went back the process has begun anew, and so do we."""
    seconds = max(after.at - before.at, 1e-9)
    if any(after.total(metric) < before.total(metric) for metric in (names.REQUESTS, names.TOKENS)):
        before = Scrape(before.at, {})

    def by(metric: Metric, key: Callable[[Mapping[str, str]], str | None]) -> dict[str, float]:
        """Growth a second of a counter, summed by what `key` makes of a series' labels; None leaves it out."""
        rates: dict[str, float] = defaultdict(float)
        for labels, growth in _growth(before, after, metric.name):
            name = key(labels)
            if name is not None and growth:
                rates[name] += growth / seconds
        return rates

    def quantiles(metric: Metric) -> tuple[float | None, ...]:
        buckets: dict[float, float] = defaultdict(float)
        for labels, growth in _growth(before, after, metric.name + "_bucket"):
            buckets[float(labels["le"])] += growth
        return tuple(quantile(share, buckets) for share in QUANTILES)

    refused = by(names.REQUESTS, _refusal)
    team_requests = by(names.REQUESTS, lambda labels: labels["team"])
    team_tokens = by(names.TOKENS, lambda labels: labels["team"] if labels["direction"] in _WHOLE else None)
    team_refusals = by(names.REQUESTS, lambda labels: labels["team"] if _refusal(labels) else None)
    tokens = by(names.TOKENS, lambda labels: labels["direction"])
    return Frame(
        seconds=seconds,
        requests=sum(team_requests.values()),
        errors=sum(by(names.REQUESTS, lambda labels: "" if labels["status"] == "5xx" else None).values()),
        refusals=sum(refused.values()),
        refused_by=dict(sorted(refused.items(), key=lambda pair: -pair[1])),
        input_tokens=tokens.get("input", 0.0),
        output_tokens=tokens.get("output", 0.0),
        in_flight=int(after.total(names.IN_FLIGHT)),
        waiting=int(after.total(names.WAITING)),
        replicas=int(after.total(names.REPLICAS)),
        degraded=bool(after.total(names.DEGRADED)),
        draining=bool(after.total(names.DRAINING)),
        endpoints_ejected=int(after.total(names.EJECTED)),
        overhead=quantiles(names.OVERHEAD),
        time_to_first_token=quantiles(names.FIRST_TOKEN),
        teams=tuple(
            TeamRates(team, rate, team_tokens.get(team, 0.0), team_refusals.get(team, 0.0))
            for team, rate in sorted(team_requests.items(), key=lambda pair: (-pair[1], pair[0]))
        ),
    )


def quantile(share: float, buckets: Mapping[float, float]) -> float | None:
    """As Prometheus' histogram_quantile: between two bounds it is taken to be even, above the last one it is that one.

    `buckets` are cumulative counts by their upper bounds, the last of them infinite.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    rank = share * buckets[bounds[-1]]
    lower = below = 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank:
            if bound == inf:
                return lower
            inside = count - below
            return lower + (bound - lower) * ((rank - below) / inside if inside else 1.0)
        lower, below = bound, count
    return lower


_WHOLE = ("input", "output")  # the others are parts of these


def _refusal(labels: Mapping[str, str]) -> str | None:
    outcome = labels["outcome"]
    return outcome.removeprefix("refused_") if outcome.startswith("refused_") else None


def _growth(before: Scrape, after: Scrape, name: str) -> Iterable[tuple[dict[str, str], float]]:
    earlier: Mapping[Labels, float] = before.samples.get(name, {})
    for series, value in after.samples.get(name, {}).items():
        yield dict(series), value - earlier.get(series, 0.0)
