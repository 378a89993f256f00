"""Rules as promtool sees them: each alert fires when it should, keeps quiet when it should, and leads to its page."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.mixin import objectives
from deploy.mixin.alerts import ALERTS, RUNBOOKS, Alert
from deploy.mixin.rules import recordings
from tests.deploy.prometheus import MISSING, programs
from tests.deploy.rule_cases import CASES, Case
from tests.deploy.scene import RULES
from tests.system.harness import ROOT
from weir.core import errors

SEVERITIES = {"critical", "warning", "info"}
PAGE = ("## What it means", "## What users notice", "## Find out why", "## What to do", "## How it ends")

by_name = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


@pytest.fixture(scope="module")
def promtool() -> str:
    found = programs()
    if found is None:
        pytest.skip(MISSING)
    return found[1]


def run(promtool: str, *arguments: str | Path) -> None:
    done = subprocess.run([promtool, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_well_formed(promtool: str) -> None:
    run(promtool, "check", "rules", *RULES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.title}")
def test_who_is_told(promtool: str, case: Case, tmp_path: Path) -> None:
    alert = next(alert for alert in ALERTS if alert.name == case.alert)
    labels = (case.fires or {}) | {
        "alertname": alert.name, "alertstate": "firing", "severity": alert.severity,
    }  # fmt: skip
    told = "ALERTS{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
    asked = {
        "expr": f'ALERTS{{alertname="{alert.name}", alertstate="firing"}}',
        "eval_time": f"{case.minute}m",
        "exp_samples": [{"labels": told, "value": 1}] if case.fires else [],
    }
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": [asked]}
    file = tmp_path / "case.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(path) for path in RULES], "tests": [test]}))
    run(promtool, "test", "rules", file)


@by_name
def test_an_alert_has_a_case_that_fires_and_one_that_does_not(alert: Alert) -> None:
    assert {case.fires is not None for case in CASES if case.alert == alert.name} == {True, False}


@by_name
def test_an_alert_says_what_it_needs_to(alert: Alert) -> None:
    assert alert.severity in SEVERITIES
    assert bool(alert.volume) != bool(alert.inherent), "a least volume, or why there is none"
    assert alert.hold
    # A label that is not there would be an empty place in a sentence.
    told = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
    for case in CASES:
        if case.alert == alert.name and case.fires:
            assert told <= set(case.fires)


@by_name
def test_an_alert_leads_to_its_page(alert: Alert) -> None:
    assert alert.runbook_url.startswith(RUNBOOKS)
    page = (ROOT / "deploy" / "runbooks" / alert.runbook_url.rpartition("/")[2]).read_text()
    assert page.startswith(f"# {alert.name}\n")
    assert [line for line in page.splitlines() if line.startswith("## ")] == list(PAGE)
    assert f"**{alert.severity}**" in page
    board, title = alert.panel
    assert f"*{board.title.removeprefix('Weir / ')} > {title}*" in page, "the page names the panel of the alert"


def test_there_is_no_page_without_an_alert() -> None:
    pages = {path.stem for path in (ROOT / "deploy" / "runbooks").glob("Weir*.md")}
    assert pages == {alert.name for alert in ALERTS}


def test_the_names_of_recordings_are_unlike() -> None:
    names = [one.record for one in recordings()]
    assert len(set(names)) == len(names)


def test_every_outcome_is_somebodys_doing() -> None:
    """One that is not listed would count neither as failed nor as answered."""

    def below(kind: type[errors.GatewayError]) -> set[str]:
        return {kind.outcome}.union(*(below(child) for child in kind.__subclasses__()))

    # Two that the gateway says without raising them: what upstream refused, and what ended with the process.
    known = below(errors.GatewayError) | {"ok", "upstream_refused", "killed"}
    listed = [*objectives.WELL, *objectives.FAULTS, *objectives.CALLERS]
    assert sorted(listed) == sorted(known)
