"""Which Redis a command means, and doing something there."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from redis.exceptions import RedisError

from weir.auth.directory_redis import AlreadyThere, Directory, NoSuchKey, NoSuchTeam
from weir.auth.records import Invalid
from weir.cli.options import fail
from weir.settings import BadSettings, Settings, load
from weir.store.connect import Place, connect, printable
from weir.store.embedded import running_url

T = TypeVar("T")

DEFAULT_URL = "redis://localhost:6379/0"
_REFUSED = re.compile(r"NOAUTH|WRONGPASS|NOPERM|authenti|password|permission", re.IGNORECASE)


class Located(NamedTuple):
    """`named_by` says who chose it: the person, a `weir serve` that runs here, or nobody."""

    url: str
    pepper: bytes | None
    named_by: Literal["them", "serve", "nobody"]


def settings_or_exit(
    config: Path | None, overrides: dict[str, object] | None = None, *, to_serve: bool = False
) -> Settings:
    try:
        return load(config, overrides, to_serve=to_serve)
    except BadSettings as error:
        lines = "\n".join(f"weir: {problem.told(config)}" for problem in error.problems)
        raise fail(f"the configuration is wrong, nothing was done.\n{lines}") from None


def locate(config: Path | None, redis_url: str | None) -> Located:
    """The URL and the pepper: the flag, else WEIR_REDIS__URL, else the file, else the embedded server if one runs."""
    settings = settings_or_exit(config)
    pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else None
    configured = settings.redis.url.get_secret_value() if settings.redis.url else None
    if named := redis_url or configured:
        return Located(named, pepper, "them")
    if not config and (embedded := running_url()):
        return Located(embedded, pepper, "serve")
    return Located(DEFAULT_URL, pepper, "nobody")


def say_which(located: Located) -> None:
    """Where nobody named a Redis, and another one may have been meant; beside the output, which programs read."""
    if located.named_by == "serve":
        print("weir: in the Redis of the `weir serve` that runs here.", file=sys.stderr)
    elif located.named_by == "nobody":
        print(f"weir: in {located.url}, as nothing names another Redis.", file=sys.stderr)


def unusable(url: str, why: str, *, named: bool = True) -> str:
    """What is the matter with a Redis, and what to do. `named` is False where nobody has said that there is one."""
    why = why.rstrip(".")
    said = f"Redis at {printable(url)} cannot be used: {why}."
    if _REFUSED.search(why):
        return f"{said} Are the user and the password of its URL right, and allowed enough?"
    if not named:
        return f"{said} No `weir serve` runs here, which would bring its own: start it, or name one, --redis-url URL."
    if url.startswith("rediss"):
        return f"{said} Is it running, and does that port speak TLS, as {url.partition(':')[0]}:// says?"
    return f"{said} Is it running? --redis-url says where."


def readable_or_exit(url: str) -> None:
    """A Redis URL that means something; a server need not be there."""
    try:
        Place.of(url)
    except ValueError as error:
        raise fail(f"the Redis URL {printable(url)} cannot be read: {error}.") from None


def on(
    config: Path | None, redis_url: str | None, work: Callable[[Directory], Awaitable[T]], *, quietly: bool = False
) -> T:
    """Do some work on the directory of teams and keys; every way to fail ends in a sentence and exit code 1."""
    located = locate(config, redis_url)
    readable_or_exit(located.url)

    async def go() -> T:
        redis = connect(located.url)
        try:
            return await work(Directory(redis, pepper=located.pepper))
        finally:
            await redis.aclose()

    try:
        done = asyncio.run(go())
    except (Invalid, NoSuchTeam, NoSuchKey, AlreadyThere) as error:
        raise fail(str(error)) from None
    except (RedisError, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise fail(unusable(located.url, why, named=located.named_by != "nobody")) from None
    if not quietly:
        say_which(located)
    return done
