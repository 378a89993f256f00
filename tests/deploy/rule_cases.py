"""For each alert: what must be so for somebody to be told, and what looks like it and is none of their business.

Values are promtool's: `0+5x60` is a counter that grows by 5 a minute, `_` no sample, `stale` the end of a series.
"""

from typing import NamedTuple

PLACE = {"namespace": "llm", "job": "weir"}
FIRST = PLACE | {"pod": "weir-0", "instance": "10.0.0.1:9090"}
SECOND = PLACE | {"pod": "weir-1", "instance": "10.0.0.2:9090"}


def s(name: str, where: dict[str, str] = FIRST, /, **labels: str) -> str:
    """A series by its name and labels."""
    inside = ", ".join(f'{label}="{value}"' for label, value in (where | labels).items())
    return f"{name}{{{inside}}}"


def ended(outcome: str, **labels: str) -> str:
    return s("weir_requests_total", outcome=outcome, **{"model": "m", "team": "t"} | labels)


def streams(per_minute: float, in_time: float, minutes: int) -> dict[str, str]:
    name = "weir_time_to_first_token_seconds"
    return {
        s(f"{name}_count", model="m"): f"0+{per_minute}x{minutes}",
        s(f"{name}_bucket", model="m", le="2.5"): f"0+{in_time}x{minutes}",
    }


def estimates(per_minute: float, bucket: str) -> dict[str, str]:
    """All of them in one bucket."""
    bounds = ("0.25", "0.5", "0.75", "1.0", "1.25", "2.0", "3.0", "+Inf")
    reached = {bound: per_minute if bounds.index(bound) >= bounds.index(bucket) else 0 for bound in bounds}
    name = "weir_prompt_estimate_ratio"
    series = {s(f"{name}_bucket", model="m", le=bound): f"0+{step}x120" for bound, step in reached.items()}
    return series | {s(f"{name}_count", model="m"): f"0+{per_minute}x120"}


def lags(per_minute: float, bucket: str) -> dict[str, str]:
    bounds = ("0.01", "0.1", "0.25", "1.0", "+Inf")
    name = "weir_event_loop_lag_seconds"
    series = {
        s(f"{name}_bucket", le=bound): f"0+{per_minute if bounds.index(bound) >= bounds.index(bucket) else 0}x60"
        for bound in bounds
    }
    return series | {s(f"{name}_count"): f"0+{per_minute}x60"}


def ejected(where: dict[str, str], endpoint: str, values: str) -> dict[str, str]:
    return {s("weir_endpoint_ejected", where, model="m", endpoint=endpoint): values}


def attempts(result: str, values: str) -> dict[str, str]:
    return {s("weir_upstream_attempts_total", model="m", endpoint="a", result=result): values}


def decisions(per_minute: float) -> dict[str, str]:
    return {s("weir_limit_decisions_total", team="t", limit="all", decision="allowed"): f"0+{per_minute}x120"}


def used(share: float) -> dict[str, str]:
    return {s("weir_limit_used_ratio", team="t", limit="team_tokens"): f"{share}x120"}


def waits(reason: str, values: str, container: str = "weir") -> dict[str, str]:
    name = "kube_pod_container_status_waiting_reason"
    return {f'{name}{{namespace="llm", pod="weir-0", container="{container}", reason="{reason}"}}': values}


def spans(exported: float, failed: float) -> dict[str, str]:
    return {
        s("weir_spans_total", result="exported"): f"0+{exported}x60",
        s("weir_spans_total", result="failed"): f"0+{failed}x60",
    }


def replicas(*counts: int, draining: int | None = None) -> dict[str, str]:
    """How many each of them counts, and which is on its way out."""
    series = {}
    for number, count in enumerate(counts):
        where = PLACE | {"pod": f"weir-{number}", "instance": f"10.0.0.{number}:9090"}
        series[s("weir_replicas", where)] = f"{count}x30"
        series[s("weir_draining", where)] = "1x30" if number == draining else "0x30"
    return series


class Case(NamedTuple):
    """At `minute`, `alert` fires with these labels; or it does not."""

    alert: str
    title: str
    minute: int
    series: dict[str, str]
    fires: dict[str, str] | None = None


FLEET, POD = {"namespace": "llm"}, {"namespace": "llm", "pod": "weir-0"}
PROCESS, MODEL = POD | {"instance": "10.0.0.1:9090"}, {"namespace": "llm", "model": "m"}
ENDPOINT, TEAM = MODEL | {"endpoint": "a"}, {"namespace": "llm", "team": "t", "limit": "team_tokens"}

