"""prometheus_client, with children kept: 226 ns instead of 1,426 ns for an `inc()`."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from weir import __version__
from weir.core.exchange import Exchange
from weir.telemetry import names


class Metrics:
    """All metrics of this process, in their own registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._requests = self._counter(names.REQUESTS)
        self._tokens = self._counter(names.TOKENS)
        self._decisions = self._counter(names.DECISIONS)
        self._duration = self._histogram(names.DURATION, names.LONG_BUCKETS)
        self._first_token = self._histogram(names.FIRST_TOKEN, names.FIRST_TOKEN_BUCKETS)
        self._overhead = self._histogram(names.OVERHEAD, names.OVERHEAD_BUCKETS)
        self.in_flight = self._gauge(names.IN_FLIGHT)
        self.degraded = self._gauge(names.DEGRADED)
        self.unsettled = self._gauge(names.UNSETTLED)
        self.waiting = self._gauge(names.WAITING)
        self.settlements = self._counter(names.SETTLEMENTS)
        self.upstream_events = self._counter(names.UPSTREAM_EVENTS)
        self.ejected = self._gauge(names.EJECTED)
        self.replicas = self._gauge(names.REPLICAS, "livemin")
        self.generation = self._gauge(names.GENERATION, "livemin")
        self.reload_failures = self._counter(names.RELOAD_FAILURES)
        self.generation.set(1)
        self._gauge(names.BUILD).labels(__version__).set(1)
        self._teams: set[str] = set()
        self._request_children: dict[tuple[str, str, str, str, int], Counter] = {}
        self._token_children: dict[tuple[str, str, str], tuple[Counter, Counter]] = {}
        self._time_children: dict[tuple[str, str], tuple[Histogram, Histogram]] = {}
        self._allowed: dict[str, Counter] = {}

    def record(self, exchange: Exchange) -> None:
        """A finished request. Models are configured names, so their number is bounded; teams have a cap."""
        team = self._team(exchange)
        model = exchange.model or names.OTHER
        key = (team, model, exchange.operation, exchange.outcome, exchange.status)
        requests = self._request_children.get(key)
        if requests is None:
            status = f"{exchange.status // 100}xx"
            requests = self._requests.labels(team, model, exchange.operation, exchange.outcome, status)
            self._request_children[key] = requests
        requests.inc()
        self._overhead.observe(exchange.overhead)
        times = self._time_children.get((model, exchange.operation))
        if times is None:
            times = (self._duration.labels(model, exchange.operation), self._first_token.labels(model))
            self._time_children[model, exchange.operation] = times
        times[0].observe(exchange.duration)
        if exchange.first_byte:
            times[1].observe(exchange.first_byte - exchange.started)
        if exchange.input_tokens or exchange.output_tokens:
            self._record_tokens(team, model, exchange)
        self._record_decisions(team, exchange)

    def _record_tokens(self, team: str, model: str, exchange: Exchange) -> None:
        key = (team, model, exchange.tokens_from)
        children = self._token_children.get(key)
        if children is None:
            children = (
                self._tokens.labels(team, model, "input", exchange.tokens_from),
                self._tokens.labels(team, model, "output", exchange.tokens_from),
            )
            self._token_children[key] = children
        children[0].inc(exchange.input_tokens)
        children[1].inc(exchange.output_tokens)

    def _record_decisions(self, team: str, exchange: Exchange) -> None:
        if exchange.sent:
            allowed = self._allowed.get(team)
            if allowed is None:
                allowed = self._allowed[team] = self._decisions.labels(team, "all", "allowed")
            allowed.inc()
            for limit in exchange.shadow_refusals:
                self._decisions.labels(team, limit.replace(" ", "_"), "shadow").inc()
        elif exchange.limit:
            self._decisions.labels(team, exchange.limit.replace(" ", "_"), "refused").inc()

    def _team(self, exchange: Exchange) -> str:
        if exchange.principal is None:
            return ""
        team = exchange.principal.team
        if team not in self._teams:
            if len(self._teams) >= names.TEAMS_MAX:
                return names.OTHER
            self._teams.add(team)
        return team

    def _counter(self, name: tuple[str, str, tuple[str, ...]]) -> Counter:
        return Counter(*name, registry=self.registry)

    def _gauge(
        self, name: tuple[str, str, tuple[str, ...]], over_workers: Literal["livesum", "livemin"] = "livesum"
    ) -> Gauge:
        return Gauge(*name, registry=self.registry, multiprocess_mode=over_workers)

    def _histogram(self, name: tuple[str, str, tuple[str, ...]], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(*name, buckets=buckets, registry=self.registry)
