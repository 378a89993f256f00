"""What is promised while Redis or a model's server is in trouble: one table, which the tests play and the page prints.

`test_fault_matrix.py` plays each cell against real processes. The tables of `service/faults.md` are made from the same
rows; `python -m tests.system.faults` writes them there again.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "service" / "faults.md"

REDIS, UPSTREAM = "redis", "upstream"

# The upstream timeouts of the tests, in seconds. An answer that has to wait for one is measured from there.
TIMEOUTS = {"connect": 0.5, "first_byte": 1.5, "idle": 1.5}


class Fault(NamedTuple):
    """What is done, and what it is like in life."""

    name: str
    told: str
    why: str = ""  # what Redis' log line says of it


FAULTS = {
    REDIS: [
        Fault("refuse", "Nobody listens: the process is gone.", "reset|refused"),
        Fault("reset", "Connections are taken and reset at once: a proxy or a service without a server behind it.", "closed|reset"),
        Fault("hang", "Connections are taken, nothing is answered: a stopped process, a full disk, a long command.", "no reply|no connection|in time"),
        Fault("half-open", "The server's side is gone and nobody says so: a node died, a firewall forgot.", "no reply within"),
        Fault("slow", "Each reply comes 0.3 s late, which is later than `redis.command_seconds`."),
        Fault("loading", "The server reads its data set after a restart and answers `LOADING`.", "LOADING|reset"),
        Fault("readonly", "The server has become a replica and answers `READONLY`.", "READONLY"),
        Fault("failover", "Another server takes over the address, with the data and without our scripts.", "closed|reset"),
    ],
    UPSTREAM: [
        Fault("refuse", "Nobody listens: the process restarts, or ends with its last stream."),
        Fault("busy", "The server answers 503 and says when to come back."),
        Fault("drop", "Nobody takes the connection and nobody refuses it: a wrong address, a firewall, a full backlog."),
        Fault("reset", "Open connections are reset, and new ones before a byte of an answer: the engine dies of each request."),
        Fault("cut", "The connection is reset in the middle of a JSON answer."),
        Fault("hang", "Connections are taken, nothing more is said: the engine stopped."),
        Fault("half-open", "The server's side of open connections is gone and nobody says so; new ones work."),
        Fault("slow", "Every byte comes 0.3 s late, in both directions."),
    ],
}  # fmt: skip

MOMENTS = {
    "unknown key": "the first request of a key that this process has not seen within the hour",
    "known key": "a request of a key that it has seen",
    "limit": "requests of a known key, until its limit refuses",
    "settlement": "the answer to a request that was admitted before the fault",
    "asking": "a request whose answer has not begun",
    "stream": "a stream that had begun before the fault",
}

# What stands in Redis' buckets, when all is well again, of the requests of that moment.
NOTHING, REPORTED, COUNTED = "nothing", "as reported", "prompt and what was relayed"

DEGRADED, RETRY_AFTER = "x-weir-degraded", "retry-after"
AWAY_LINE, EJECTED_LINE = "redis is away", "endpoint ejected"
AWAY = "weir_degraded"
WAITING = "weir_unsettled_reservations"
REPLAYED = 'weir_settlements_total{state="replayed"}'
RETRY = 'weir_upstream_events_total{event="retry"}'
FALLBACK = 'weir_upstream_events_total{event="fallback"}'
EJECTED = 'weir_upstream_events_total{event="ejected"}'


class Row(NamedTuple):
    """The same promise for some faults. A stream's `code` with a status of 200 comes as an error event."""

    side: str
    moment: str
    faults: str
    setting: str  # redis.on_outage; retries and endpoints of the model
    status: int
    code: str
    header: str
    outcome: str  # of weir_requests_total, and of the log line of the request
    seconds: float  # until the whole answer is there, beyond `timeout`
    timeout: str  # of the model's timeouts, which passes first
    looks: tuple[str, ...]  # the metrics that move
    line: str  # the log line beside the request's
    charged: str


class Cell(NamedTuple):
    """One row for one fault."""

    fault: str
    row: Row

    @property
    def name(self) -> str:
        return re.sub(r"\W+", "-", f"{self.row.side} {self.row.setting} {self.fault} {self.row.moment}")


GONE = "refuse reset hang loading readonly"  # until somebody repairs it
ALL = "refuse reset hang half-open slow loading readonly"
CLOSED, OPEN, DEGRADE = "closed", "open", "degrade"
ALONE, AGAIN, TWO = "retries 0", "retries 2", "retries 2, another endpoint"
FALLS_BACK = "retries 0, a fallback"

