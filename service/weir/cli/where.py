"""Which Redis a command means, and doing something there."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from redis.exceptions import RedisError

from weir.auth.directory_redis import AlreadyThere, Directory, NoSuchKey, NoSuchTeam
from weir.auth.records import Invalid
from weir.cli.options import fail
from weir.settings import BadSettings, Settings, load
from weir.store.connect import Place, connect, printable
from weir.store.embedded import running_url

T = TypeVar("T")

DEFAULT_URL = "redis://localhost:6379/0"


def settings_or_exit(config: Path | None, overrides: dict[str, object] | None = None) -> Settings:
    try:
        return load(config, overrides)
    except BadSettings as error:
        where = f"{config}: " if config else ""
        lines = "\n".join(f"weir: {where}{problem}" for problem in error.problems)
        raise fail(f"the configuration is wrong, nothing was started.\n{lines}") from None


def locate(config: Path | None, redis_url: str | None) -> tuple[str, bytes | None]:
    """The URL and the pepper: the flag, else WEIR_REDIS__URL, else the file, else the embedded server if one runs."""
    settings = settings_or_exit(config)
    pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else None
    configured = settings.redis.url.get_secret_value() if settings.redis.url else None
    return redis_url or configured or (None if config else running_url()) or DEFAULT_URL, pepper


def readable_or_exit(url: str) -> None:
    """A Redis URL that means something; a server need not be there."""
    try:
        Place.of(url)
    except ValueError as error:
        raise fail(f"the Redis URL {printable(url)} cannot be read: {error}.") from None


def on(config: Path | None, redis_url: str | None, work: Callable[[Directory], Awaitable[T]]) -> T:
    """Do some work on the directory of teams and keys; every way to fail ends in a sentence and exit code 1."""
    url, pepper = locate(config, redis_url)
    readable_or_exit(url)

    async def go() -> T:
        redis = connect(url)
        try:
            return await work(Directory(redis, pepper=pepper))
        finally:
            await redis.aclose()

    try:
        return asyncio.run(go())
    except (Invalid, NoSuchTeam, NoSuchKey, AlreadyThere) as error:
        raise fail(str(error)) from None
    except (RedisError, OSError, TimeoutError) as error:
        raise fail(
            f"Redis at {printable(url)} cannot be used: {error}. Is it running? --redis-url says where."
        ) from None
