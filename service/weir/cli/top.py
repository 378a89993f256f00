"""`weir top`: what a running Weir does now, in a terminal, read from its ops port like any other scrape."""

import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from weir.cli.options import PIPE_WIDTH, fail

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from weir.telemetry.reading import Frame, Scrape

TIMEOUT_SECONDS = 5.0
STREAMS, TEAMS = 15, 8  # rows
STREAM_COLUMNS = ("TEAM", "KEY", "MODEL", "PHASE", "FIRST TOKEN", "AGE", "REQUEST")
CUT, TIMES = (0, 2), (4, 5)  # columns: which names may be cut, and what stands at the right
_direct = build_opener(ProxyHandler({}))  # an ops port is behind no proxy


class Away(Exception):
    """The ops port does not answer; the sentence says how."""


class Look(NamedTuple):
    """One look at the ops port. `live` is what GET /requests said: of the one process that answered."""

    scrape: "Scrape"
    live: Mapping[str, Any]


def top(ops_url: str, interval: float, *, once: bool, as_json: bool) -> None:
    """Until Ctrl-C; or one frame, of what happened within one interval."""
    if urlsplit(ops_url).scheme not in ("http", "https") or not urlsplit(ops_url).hostname:
        raise fail(f"'{ops_url}' is no address of an ops port; write it as http://localhost:9090.")
    ops_url = ops_url.rstrip("/")
    if as_json and not once:
        raise fail("--json is for programs: give --once with it.")
    if once:
        _once(ops_url, interval, as_json=as_json)
    else:
        _for_ever(ops_url, interval)


def _once(ops_url: str, interval: float, *, as_json: bool) -> None:
    from rich.console import Console

    try:
        before = look(ops_url)
        time.sleep(interval)
        after = look(ops_url)
    except Away as away:
        raise fail(str(away)) from None
    except KeyboardInterrupt:
        return
    frame, live = _frame(before, after), after.live
    if as_json:
        print(json.dumps(frame_as_json(ops_url, frame, live), indent=2))
    else:
        Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(page(ops_url, frame, live))


