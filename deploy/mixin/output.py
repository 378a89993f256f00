"""All that is made here: each file of the chart, and what stands in it."""

from typing import Any

import yaml

from deploy.mixin.alerts import ALERTS
from deploy.mixin.fleet import FLEET
from deploy.mixin.limits import LIMITS
from deploy.mixin.models import MODELS
from deploy.mixin.rules import recordings
from deploy.mixin.teams import TEAMS

BOARDS = (FLEET, TEAMS, MODELS, LIMITS)
HEADER = "# Made by `make dashboards` from deploy/mixin: change it there.\n"


def files() -> dict[str, str]:
    """By their path in the chart."""
    boards = {f"dashboards/{board.uid}.json": board.written() for board in BOARDS}
    return boards | {
        "rules/weir-objectives.yaml": _rules("weir-objectives", [dict(one._asdict()) for one in recordings()]),
        "rules/weir-alerts.yaml": _rules(
            "weir-alerts",
            [
                {
                    "alert": alert.name,
                    "expr": alert.expr,
                    "for": alert.hold,
                    "labels": {"severity": alert.severity},
                    "annotations": {
                        "summary": alert.summary,
                        "description": alert.description,
                        "dashboard_url": alert.dashboard_url,
                        "runbook_url": alert.runbook_url,
                    },
                }
                for alert in ALERTS
            ],
        ),
    }


def _rules(name: str, rules: list[dict[str, Any]]) -> str:
    group = {"groups": [{"name": name, "rules": rules}]}
    return HEADER + yaml.safe_dump(group, sort_keys=False, width=120, allow_unicode=True)
