"""`weir teams`."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from weir.cli.options import (
    Burst,
    Concurrency,
    ConfigFile,
    Csv,
    Json,
    Models,
    RedisUrl,
    Rpm,
    Shadow,
    Tpm,
    any_given,
    day,
    fail,
    limit_change,
    limits_as_json,
    show_one,
    show_rows,
)

if TYPE_CHECKING:
    from weir.auth.directory_redis import Directory
    from weir.auth.records import Team

T = TypeVar("T")

app = typer.Typer(help="Teams: who has keys, and what they may use together.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The team's name: small letters, digits, '.', '_', '-'.")]
COLUMNS = {
    "name": "TEAM",
    "rpm": "RPM",
    "tpm": "TPM",
    "concurrency": "AT ONCE",
    "burst_seconds": "BURST s",
    "models": "MODELS",
    "shadow": "SHADOW",
    "created": "CREATED",
}


def as_json(team: "Team") -> dict[str, Any]:
    return {"name": team.name, **limits_as_json(team.limits), "created": day(team.created), "version": team.version}


@app.command()
def create(
    name: Name,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    burst: Burst = None,
    models: Models = None,
    shadow: Shadow = None,
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Make a team. Its limits hold for all of its keys together; each key may have tighter ones of its own."""
    from weir.core.types import Limits

    limits = limit_change(rpm, tpm, concurrency, burst, models, shadow)(Limits())
    show_one(as_json(_on(config, redis_url, lambda directory: directory.create_team(name, limits))), as_json=json)


@app.command("list")
def list_(config: ConfigFile = None, redis_url: RedisUrl = None, json: Json = False, csv: Csv = False) -> None:
    """Every team and its limits."""
    teams = _on(config, redis_url, lambda directory: directory.teams())
    empty = "There is no team yet. Make one: weir teams create NAME --rpm 600 --tpm 200000"
    show_rows([as_json(team) for team in teams], COLUMNS, as_json=json, as_csv=csv, empty=empty, whole="name")


@app.command()
def show(name: Name, config: ConfigFile = None, redis_url: RedisUrl = None, json: Json = False) -> None:
    """One team."""
    show_one(as_json(_on(config, redis_url, lambda directory: directory.team(name))), as_json=json)


@app.command()
def update(
    name: Name,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    burst: Burst = None,
    models: Models = None,
    shadow: Shadow = None,
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Change a team's limits. What is not named stays; 'none' takes a limit away. It acts on the next request."""
    if not any_given(rpm, tpm, concurrency, burst, models, shadow):
        raise fail("there is nothing to change; name a limit, as --rpm 600. 'weir teams show' shows them.")
    change = limit_change(rpm, tpm, concurrency, burst, models, shadow)
    show_one(as_json(_on(config, redis_url, lambda directory: directory.update_team(name, change))), as_json=json)


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
) -> None:
    """Delete a team and all of its keys. They are refused from the next request on."""
    if not yes:
        typer.confirm(f"Delete team '{name}' and all of its keys?", abort=True)
    keys = _on(config, redis_url, lambda directory: directory.delete_team(name))
    print(f"Team '{name}' is deleted, and {keys} key{'' if keys == 1 else 's'} with it.")


def _on(config: Path | None, redis_url: str | None, work: "Callable[[Directory], Awaitable[T]]") -> T:
    from weir.cli.where import on

    return on(config, redis_url, work)
