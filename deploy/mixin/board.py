"""A dashboard as a list of questions, and how Grafana says that (grafana-foundation-sdk).

A panel's title is the answer's name, its description the question. Everything else has a default.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple
from urllib.parse import quote
from zlib import crc32

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.mixin.promql import BOARD, STARTED
from weir.telemetry import names

METRICS = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "weir"
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
ALL = {"namespace": ".*"}  # also what has no such label: outside of Kubernetes there is no namespace
SOME = ".+"  # a request with a bad key has no team


class Unit(Enum):
    """Grafana's word for it, and the least and the most that can be true."""

    SECONDS = ("s", 0.0, 1e9)
    RATE = ("reqps", 0.0, 1e6)
    EACH_SECOND = ("cps", 0.0, 1e9)
    SHARE = ("percentunit", 0.0, 1.0)
    NUMBER = ("short", 0.0, 1e12)
    TIMES = ("none", 0.0, 1e6)
    BYTES = ("bytes", 0.0, 1e13)
    CORES = ("none", 0.0, 1e4)
    DOLLARS = ("currencyUSD", 0.0, 1e9)

    @property
    def word(self) -> str:
        return self.value[0]


class Query(NamedTuple):
    """`legend` names a series, or a column of a table."""

    expr: str
    legend: str = ""


class Kind(Enum):
    STAT = "one number"
    LINES = "curves"
    AREA = "curves on top of each other"
    HEAT = "a histogram over time"
    BARS = "a bar each"
    TABLE = "a table"


class Link(NamedTuple):
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Panel:
    """`limit` is drawn as a line; above it is bad, or with `low_is_bad` below. `least` and `most` replace the unit's.

    `units` are those of a table's columns, where they are not the panel's.
    """

    kind: Kind
    title: str
    question: str
    unit: Unit
    queries: tuple[Query, ...]
    width: int = 8
    limit: float | None = None
    low_is_bad: bool = False
    least: float | None = None
    most: float | None = None
    decimals: int | None = None
    words: tuple[tuple[str, str, str], ...] = ()  # value, what it means, colour
    units: tuple[tuple[str, Unit], ...] = ()

    @property
    def bounds(self) -> tuple[float, float]:
        _, least, most = self.unit.value
        return least if self.least is None else self.least, most if self.most is None else self.most


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """`variables` are labels that a reader may choose by, with the metric that knows their values."""

    uid: str
    title: str
    question: str
    rows: tuple[Row, ...]
    variables: tuple[tuple[str, names.Metric], ...] = ()

    @property
    def panels(self) -> Iterator[Panel]:
        return (panel for row in self.rows for panel in row.panels)

    def id_of(self, title: str) -> int:
        """Made from the title, so that a link to a panel survives what is put before it."""
        return 1 + crc32(f"{self.uid}/{title}".encode()) % 99_999

    def url_of(self, title: str) -> str:
        """The path of a panel that there is."""
        if title not in {panel.title for panel in self.panels}:
            raise ValueError(f"{self.uid} has no panel '{title}'")
        return f"/d/{self.uid}?viewPanel={self.id_of(title)}"

    def written(self) -> str:
        """As Grafana reads it."""
        return json.dumps(_dashboard(self), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


# The words in which the four files are written.


def one(title: str, question: str, unit: Unit, expr: str, **more: Any) -> Panel:
    return Panel(Kind.STAT, title, question, unit, (Query(expr),), **({"width": 4} | more))


def lines(title: str, question: str, unit: Unit, *queries: tuple[str, str], **more: Any) -> Panel:
    return Panel(Kind.LINES, title, question, unit, tuple(Query(*q) for q in queries), **more)


def area(title: str, question: str, unit: Unit, *queries: tuple[str, str], **more: Any) -> Panel:
    return Panel(Kind.AREA, title, question, unit, tuple(Query(*q) for q in queries), **more)


def heat(title: str, question: str, unit: Unit, metric: names.Metric, **more: Any) -> Panel:
    width, labels = more.pop("width", 8), more
    return Panel(Kind.HEAT, title, question, unit, (Query(BOARD.buckets(metric, **labels), "{{le}}"),), width)


def bars(title: str, question: str, unit: Unit, *queries: tuple[str, str], **more: Any) -> Panel:
    return Panel(Kind.BARS, title, question, unit, tuple(Query(*q) for q in queries), **more)


def columns(title: str, question: str, unit: Unit, *queries: tuple[str, str, Unit]) -> Panel:
    """One row for each set of labels, one column for each query."""
    units = tuple((name, unit) for _, name, unit in queries)
    return Panel(Kind.TABLE, title, question, unit, tuple(Query(q, name) for q, name, _ in queries), 24, units=units)


# How Grafana says it.


class _Marks:
    """An annotation by a Prometheus query; the SDK's own type lacks the fields of that datasource."""

    def __init__(self, name: str, expr: str, title: str, colour: str, *, at_value: bool = False) -> None:
        self._json = {
            "name": name,
            "enable": True,
            "datasource": METRICS,
            "iconColor": colour,
            "expr": expr,
            "titleFormat": title,
            "useValueForTime": at_value,
        }

    def build(self) -> "_Marks":
        return self

    def to_json(self) -> dict[str, Any]:
        return self._json


def _dashboard(board: Board) -> dict[str, Any]:
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.question)
        .tags([TAG])
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(
            dashboard.DashboardLink("Weir")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .variables(list(_variables(board)))
        .annotations(list(_annotations()))  # type: ignore[arg-type]  # see _Marks
    )
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title).id(board.id_of(f"row {row.title}")))
        for panel in row.panels:
            built = built.with_panel(_panel(board, panel))
    return built.build().to_json()


