"""`make dashboards-report`: every panel of every dashboard as one page to look at, drawn from a real scrape.

Not Grafana, but the same queries, units and limits: a panel that would be empty, wrong or unreadable there is so here.
"""

import base64
import html
import io
import math
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from deploy.mixin.board import Kind, Panel, Query, Unit
from deploy.mixin.output import BOARDS
from tests.deploy.prometheus import MISSING, Series, filled, programs
from tests.deploy.scene import Scene
from tests.system.harness import ROOT

PAGE = ROOT / "build" / "dashboards.html"
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; background: #f4f5f5; color: #24292e }
h1 { margin-top: 2em } h2 { border-bottom: 1px solid #ccc; margin-top: 1.5em }
.panels { display: flex; flex-wrap: wrap; gap: 1em }
.panel { background: #fff; border: 1px solid #ddd; border-radius: 4px; padding: 1em; box-sizing: border-box; overflow: hidden }
.panel h3 { margin: 0 } .panel p { margin: .3em 0 } img { max-width: 100% }
code { font-size: 11px; overflow-wrap: anywhere; color: #555 } .nothing { color: #a33 }
table { border-collapse: collapse } td, th { padding: .2em .8em; border-bottom: 1px solid #eee; text-align: right }
td:first-child, th:first-child { text-align: left }
"""


def said(value: float, unit: Unit) -> str:
    """A value with its unit, as Grafana would shorten it."""
    if math.isinf(value):
        return "∞"
    match unit:
        case Unit.SHARE:
            return f"{value:.3%}" if 0.98 < value < 1 else f"{value:.1%}"
        case Unit.SECONDS:
            return (
                f"{value * 1e6:.3g} µs"
                if abs(value) < 1e-3
                else f"{value * 1e3:.3g} ms"
                if abs(value) < 1
                else f"{value:.3g} s"
            )
        case Unit.BYTES:
            return f"{value / 2**20:.3g} MiB"
        case Unit.DOLLARS:
            return f"${value:.3g}"
        case Unit.RATE:
            return f"{value:.3g} req/s"
        case Unit.EACH_SECOND:
            return f"{value:.3g} c/s"
    return f"{value / 1000:.3g} K" if abs(value) >= 10_000 else f"{value:.4g}"  # fmt: skip


def named(query: Query, series: Series) -> str:
    name = query.legend
    for label, value in series.labels.items():
        name = name.replace(f"{{{{{label}}}}}", value)
    return name


class Report:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def page(self) -> str:
        parts = [f"<!doctype html><meta charset=utf-8><title>Weir dashboards</title><style>{STYLE}</style>"]
        for board in BOARDS:
            parts.append(f"<h1>{html.escape(board.title)}</h1><p>{html.escape(board.question)}</p>")
            for row in board.rows:
                panels = "".join(self._panel(panel) for panel in row.panels)
                parts.append(f"<h2>{html.escape(row.title)}</h2><div class=panels>{panels}</div>")
        return "\n".join(parts)

    def _panel(self, panel: Panel) -> str:
        asked = [
            (query, self._scene.prometheus.curves(filled(query.expr), self._scene.start, self._scene.end))
            for query in panel.queries
        ]
        asked = [(query, [series for series in found if series.points]) for query, found in asked]
        drawn = "<p class=nothing>nothing to show</p>"
        if any(found for _, found in asked):
            drawn = self._table(panel, asked) if panel.kind is Kind.TABLE else self._picture(panel, asked)
        queries = "".join(f"<div><code>{html.escape(query.expr)}</code></div>" for query in panel.queries)
        return (
            f'<div class=panel style="width: {panel.width / 24:.1%}; min-width: 20em"><h3>{html.escape(panel.title)}</h3>'
            f"<p>{html.escape(panel.question)}</p>{drawn}<details><summary>{panel.unit.word}, {panel.kind.value}</summary>"
            f"{queries}</details></div>"
        )

    @staticmethod
    def _table(panel: Panel, asked: list[tuple[Query, list[Series]]]) -> str:
        rows: dict[tuple[str, ...], dict[str, float]] = {}
        for query, found in asked:
            for series in found:
                rows.setdefault(tuple(series.labels.values()), {})[query.legend] = series.points[-1][1]
        units = dict(panel.units)
        head = "".join(f"<th>{html.escape(query.legend)}</th>" for query in panel.queries)
        body = "".join(
            f"<tr><td>{html.escape(' / '.join(labels))}</td>"
            + "".join(
                f"<td>{said(values[query.legend], units[query.legend]) if query.legend in values else ''}</td>"
                for query in panel.queries
            )
            + "</tr>"
            for labels, values in sorted(rows.items())
        )
        return f"<table><tr><th></th>{head}</tr>{body}</table>"

    def _picture(self, panel: Panel, asked: list[tuple[Query, list[Series]]]) -> str:
        figure, axes = plt.subplots(
            figsize=(panel.width / 24 * 18, 1.6 if panel.kind is Kind.STAT else 3.4), dpi=80, layout="constrained"
        )
        curves = [(named(query, series), series) for query, found in asked for series in found]
        match panel.kind:
            case Kind.HEAT:
                self._heat(axes, panel, [series for _, series in curves])
            case Kind.BARS:
                self._bars(axes, panel, curves)
            case Kind.STAT:
                self._stat(axes, panel, curves[0][1])
            case _:
                self._curves(axes, panel, curves)
        if panel.kind in {Kind.LINES, Kind.AREA}:
            figure.legend(fontsize=7, loc="outside lower left", ncols=1 if len(curves) < 3 else 2)
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        plt.close(figure)
        return f'<img src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}">'

    def _since(self, series: Series) -> list[float]:
        return [at - self._scene.start for at, _ in series.points]

    def _curves(self, axes: Axes, panel: Panel, curves: list[tuple[str, Series]]) -> None:
        if panel.kind is Kind.AREA:
            times = sorted({at for _, series in curves for at in self._since(series)})
            stacks = [
                [dict(zip(self._since(one), (v for _, v in one.points), strict=True)).get(at, 0.0) for at in times]
                for _, one in curves
            ]
            axes.stackplot(times, stacks, labels=[name for name, _ in curves], alpha=0.7)
        else:
            for name, series in curves:
                axes.plot(self._since(series), [value for _, value in series.points], label=name, linewidth=1.2)
            axes.set_ylim(bottom=min(panel.bounds[0], 0) if panel.bounds[0] > -1 else None)
            if panel.limit is not None:
                seen = axes.get_ylim()
                axes.axhline(panel.limit, color="#c4162a", linestyle="--", linewidth=1)
                axes.set_ylim(seen)  # as in Grafana, where a limit far off does not flatten the curves
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: said(value, panel.unit)))
        axes.grid(alpha=0.3)

    @staticmethod
    def _stat(axes: Axes, panel: Panel, series: Series) -> None:
        words = {value: text for value, text, _ in panel.words}
        last = series.points[-1][1]
        over = panel.limit is not None and (last < panel.limit) is panel.low_is_bad
        axes.text(
            0.5,
            0.5,
            words.get(f"{last:g}", said(last, panel.unit)),
            fontsize=22,
            ha="center",
            va="center",
            color="#c4162a" if over else "#37872d",
        )
        axes.axis("off")  # fmt: skip

    @staticmethod
    def _bars(axes: Axes, panel: Panel, curves: list[tuple[str, Series]]) -> None:
        highest = [(name, max(value for _, value in series.points)) for name, series in curves]
        axes.barh([name for name, _ in highest], [value for _, value in highest], color="#5794f2")
        axes.set_title("the highest of this time", fontsize=8)
        axes.tick_params(axis="y", labelsize=7)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: said(value, panel.unit)))
        if panel.limit is not None:
            axes.axvline(panel.limit, color="#c4162a", linestyle="--", linewidth=1)

    def _heat(self, axes: Axes, panel: Panel, curves: list[Series]) -> None:
        by_bound = sorted((float(series.labels["le"]), series) for series in curves)
        times = sorted({at for _, series in by_bound for at in self._since(series)})
        below = np.zeros(len(times))
        cells = []
        for _, series in by_bound:
            values = dict(zip(self._since(series), (value for _, value in series.points), strict=True))
            reached = np.array([values.get(at, 0.0) for at in times])
            cells.append(np.maximum(reached - below, 0))
            below = reached
        grid = np.ma.masked_less_equal(np.array(cells), 1e-9)
        axes.pcolormesh(times, range(len(cells)), grid, cmap="Oranges", shading="nearest")
        step = max(len(cells) // 8, 1)
        axes.set_yticks(
            range(0, len(cells), step), [f"≤ {said(bound, panel.unit)}" for bound, _ in by_bound[::step]], fontsize=7
        )
        dots = self._scene.prometheus.exemplars(filled(panel.queries[0].expr), self._scene.start, self._scene.end)
        bounds = [bound for bound, _ in by_bound]
        for one in dots:
            for exemplar in one["exemplars"]:
                row = int(np.searchsorted(bounds, float(exemplar["value"])))
                axes.plot(float(exemplar["timestamp"]) - self._scene.start, row, "D", color="#0074d9", markersize=3)  # fmt: skip


def main(page: Path = PAGE) -> None:
    if programs() is None:
        sys.exit(MISSING)
    with Scene() as scene:
        print("Half a minute of everything ...", flush=True)
        scene.play()
        whole = Report(scene).page()
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(whole)
    print(f"{page.relative_to(ROOT)}: {sum(1 for board in BOARDS for _ in board.panels)} panels")


if __name__ == "__main__":
    main()
