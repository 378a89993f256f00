"""`weir logs`."""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from weir.cli.options import ConfigFile, Csv, Json, RedisUrl, fail, seconds_of, show_one, show_rows

if TYPE_CHECKING:
    from weir.telemetry.levels import Setting, Whose
    from weir.telemetry.levels_redis import LevelBook

T = TypeVar("T")

app = typer.Typer(
    help="Logs: more of one caller's requests, or less of everybody's, without a restart.", no_args_is_help=True
)

Team = Annotated[str | None, typer.Option("--team", help="Only requests of this team.")]
KeyId = Annotated[str | None, typer.Option("--key", metavar="ID", help="Only requests of this key, by its id.")]
LONGEST = 36_500 * 86_400  # seconds; from some point on, the end of a level is no date any more
COLUMNS = {"of": "OF", "name": "NAME", "level": "LEVEL", "until": "UNTIL", "seconds_left": "SECONDS LEFT"}


@app.command()
def level(
    word: Annotated[
        str,
        typer.Argument(
            metavar="LEVEL",
            help="debug: a second line with limits, attempts and times. info: one line a request. warning: only those "
            "that did not end well. error: only what is broken.",
        ),
    ],
    team: Team = None,
    key: KeyId = None,
    span: Annotated[
        str, typer.Option("--for", help="How long, as 30m or 2d, so that nobody forgets it; or never.")
    ] = "1h",
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Log requests of a team, a key or everybody at another level, for a while.

    Every replica does so within a few seconds. The narrowest counts: a key's before its team's before everybody's,
    and where nothing is set telemetry.log_level. No level logs a prompt, an answer or a key. Lines that are not about
    a request, as of an ejected endpoint, come by telemetry.log_level alone.
    """
    from weir.telemetry.levels import LEVELS, level_of

    known = level_of(word)
    if known is None:
        raise fail(f"there is no level '{word}'; there are {', '.join(LEVELS)}.")
    seconds = inf if span == "never" else seconds_of(span)
    if not seconds:
        raise fail("--for 0s would end at once. 'weir logs reset' takes a level away.")
    if LONGEST < seconds < inf:
        raise fail(f"--for {span} is longer than anybody will remember; write at most 36500d, or never.")
    whose = _whose(team, key)
    _see_that_it_exists(config, redis_url, whose)
    made = _on(config, redis_url, lambda book: book.set(whose, known, seconds))
    show_one(_as_json(whose, made, made.until - seconds if seconds != inf else 0.0), as_json=json)


@app.command("list")
def list_(config: ConfigFile = None, redis_url: RedisUrl = None, json: Json = False, csv: Csv = False) -> None:
    """Every level that is set, and until when."""
    now, found = _on(config, redis_url, lambda book: book.read())
    rows = [_as_json(whose, one, now) for whose, one in sorted(found.items()) if one.until > now]
    empty = "No level is set: all replicas log by telemetry.log_level."
    show_rows(rows, COLUMNS, as_json=json, as_csv=csv, empty=empty, whole="name")


app.command("show", hidden=True)(list_)


@app.command()
def reset(team: Team = None, key: KeyId = None, config: ConfigFile = None, redis_url: RedisUrl = None) -> None:
    """Back to telemetry.log_level: the team's, the key's, or without either all that is set."""
    whose = _whose(team, key) if team or key else None
    _on(config, redis_url, lambda book: book.reset(whose))
    print("No level is set any more." if whose is None else f"No level is set for {whose.scope} '{whose.name}'.")


def _whose(team: str | None, key: str | None) -> "Whose":
    from weir.telemetry.levels import EVERYBODY, Whose

    if team and key:
        raise fail("give --team or --key; a key is of one team anyway.")
    return Whose("team", team) if team else Whose("key", key) if key else EVERYBODY


def _as_json(whose: "Whose", one: "Setting", now: float) -> dict[str, Any]:
    from weir.telemetry.levels import moment

    left = None if one.until == inf else max(round(one.until - now), 0)
    return {
        "of": whose.scope,
        "name": whose.name,
        "level": one.level,
        "until": moment(one.until) or "never",
        "seconds_left": left,
    }


def _see_that_it_exists(config: Path | None, redis_url: str | None, whose: "Whose") -> None:
    """A level of a team that is mistyped would change nothing, and nobody would know why."""
    from weir.cli.where import on

    if whose.scope == "team":
        on(config, redis_url, lambda directory: directory.team(whose.name), quietly=True)
    elif whose.scope == "key":
        on(config, redis_url, lambda directory: directory.key(whose.name), quietly=True)


def _on(config: Path | None, redis_url: str | None, work: "Callable[[LevelBook], Awaitable[T]]") -> T:
    from weir.cli.where import locate, readable_or_exit, say_which, unusable
    from weir.core.commands import CommandRefused
    from weir.core.errors import StoreUnavailable
    from weir.store import commands_for
    from weir.telemetry.levels_redis import LevelBook

    located = locate(config, redis_url)
    readable_or_exit(located.url)

    async def go() -> T:
        commands = commands_for(located.url, command_seconds=5.0)
        try:
            return await work(LevelBook(commands))
        finally:
            await commands.close()

    try:
        done = asyncio.run(go())
    except (StoreUnavailable, CommandRefused) as error:
        why = (error.reason if isinstance(error, StoreUnavailable) else None) or str(error)
        raise fail(unusable(located.url, why, named=located.named_by != "nobody")) from None
    say_which(located)
    return done
