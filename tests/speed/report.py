"""From rounds to a table: medians of each figure, ratios of each round to nginx in the same round."""

import os
import platform
import subprocess
from pathlib import Path
from statistics import median

import psutil

from tests.speed.scenarios import Figures

Rounds = list[Figures]

NOT_MEASURED = "-"


def machine(python: str) -> str:
    """What the figures were taken on. One line of Python is timed: a build without PGO takes twice as long."""
    with Path("/proc/cpuinfo").open() as cpuinfo:
        model = next(
            (line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine()
        )
    memory = psutil.virtual_memory().total / 2**30
    question = (
        "import platform, timeit; print(platform.python_version(), "
        "round(min(timeit.repeat('sum(range(1000))', number=1000)) * 1000, 1))"
    )
    version, loop_us = subprocess.run(
        [python, "-c", question], capture_output=True, text=True, check=True
    ).stdout.split()
    return (
        f"{psutil.cpu_count()} cores ({model}), {memory:.0f} GB, Linux {platform.release()}; "
        f"Python {version}, sum(range(1000)) in {loop_us} us; load average at start {os.getloadavg()[0]:.2f}"
    )


def middle(rounds: Rounds, figure: str) -> float | None:
    values = [figures[figure] for figures in rounds if figure in figures]
    return median(values) if values else None


def ratio(rounds: Rounds, floor: Rounds, figure: str) -> float | None:
    """Median over the rounds of this gateway's figure divided by the floor's in the same round."""
    pairs = [(mine[figure], theirs[figure]) for mine, theirs in zip(rounds, floor, strict=False) if theirs.get(figure)]
    return median(mine / theirs for mine, theirs in pairs) if pairs else None


def difference(rounds: Rounds, floor: Rounds, figure: str) -> float | None:
    """Median over the rounds of this gateway's figure less the floor's in the same round."""
    pairs = [(mine[figure], theirs[figure]) for mine, theirs in zip(rounds, floor, strict=False) if figure in mine]
    return median(mine - theirs for mine, theirs in pairs) if pairs else None


def alone(short: Rounds, long: Rounds) -> Rounds:
    """What a chunk costs without its share of the request: what longer streams cost more, by what they hold more."""
    pairs = zip(short, long, strict=False)
    return [{"cpu_us": (_a_stream(two) - _a_stream(one)) / _more_events(one, two)} for one, two in pairs]


def _a_stream(figures: Figures) -> float:
    return figures["cpu_us"] * figures["events_a_stream"]


def _more_events(short: Figures, long: Figures) -> float:
    return long["events_a_stream"] - short["events_a_stream"]


def show(value: float | None, unit: str = "", digits: int = 0) -> str:
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}{unit}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns, numbers to the right."""
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [header, rule, *rows]
    return "\n".join(
        "| "
        + " | ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        + " |"
        for line in lines
    )


def overview(rounds: dict[str, dict[str, Rounds]], names: list[str]) -> str:
    """CPU, throughput and memory, one line a gateway."""
    singles, streams, opened = (rounds.get(scenario, {}) for scenario in ("single", "stream", "open"))
    rows = []
    for name in names:
        one, many, held = singles.get(name, []), streams.get(name, []), opened.get(name, [])
        rows.append(
            [
                name,
                show(middle(one, "cpu_us"), " us"),
                show(ratio(one, singles.get("nginx", []), "cpu_us"), " x", 1),
                show(middle(many, "cpu_us"), " us", 1),
                show(ratio(many, streams.get("nginx", []), "cpu_us"), " x", 1),
                show(middle(one, "per_second")),
                show(middle(many, "per_second")),
                show(middle(many, "first_event_ms"), " ms", 1),
                show(_megabytes(one, "rss_after"), " MB"),
                show(_kilobytes(held, "bytes_a_stream"), " KB", 1),
                show(middle(held, "start_seconds"), " s", 2),
            ]
        )
    header = ["", "CPU a request", "to nginx", "CPU a slow chunk", "to nginx", "requests/s", "chunks/s", "first chunk"]
    return table([*header, "memory", "an open stream", "start to ready"], rows)


def latency(rounds: dict[str, Rounds]) -> str:
    """Latency at a fixed rate and what each gateway adds to it, one line a gateway."""
    rows = [
        [
            name,
            show(middle(mine, "rate"), "/s"),
            show(middle(mine, "cpu_us"), " us"),
            show(ratio(mine, rounds.get("nginx", []), "cpu_us"), " x", 1),
            show(middle(mine, "p50_ms"), " ms", 2),
            show(middle(mine, "p99_ms"), " ms", 2),
            show(difference(mine, rounds["direct"], "p50_ms"), " ms", 2) if name != "direct" else "",
            show(difference(mine, rounds["direct"], "p99_ms"), " ms", 2) if name != "direct" else "",
        ]
        for name, mine in rounds.items()
    ]
    return table(["", "rate", "CPU a request", "to nginx", "p50", "p99", "added p50", "added p99"], rows)


def seen(requests: dict[str, Rounds], chunks: dict[str, Rounds], off: str) -> str:
    """What each kind of telemetry adds, one line a gateway; each has all that those above it have."""
    rows = [
        [
            name,
            show(middle(requests[name], "cpu_us"), " us", 1),
            show(difference(requests[name], requests[off], "cpu_us"), " us", 1) if name != off else "",
            show(middle(chunks.get(name, []), "cpu_us"), " us", 2),
            show(difference(chunks.get(name, []), chunks.get(off, []), "cpu_us"), " us", 2) if name != off else "",
        ]
        for name in requests
    ]
    return table(["", "CPU a request", "more than nothing", "CPU a slow chunk", "more than nothing"], rows)


def goals(rounds: dict[str, dict[str, Rounds]]) -> str:
    """What Weir is to reach, beside what was measured; a line for each figure of this run."""
    mine = {scenario: names.get("weir", []) for scenario, names in rounds.items()}
    one, many, held, timed = (mine.get(scenario, []) for scenario in ("single", "stream", "open", "latency"))
    floor = {scenario: names.get("nginx", []) for scenario, names in rounds.items()}
    direct = rounds.get("latency", {}).get("direct", [])
    reference = rounds.get("reference", {}).get("nginx", [])
    redis_us = middle(one, "redis_us")
    long, long_floor = mine.get("long", []), floor.get("long", [])
    ten, ten_floor = mine.get("together", []), floor.get("together", [])
    bare, bare_floor = alone(many, long), alone(floor.get("stream", []), long_floor)
    figures = [
        ("CPU a request, to nginx at 18,900/s", ratio(one, reference, "cpu_us"), "<= 8 x, then 4 x", " x", 1),
        ("CPU a request, to nginx at its fastest", ratio(one, floor.get("single", []), "cpu_us"), "", " x", 1),
        ("CPU a slow chunk, to nginx", ratio(many, floor.get("stream", []), "cpu_us"), "<= 2 x, then 1.3 x", " x", 2),
        ("CPU a slow chunk of a stream of 402, to nginx", ratio(long, long_floor, "cpu_us"), "", " x", 2),
        ("CPU a slow chunk, without its share of a request", ratio(bare, bare_floor, "cpu_us"), "", " x", 2),
        ("CPU a slow chunk, ten sent together, to nginx", ratio(ten, ten_floor, "cpu_us"), "", " x", 2),
        ("CPU a request at half load, to nginx", ratio(timed, floor.get("latency", []), "cpu_us"), "", " x", 1),
        ("added latency at half load, p50", difference(timed, direct, "p50_ms"), "<= 0.5 ms", " ms", 2),
        ("added latency at half load, p99", difference(timed, direct, "p99_ms"), "<= 2 ms", " ms", 2),
        ("memory under single answers", _megabytes(one, "rss_after"), "<= 90 MB", " MB", 0),
        ("memory of an open stream", _kilobytes(held, "bytes_a_stream"), "<= 25 KB", " KB", 1),
        ("memory kept when all have left", _megabytes(held, "left"), "flat", " MB", 1),
        ("memory grown, first round to last", _growth(one), "flat", " MB", 1),
        ("start to ready", middle(held, "start_seconds"), "<= 1.5 s", " s", 2),
        ("Redis CPU a request, whole process", redis_us, "", " us", 1),
        ("Redis CPU a request, in scripts", middle(one, "script_us"), "", " us", 1),
        ("admissions/s for a core of Redis", 1e6 / redis_us if redis_us else None, ">= 40,000", "", 0),
    ]
    rows = [
        [what, show(value, unit, digits), reach] for what, value, reach, unit, digits in figures if value is not None
    ]
    return table(["Weir", "here", "reach"], rows) if rows else ""


def _megabytes(rounds: Rounds, figure: str) -> float | None:
    value = middle(rounds, figure)
    return None if value is None else value / 1e6


def _kilobytes(rounds: Rounds, figure: str) -> float | None:
    value = middle(rounds, figure)
    return None if value is None else value / 1e3


def _growth(rounds: Rounds) -> float | None:
    """MB between the end of the first round, when everything is warm, and the end of the last."""
    return (rounds[-1]["rss_after"] - rounds[0]["rss_after"]) / 1e6 if len(rounds) > 1 else None
