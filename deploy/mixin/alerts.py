"""The alerts, as data: when, from what volume on, for how long, what it means to users, what to do next.

critical: wake somebody.    warning: look at it this week.    info: context for whoever looks already.
"""

from typing import Literal, NamedTuple

from deploy.mixin.board import Board
from deploy.mixin.fleet import FLEET
from deploy.mixin.limits import LIMITS
from deploy.mixin.models import MODELS
from deploy.mixin.objectives import AVAILABILITY, FIRST_TOKEN, Objective
from deploy.mixin.promql import RESTARTS, RULE, STARTED, WAITING_PODS
from deploy.mixin.rules import REQUESTS, bad, ratio
from deploy.mixin.teams import TEAMS
from weir.telemetry import names

# Where the pages of deploy/runbooks can be read; the chart replaces it, as do you if yours are elsewhere.
RUNBOOKS = "https://github.com/weir-gateway/weir/blob/main/deploy/runbooks"

Q, PROCESS = RULE, ("namespace", "pod", "instance")
WHO = "{{ or $labels.pod $labels.instance }}"  # outside of Kubernetes there are no pods


class Alert(NamedTuple):
    """`volume` is the least that must have happened, matched by the labels `by`; empty where `inherent` says why none is
    needed. `$labels` of the texts are those of `by` and of `when`.
    """

    name: str
    severity: Literal["critical", "warning", "info"]
    when: str
    hold: str
    summary: str
    description: str
    panel: tuple[Board, str]
    by: tuple[str, ...] = ("namespace",)
    volume: str = ""
    inherent: str = ""

    @property
    def expr(self) -> str:
        return f"({self.when}) and on ({', '.join(self.by)}) ({self.volume})" if self.volume else self.when

    @property
    def dashboard_url(self) -> str:
        board, title = self.panel
        return board.url_of(title)

    @property
    def runbook_url(self) -> str:
        return f"{RUNBOOKS}/{self.name}.md"


def _burns(objective: Objective, *windows: tuple[float, str, str]) -> str:
    """In a long window and still in a short one, at so many times the rate that the budget allows."""
    return " or ".join(
        f"({ratio(objective, long)} > {times * objective.budget:g} and {ratio(objective, short)} > {times * objective.budget:g})"
        for times, long, short in windows
    )  # fmt: skip


def _count(objective: Objective, window: str, seconds: int, least: int) -> str:
    return f"avg_over_time({bad(objective)}[{window}]) * {seconds} >= {least}"


# 14.4 spends a month's budget in two days, 6 in five, 3 in ten, 1 in a month (Google's SRE workbook, chapter 5).
FAST = ((14.4, "1h", "5m"), (6.0, "6h", "30m"))
SLOW = ((3.0, "1d", "2h"), (1.0, "3d", "6h"))