def _variables(board: Board) -> Iterator[Any]:
    yield dashboard.DatasourceVariable("datasource").label("Metrics").type("prometheus")
    yield dashboard.DatasourceVariable("traces").label("Traces").type("tempo")
    yield dashboard.DatasourceVariable("logs").label("Logs").type("loki")
    chosen: list[str] = []
    for label, metric in (("namespace", names.BUILD), *board.variables):
        scope = ", ".join(f'{name}=~"${name}"' for name in chosen)
        series = f"{metric.name}{{{scope}}}" if scope else metric.name
        yield (
            dashboard.QueryVariable(label)
            .label(label.capitalize())
            .datasource(METRICS)
            .query(f"label_values({series}, {label})")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.ALPHABETICAL_ASC)
            .multi(True)
            .include_all(True)
            .all_value(ALL.get(label, SOME))
            .current(models.VariableOption(selected=True, text="All", value="$__all"))
        )
        if label == "namespace":  # teams and models are chosen apart from each other
            chosen.append(label)


def _annotations() -> Iterator[_Marks]:
    begun = f"{BOARD.series(STARTED)} * on (namespace, instance) group_left (version) {BOARD.series(names.BUILD)}"
    yield _Marks(
        "Deploys",
        f"min by (namespace, version) ({begun}) * 1000",
        "{{namespace}} runs {{version}}",
        BLUE,
        at_value=True,
    )
    reloads = f"changes({BOARD.series(names.GENERATION)}[$__rate_interval])"
    yield _Marks("Reloads", f"sum by (namespace) ({reloads}) > 0", "{{namespace}}: a configuration was taken", GREEN)
    refused = BOARD.increase(names.RELOAD_FAILURES, "namespace")
    yield _Marks("Refused reloads", f"{refused} > 0", "{{namespace}}: a configuration was refused", RED)


def _panel(board: Board, panel: Panel) -> Any:
    builder = _LOOKS[panel.kind](panel)
    for number, query in enumerate(panel.queries):
        builder = builder.with_target(_target(panel, query, chr(ord("A") + number)))
    builder = (
        builder.id(board.id_of(panel.title))
        .title(panel.title)
        .description(panel.question)
        .datasource(METRICS)
        .unit(panel.unit.word)
        .span(panel.width)
        .height(4 if panel.kind is Kind.STAT else 8)
        .data_links([_data_link(link) for link in LINKS])
    )
    if panel.decimals is not None:
        builder = builder.decimals(panel.decimals)
    if panel.kind is not Kind.HEAT:
        builder = builder.thresholds(_thresholds(panel)).mappings(_mappings(panel))
        if panel.kind is not Kind.STAT and panel.kind is not Kind.TABLE:
            builder = builder.min(panel.bounds[0])
    return builder


