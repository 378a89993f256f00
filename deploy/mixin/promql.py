"""PromQL over the catalogue of metrics: a name, label or part of a metric that Weir does not have is refused here."""

from dataclasses import dataclass, replace
from typing import Self

from weir.telemetry.names import BUILD, Metric

# What Prometheus or a client library says beside Weir, as far as we use it.
CPU = Metric("process_cpu_seconds_total", "")
MEMORY = Metric("process_resident_memory_bytes", "")
OPEN_FDS = Metric("process_open_fds", "")
MAX_FDS = Metric("process_max_fds", "")
STARTED = Metric("process_start_time_seconds", "")
COLLECTIONS = Metric("python_gc_collections_total", "", ("generation",))
WAITING_PODS = Metric("kube_pod_container_status_waiting_reason", "", ("container", "reason"))
RESTARTS = Metric("kube_pod_container_status_restarts_total", "", ("container",))
FOREIGN = (CPU, MEMORY, OPEN_FDS, MAX_FDS, STARTED, COLLECTIONS, WAITING_PODS, RESTARTS)

PLACE = ("namespace", "pod", "instance", "job")  # the labels of a scrape
PARTS = ("_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Promql:
    """`scope` stands in every selector, `window` is what a rate looks back over.

    Labels are given as `outcome="ok"`; `"!ok"` is all but that, `"~a|b"` and `"!~a|b"` are patterns.
    """

    scope: str = ""
    window: str = "5m"

    def over(self, window: str) -> Self:
        return replace(self, window=window)

    def series(self, metric: Metric, part: str = "", /, **labels: str) -> str:
        """A selector."""
        if bool(metric.buckets) != (part in PARTS):
            raise ValueError(f"{metric.name}{part}: of a histogram take one of {PARTS}, of nothing else")
        _check(metric, labels, {"le"} if part == "_bucket" else set())
        matchers = [self.scope] if self.scope else []
        matchers += [f"{name}{_match(value)}" for name, value in labels.items()]
        return f"{metric.name}{part}" + (f"{{{', '.join(matchers)}}}" if matchers else "")

    def rate(self, metric: Metric, *by: str, part: str = "", **labels: str) -> str:
        """A second, summed."""
        return self._counted("rate", metric, by, part, labels)

    def increase(self, metric: Metric, *by: str, part: str = "", **labels: str) -> str:
        """In the window, summed."""
        return self._counted("increase", metric, by, part, labels)

    def gauge(self, how: str, metric: Metric, *by: str, **labels: str) -> str:
        """`how` is an aggregation: sum, max, min."""
        _check(metric, by)
        return f"{_by(how, by)} ({self.series(metric, **labels)})"

    def quantile(self, q: float, metric: Metric, *by: str, **labels: str) -> str:
        return f"histogram_quantile({q:g}, {self.buckets(metric, *by, **labels)})"

    def buckets(self, metric: Metric, *by: str, **labels: str) -> str:
        return self._counted("rate", metric, ("le", *by), "_bucket", labels)

    def mean(self, metric: Metric, *by: str, **labels: str) -> str:
        total, count = (self.rate(metric, *by, part=part, **labels) for part in ("_sum", "_count"))
        return f"{total} / {count}"

    def ours(self, series: str) -> str:
        """Only of Weir's processes: what every process of a Prometheus client says has no name of ours in it."""
        return f"{series} * on (namespace, instance) group_left () {self.gauge('max', BUILD, 'namespace', 'instance')}"

    def _counted(self, how: str, metric: Metric, by: tuple[str, ...], part: str, labels: dict[str, str]) -> str:
        if not metric.buckets and not metric.name.endswith("_total"):
            raise ValueError(f"{metric.name} is a gauge, and has no rate")
        _check(metric, by, {"le"} if part == "_bucket" else set())
        return f"{_by('sum', by)} ({how}({self.series(metric, part, **labels)}[{self.window}]))"


BOARD = Promql('namespace=~"$namespace"', "$__rate_interval")  # as dashboards speak
RULE = Promql()  # as rules do


def share(part: str, whole: str) -> str:
    """`part` of `whole`: 0 where a part has no series yet, nothing where there is no whole."""
    return f"({part} or {whole} * 0) / ({whole} > 0)"


def _by(how: str, by: tuple[str, ...]) -> str:
    return f"{how} by ({', '.join(by)})" if by else how


def _match(value: str) -> str:
    for sign, operator in (("!~", "!~"), ("~", "=~"), ("!", "!=")):
        if value.startswith(sign):
            return f'{operator}"{value.removeprefix(sign)}"'
    return f'="{value}"'


def _check(metric: Metric, labels: object, more: set[str] | None = None) -> None:
    known = {*metric.labels, *PLACE, *(more or ())}
    if unknown := set(labels) - known:  # type: ignore[call-overload]  # a dict or a tuple of names
        raise ValueError(f"{metric.name} has no label {', '.join(sorted(unknown))}; it has {sorted(known)}")
