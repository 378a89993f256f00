"""What several commands share: where Redis is, limits, how a listing looks, how a mistake is told."""

import csv
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from weir.core.types import Limits

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="WEIR_CONFIG", help="A weir.yaml.", exists=True, dir_okay=False)
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        help="redis://, rediss:// for TLS, unix://, redis+sentinel:// or redis+cluster:// URL. Else the "
        "configuration's; else, without --config, the one that 'weir serve' brings; else redis://localhost:6379/0."
    ),
]
LIMITS = "Limits"
Rpm = Annotated[str | None, typer.Option(help="Requests a minute, or none.", rich_help_panel=LIMITS)]
Tpm = Annotated[str | None, typer.Option(help="Tokens a minute, prompt and answer; or none.", rich_help_panel=LIMITS)]
Concurrency = Annotated[str | None, typer.Option(help="Requests at once, or none.", rich_help_panel=LIMITS)]
Burst = Annotated[
    str | None,
    typer.Option("--burst-seconds", help="How many seconds' worth may be saved up (60).", rich_help_panel=LIMITS),
]
Models = Annotated[
    str | None, typer.Option(help="Models as patterns, 'llama-*,gpt-*'; or none for all.", rich_help_panel=LIMITS)
]
Shadow = Annotated[
    str | None,
    typer.Option(help="Limits that only count and report: 'rpm,tpm,concurrency', or none.", rich_help_panel=LIMITS),
]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Csv = Annotated[bool, typer.Option("--csv", help="CSV for spreadsheets.")]
Expires = Annotated[str | None, typer.Option(help="From now on, as 90d or 12h; or none.")]

PIPE_WIDTH = 1_000_000  # columns of what is no terminal: there, a row is a line
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def fail(message: str) -> typer.Exit:
    """Say it on standard error; raise the result."""
    print(f"weir: {message}", file=sys.stderr)
    return typer.Exit(1)


def seconds_of(text: str) -> int:
    """`90d`, `12h`, `30m`, `45s`, `2w` as seconds."""
    found = re.fullmatch(r"(\d+)([smhdw])", text.strip())
    if not found:
        raise fail(f"'{text}' is no time span; write it as 90d, 12h, 30m or 45s.")
    return int(found[1]) * _SECONDS[found[2]]


def expiry_of(text: str | None) -> int | None:
    """Unix seconds; 0 for never, None for no word on it."""
    if text is None:
        return None
    # Wall time: an expiry is a date.
    return 0 if text == "none" else int(time.time()) + seconds_of(text)  # noqa: TID251


def any_given(*flags: str | None) -> bool:
    return any(flag is not None for flag in flags)


def limit_change(
    rpm: str | None, tpm: str | None, concurrency: str | None, burst: str | None, models: str | None, shadow: str | None
) -> "Callable[[Limits], Limits]":
    """What the flags change; `none` takes a limit away, a flag not given leaves it."""
    from weir.auth.records import Invalid, unit_of

    change: dict[str, Any] = {}
    for name, text in (("rpm", rpm), ("tpm", tpm), ("concurrency", concurrency), ("burst_seconds", burst)):
        if text is None:
            continue
        if text == "none":
            change[name] = 60 if name == "burst_seconds" else None
        elif text.isdigit():
            change[name] = int(text)
        else:
            raise fail(f"--{name.replace('_', '-')} takes a whole number or none, not '{text}'.")
    if models is not None:
        change["models"] = () if models == "none" else tuple(filter(None, map(str.strip, models.split(","))))
    if shadow is not None:
        try:
            change["shadow"] = frozenset(() if shadow == "none" else map(unit_of, shadow.split(",")))
        except Invalid as error:
            raise fail(str(error)) from None
    return lambda limits: replace(limits, **change)


def limits_as_json(limits: "Limits") -> dict[str, Any]:
    from weir.auth.records import PER_SECOND_NAMES

    return {
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "concurrency": limits.concurrency,
        "burst_seconds": limits.burst_seconds,
        "models": list(limits.models),
        "shadow": sorted(PER_SECOND_NAMES[unit] for unit in limits.shadow),
    }


def show_rows(
    rows: Sequence[dict[str, Any]], columns: dict[str, str], *, as_json: bool, as_csv: bool, empty: str, whole: str
) -> None:
    """A listing: a table for people, JSON or CSV for programs. `columns` are fields and their headings.

    What stands in the column `whole` is wanted by the next command, and never folded; in a pipe nothing is.
    """
    if as_json:
        print(json.dumps(list(rows), indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    elif not rows:
        print(empty)
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, heading in columns.items():
            width = max(len(_cell(row.get(name))) for row in rows) if name == whole else None
            table.add_column(heading, overflow="fold", min_width=width, no_wrap=name == whole)
        for row in rows:
            table.add_row(*(_cell(row.get(name)) or "-" for name in columns))
        Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def show_one(row: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(row, indent=2))
        return
    width = max(map(len, row))
    for name, value in row.items():
        print(f"{name:<{width}}  {_cell(value) or '-'}")


def day(seconds: int) -> str:
    """Unix seconds as people write a moment; "" for never."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC") if seconds else ""


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
