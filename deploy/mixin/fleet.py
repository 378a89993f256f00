"""Is it well?"""

from deploy.mixin.board import GREEN, RED, Board, Row, Unit, area, bars, heat, lines, one
from deploy.mixin.objectives import AVAILABILITY, CALLER, FAULT, FIRST_TOKEN, LEFT
from deploy.mixin.promql import BOARD as Q
from deploy.mixin.promql import COLLECTIONS, CPU, MAX_FDS, MEMORY, OPEN_FDS, RESTARTS, STARTED, WAITING_PODS, share
from weir.telemetry import names

_ALL = Q.over("$__range")
_FAULTY = share(AVAILABILITY.bad(Q), AVAILABILITY.all(Q))
_LATE = share(FIRST_TOKEN.bad(Q), FIRST_TOKEN.all(Q))
_BAD = share(AVAILABILITY.bad(_ALL), AVAILABILITY.all(_ALL))
_PROCESS = "{{pod}} {{instance}}"


def _each(how: str, series: str) -> str:
    return f"{how} by (pod, instance) ({series})"


FLEET = Board(
    "weir-fleet",
    "Weir / Fleet",
    "Is it well? Objectives, traffic, what fails, and how full it is.",
    rows=(
        Row(
            "Objectives",
            (
                one(
                    "Availability",
                    f"Which share of the requests of this time did we answer? {AVAILABILITY.target:.1%} is the objective; what callers did wrong does not count.",
                    Unit.SHARE, f"1 - {_BAD}", limit=AVAILABILITY.target, low_is_bad=True, decimals=3,
                ),
                one(
                    "Error budget left",
                    "If all time were like this time: how much of what may fail has not failed? Below 0 the objective is missed.",
                    Unit.SHARE, f"1 - {_BAD} / {AVAILABILITY.budget:g}", limit=0, low_is_bad=True, least=-1e4, decimals=1,
                ),
                one(
                    "First tokens in time",
                    f"Which share of the streams of this time began within 2.5 s? {FIRST_TOKEN.target:.0%} is the objective.",
                    Unit.SHARE, f"1 - {share(FIRST_TOKEN.bad(_ALL), FIRST_TOKEN.all(_ALL))}",
                    limit=FIRST_TOKEN.target, low_is_bad=True, decimals=2,
                ),
                one("Requests now", "How many requests a second end?", Unit.RATE, Q.rate(names.REQUESTS), decimals=1),
                one(
                    "Redis", "Does each process have Redis? Away means local limits, and no key that is new.", Unit.NUMBER,
                    Q.gauge("max", names.DEGRADED), words=(("0", "there", GREEN), ("1", "away", RED)), most=1,
                ),
                one(
                    "Replicas stopping", "How many replicas are draining, as in a rollout?", Unit.NUMBER,
                    Q.gauge("sum", names.DRAINING),
                ),
                lines(
                    "Error budget burn",
                    "How many times faster than the objective allows do requests fail? At 1 the budget of a month lasts a month, at 14.4 two days.",
                    Unit.TIMES, (f"{_FAULTY} / {AVAILABILITY.budget:g}", "availability"), limit=1, width=12,
                ),
                lines(
                    "Late first tokens burn",
                    "How many times more streams than the objective allows begin later than 2.5 s?",
                    Unit.TIMES, (f"{_LATE} / {FIRST_TOKEN.budget:g}", "first token"), limit=1, width=12,
                ),
            ),
        ),
        Row(
            "Traffic and what becomes of it",
            (
                area("Requests", "What do people ask for?", Unit.RATE, (Q.rate(names.REQUESTS, "operation"), "{{operation}}")),
                area(
                    "Failures by outcome", "What do we fail at? store_unavailable is Redis, upstream_* a model's server, refused_overload too little of it.",
                    Unit.RATE, (Q.rate(names.REQUESTS, "outcome", outcome=FAULT), "{{outcome}}"),
                ),
                area(
                    "Refusals by outcome", "What do callers do that is refused: keys, limits, bodies?",
                    Unit.RATE, (Q.rate(names.REQUESTS, "outcome", outcome=CALLER), "{{outcome}}"),
                ),
                area("Answers by status", "Which statuses do clients see?", Unit.RATE, (Q.rate(names.REQUESTS, "status"), "{{status}}")),
                lines(
                    "Clients who left", "How many callers did not wait for their answer, or stopped reading it?",
                    Unit.RATE, (Q.rate(names.REQUESTS, "outcome", outcome=LEFT), "{{outcome}}"),
                ),
                area(
                    "Tokens", "How many tokens a second go in and come out?", Unit.EACH_SECOND,
                    (Q.rate(names.TOKENS, "direction", direction="~input|output"), "{{direction}}"),
                ),
            ),
        ),
        Row(
            "How long it takes",
            (
                heat("Time to first token", "How long do streams let their readers wait, first byte in to first byte out?", Unit.SECONDS, names.FIRST_TOKEN),
                heat("Request duration", "How long do requests take, from the first byte in to the last byte out?", Unit.SECONDS, names.DURATION),
                heat("Overhead", "How much of that is ours, Redis included?", Unit.SECONDS, names.OVERHEAD),
                lines(
                    "Time to first token, quantiles", "How long does the slowest half, twentieth and hundredth of the streams take to begin?",
                    Unit.SECONDS, *((Q.quantile(q, names.FIRST_TOKEN), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)), limit=2.5,
                ),
                lines(
                    "Request duration by operation", "How long does the slowest twentieth of the requests take?",
                    Unit.SECONDS, (Q.quantile(0.95, names.DURATION, "operation"), "{{operation}}"),
                ),
                lines(
                    "Overhead, quantiles", "How much time do we add to the slowest half, twentieth and hundredth of the requests?",
                    Unit.SECONDS, *((Q.quantile(q, names.OVERHEAD), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99)),
                ),
            ),
        ),
        Row(
            "How full it is",
            (
                lines(
                    "In flight and waiting", "How many requests are under way, and how many wait for a place because server.max_in_flight or an endpoint's is reached?",
                    Unit.NUMBER, (Q.gauge("sum", names.IN_FLIGHT), "in flight"), (Q.gauge("sum", names.WAITING), "waiting"),
                ),
                lines(
                    "Event loop lag", "Does any process have more to do than it can? Its timers then come late, and so does every answer.",
                    Unit.SECONDS, (Q.quantile(0.99, names.LOOP_LAG, "pod", "instance"), _PROCESS), limit=0.1,
                ),
                lines("CPU", "How many cores does each process use? One is all that a process can.", Unit.CORES, (_each("sum", Q.ours(f"rate({Q.series(CPU)}[$__rate_interval])")), _PROCESS), limit=0.9),
                lines("Memory", "How much memory does each process hold, and does it grow?", Unit.BYTES, (_each("sum", Q.ours(Q.series(MEMORY))), _PROCESS)),
                lines(
                    "File descriptors", "Which share of the connections that it may have open does a process have? A stream takes two.",
                    Unit.SHARE, (_each("max", Q.ours(f"{Q.series(OPEN_FDS)} / {Q.series(MAX_FDS)}")), _PROCESS), limit=0.8,
                ),
                lines(
                    "Full garbage collections", "How often does the collector stop a process for a look at everything?",
                    Unit.EACH_SECOND, (_each("sum", Q.ours(f"rate({Q.series(COLLECTIONS, generation='2')}[$__rate_interval])")), _PROCESS),
                ),
            ),
        ),
        Row(
            "Processes",
            (
                lines("Replicas by version", "Which versions run, and how many of each?", Unit.NUMBER, (Q.gauge("count", names.BUILD, "version"), "{{version}}")),
                lines(
                    "Age of processes", "Does a process begin again and again?", Unit.SECONDS,
                    (f"time() - {_each('max', Q.ours(Q.series(STARTED)))}", _PROCESS),
                ),
                lines(
                    "Container restarts", "How often did Kubernetes start a container of Weir again, by the hour? (needs kube-state-metrics)", Unit.NUMBER,
                    (f"sum by (pod) (increase({Q.series(RESTARTS, container='weir')}[1h]))", "{{pod}}"),
                ),
                bars(
                    "Containers that cannot start", "Which pods wait, and for what? CreateContainerConfigError: a Secret or ConfigMap is not there. (needs kube-state-metrics)", Unit.NUMBER,
                    (Q.gauge("max", WAITING_PODS, "pod", "reason", container="weir"), "{{pod}}: {{reason}}"), width=12,
                ),
                lines(
                    "Spans", "Do traces arrive? Failed and dropped spans are missing in them.", Unit.EACH_SECOND,
                    (Q.rate(names.SPANS, "result"), "{{result}}"), width=12,
                ),
                lines(
                    "Log lines dropped", "Does somebody read the log? A process drops lines when 8 MB of them wait for whoever takes its output.",
                    Unit.EACH_SECOND, (Q.rate(names.LOG_DROPPED, "pod", "instance"), _PROCESS), width=12,
                ),
            ),
        ),
    ),
)  # fmt: skip
