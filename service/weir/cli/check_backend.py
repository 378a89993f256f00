"""`weir check-backend`: what an engine can do before it stands behind Weir, and what Weir makes up for."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from weir.cli.options import fail

if TYPE_CHECKING:
    from rich.table import Table

    from weir.cli.conformance import Result
    from weir.cli.engine import Engine

GOOD, BAD, NOBODY = 0, 1, 2  # exit codes
COLOURS = {"works": "green", "missing": "yellow", "wrong": "bold red"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    url: str
    model: str | None = None
    api_key_env: str | None = None
    timeout: float = 60.0
    as_json: bool = False


def check_backend(asked: Asked) -> None:
    """Ask, show, and exit: 0 where everything that Weir needs works, 1 where not, 2 where nobody is there."""
    from weir.cli.engine import Away

    if not _is_address(asked.url):
        raise fail(f"'{asked.url}' is no address of an engine; write it as http://localhost:8000/v1.")
    key = _key(asked.api_key_env)
    try:
        model, results = asyncio.run(_examine(asked, key))
    except Away as away:
        print(f"weir: {asked.url}: {away}", file=sys.stderr)
        raise typer.Exit(NOBODY) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    good = all(result.verdict == "works" for result in results if result.needed)
    if asked.as_json:
        print(json.dumps(as_json(asked.url, model, results, good=good), indent=2))
    else:
        _show(asked.url, model, results, good=good)
    raise typer.Exit(GOOD if good else BAD)


def as_json(url: str, model: str, results: list["Result"], *, good: bool) -> dict[str, Any]:
    """For programs."""
    from weir.cli.conformance import hint

    return {
        "url": url,
        "model": model,
        "good": good,
        "hint": hint(url, results),
        "checks": [result._asdict() for result in results],
    }


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii():
        raise fail(f"the environment variable {variable} should hold the engine's key, and does not.")
    return key


async def _examine(asked: Asked, key: str | None) -> tuple[str, list["Result"]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from weir.cli.conformance import CHECKS, examine
    from weir.cli.engine import Engine

    engine = Engine(asked.url, key, asked.timeout)
    try:
        engine.model = asked.model or await _first_model(engine)
        console = Console(stderr=True)
        console.print(
            f"Asking {engine.model} at {asked.url}: about {len(CHECKS)} small requests, one after another.",
            highlight=False,
            markup=False,
        )
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=len(CHECKS))
            done = iter(range(len(CHECKS)))
            results = await examine(engine, lambda name: progress.update(task, completed=next(done), description=name))
    finally:
        await engine.close()
    return engine.model, results


async def _first_model(engine: "Engine") -> str:
    from weir.cli.checks import models_of
    from weir.cli.conformance import FORGOTTEN_V1
    from weir.cli.engine import NOTHING_HERE, Missing, Silent, Wrong

    try:
        listed = models_of(await engine.get("/models"))
    except (Missing, Wrong, Silent) as error:
        if str(error).startswith(NOTHING_HERE) and not urlsplit(engine.url).path:
            raise fail(f"GET {engine.url}/models: {error} {FORGOTTEN_V1} If not, name a model: --model NAME.") from None
        raise fail(f"GET {engine.url}/models names no model ({error}) Name one: --model NAME.") from None
    if not listed:
        raise fail(f"GET {engine.url}/models lists no model. Name one: --model NAME.")
    return listed[0]


def _show(url: str, model: str, results: list["Result"], *, good: bool) -> None:
    from rich.console import Console

    from weir.cli.conformance import hint

    console = Console()
    console.print(_table(results))
    counts = Counter(result.verdict for result in results)
    told = f"{counts['works']} works, {counts['missing']} missing, {counts['wrong']} wrong."
    console.print(f"\n{told}", highlight=False)
    if good:
        console.print(f"Everything that Weir needs works: {model} at {url} can stand behind it.", markup=False)
        return
    lacking = ", ".join(result.name for result in results if result.needed and result.verdict != "works")
    console.print(f"Weir needs what does not work here: {lacking}.", style="bold red", markup=False)
    if why := hint(url, results):
        console.print(why, style="bold", highlight=False, markup=False)


def _table(results: Sequence["Result"]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("CHECK", "ASKED", "VERDICT", "WHY"):
        table.add_column(heading, overflow="fold")
    for result in results:
        why = Text(result.why)
        if result.made_up:
            why.append(f" {result.made_up}", "green")
        needed = result.needed and result.verdict != "works"
        name = Text(f"{result.name} (needed)" if needed else result.name, "bold" if needed else "")
        table.add_row(name, Text(result.asked, "dim"), Text(result.verdict, COLOURS[result.verdict]), why)
    return table