def _target(panel: Panel, query: Query, ref: str) -> Any:
    target = prometheus.Dataquery().ref_id(ref).expr(query.expr).datasource(METRICS)
    if panel.kind is Kind.TABLE:
        return target.instant().format(PromQueryFormat.TABLE)
    target = target.instant() if panel.kind is Kind.STAT and "$__range" in query.expr else target.range()
    if panel.kind is Kind.HEAT:
        target = target.format(PromQueryFormat.HEATMAP)
    return target.legend_format(query.legend or "__auto").exemplar("_bucket{" in query.expr)


def _stat(_: Panel) -> Any:
    return (
        stat.Panel()
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _lines(panel: Panel) -> Any:
    built = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(35 if panel.kind is Kind.AREA else 5)
        .show_points(common_models.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
    )  # fmt: skip
    if panel.kind is Kind.AREA:
        built = built.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if panel.limit is not None:
        dashed = common_models.GraphThresholdsStyleMode.DASHED
        built = built.thresholds_style(common.GraphThresholdsStyleConfig().mode(dashed))
    return built


def _heat(panel: Panel) -> Any:
    colours = heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return (
        heatmap.Panel()
        .calculate(False)
        .color(colours.exponent(0.5).reverse(False))
        .y_axis(heatmap.YAxisConfig().unit(panel.unit.word).axis_placement(common_models.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit(Unit.RATE.word))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .exemplars_color("rgba(0,116,217,0.9)")
        .show_legend()
    )


def _bars(_: Panel) -> Any:
    return (
        bargauge.Panel()
        .orientation(common_models.VizOrientation.HORIZONTAL)
        .display_mode(common_models.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .max(1)  # each is a share or a yes
    )


def _table(panel: Panel) -> Any:
    named = {f"Value #{chr(ord('A') + number)}": query.legend for number, query in enumerate(panel.queries)}
    built = (
        table.Panel()
        .filterable(True)
        .with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": named}
            )
        )
    )
    for name, unit in panel.units:
        built = built.override_by_name(name, [models.DynamicConfigValue("unit", unit.word)])
    return built


_LOOKS = {
    Kind.STAT: _stat,
    Kind.LINES: _lines,
    Kind.AREA: _lines,
    Kind.HEAT: _heat,
    Kind.BARS: _bars,
    Kind.TABLE: _table,
}


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    calm, alarming = (RED, GREEN) if panel.low_is_bad else (GREEN, RED)
    steps = [models.Threshold(value=None, color=calm)]
    if panel.limit is not None:
        steps.append(models.Threshold(value=panel.limit, color=alarming))
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _mappings(panel: Panel) -> list[Any]:
    options = {value: models.ValueMappingResult(text=text, color=colour) for value, text, colour in panel.words}
    return [models.ValueMap(options=options)] if options else []


def _data_link(link: Link) -> dashboard.DashboardLink:
    return dashboard.DashboardLink(link.title).url(link.url).target_blank(True)


def _explore(variable: str, **query: str) -> str:
    """Explore on the datasource that is chosen, at the time that is looked at."""
    pane = {
        "datasource": f"${{{variable}}}",
        "queries": [{"refId": "A", "datasource": {"uid": f"${{{variable}}}"}, **query}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    return f"/explore?schemaVersion=1&orgId=1&panes={quote(json.dumps({'weir': pane}), safe='${}:_,')}"


LINKS = (
    Link("Traces of this time", _explore("traces", queryType="traceql", query='{resource.service.name="weir"}')),
    Link(
        "Requests of this time that did not end well",
        _explore("logs", expr='{container="weir", namespace=~"${namespace:regex}"} | json | event="request" | outcome!="ok"'),
    ),
)  # fmt: skip
