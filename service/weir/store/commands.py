"""The request path's way to Redis, from a URL: on one connection, or on one for each master of a cluster."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from redis.asyncio.cluster import RedisCluster

from weir.core.commands import Word
from weir.store.batcher import Batcher
from weir.store.cluster import ClusterCommands
from weir.store.connect import COMMAND_SECONDS, Place


class Line(Protocol):
    """`Commands` that can be closed. `up`: asking may help."""

    @property
    def up(self) -> bool: ...

    def call(self, *words: Word) -> asyncio.Future[Any]: ...

    async def close(self) -> None: ...


def commands_for(
    url: str,
    *,
    command_seconds: float = COMMAND_SECONDS,
    on_change: Callable[[bool, str], None] = lambda _up, _why: None,
    on_batch: Callable[[int], None] = lambda _commands: None,
    on_reply: Callable[[float], None] = lambda _seconds: None,
) -> Line:
    """Whatever the URL means (see connect.py); nothing needs to be closed but what is returned.

    `on_change` hears once per change: (True, ""), or (False, why) when Redis, or a part of a cluster, is away.
    `on_batch` and `on_reply` are told what `Batcher` says, of each of a cluster's masters.

    Raises ValueError as `connect`.
    """
    place = Place.of(url)
    if place.form == "cluster":
        return ClusterCommands(
            place.addresses,
            lambda address: place.one(address, None),
            command_seconds=command_seconds,
            on_change=on_change,
            on_batch=on_batch,
            on_reply=on_reply,
        )
    client = place.client(None)
    assert not isinstance(client, RedisCluster)  # noqa: S101 - the form says so
    return Batcher(
        client, command_seconds=command_seconds, on_change=on_change, on_batch=on_batch, on_reply=on_reply, owns=True
    )
