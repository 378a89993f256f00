"""Wires every room and adapter into one application. Nobody imports it but the command line."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from weir import __version__
from weir.admission import Admission
from weir.admission.limiter_redis import RedisLimiter
from weir.api import models as models_api
from weir.api import ops, public
from weir.api.errors import WithRequestId
from weir.auth import Authenticator
from weir.auth.directory_redis import Directory
from weir.auth.key_store_redis import RedisKeyStore
from weir.backend import Backend
from weir.backend.echo import EchoBackend
from weir.backend.openai import OpenAIBackend
from weir.core.asgi import App
from weir.core.errors import StoreUnavailable
from weir.core.tasks import Tasks
from weir.core.types import Endpoint, Route, Timeouts
from weir.gateway.clients import Clients
from weir.gateway.completions import Completions, Rooms
from weir.gateway.dispatch import Dispatch
from weir.gateway.door import Door
from weir.gateway.drain import Drain
from weir.gateway.head import read_head, request_id
from weir.gateway.replies import limit_headers
from weir.gateway.request import OPERATIONS
from weir.gateway.turnstile import Turnstile
from weir.gateway.watch import Watches
from weir.routing import RouteTable
from weir.settings import Model, Settings, without_effect
from weir.store import Batcher, connect
from weir.store.connect import printable
from weir.telemetry import Telemetry
from weir.telemetry.exposition import exposition
from weir.telemetry.metrics import Metrics
from weir.usage import PromptEstimator

FLUSH_SECONDS = 5.0
ASSUMED_MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class Application:
    """What a server needs: two ASGI applications, and how to stop."""

    public: App
    ops: App
    drain: Drain
    telemetry: Telemetry
    stop: asyncio.Event


@asynccontextmanager
async def application(settings: Settings, redis_url: str) -> AsyncIterator[Application]:
    """The whole of Weir in this process, from the first connection to the last settlement."""
    telemetry = Telemetry(Metrics())
    redis = connect(redis_url)
    batcher = Batcher(
        pipe := connect(redis_url, command_seconds=None),
        command_seconds=settings.redis.command_seconds,
        on_change=telemetry.redis_changed,
    )
    limiter = RedisLimiter(batcher, lease_seconds=settings.limits.lease_seconds)
    pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else None
    auth = Authenticator(RedisKeyStore(batcher), asyncio.get_running_loop().time, pepper=pepper)
    admission = Admission(limiter)
    routes = RouteTable(route_of(model) for model in settings.models)
    backends = _backends(settings)
    watches = Watches(
        body_seconds=settings.server.body_timeout_seconds,
        write_seconds=settings.server.write_timeout_seconds,
        ping_seconds=settings.server.sse_keepalive_seconds,
    )
    drain = Drain(watches, announce=settings.drain.announce_seconds, deadline=settings.drain.deadline_seconds)
    rooms = Rooms(
        auth=auth,
        admission=admission,
        routes=routes,
        dispatch=Dispatch(backends),
        estimator=PromptEstimator(),
        telemetry=telemetry,
        watches=watches,
        drain=drain,
        turnstile=Turnstile(
            places=settings.server.max_in_flight,
            max_waiting=settings.server.max_waiting,
            wait_seconds=settings.server.wait_seconds,
        ),
        clients=Clients(settings.server.trusted_proxies),
        max_body_bytes=settings.server.max_body_bytes,
    )
    hot: dict[str, App] = {}
    for operation in OPERATIONS:
        hot[operation.path] = hot["/v1" + operation.path] = Completions(operation, rooms)
    api = models_api.router(auth, admission, routes, limit_headers, read_head)
    stop = asyncio.Event()
    ready = _Readiness(drain, batcher)
    tasks = Tasks()
    tasks.start(limiter.tend(), "weir leases")
    tasks.start(_prepare(settings, Directory(redis, pepper=pepper), redis_url, ready, telemetry), "weir prepare")
    for name in without_effect(settings):
        telemetry.warn("this setting has no effect in this version", setting=name)
    # What is there now stays: the collector need not look at it again with every generation.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield Application(
            public=Door(hot, WithRequestId(public.create(api, docs=settings.server.docs), request_id)),
            ops=ops.create(
                why_not_ready=ready.why_not,
                exposition=lambda accept: exposition(telemetry.metrics.registry, accept),
                drain=stop.set,
            ),
            drain=drain,
            telemetry=telemetry,
            stop=stop,
        )
    finally:
        left = await limiter.flush(FLUSH_SECONDS)
        if left:
            telemetry.warn("settlements lost; their leases will expire and stay charged", count=left)
        await tasks.stop()
        watches.close()
        for backend in backends.values():
            await backend.close()
        await batcher.close()
        await pipe.aclose()
        await redis.aclose()


class _Readiness:
    """Not draining, and keys could be read at least once."""

    def __init__(self, drain: Drain, batcher: Batcher) -> None:
        self._drain = drain
        self._batcher = batcher
        self.prepared = False

    def why_not(self) -> str | None:
        if self._drain.announced:
            return "draining"
        if not self.prepared:
            return "redis was not reached yet, so no key can be checked"
        if not self._batcher.up:
            return "redis is away, so no key can be checked"
        return None


async def _prepare(
    settings: Settings, directory: Directory, redis_url: str, ready: _Readiness, telemetry: Telemetry
) -> None:
    """What needs Redis before the first request: tried until it is there."""
    pause = 0.1
    while True:
        try:
            policy = await directory.eviction_policy()
            await apply_teams(settings, directory)
        except StoreUnavailable as error:
            telemetry.warn("waiting for redis", url=printable(redis_url), why=error.reason)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)
        else:
            break
    if policy not in ("noeviction", ""):
        # An evicted bucket is a full one: somebody's limit is gone.
        telemetry.warn("redis may evict limits; set maxmemory-policy noeviction", maxmemory_policy=policy)
    ready.prepared = True
    telemetry.note(
        "ready",
        version=__version__,
        pid=os.getpid(),
        models=[model.name for model in settings.models],
        redis=printable(redis_url),
    )


async def apply_teams(settings: Settings, directory: Directory) -> None:
    """Teams and keys of the configuration, which win over what was set by hand. Raises StoreUnavailable."""
    for team in settings.teams:
        await directory.put_team(team.name, team.limits())
        for key in team.keys:
            await directory.put_key(team.name, key.name, key.limits(), key.digest)


def route_of(model: Model) -> Route:
    """A model of the settings, compiled."""
    endpoints = [
        Endpoint(
            endpoint.url,
            endpoint.weight,
            (("authorization", f"Bearer {os.environ[endpoint.api_key_env]}"),) if endpoint.api_key_env else (),
        )
        for endpoint in model.endpoints
    ]
    to_openai = any("//api.openai.com/" in endpoint.url for endpoint in endpoints)
    timeouts = model.timeouts
    return Route(
        model=model.name,
        # An embedded backend is one object per model, so that each has its own options.
        backend="openai" if model.backend == "openai" else f"echo {model.name}",
        upstream_model=model.upstream_model or model.name,
        endpoints=endpoints or [Endpoint("embedded")],
        timeouts=Timeouts(timeouts.connect, timeouts.first_byte, timeouts.idle, timeouts.total),
        default_max_tokens=model.default_max_tokens or ASSUMED_MAX_TOKENS,
        always_cap=model.default_max_tokens is not None,
        max_tokens_field=model.max_tokens_field or ("max_completion_tokens" if to_openai else "max_tokens"),
        owned_by=model.owned_by,
        aliases=model.aliases,
        early_headers=model.early_headers,
    )


def _backends(settings: Settings) -> dict[str, Backend]:
    backends: dict[str, Backend] = {}
    for model in settings.models:
        if model.backend == "echo":
            backends[f"echo {model.name}"] = EchoBackend(delay_seconds=model.echo.delay_ms / 1000)
        elif "openai" not in backends:
            backends["openai"] = OpenAIBackend()
    return backends