def _for_ever(ops_url: str, interval: float) -> None:
    from rich.live import Live
    from rich.text import Text

    shown: RenderableType = Text(f"Looking at {ops_url} ...")
    before: Look | None = None
    last: tuple[Frame, Mapping[str, Any]] | None = None
    stopped = Event()

    def stop(*_: object) -> None:
        stopped.set()  # what is raised in a destructor is dropped, and Ctrl-C would have done nothing
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    try:
        with Live(shown, screen=True, auto_refresh=False) as screen:
            while not stopped.is_set():
                try:
                    now = look(ops_url)
                except Away as away:
                    # What is shown stays, marked as old; rates begin anew when it is back.
                    before = None
                    shown = page(ops_url, *last, away=str(away)) if last else Text(f"{away} Trying again ...", "red")
                else:
                    if before is not None:
                        last = _frame(before, now), now.live
                        shown = page(ops_url, *last)
                    before = now
                screen.update(shown, refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def _frame(before: Look, after: Look) -> "Frame":
    from weir.telemetry.reading import between

    return between(before.scrape, after.scrape)


def look(ops_url: str) -> Look:
    """Raises Away."""
    from weir.telemetry.reading import read

    text = _get(f"{ops_url}/metrics").decode(errors="replace")
    at = time.monotonic()
    try:
        return Look(read(text, at), json.loads(_get(f"{ops_url}/requests?limit=1000")))
    except ValueError as error:
        raise Away(f"{ops_url} answers, but is no ops port of Weir: {error}.") from error


def _get(url: str) -> bytes:
    try:
        with _direct.open(Request(url), timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the scheme is checked above
            return bytes(answer.read())
    except HTTPError as error:
        raise Away(f"{url} answers {error.code}; is that Weir's ops port?") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        raise Away(f"{url} does not answer: {why}. Is Weir running? --ops-url says where.") from error


# -- what is shown


def frame_as_json(ops_url: str, frame: "Frame", live: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ops_url": ops_url,
        "seconds": round(frame.seconds, 3),
        "requests_per_second": round(frame.requests, 3),
        "errors_per_second": round(frame.errors, 3),
        "refusals_per_second": round(frame.refusals, 3),
        "refused_by": {name: round(rate, 3) for name, rate in frame.refused_by.items()},
        "tokens_per_second": {"input": round(frame.input_tokens, 3), "output": round(frame.output_tokens, 3)},
        "in_flight": frame.in_flight,
        "waiting": frame.waiting,
        "replicas": frame.replicas,
        "degraded": frame.degraded,
        "draining": frame.draining,
        "endpoints_ejected": frame.endpoints_ejected,
        "overhead_seconds": _named(frame.overhead),
        "time_to_first_token_seconds": _named(frame.time_to_first_token),
        "teams": [
            {
                "team": team.team or None,
                "requests_per_second": round(team.requests, 3),
                "tokens_per_second": round(team.tokens, 3),
                "refusals_per_second": round(team.refusals, 3),
            }
            for team in frame.teams
        ],
        "process": {"pid": live["pid"], "of": live["processes"], "in_flight": live["count"]},
        "streams": streams(live),
    }


def streams(live: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those under way, the slowest first: who waited longest for a first token, or waits for it still."""
    of_them = [one for one in live["requests"] if one["streaming"]]
    return sorted(of_them, key=waited, reverse=True)


def waited(one: Mapping[str, Any]) -> float:
    """Seconds until its first token, or so far."""
    first, age = one["time_to_first_token"], one["age_seconds"]
    return float(age if first is None else first)


def page(ops_url: str, frame: "Frame", live: Mapping[str, Any], away: str = "") -> "RenderableType":
    """One frame for a person."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble(("weir top", "bold"), f"  {ops_url}  over {frame.seconds:.1f} s  ", *_states(frame))
    parts: list[RenderableType] = [title]
    if away:
        parts.append(Text(f"{away} What is below is old.", "bold red"))
    numbers = Table(box=None, pad_edge=False, show_header=False)
    refused = ", ".join(f"{name} {_rate(rate)}" for name, rate in frame.refused_by.items())
    for row in (
        ("requests/s", _rate(frame.requests), "errors/s", _rate(frame.errors)),
        ("tokens/s in", _rate(frame.input_tokens), "tokens/s out", _rate(frame.output_tokens)),
        ("in flight", str(frame.in_flight), "waiting", str(frame.waiting)),
        ("overhead", _pair(frame.overhead), "first token", _pair(frame.time_to_first_token)),
        ("refused/s", _rate(frame.refusals) + (f"  {refused}" if refused else ""), "", ""),
    ):
        numbers.add_row(*(Text(cell, "bold" if number % 2 else "dim") for number, cell in enumerate(row)))
    return Group(*parts, Text(), numbers, Text(), _team_table(frame), Text(), *_stream_table(live))


def _states(frame: "Frame") -> list[tuple[str, str]]:
    states = [
        ("DEGRADED: redis is away ", "bold red") if frame.degraded else None,
        ("DRAINING ", "bold yellow") if frame.draining else None,
        (f"{frame.endpoints_ejected} ENDPOINTS EJECTED ", "bold yellow") if frame.endpoints_ejected else None,
    ]
    return [state for state in states if state] or [("well", "green")]


def _team_table(frame: "Frame") -> "RenderableType":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("TEAM", "REQUESTS/S", "TOKENS/S", "REFUSED/S"):
        table.add_column(heading, justify="left" if heading == "TEAM" else "right")
    for team in frame.teams[:TEAMS]:
        table.add_row(team.team or "-", _rate(team.requests), _rate(team.tokens), _rate(team.refusals))
    return table


def _stream_table(live: Mapping[str, Any]) -> "Sequence[RenderableType]":
    from rich.text import Text

    slowest = streams(live)
    # Each process knows its own requests only, and which one answers is chance.
    whose = f" of one of {live['processes']} processes (pid {live['pid']})" if live["processes"] > 1 else ""
    seen, all_ = len(live["requests"]), live["count"]
    among = f" among the {seen:,} oldest of {all_:,} requests" if all_ > seen else ""
    head = Text(f"{len(slowest)} streams{among} under way{whose}, the slowest to a first token first", "bold")
    return head, _Streams(slowest[:STREAMS])


class _Streams:
    """A table. Where it is too narrow, names of teams and models are cut, and a request's id gets a line of its own:
    ids are there to be copied.
    """

    def __init__(self, slowest: Sequence[Mapping[str, Any]]) -> None:
        self._cells = [STREAM_COLUMNS, *map(_stream_cells, slowest)]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        widths = [max(map(len, column)) for column in zip(*self._cells, strict=True)]
        folded = sum(widths) + 2 * (len(widths) - 1) > options.max_width
        if folded:
            team, model = CUT
            others = sum(widths[:-1]) - widths[team] - widths[model] + 2 * (len(widths) - 2)
            room = max(options.max_width - others, 2)
            widths[team] = min(widths[team], max(room // 2, room - widths[model]))
            widths[model] = min(widths[model], room - widths[team])
        for number, (*cells, request) in enumerate(self._cells):
            shown = [_padded(column, cell, widths[column]) for column, cell in enumerate(cells)]
            style = "" if number else "bold"
            yield Text("  ".join([*shown, *(() if folded else (request,))]), style, no_wrap=True, overflow="ignore")
            if folded:
                yield Text(f"  {request}", style or "dim", no_wrap=True, overflow="ignore")


def _stream_cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    first = one["time_to_first_token"]
    return (
        *(one["team"] or "-", one["key_id"] or "-", one["model"] or "-", one["phase"]),
        "waits" if first is None else _span(first),
        _span(one["age_seconds"]),
        one["request_id"],
    )


def _padded(column: int, cell: str, width: int) -> str:
    shown = cell if len(cell) <= width else f"{cell[: width - 1]}…"
    return shown.rjust(width) if column in TIMES else shown.ljust(width)


def _named(quantiles: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip(("p50", "p99"), (None if q is None else round(q, 6) for q in quantiles), strict=True))


def _pair(quantiles: Sequence[float | None]) -> str:
    return " / ".join("-" if seconds is None else _span(seconds) for seconds in quantiles) + "  p50/p99"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _span(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