ALERTS = (
    Alert(
        "WeirAvailabilityBurnsFast", "critical",
        _burns(AVAILABILITY, *FAST), "2m", volume=_count(AVAILABILITY, "1h", 3600, 10),
        summary="{{ $value | humanizePercentage }} of the requests in {{ $labels.namespace }} fail",
        description="Callers get 5xx or broken streams, so many that the month's error budget is gone in days. "
        "Look which outcome it is: store_unavailable is Redis, upstream_* a model's server, refused_overload too few places.",
        panel=(FLEET, "Failures by outcome"),
    ),
    Alert(
        "WeirAvailabilityBurnsSlowly", "warning",
        _burns(AVAILABILITY, *SLOW), "15m", volume=_count(AVAILABILITY, "6h", 21_600, 20),
        summary="{{ $value | humanizePercentage }} of the requests in {{ $labels.namespace }} fail, for a day or longer",
        description="Some callers get 5xx or broken streams now and then, and their clients ask again. If it goes on, the objective "
        "of the month is missed. Look which outcome it is, and at which model.",
        panel=(FLEET, "Error budget burn"),
    ),
    Alert(
        "WeirFirstTokenBurnsFast", "critical",
        _burns(FIRST_TOKEN, *FAST), "5m", volume=_count(FIRST_TOKEN, "1h", 3600, 50),
        summary="{{ $value | humanizePercentage }} of the streams in {{ $labels.namespace }} begin later than 2.5 s",
        description="People wait for the first word of nearly every answer. Look which model it is, and whether its engines are slow "
        "(first byte by endpoint), full (wait for a place), or fewer than usual (ejected endpoints).",
        panel=(FLEET, "Time to first token"),
    ),
    Alert(
        "WeirFirstTokenBurnsSlowly", "warning",
        _burns(FIRST_TOKEN, *SLOW), "15m", volume=_count(FIRST_TOKEN, "6h", 21_600, 100),
        summary="{{ $value | humanizePercentage }} of the streams in {{ $labels.namespace }} begin later than 2.5 s, for a day or longer",
        description="More answers than promised begin late. Look which model it is: it may need another engine, a limit for whoever "
        "sends the long prompts, or an objective of its own.",
        panel=(MODELS, "Late first tokens by model"),
    ),
    Alert(
        "WeirRedisAway", "critical",
        f"{Q.gauge('min', names.DEGRADED, 'namespace')} == 1", "5m",
        inherent="a process looks for Redis without any request",
        summary="No replica of {{ $labels.namespace }} has Redis",
        description="With redis.on_outage at its default, known keys are served on local limits, and keys that a replica has not seen "
        "within the hour get 503. A replica that restarts now does not become ready. Repair Redis; do not restart Weir.",
        panel=(LIMITS, "Degraded"),
    ),
    Alert(
        "WeirReplicaWithoutRedis", "warning",
        f"max by ({', '.join(PROCESS)}) (avg_over_time({Q.series(names.DEGRADED)}[15m])) > 0.5 unless on (namespace) {Q.gauge('min', names.DEGRADED, 'namespace')} == 1",
        "10m", by=PROCESS, inherent="a process looks for Redis without any request",
        summary=WHO + " of {{ $labels.namespace }} has no Redis, and others have",
        description="Callers who come to this replica are held to local limits, and new keys get 503 from it. Look for what is "
        "particular about it: its node, its network policy, its credentials.",
        panel=(LIMITS, "Degraded"),
    ),
    Alert(
        "WeirModelDown", "critical",
        f"max by (namespace, model) (min by (model, {', '.join(PROCESS)}) ({Q.series(names.EJECTED)})) == 1",
        "2m", by=("namespace", "model"), volume=f"{Q.over('15m').increase(names.REQUESTS, 'namespace', 'model')} >= 5",
        summary="Every endpoint of model {{ $labels.model }} in {{ $labels.namespace }} is ejected",
        description="Requests to this model get 502 or 504, or go to its fallbacks if it has any. Weir goes on probing, and takes an "
        "endpoint back by itself. Look at the engines.",
        panel=(MODELS, "Ejected endpoints"),
    ),
    Alert(
        "WeirEndpointEjected", "warning",
        f"max by (namespace, model, endpoint) (avg_over_time({Q.series(names.EJECTED)}[15m])) > 0.5",
        "5m", by=("namespace", "model"), volume=f"{Q.over('15m').increase(names.REQUESTS, 'namespace', 'model')} >= 10",
        summary="{{ $labels.endpoint }} of model {{ $labels.model }} in {{ $labels.namespace }} has been out for most of 15 minutes",
        description="Callers notice nothing while the model's other endpoints hold; these carry the load of the missing one. "
        "Look at the engine behind this address.",
        panel=(MODELS, "Ejected endpoints"),
    ),
    Alert(
        "WeirUpstreamRefusesKey", "critical",
        f"{Q.over('10m').increase(names.ATTEMPTS, 'namespace', 'model', 'endpoint', result='~401|403')} / "
        f"{Q.over('10m').increase(names.ATTEMPTS, 'namespace', 'model', 'endpoint')} > 0.1",
        "5m", by=("namespace", "model", "endpoint"),
        volume=f"{Q.over('10m').increase(names.ATTEMPTS, 'namespace', 'model', 'endpoint', result='~401|403')} >= 10",
        summary="{{ $labels.endpoint }} of model {{ $labels.model }} refuses {{ $value | humanizePercentage }} of our requests with 401 or 403",
        description="Callers get 502, since this is our credential and not theirs. It is not tried elsewhere and does not heal. Look "
        "whether the key that the endpoint's api_key_env names has expired, was rotated, or has no quota.",
        panel=(MODELS, "Refused credentials"),
    ),
    Alert(
        "WeirLimitNearlySpent", "info",
        f"max by (namespace, team, limit) (avg_over_time({Q.series(names.LIMIT_USED)}[30m])) > 0.9",
        "30m", by=("namespace", "team"), volume=f"{Q.over('30m').increase(names.DECISIONS, 'namespace', 'team')} >= 30",
        summary="Team {{ $labels.team }} has used up {{ $labels.limit }} to {{ $value | humanizePercentage }} for an hour",
        description="The team is refused with 429 now, or soon. That may be what its limit is for. If not, raise the limit or speak with the team.",
        panel=(TEAMS, "Near a limit"),
    ),
    Alert(
        "WeirSettlementsWaiting", "warning",
        f"{Q.gauge('max', names.UNSETTLED, *PROCESS)} > 10000 or ({Q.gauge('max', names.UNSETTLED, *PROCESS)} > 100 and {Q.gauge('max', names.DEGRADED, *PROCESS)} == 0)",
        "5m", by=PROCESS, inherent="what is counted are requests already",
        summary="{{ $value }} settlements of " + WHO + " in {{ $labels.namespace }} wait for Redis",
        description="What these requests did not use stays charged, so teams have less than they should. Beyond 100,000 the oldest are "
        "dropped. Repair Redis, and do not stop this process before the queue is empty.",
        panel=(LIMITS, "Unsettled reservations"),
    ),
    Alert(
        "WeirSettlementsDropped", "warning",
        f"{Q.over('15m').increase(names.SETTLEMENTS, 'namespace', state='dropped')} > 0", "1m",
        inherent="each one is a request that is charged wrongly",
        summary="{{ $value | humanize }} settlements in {{ $labels.namespace }} were dropped",
        description="All that was reserved for these requests stays charged to their teams, which is more than they used. It refills with "
        "time. Redis was away for too long, or too much was asked meanwhile.",
        panel=(LIMITS, "Settlements late or lost"),
    ),
    Alert(
        "WeirEstimateOff", "warning",
        " or ".join(f"{Q.over('1h').quantile(0.5, names.ESTIMATE, 'namespace', 'model')} {bound}" for bound in ("> 2", "< 0.75")),
        "30m", by=("namespace", "model"), volume=f"{Q.over('1h').increase(names.ESTIMATE, 'namespace', 'model', part='_count')} >= 100",
        summary="Prompts of model {{ $labels.model }} in {{ $labels.namespace }} are estimated at {{ $value | humanize }} times what they are",
        description="Above 1 token limits refuse earlier than they should; below, they go into debt, and later requests wait. "
        "Look whether the model or what it is asked has changed: the estimate learns by some hundred requests.",
        panel=(LIMITS, "Prompt estimate by model"),
    ),
    Alert(
        "WeirPodCannotStart", "warning",
        Q.gauge("max", WAITING_PODS, "namespace", "pod", "reason", container="weir", reason="~CreateContainerConfigError|CreateContainerError|ContainerCreating|ErrImagePull|ImagePullBackOff") + " == 1",
        "10m", by=("namespace", "pod"), inherent="a pod that does not start has no requests",
        summary="{{ $labels.pod }} in {{ $labels.namespace }} waits: {{ $labels.reason }}",
        description="Callers notice nothing while other replicas run; a rollout stands still. CreateContainerConfigError is a Secret or "
        "ConfigMap that is not there; ContainerCreating for this long is a volume, such as a certificate's Secret.",
        panel=(FLEET, "Containers that cannot start"),
    ),
    Alert(
        "WeirRestarts", "warning",
        f"sum by (namespace, pod) (increase({Q.series(RESTARTS, container='weir')}[30m])) > 2 "
        f"or max by (namespace, pod) ({Q.ours(f'changes({Q.series(STARTED)}[30m])')}) > 2",
        "1m", by=("namespace", "pod"), inherent="a process that cannot start has no requests",
        summary="{{ $labels.pod }} in {{ $labels.namespace }} began {{ $value | humanize }} times in half an hour",
        description="Each end without a drain breaks the streams that ran there. Look at how the last process ended: out of memory, a "
        "failed probe, or a configuration that `weir check` refuses.",
        panel=(FLEET, "Age of processes"),
    ),
    Alert(
        "WeirNoTraffic", "critical",
        f"avg_over_time({REQUESTS}[1h] offset 30m) unless avg_over_time({REQUESTS}[10m]) > 0", "5m",
        volume=f"avg_over_time({REQUESTS}[1h] offset 30m) * 3600 >= 600",
        summary="No request has come to {{ $labels.namespace }} for a quarter of an hour, after {{ $value | humanize }} a second before",
        description="Either nobody asks, or nobody gets here: DNS, ingress, certificate, network policy, or no replica is left. Ask from outside.",
        panel=(FLEET, "Requests"),
    ),
    Alert(
        "WeirEventLoopLag", "warning",
        f"{Q.quantile(0.99, names.LOOP_LAG, *PROCESS)} > 0.1", "10m", by=PROCESS,
        volume=f"{Q.increase(names.LOOP_LAG, *PROCESS, part='_count')} >= 100",
        summary="The event loop of " + WHO + " in {{ $labels.namespace }} is late by {{ $value | humanizeDuration }}",
        description="Every answer and every token of this process is late by as much, and Redis may seem away to it. It has more to do "
        "than one core can: add replicas, or look whether its node is throttled.",
        panel=(FLEET, "Event loop lag"),
    ),
    Alert(
        "WeirConfigRefused", "warning",
        f"{Q.over('1h').increase(names.RELOAD_FAILURES, 'namespace')} > 0", "1m", inherent="one that is refused is one that somebody wanted",
        summary="A changed configuration was refused in {{ $labels.namespace }}",
        description="Callers notice nothing: the last good configuration stays. A process that restarts now reads the bad one and does "
        "not start. Run `weir check` on the file; the log says what is wrong with it.",
        panel=(LIMITS, "Refused configurations"),
    ),
    Alert(
        "WeirReplicasDisagree", "warning",
        f"{Q.gauge('min', names.REPLICAS, 'namespace', 'job')} < count by (namespace, job) ({Q.series(names.REPLICAS)} unless on (namespace, pod, instance) {Q.series(names.DRAINING)} == 1)",
        "10m", by=("namespace", "job"), inherent="processes count each other without any request",
        summary="Processes of {{ $labels.job }} in {{ $labels.namespace }} see only {{ $value }} of each other",
        description="Those that do not see each other use different Redises, so teams may use their limits once in each. Compare what "
        "each process was told: `redis` in its log line `ready`.",
        panel=(LIMITS, "Processes, counted and seen"),
    ),
    Alert(
        "WeirSpansFail", "warning",
        f"{Q.over('15m').increase(names.SPANS, 'namespace', result='~failed|dropped')} / {Q.over('15m').increase(names.SPANS, 'namespace')} > 0.1",
        "15m", volume=f"{Q.over('15m').increase(names.SPANS, 'namespace')} >= 100",
        summary="{{ $value | humanizePercentage }} of the spans of {{ $labels.namespace }} do not arrive",
        description="Callers notice nothing. Traces have holes, and exemplars lead nowhere. Look whether the collector at "
        "telemetry.otlp_endpoint answers.",
        panel=(FLEET, "Spans"),
    ),
)  # fmt: skip
