"""What we promise, and which ending of a request keeps the promise, breaks it, or is the caller's own doing."""

from collections.abc import Callable
from typing import NamedTuple

from deploy.mixin.promql import Promql
from weir.telemetry import names

# Every outcome stands in one of these; a test looks for new ones.
WELL = ("ok", "client_disconnect", "client_stalled")
FAULTS = (
    "internal_error", "killed", "drained", "refused_draining", "refused_overload", "store_unavailable",
    "upstream_error", "upstream_timeout", "upstream_unreachable",
)  # fmt: skip
CALLERS = (
    "refused_key", "refused_request", "refused_model", "refused_limit", "refused_requests", "refused_tokens",
    "refused_concurrency", "refused_too_large", "upstream_refused",
)  # fmt: skip

FAULT = f"~{'|'.join(FAULTS)}"
VALID = f"~{'|'.join((*WELL, *FAULTS))}"
CALLER = f"~{'|'.join(CALLERS)}"
LEFT = "~client_.*"

FIRST_TOKEN_SECONDS = 2.5  # a bucket's bound, or nobody could count what is above it


def faults(q: Promql, *by: str, **labels: str) -> str:
    """Requests a second that failed, and not by the caller's doing."""
    return q.rate(names.REQUESTS, *by, outcome=FAULT, **labels)


def valid(q: Promql, *by: str, **labels: str) -> str:
    """Requests a second, less what the caller did wrong: a flood of bad keys must not make a failure look small."""
    return q.rate(names.REQUESTS, *by, outcome=VALID, **labels)


def late(q: Promql, *by: str, **labels: str) -> str:
    """Streams a second that began too late."""
    in_time = q.rate(names.FIRST_TOKEN, *by, part="_bucket", le=f"{FIRST_TOKEN_SECONDS}", **labels)
    return f"({streams(q, *by, **labels)} - {in_time})"


def streams(q: Promql, *by: str, **labels: str) -> str:
    """Streams a second that began."""
    return q.rate(names.FIRST_TOKEN, *by, part="_count", **labels)


class Objective(NamedTuple):
    """Of `all`, the share `target` is not `bad`."""

    name: str
    target: float
    bad: Callable[..., str]
    all: Callable[..., str]

    @property
    def budget(self) -> float:
        """The share that may be bad."""
        return round(1 - self.target, 6)


AVAILABILITY = Objective("availability", 0.999, faults, valid)
FIRST_TOKEN = Objective("first_token", 0.95, late, streams)
