"""What can be seen of dashboards, rules and pages without running anything."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.mixin.alerts import ALERTS
from deploy.mixin.board import TAG, Board, Kind, Panel, Unit
from deploy.mixin.output import BOARDS, files
from deploy.mixin.promql import FOREIGN, PARTS, RULE
from deploy.mixin.rules import recordings
from tests.system.harness import ROOT
from weir.telemetry import names

CHART = ROOT / "helm" / "weir"
MADE_HERE = ("dashboards", "rules")
KNOWN = {one.name: one for one in (*names.ALL, *FOREIGN)}
OF_ALL_TIME = {Kind.STAT, Kind.TABLE}  # one number for the time that is looked at; all else is a curve

every_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
every_panel = pytest.mark.parametrize(
    ("board", "panel"),
    [(board, panel) for board in BOARDS for panel in board.panels],
    ids=lambda value: value.uid if isinstance(value, Board) else value.title,
)


def written(board: Board) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "dashboards" / f"{board.uid}.json").read_text())
    return found


def panels_of(board: Board) -> dict[str, dict[str, Any]]:
    return {panel["title"]: panel for panel in written(board)["panels"] if panel["type"] != "row"}


def exprs() -> Iterator[str]:
    for board in BOARDS:
        whole = written(board)
        yield from (target["expr"] for panel in panels_of(board).values() for target in panel["targets"])
        yield from (marks["expr"] for marks in whole["annotations"]["list"])
        yield from (str(variable.get("query", "")) for variable in whole["templating"]["list"])
    yield from (alert.expr for alert in ALERTS)
    yield from (one.expr for one in recordings())


def metrics_in(text: str) -> set[str]:
    """Names as they stand there, without those that our rules make."""
    text = re.sub(r"namespace:\w+:\w+", "", text)
    return set(re.findall(r"\b(?:weir|process|python|kube)_[a-z_]*[a-z]\b", text))


def known(name: str) -> str | None:
    """The metric in the catalogue that this is a series of."""
    if name in KNOWN:
        return None if KNOWN[name].buckets else name
    for part in PARTS:
        base = name.removesuffix(part)
        if base != name and base in KNOWN and KNOWN[base].buckets:
            return base
    return None


def test_what_the_chart_has_is_what_is_made() -> None:
    """If this fails: make dashboards."""
    found = {str(path.relative_to(CHART)): path.read_text() for name in MADE_HERE for path in (CHART / name).iterdir()}
    made = files()
    assert found.keys() == made.keys()
    for path, text in made.items():
        assert found[path] == text, f"{path} is not what deploy/mixin makes: run `make dashboards`"


def test_every_metric_exists() -> None:
    unknown = {name for expr in exprs() for name in metrics_in(expr) if known(name) is None}
    assert not unknown


def test_every_metric_is_used() -> None:
    used = {known(name) for expr in exprs() for name in metrics_in(expr)}
    assert {one.name for one in names.ALL} - used == set()


@pytest.mark.parametrize("page", sorted((ROOT / "deploy" / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_a_runbook_names_what_there_is(page: Path) -> None:
    text = page.read_text()
    unknown = {name for name in metrics_in(text) if name not in KNOWN and known(name) is None}
    assert not unknown
    titles = {f"{board.title.removeprefix('Weir / ')} > {panel.title}" for board in BOARDS for panel in board.panels}
    for shown in re.findall(r"\*([^*]+ > [^*]+)\*", re.sub(r"\s+", " ", text)):
        assert shown in titles or shown == "Dashboard > Panel"
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link


@every_board
def test_a_dashboard_can_be_imported_anywhere(board: Board) -> None:
    whole = written(board)
    assert whole["uid"] == board.uid
    assert whole["tags"] == [TAG]
    assert whole["description"] == board.question
    assert [(link["type"], link["tags"]) for link in whole["links"]] == [("dashboards", [TAG])]
    assert whole.get("id") is None
    chosen = {variable["name"]: variable for variable in whole["templating"]["list"]}
    assert {"datasource", "traces", "logs", "namespace"} <= set(chosen)
    sources = {json.dumps(place, sort_keys=True) for place in _values(whole, "datasource")}
    assert sources == {json.dumps({"type": "prometheus", "uid": "${datasource}"}, sort_keys=True)}
    ids = [panel["id"] for panel in whole["panels"]]
    assert len(set(ids)) == len(ids)
    assert {marks["name"] for marks in whole["annotations"]["list"]} == {"Deploys", "Reloads", "Refused reloads"}


def _values(node: Any, name: str) -> Iterator[Any]:
    """All values of that name, anywhere."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == name:
                yield value
            else:
                yield from _values(value, name)
    elif isinstance(node, list):
        for child in node:
            yield from _values(child, name)


@every_panel
def test_a_panel_answers_a_question(board: Board, panel: Panel) -> None:
    found = panels_of(board)[panel.title]
    assert "?" in found["description"]
    assert found["fieldConfig"]["defaults"]["unit"] in {unit.word for unit in Unit}
    assert found["datasource"]["uid"] == "${datasource}"
    assert found["id"] == board.id_of(panel.title)
    links = {link["title"]: link["url"] for link in found["fieldConfig"]["defaults"]["links"]}
    assert any("${traces}" in url for url in links.values())
    assert any("${logs}" in url for url in links.values())
    heat = found["type"] == "heatmap"
    for target in found["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        assert target.get("exemplar", False) is ("_bucket{" in target["expr"])
        assert (target.get("format") == "heatmap") is heat


@every_panel
def test_a_query_is_asked_of_the_chosen_namespace(board: Board, panel: Panel) -> None:
    for query in panel.queries:
        for name, selector in re.findall(r"\b((?:weir|process|python|kube)_[a-z_]+)(\{[^}]*\})?", query.expr):
            assert 'namespace=~"$namespace"' in selector, f"{name}{selector}"
        for function, window in re.findall(r"(\w+)\(\w+\{[^}]*\}\[([^\]]+)\]\)", query.expr):
            rare = function == "increase" and window == "1h"
            assert (
                window == ("$__range" if panel.kind in OF_ALL_TIME and "$__range" in query.expr else "$__rate_interval")
                or rare
            )


@every_board
def test_panels_stand_beside_each_other(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in written(board)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


REFUSED = [
    ("a rate of a gauge", lambda: RULE.rate(names.DEGRADED)),
    ("a label that it has not", lambda: RULE.rate(names.REQUESTS, "endpoint")),
    ("a matcher that it has not", lambda: RULE.series(names.DEGRADED, team="t")),
    ("a histogram as a whole", lambda: RULE.series(names.OVERHEAD)),
    ("a part of a counter", lambda: RULE.series(names.REQUESTS, "_bucket")),
    ("a panel that is not there", lambda: BOARDS[0].url_of("Nothing")),
]


@pytest.mark.parametrize("ask", [ask for _, ask in REFUSED], ids=[title for title, _ in REFUSED])
def test_what_cannot_be_asked_is_refused_where_it_is_written(ask: Any) -> None:
    with pytest.raises(ValueError, match=r"has no|is a gauge|take one of"):
        ask()
