"""`weir keys`."""

import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from weir.cli.options import (
    Burst,
    Concurrency,
    ConfigFile,
    Csv,
    Expires,
    Json,
    Models,
    RedisUrl,
    Rpm,
    Shadow,
    Tpm,
    any_given,
    day,
    expiry_of,
    fail,
    limit_change,
    limits_as_json,
    seconds_of,
    show_one,
    show_rows,
)

if TYPE_CHECKING:
    from weir.auth.directory_redis import Directory, NewKey
    from weir.auth.records import Key

T = TypeVar("T")

app = typer.Typer(
    help="Keys: one for each program of a team. A secret is shown once and never again.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as 'weir keys list' shows it.")]
TeamName = Annotated[str, typer.Option("--team", help="Whose it is.")]
KeyName = Annotated[str, typer.Option("--name", help="What it is for, as 'search-indexer'.")]
COLUMNS = {
    "id": "ID",
    "team": "TEAM",
    "name": "NAME",
    "hint": "KEY",
    "state": "STATE",
    "rpm": "RPM",
    "tpm": "TPM",
    "concurrency": "AT ONCE",
    "models": "MODELS",
    "expires": "EXPIRES",
    "last_used": "LAST USED",
}


def as_json(key: "Key") -> dict[str, Any]:
    now = time.time()  # noqa: TID251 - expiry is a date
    state = key.state(now)
    return {
        "id": key.id,
        "team": key.team,
        "name": key.name,
        "hint": key.hint,
        "state": state,
        **limits_as_json(key.limits),
        "created": day(key.created),
        "expires": day(key.expires),
        "last_used": day(key.used),
        "old_key_until": day(key.old_until) if state == "rotating" else "",  # of one that has ended, no secret works
        "version": key.version,
    }


@app.command()
def create(
    team: TeamName,
    name: KeyName = "",
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    burst: Burst = None,
    models: Models = None,
    shadow: Shadow = None,
    expires: Expires = None,
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Make a key. It is printed once; only its digest is kept. Without limits of its own it shares its team's."""
    from weir.core.types import Limits

    limits = limit_change(rpm, tpm, concurrency, burst, models, shadow)(Limits())
    end = expiry_of(expires) or 0
    _show_new(_on(config, redis_url, lambda directory: directory.create_key(team, name, limits, end)), json)


@app.command("list")
def list_(
    team: Annotated[str | None, typer.Option(help="Only this team's.")] = None,
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
    csv: Csv = False,
) -> None:
    """Every key, its limits and its state."""
    keys = _on(config, redis_url, lambda directory: directory.keys(team))
    empty = "There is no key yet. Make one: weir keys create --team NAME"
    show_rows([as_json(key) for key in keys], COLUMNS, as_json=json, as_csv=csv, empty=empty, whole="id")


@app.command()
def show(key_id: Id, config: ConfigFile = None, redis_url: RedisUrl = None, json: Json = False) -> None:
    """One key, without its secret."""
    show_one(as_json(_on(config, redis_url, lambda directory: directory.key(key_id))), as_json=json)


@app.command()
def update(
    key_id: Id,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    burst: Burst = None,
    models: Models = None,
    shadow: Shadow = None,
    expires: Expires = None,
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Change a key. What is not named stays; 'none' takes a limit away. It acts on the next request."""
    if not any_given(name, rpm, tpm, concurrency, burst, models, shadow, expires):
        raise fail("there is nothing to change; name what, as --rpm 600. 'weir keys show' shows what it has.")
    change = limit_change(rpm, tpm, concurrency, burst, models, shadow)
    end = expiry_of(expires)
    key = _on(config, redis_url, lambda directory: directory.update_key(key_id, change, name=name, expires=end))
    show_one(as_json(key), as_json=json)


@app.command()
def rotate(
    key_id: Id,
    overlap: Annotated[str, typer.Option(help="How long the old secret still works: 24h, 7d, 0s.")] = "24h",
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """A new secret for the same key; limits and id stay, and the old secret works until the overlap ends."""
    seconds = seconds_of(overlap)
    _show_new(_on(config, redis_url, lambda directory: directory.rotate_key(key_id, seconds)), json)


@app.command()
def revoke(key_id: Id, config: ConfigFile = None, redis_url: RedisUrl = None, json: Json = False) -> None:
    """End a key, for good. It is refused from the next request on; what is running may finish."""
    show_one(as_json(_on(config, redis_url, lambda directory: directory.revoke_key(key_id))), as_json=json)


@app.command("import")
def import_(
    team: TeamName,
    name: KeyName = "",
    digest: Annotated[str, typer.Option(help="Its digest in hexadecimal, in place of the key.")] = "",
    rpm: Rpm = None,
    tpm: Tpm = None,
    concurrency: Concurrency = None,
    burst: Burst = None,
    models: Models = None,
    shadow: Shadow = None,
    expires: Expires = None,
    config: ConfigFile = None,
    redis_url: RedisUrl = None,
    json: Json = False,
) -> None:
    """Take over a key that another system made. It is read from standard input, so that no shell remembers it."""
    from weir.core.types import Limits

    limits = limit_change(rpm, tpm, concurrency, burst, models, shadow)(Limits())
    end = expiry_of(expires) or 0
    secret = "" if digest else _read_secret()
    new = _on(
        config,
        redis_url,
        lambda directory: directory.import_key(team, name, limits, end, secret=secret, known_digest=digest),
    )
    show_one(as_json(new.key), as_json=json)


def _read_secret() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Key", hide_input=True))
    secret = sys.stdin.readline().strip()
    if not secret:
        raise fail("there is no key on standard input. Give it there, or its --digest.")
    return secret


def _show_new(new: "NewKey", as_json_: bool) -> None:
    if as_json_:
        show_one({"key": new.secret, **as_json(new.key)}, as_json=True)
        return
    show_one(as_json(new.key), as_json=False)
    print(f"\n{new.secret}\n\nThis is the only time that it is shown. Clients send it as their API key.")


def _on(config: Path | None, redis_url: str | None, work: "Callable[[Directory], Awaitable[T]]") -> T:
    from weir.cli.where import on

    return on(config, redis_url, work)
