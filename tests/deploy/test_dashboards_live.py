"""Every query of every panel, and every rule, in a real Prometheus that has scraped real replicas under load."""

import re
from collections.abc import Iterator

import pytest

from deploy.mixin.alerts import ALERTS, Alert
from deploy.mixin.board import Board, Kind, Panel
from deploy.mixin.output import BOARDS
from deploy.mixin.promql import RULE
from deploy.mixin.rules import recordings
from tests.deploy.prometheus import MISSING, filled, programs
from tests.deploy.scene import Scene
from tests.deploy.test_dashboards import written
from weir.telemetry import names

# By their titles, and why nothing can be seen of them without a cluster.
NEED_KUBE_STATE_METRICS = {
    "Container restarts": "kube_pod_container_status_restarts_total is Kubernetes' count",
    "Containers that cannot start": "kube_pod_container_status_waiting_reason is Kubernetes' word",
}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    if programs() is None:
        pytest.skip(MISSING)
    with Scene() as scene:
        scene.play()
        yield scene


PANELS = [(board, panel) for board in BOARDS for panel in board.panels]


@pytest.mark.parametrize(
    ("board", "panel"),
    PANELS,
    ids=lambda value: value.uid if isinstance(value, Board) else value.title,
)
def test_a_panel_shows_what_is_true(scene: Scene, board: Board, panel: Panel) -> None:
    least, most = panel.bounds
    for query in panel.queries:
        found = scene.prometheus.curves(filled(query.expr), scene.start, scene.end)
        if panel.title in NEED_KUBE_STATE_METRICS:
            assert not found
            continue
        values = [value for series in found for _, value in series.points]
        assert values, f"nothing: {query.expr}"
        assert least <= min(values), f"{min(values)}: {query.expr}"
        assert max(values) <= most + 1e-9, f"{max(values)}: {query.expr}"


@pytest.mark.parametrize(
    ("board", "panel"),
    [(board, panel) for board, panel in PANELS if panel.kind is not Kind.TABLE],
    ids=lambda value: value.uid if isinstance(value, Board) else value.title,
)
def test_a_legend_names_labels_that_are_there(scene: Scene, board: Board, panel: Panel) -> None:
    for query in panel.queries:
        found = scene.prometheus.curves(filled(query.expr), scene.start, scene.end)
        named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        assert all(named <= set(series.labels) for series in found), query.legend
        said = [tuple(series.labels.get(name, "") for name in sorted(named)) for series in found]
        assert len(set(said)) == len(said), "two series have one name"


def test_kube_state_metrics_is_asked_for_where_it_is_said() -> None:
    asked = {panel.title for _, panel in PANELS if any("kube_" in query.expr for query in panel.queries)}
    assert asked == set(NEED_KUBE_STATE_METRICS)


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_annotations_and_variables_find_something(scene: Scene, board: Board) -> None:
    whole = written(board)
    for marks in whole["annotations"]["list"]:
        found = scene.prometheus.curves(filled(marks["expr"]), scene.start, scene.end)
        assert any(series.points for series in found), marks["name"]
    for variable in whole["templating"]["list"]:
        if variable["type"] != "query":
            continue
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
        values = {one.labels.get(label) for one in scene.prometheus.curves(filled(series), scene.start, scene.end)}
        assert values - {None, ""}, variable["name"]


def test_rules_are_evaluated_without_an_error(scene: Scene) -> None:
    rules = scene.prometheus.rules()
    assert {rule["name"] for rule in rules} == {one.record for one in recordings()} | {alert.name for alert in ALERTS}
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}


@pytest.mark.parametrize("name", [one.record for one in recordings()])
def test_a_recording_has_a_value(scene: Scene, name: str) -> None:
    found = scene.prometheus.curves(name, scene.start, scene.end)
    assert [series.labels["namespace"] for series in found] == ["llm"]
    values = [value for _, value in found[0].points]
    assert values
    assert min(values) >= 0
    assert "ratio" not in name or max(values) <= 1


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_and_its_volume_can_be_asked(scene: Scene, alert: Alert) -> None:
    """The volume too, which `and` would hide."""
    for expr in filter(None, (alert.expr, alert.when, alert.volume)):
        scene.prometheus.curves(expr, scene.start, scene.end)


def test_the_scene_was_one(scene: Scene) -> None:
    """What the dashboards are for has happened, so that a panel of noughts is not taken for a proof."""
    seen = {
        "an endpoint was ejected": RULE.gauge("max", names.EJECTED),
        "Redis was away": RULE.gauge("max", names.DEGRADED),
        "a replica drained": RULE.gauge("max", names.DRAINING),
        "somebody waited": RULE.gauge("max", names.WAITING),
        "a limit was used up to the half": f"{RULE.gauge('max', names.LIMIT_USED)} > 0.5",
        "a settlement came late": RULE.series(names.SETTLEMENTS, state="replayed"),
        "a configuration was refused": RULE.gauge("max", names.RELOAD_FAILURES),
        **{f"somebody met {outcome}": RULE.series(names.REQUESTS, outcome=outcome) for outcome in (
            "ok", "client_disconnect", "refused_key", "refused_model", "refused_requests", "refused_tokens",
            "refused_concurrency", "upstream_refused", "upstream_error", "store_unavailable",
        )},
        **{f"a {event} was counted": RULE.series(names.UPSTREAM_EVENTS, event=event) for event in ("retry", "fallback", "ejected", "restored")},
    }  # fmt: skip
    missing = []
    for what, expr in seen.items():
        curves = scene.prometheus.curves(expr, scene.start, scene.end)
        if not any(value > 0 for series in curves for _, value in series.points):
            missing.append(what)
    assert missing == []


@pytest.mark.parametrize(
    "metric", [names.OVERHEAD, names.DURATION, names.FIRST_TOKEN, names.PER_OUTPUT_TOKEN], ids=lambda one: one.name
)
def test_exemplars_lead_to_traces_where_there_are_some(scene: Scene, metric: names.Metric) -> None:
    """The first replica traces, the second does not."""
    found = scene.prometheus.exemplars(RULE.series(metric, "_bucket"), scene.start, scene.end)
    assert {one["seriesLabels"]["pod"] for one in found} == {"weir-0"}
    traces = {exemplar["labels"]["trace_id"] for one in found for exemplar in one["exemplars"]}
    assert all(re.fullmatch(r"[0-9a-f]{32}", trace) for trace in traces)
