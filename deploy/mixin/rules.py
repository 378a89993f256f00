"""Recording rules: each objective's good and bad by windows, so that an alert over three days costs as much as one over
five minutes.
"""

from typing import NamedTuple

from deploy.mixin.objectives import AVAILABILITY, FIRST_TOKEN, Objective
from deploy.mixin.promql import RULE
from weir.telemetry import names

WINDOWS = ("30m", "1h", "2h", "6h", "1d", "3d")  # and 5m, of which they are made
OBJECTIVES = (AVAILABILITY, FIRST_TOKEN)
REQUESTS = "namespace:weir_requests:rate5m"


class Recording(NamedTuple):
    record: str
    expr: str


def bad(objective: Objective) -> str:
    """The name of what is bad a second."""
    return f"namespace:weir_{objective.name}_bad:rate5m"


def total(objective: Objective) -> str:
    """The name of all a second."""
    return f"namespace:weir_{objective.name}_all:rate5m"


def ratio(objective: Objective, window: str) -> str:
    """The name of the bad share in a window."""
    return f"namespace:weir_{objective.name}_bad:ratio{window}"


def recordings() -> list[Recording]:
    found = [Recording(REQUESTS, RULE.rate(names.REQUESTS, "namespace"))]
    for one in OBJECTIVES:
        of_all = one.all(RULE, "namespace")
        found += [
            Recording(total(one), of_all),
            # What has never failed has no series, and that is a 0.
            Recording(bad(one), f"{one.bad(RULE, 'namespace')} or {of_all} * 0"),
            Recording(ratio(one, "5m"), f"{bad(one)} / ({total(one)} > 0)"),
        ]
        found += [
            Recording(
                ratio(one, window), f"sum_over_time({bad(one)}[{window}]) / (sum_over_time({total(one)}[{window}]) > 0)"
            )
            for window in WINDOWS
        ]
    return found