CASES = [
    Case("WeirAvailabilityBurnsFast", "a twentieth fails", 70, {ended("ok"): "0+95x90", ended("upstream_error"): "0+5x90"}, FLEET),
    Case("WeirAvailabilityBurnsFast", "all fail where little is asked", 90, {ended("store_unavailable"): "0+0.5x90"}, FLEET),
    Case("WeirAvailabilityBurnsFast", "callers do wrong", 70, {ended("ok"): "0+95x90", ended("refused_key"): "0+50x90", ended("refused_tokens"): "0+50x90"}),
    Case("WeirAvailabilityBurnsFast", "few failures", 70, {ended("ok"): "0+0.3x90", ended("upstream_error"): "0+0.1x90"}),
    Case("WeirAvailabilityBurnsFast", "it is over", 75, {ended("ok"): "0+95x90", ended("upstream_error"): "0+5x30 150x60"}),
    Case("WeirAvailabilityBurnsSlowly", "four in a thousand fail", 200, {ended("ok"): "0+996x220", ended("upstream_timeout"): "0+4x220"}, FLEET),
    Case("WeirAvailabilityBurnsSlowly", "three in two thousand, for seven hours", 420, {ended("ok"): "0+1000x450", ended("internal_error"): "0+1.5x450"}, FLEET),
    Case("WeirAvailabilityBurnsSlowly", "half the budget", 200, {ended("ok"): "0+1000x220", ended("upstream_timeout"): "0+0.5x220"}),
    Case("WeirAvailabilityBurnsSlowly", "few failures", 200, {ended("ok"): "0+1x220", ended("upstream_timeout"): "0+0.02x220"}),
    Case("WeirFirstTokenBurnsFast", "four of five are late", 70, streams(100, 20, 90), FLEET),
    Case("WeirFirstTokenBurnsFast", "one of four is late", 70, streams(100, 75, 90)),
    Case("WeirFirstTokenBurnsFast", "few streams", 70, streams(0.5, 0, 90)),
    Case("WeirFirstTokenBurnsSlowly", "one of five is late", 200, streams(100, 80, 220), FLEET),
    Case("WeirFirstTokenBurnsSlowly", "one of thirty is late", 200, streams(90, 87, 220)),
    Case("WeirFirstTokenBurnsSlowly", "few streams", 200, streams(0.2, 0, 220)),
    Case("WeirRedisAway", "from everybody", 10, {s("weir_degraded"): "1x20", s("weir_degraded", SECOND): "1x20"}, FLEET),
    Case("WeirRedisAway", "from one of two", 10, {s("weir_degraded"): "1x20", s("weir_degraded", SECOND): "0x20"}),
    Case("WeirRedisAway", "for three minutes", 8, {s("weir_degraded"): "0x5 1 1 1 0 0 0", s("weir_degraded", SECOND): "0x5 1 1 1 0 0 0"}),
    Case("WeirReplicaWithoutRedis", "one of two", 30, {s("weir_degraded"): "1x40", s("weir_degraded", SECOND): "0x40"}, PROCESS),
    Case("WeirReplicaWithoutRedis", "one of two, and off and on", 40, {s("weir_degraded"): "1 1 1 0 " * 10, s("weir_degraded", SECOND): "0x40"}, PROCESS),
    Case("WeirReplicaWithoutRedis", "all, which another alert says", 30, {s("weir_degraded"): "1x40", s("weir_degraded", SECOND): "1x40"}),
    Case("WeirReplicaWithoutRedis", "for three minutes", 30, {s("weir_degraded"): "0x20 1 1 1 0x20", s("weir_degraded", SECOND): "0x40"}),
    Case("WeirModelDown", "as the one replica sees it that asks", 15, {ended("upstream_unreachable"): "0+2x30"} | ejected(FIRST, "a", "1x30") | ejected(FIRST, "b", "1x30") | ejected(SECOND, "a", "0x30") | ejected(SECOND, "b", "0x30"), MODEL),
    Case("WeirModelDown", "one of two endpoints", 15, {ended("ok"): "0+2x30"} | ejected(FIRST, "a", "1x30") | ejected(FIRST, "b", "0x30")),
    Case("WeirModelDown", "nobody asks", 15, {ended("ok"): "7x30"} | ejected(FIRST, "a", "1x30")),
    Case("WeirEndpointEjected", "one of two", 25, {ended("ok"): "0+2x30"} | ejected(FIRST, "a", "1x30") | ejected(FIRST, "b", "0x30"), ENDPOINT),
    Case("WeirEndpointEjected", "for two minutes", 25, {ended("ok"): "0+2x30"} | ejected(FIRST, "a", "0x20 1 1 0x10")),
    Case("WeirEndpointEjected", "nobody asks", 25, {ended("ok"): "7x30"} | ejected(FIRST, "a", "1x30")),
    Case("WeirUpstreamRefusesKey", "a fifth", 20, attempts("ok", "0+20x30") | attempts("401", "0+5x30"), ENDPOINT),
    Case("WeirUpstreamRefusesKey", "one of a hundred, as a model may refuse what it is asked", 20, attempts("ok", "0+200x30") | attempts("403", "0+2x30")),
    Case("WeirUpstreamRefusesKey", "few", 20, attempts("401", "0+0.5x30")),
    Case("WeirUpstreamRefusesKey", "it fails in other ways", 20, attempts("500", "0+20x30") | attempts("401", "0x30")),
    Case("WeirLimitNearlySpent", "an hour long", 70, used(0.97) | decisions(5), TEAM),
    Case("WeirLimitNearlySpent", "room is left", 70, used(0.8) | decisions(5)),
    Case("WeirLimitNearlySpent", "a limit of one request", 70, used(1) | decisions(0.1)),
    Case("WeirSettlementsWaiting", "many, while Redis is away", 10, {s("weir_unsettled_reservations"): "20000x20", s("weir_degraded"): "1x20"}, PROCESS),
    Case("WeirSettlementsWaiting", "some, and Redis is there", 10, {s("weir_unsettled_reservations"): "500x20", s("weir_degraded"): "0x20"}, PROCESS),
    Case("WeirSettlementsWaiting", "some, while Redis is away", 10, {s("weir_unsettled_reservations"): "500x20", s("weir_degraded"): "1x20"}),
    Case("WeirSettlementsDropped", "some", 8, {s("weir_settlements_total", state="dropped"): "0 0 0 0 5x20"}, FLEET),
    Case("WeirSettlementsDropped", "sent again", 8, {s("weir_settlements_total", state="dropped"): "0x20", s("weir_settlements_total", state="replayed"): "0+5x20"}),
    Case("WeirEstimateOff", "three times too much", 100, estimates(5, "3.0"), MODEL),
    Case("WeirEstimateOff", "half", 100, estimates(5, "0.5"), MODEL),
    Case("WeirEstimateOff", "a little too much", 100, estimates(5, "1.25")),
    Case("WeirEstimateOff", "few prompts", 100, estimates(0.5, "3.0")),
    Case("WeirPodCannotStart", "a Secret is missing", 15, waits("CreateContainerConfigError", "1x30"), POD | {"reason": "CreateContainerConfigError"}),
    Case("WeirPodCannotStart", "a certificate's volume is missing", 15, waits("ContainerCreating", "1x30"), POD | {"reason": "ContainerCreating"}),
    Case("WeirPodCannotStart", "it starts", 15, waits("ContainerCreating", "1 1 1 0x20")),
    Case("WeirPodCannotStart", "somebody else's", 15, waits("CreateContainerConfigError", "1x30", "redis")),
    Case("WeirRestarts", "as Kubernetes counts", 30, {'kube_pod_container_status_restarts_total{namespace="llm", pod="weir-0", container="weir"}': "0x10 1x5 2x5 3x5 4x20"}, POD),
    Case("WeirRestarts", "without kube-state-metrics", 30, {s("process_start_time_seconds"): "10x10 70x5 400x5 900x5 1000x20", s("weir_build_info", version="1"): "1x60"}, POD),
    Case("WeirRestarts", "once", 30, {s("process_start_time_seconds"): "10x10 70x40", s("weir_build_info", version="1"): "1x60"}),
    Case("WeirRestarts", "another program", 30, {s("process_start_time_seconds"): "10x10 70x5 400x5 900x5 1000x20"}),
    Case("WeirNoTraffic", "nobody asks any more", 125, {ended("ok"): "0+100x100 10000x60"}, FLEET),
    Case("WeirNoTraffic", "nobody is there any more", 125, {ended("ok"): "0+100x100 stale"}, FLEET),
    Case("WeirNoTraffic", "a quiet evening", 125, {ended("ok"): "0+2x100 200x60"}),
    Case("WeirNoTraffic", "all is well", 125, {ended("ok"): "0+100x160"}),
    Case("WeirNoTraffic", "a little is left", 125, {ended("ok"): "0+100x100 10000+1x60"}),
    Case("WeirEventLoopLag", "a quarter of a second", 30, lags(200, "0.25"), PROCESS),
    Case("WeirEventLoopLag", "ten milliseconds", 30, lags(200, "0.01")),
    Case("WeirEventLoopLag", "it has just begun", 30, lags(10, "0.25")),
    Case("WeirConfigRefused", "one", 8, {s("weir_config_reload_failures_total"): "0 0 0 1x20"}, FLEET),
    Case("WeirConfigRefused", "none", 8, {s("weir_config_reload_failures_total"): "0x20"}),
    Case("WeirReplicasDisagree", "two and two", 20, replicas(2, 2, 2, 2), PLACE),
    Case("WeirReplicasDisagree", "all see all", 20, replicas(4, 4, 4, 4)),
    Case("WeirReplicasDisagree", "one has left, and still ends its streams", 20, replicas(2, 2, 2, draining=0)),
    Case("WeirSpansFail", "a fifth", 40, spans(80, 20), FLEET),
    Case("WeirSpansFail", "one of a hundred", 40, spans(99, 1)),
    Case("WeirSpansFail", "few spans", 40, spans(0, 1)),
]  # fmt: skip