ROWS = [
    # side      moment         faults              setting  status code                    header       outcome              s    timeout       metrics                  log line      charged
    Row(REDIS, "known key",   GONE,               DEGRADE, 200, "",                       DEGRADED,    "ok",                 2.0, "",           (AWAY,),                 AWAY_LINE,    NOTHING),
    Row(REDIS, "known key",   "half-open",        DEGRADE, 200, "",                       DEGRADED,    "ok",                 2.0, "",           (REPLAYED,),             AWAY_LINE,    NOTHING),
    Row(REDIS, "known key",   "slow",             DEGRADE, 200, "",                       DEGRADED,    "ok",                 2.0, "",           (WAITING, REPLAYED),     "",           NOTHING),
    Row(REDIS, "known key",   "failover",         DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (),                      AWAY_LINE,    REPORTED),
    Row(REDIS, "known key",   "refuse hang",      OPEN,    200, "",                       DEGRADED,    "ok",                 2.0, "",           (AWAY,),                 AWAY_LINE,    NOTHING),
    Row(REDIS, "known key",   "refuse hang",      CLOSED,  503, "limits_unavailable",     RETRY_AFTER, "store_unavailable",  2.0, "",           (AWAY,),                 AWAY_LINE,    NOTHING),
    Row(REDIS, "unknown key", ALL,                DEGRADE, 503, "limits_unavailable",     RETRY_AFTER, "store_unavailable",  2.0, "",           (),                      "",           NOTHING),
    Row(REDIS, "unknown key", "failover",         DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (),                      AWAY_LINE,    REPORTED),
    Row(REDIS, "unknown key", "refuse",           OPEN,    503, "limits_unavailable",     RETRY_AFTER, "store_unavailable",  2.0, "",           (AWAY,),                 AWAY_LINE,    NOTHING),
    Row(REDIS, "limit",       ALL,                DEGRADE, 429, "rate_limit_exceeded",    DEGRADED,    "refused_requests",   2.0, "",           (),                      "",           NOTHING),
    Row(REDIS, "limit",       "failover",         DEGRADE, 429, "rate_limit_exceeded",    RETRY_AFTER, "refused_requests",   2.0, "",           (),                      AWAY_LINE,    REPORTED),
    Row(REDIS, "limit",       "refuse hang",      OPEN,    200, "",                       DEGRADED,    "ok",                 2.0, "",           (AWAY,),                 AWAY_LINE,    NOTHING),
    Row(REDIS, "limit",       "refuse",           CLOSED,  503, "limits_unavailable",     RETRY_AFTER, "store_unavailable",  2.0, "",           (AWAY,),                 AWAY_LINE,    NOTHING),
    Row(REDIS, "settlement",  GONE + " slow",     DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (WAITING, REPLAYED),     "",           REPORTED),
    Row(REDIS, "settlement",  "half-open",        DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (REPLAYED,),             AWAY_LINE,    REPORTED),
    Row(REDIS, "settlement",  "failover",         DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (),                      AWAY_LINE,    REPORTED),
    Row(REDIS, "stream",      GONE + " slow",     DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (WAITING, REPLAYED),     "",           REPORTED),
    Row(REDIS, "stream",      "half-open",        DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (REPLAYED,),             AWAY_LINE,    REPORTED),
    Row(REDIS, "stream",      "failover",         DEGRADE, 200, "",                       "",          "ok",                 2.0, "",           (),                      AWAY_LINE,    REPORTED),
    Row(REDIS, "stream",      "refuse",           OPEN,    200, "",                       "",          "ok",                 2.0, "",           (WAITING, REPLAYED),     AWAY_LINE,    REPORTED),
    Row(REDIS, "stream",      "refuse",           CLOSED,  200, "",                       "",          "ok",                 2.0, "",           (WAITING, REPLAYED),     AWAY_LINE,    REPORTED),

    Row(UPSTREAM, "asking",   "refuse",           ALONE,   502, "upstream_unreachable",   "",          "upstream_unreachable", 2.0, "",         (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "refuse",           AGAIN,   502, "upstream_unreachable",   "",          "upstream_unreachable", 2.0, "",         (RETRY, EJECTED),        EJECTED_LINE, NOTHING),
    Row(UPSTREAM, "asking",   "refuse",           TWO,     200, "",                       "",          "ok",                 2.0, "",           (RETRY,),                "",           REPORTED),
    Row(UPSTREAM, "asking",   "refuse",           FALLS_BACK, 200, "",                    "",          "ok",                 2.0, "",           (FALLBACK,),             "",           REPORTED),
    Row(UPSTREAM, "asking",   "busy",             ALONE,   503, "upstream_overloaded",    RETRY_AFTER, "upstream_error",     2.0, "",           (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "drop",             ALONE,   504, "upstream_timeout",       "",          "upstream_timeout",   2.0, "connect",    (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "drop",             TWO,     200, "",                       "",          "ok",                 2.0, "connect",    (RETRY,),                "",           REPORTED),
    Row(UPSTREAM, "asking",   "reset",            ALONE,   502, "upstream_error",         "",          "upstream_error",     2.0, "",           (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "reset",            AGAIN,   502, "upstream_error",         "",          "upstream_error",     2.0, "",           (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "reset",            TWO,     200, "",                       "",          "ok",                 2.0, "",           (RETRY,),                "",           REPORTED),
    Row(UPSTREAM, "asking",   "cut",              ALONE,   502, "upstream_error",         "",          "upstream_error",     2.0, "",           (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "cut",              TWO,     502, "upstream_error",         "",          "upstream_error",     2.0, "",           (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "hang half-open",   ALONE,   504, "upstream_timeout",       "",          "upstream_timeout",   2.0, "first_byte", (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "hang half-open",   TWO,     504, "upstream_timeout",       "",          "upstream_timeout",   2.0, "first_byte", (),                      "",           NOTHING),
    Row(UPSTREAM, "asking",   "slow",             ALONE,   200, "",                       "",          "ok",                 3.0, "",           (),                      "",           REPORTED),
    Row(UPSTREAM, "stream",   "refuse slow",      TWO,     200, "",                       "",          "ok",                 3.0, "",           (),                      "",           REPORTED),
    Row(UPSTREAM, "stream",   "reset",            TWO,     200, "upstream_error",         "",          "upstream_error",     2.0, "",           (),                      "",           COUNTED),
    Row(UPSTREAM, "stream",   "hang half-open",   TWO,     200, "upstream_timeout",       "",          "upstream_timeout",   2.0, "idle",       (),                      "",           COUNTED),
]  # fmt: skip


def cells(side: str) -> list[Cell]:
    return [Cell(fault, row) for row in ROWS if row.side == side for fault in row.faults.split()]


# -- the page --------------------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def printed(side: str) -> str:
    setting = "`on_outage`" if side == REDIS else "model has"
    head = ("moment", "fault", setting, "answer", "seconds", "outcome", "metric, log line", "charged in the end")
    rows = [
        (
            row.moment,
            row.faults.replace(" ", ", "),
            row.setting,
            answer_of(row),
            f"{row.seconds:g}" if not row.timeout else f"`{row.timeout}` + {row.seconds:g}",
            f"`{row.outcome}`",
            ", ".join([f"`{name}`" for name in row.looks] + ([f"log `{row.line}`"] if row.line else [])) or "-",
            row.charged,
        )
        for row in ROWS
        if row.side == side
    ]
    return table(head, rows)


def answer_of(row: Row) -> str:
    code = f" `{row.code}`" if row.code else ""
    if row.status == 200 and row.code:
        return f"200, then an error event{code}"
    return f"{row.status}{code}" + (f", `{row.header}`" if row.header else "")


def told(side: str) -> str:
    return table(("fault", "what it is"), [(fault.name, fault.told) for fault in FAULTS[side]])


def moments() -> str:
    return table(("moment of a request", "what it is"), MOMENTS.items())


TABLES = {
    "moments": moments,
    "redis-faults": lambda: told(REDIS),
    "redis": lambda: printed(REDIS),
    "upstream-faults": lambda: told(UPSTREAM),
    "upstream": lambda: printed(UPSTREAM),
}
MADE = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(written: str) -> str:
    """The page with its tables made anew; all else stays."""
    return MADE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", written)


def missing(written: str) -> Iterator[str]:
    present = {found[2] for found in MADE.finditer(written)}
    yield from (name for name in TABLES if name not in present)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    sys.stdout.write(f"{PAGE.name}: {len(cells(REDIS)) + len(cells(UPSTREAM))} cells\n")
