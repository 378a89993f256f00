"""Do the limits hold, and is what they stand on well?"""

from deploy.mixin.board import Board, Row, Unit, area, heat, lines, one
from deploy.mixin.promql import BOARD as Q
from weir.telemetry import names

_TEAM = {"team": "~$team"}
_PROCESS = "{{pod}} {{instance}}"
_EACH = ("pod", "instance")

LIMITS = Board(
    "weir-limits",
    "Weir / Limits and Redis",
    "Do the limits hold, and is what they stand on well?",
    variables=(("team", names.DECISIONS),),
    rows=(
        Row(
            "Decisions",
            (
                area("Decisions", "How many requests do limits allow, refuse, and refuse only in shadow?", Unit.RATE, (Q.rate(names.DECISIONS, "decision", **_TEAM), "{{decision}}")),
                area("Refused by", "Which kind of limit refuses?", Unit.RATE, (Q.rate(names.DECISIONS, "limit", decision="refused", **_TEAM), "{{limit}}")),
                lines(
                    "Limits used up", "How near is each limit, of a team's keys the fullest? Above 100 % is debt, which later requests wait for.", Unit.SHARE,
                    (Q.gauge("max", names.LIMIT_USED, "team", "limit", **_TEAM), "{{team}} {{limit}}"), limit=0.9, most=100,
                ),
            ),
        ),
        Row(
            "Estimates",
            (
                heat("Prompt estimate by report", "How good is the estimate that is reserved? 1 is exact; above, requests are refused too early; below, limits go into debt.", Unit.TIMES, names.ESTIMATE, width=12),
                lines("Prompt estimate by model", "Which model's prompts are estimated badly, in the middle?", Unit.TIMES, (Q.quantile(0.5, names.ESTIMATE, "model"), "{{model}}"), width=12, limit=2),
            ),
        ),
        Row(
            "Redis",
            (
                one("Processes without Redis", "How many processes have lost Redis?", Unit.NUMBER, Q.gauge("sum", names.DEGRADED), limit=1),
                one("Settlements waiting", "How many requests are still to be charged, once Redis is back? 100,000 a process at most.", Unit.NUMBER, Q.gauge("sum", names.UNSETTLED), limit=10_000),
                one("Processes that share", "How many processes share the limits, as they count each other in Redis?", Unit.NUMBER, Q.gauge("max", names.REPLICAS)),
                lines("Degraded", "Who was without Redis, and when?", Unit.NUMBER, (Q.gauge("max", names.DEGRADED, *_EACH), _PROCESS), width=12, most=1),
                heat("Redis round trip", "How long does Redis take? redis.command_seconds is 0.1 s unless set, and what takes longer is an outage.", Unit.SECONDS, names.REDIS_SECONDS),
                lines("Redis round trip by process", "Is one process further from Redis than the others, in the slowest hundredth?", Unit.SECONDS, (Q.quantile(0.99, names.REDIS_SECONDS, *_EACH), _PROCESS), limit=0.1),
                heat("Commands in a batch", "How many commands go to Redis as one write? More is busier.", Unit.NUMBER, names.REDIS_BATCH),
                lines("Mean batch", "Does batching help: how many commands does a write carry on average?", Unit.NUMBER, (Q.mean(names.REDIS_BATCH), "commands"), least=1),
                area("Requests let through on local limits", "How much was served while Redis was away?", Unit.RATE, (Q.rate(names.DEGRADED_REQUESTS, "team", **_TEAM), "{{team}}")),
                lines("Unsettled reservations", "Does the queue of settlements grow? It should be empty within seconds of Redis' return.", Unit.NUMBER, (Q.gauge("max", names.UNSETTLED, *_EACH), _PROCESS), limit=10_000),
                lines("Settlements late or lost", "Were settlements sent again, or dropped and so charged in full?", Unit.EACH_SECOND, (Q.rate(names.SETTLEMENTS, "state"), "{{state}}")),
                lines(
                    "Processes, counted and seen", "Does each process count as many as there are? Fewer means that some share other limits.", Unit.NUMBER,
                    (Q.gauge("min", names.REPLICAS), "counted, least"), (Q.gauge("max", names.REPLICAS), "counted, most"), (Q.gauge("count", names.REPLICAS), "scraped"),
                ),
            ),
        ),
        Row(
            "Configuration",
            (
                lines("Config generation", "Did a change arrive in each process? Each counts from its own start, so look at the steps and not at the height.", Unit.NUMBER, (Q.gauge("max", names.GENERATION, *_EACH), _PROCESS), width=12),
                lines("Refused configurations", "Was a change refused? The last good one stays then.", Unit.NUMBER, (Q.over("1h").increase(names.RELOAD_FAILURES, *_EACH), _PROCESS), width=12, limit=1),
            ),
        ),
    ),
)  # fmt: skip
