"""Wires every room and adapter into one application. Nobody imports it but the command line."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from weir import __version__
from weir.admission import Admission
from weir.admission.failover import FailoverLimiter
from weir.admission.known import Known
from weir.admission.limiter_redis import RedisLimiter
from weir.admission.replicas import Replicas
from weir.api import models as models_api
from weir.api import ops, public
from weir.api.errors import WithHeaders
from weir.auth import Authenticator
from weir.auth.directory_redis import Directory
from weir.auth.key_store_redis import RedisKeyStore
from weir.backend.health import HealthChecks
from weir.backend.transformers import BadModel
from weir.configured import PAUSE_FIRST, PAUSE_MAX, Configured
from weir.core.asgi import App
from weir.core.errors import StoreUnavailable
from weir.core.operations import OPERATIONS
from weir.core.tasks import Tasks
from weir.gateway.clients import Clients
from weir.gateway.completions import Completions, Rooms
from weir.gateway.cors import Cors
from weir.gateway.dispatch import Dispatch
from weir.gateway.door import Door
from weir.gateway.drain import Drain
from weir.gateway.head import read_head
from weir.gateway.replies import limit_headers
from weir.gateway.turnstile import Turnstile
from weir.gateway.watch import Watches
from weir.reload import Reload, Source
from weir.routing import Health
from weir.settings import Settings, remarks
from weir.settings import Telemetry as TelemetrySettings
from weir.store import Line, commands_for, connect
from weir.store.connect import printable
from weir.telemetry import Telemetry
from weir.telemetry.exposition import exposition
from weir.telemetry.levels import Levels
from weir.telemetry.levels_redis import LevelBook, LevelReader
from weir.telemetry.metrics import Metrics
from weir.telemetry.under_way import UnderWay
from weir.usage import PromptEstimator

if TYPE_CHECKING:
    from weir.telemetry.tracing import Tracing

FLUSH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Application:
    """What a server needs: two ASGI applications, and how to stop."""

    public: App
    ops: App
    drain: Drain
    telemetry: Telemetry
    stop: asyncio.Event


class _Limits:
    """Keys and limits: everything that stands on Redis."""

    def __init__(
        self, settings: Settings, redis_url: str, metrics: Metrics, on_change: Callable[[bool, str], None]
    ) -> None:
        clock = asyncio.get_running_loop().time
        pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else None
        known = Known(clock)
        self._redis = connect(redis_url)
        self.commands = commands_for(
            redis_url,
            command_seconds=settings.redis.command_seconds,
            on_change=on_change,
            on_batch=metrics.redis_batch.observe,
            on_reply=metrics.redis_seconds.observe,
        )
        self.directory = Directory(self._redis, pepper=pepper)
        self.limiter = RedisLimiter(self.commands, lease_seconds=settings.limits.lease_seconds, known=known)
        self.replicas = Replicas(self.commands)
        self.auth = Authenticator(RedisKeyStore(self.commands), clock, pepper=pepper)
        self.admission = Admission(
            FailoverLimiter(
                self.limiter,
                known,
                on_outage=settings.redis.on_outage,
                replicas=lambda: self.replicas.count,
                clock=clock,
            )
        )

    async def close(self) -> None:
        await self.replicas.leave()
        await self.commands.close()
        await self._redis.aclose()


class _House:
    """Every room of one process, and what goes on in them. Made inside of the event loop."""

    def __init__(self, settings: Settings, redis_url: str) -> None:
        self._settings = settings
        self._redis_url = redis_url
        metrics = Metrics(requests=settings.telemetry.metrics)
        telemetry = Telemetry(metrics, _tracing(settings.telemetry, metrics), Levels(settings.telemetry.log_level))
        self.telemetry = telemetry
        self.limits = _Limits(settings, redis_url, metrics, self._redis_changed)
        health = Health(asyncio.get_running_loop().time, telemetry.upstream)
        self.configured = Configured(settings, self.limits.directory, telemetry, HealthChecks(health.checked))
        routes = self.configured.routes
        watches = Watches(
            body_seconds=settings.server.body_timeout_seconds,
            write_seconds=settings.server.write_timeout_seconds,
            ping_seconds=settings.server.sse_keepalive_seconds,
        )
        self.rooms = Rooms(
            auth=self.limits.auth,
            admission=self.limits.admission,
            routes=routes,
            dispatch=Dispatch(self.configured.backends, routes.find, health=health, note=telemetry.upstream),
            estimator=PromptEstimator(),
            telemetry=telemetry,
            watches=watches,
            drain=Drain(watches, announce=settings.drain.announce_seconds, deadline=settings.drain.deadline_seconds),
            turnstile=Turnstile(
                places=settings.server.max_in_flight,
                max_waiting=settings.server.max_waiting,
                wait_seconds=settings.server.wait_seconds,
            ),
            clients=Clients(settings.server.trusted_proxies),
            max_body_bytes=settings.server.max_body_bytes,
            cors=Cors(settings.server.cors_origins) if settings.server.cors_origins else None,
        )
        needs_redis = settings.redis.on_outage == "closed"
        self.ready = _Readiness(self.rooms.drain, self.limits.commands, needs_redis=needs_redis)
        self.stop = asyncio.Event()
        self._tasks = Tasks()

    async def begin(self, source: Source | None) -> None:
        """Whatever goes on beside requests."""
        limits, telemetry, configured = self.limits, self.telemetry, self.configured
        levels = LevelReader(LevelBook(limits.commands), telemetry.levels, telemetry.level_changed)
        start = self._tasks.start
        start(limits.limiter.tend(), "weir leases")
        start(limits.replicas.tend(), "weir heartbeat")
        start(configured.keep_teams(), "weir teams")
        start(telemetry.watch_loop(), "weir loop lag")
        start(levels.tend(), "weir log levels")
        start(_gauge(telemetry, limits, self.rooms.turnstile, configured), "weir gauges")
        start(_prepare(configured, limits.directory, self._redis_url, self.ready, telemetry), "weir prepare")
        if source is not None:
            start(Reload(source, configured.apply, telemetry.reload_refused).tend(), "weir reload")
        await configured.look_in()
        for remark in remarks(self._settings):
            telemetry.warn(remark)

    def doors(self) -> tuple[App, App]:
        """The public one and that of the ops port."""
        rooms = self.rooms
        hot: dict[str, App] = {}
        for operation in OPERATIONS:
            hot[operation.path] = hot["/v1" + operation.path] = Completions(operation, rooms)
        api = models_api.router(rooms.auth, rooms.admission, rooms.routes, limit_headers, read_head)
        rest = public.create(api, docs=self._settings.server.docs)
        operations = ops.create(
            why_not_ready=self.ready.why_not,
            catch_up=self.telemetry.catch_up,
            exposition=partial(exposition, self.telemetry.metrics.registry),
            drain=self.stop.set,
            requests=UnderWay(self.telemetry.live, self._settings.server.workers),
        )
        for app in (rest, operations):
            self.telemetry.instrument(app)
        return Door(hot, self._for_browsers(rest)), Door({}, operations)

    def _for_browsers(self, rest: App) -> App:
        cors = self.rooms.cors
        if cors is None:
            return WithHeaders(rest, self.rooms.drain.headers_of)
        return WithHeaders(cors.preflight(WithHeaders(rest, cors.headers_of)), self.rooms.drain.headers_of)

    async def end(self) -> None:
        """Everything in its order: Redis last, so that the last settlement is heard."""
        left = await self.limits.limiter.flush(FLUSH_SECONDS)
        if left:
            self.telemetry.warn("settlements lost; their leases will expire and stay charged", count=left)
        await self._tasks.stop()
        self.rooms.watches.close()
        await self.configured.close()
        await self.limits.close()
        self.telemetry.catch_up()
        await asyncio.to_thread(self.telemetry.close)

    def _redis_changed(self, up: bool, why: str) -> None:  # noqa: FBT001 - a callback's form
        self.telemetry.redis_changed(up, why)
        if up:
            self.configured.write_teams()  # a server that comes back may have lost what it knew


@asynccontextmanager
async def application(settings: Settings, redis_url: str, source: Source | None = None) -> AsyncIterator[Application]:
    """The whole of Weir in this process, from the first connection to the last settlement. `source` is watched."""
    house = _House(settings, redis_url)
    try:
        await house.begin(source)
        front, back = house.doors()
        # What is there now stays: the collector need not look at it again with every generation.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        yield Application(front, back, house.rooms.drain, house.telemetry, house.stop)
    finally:
        await house.end()


def _tracing(settings: TelemetrySettings, metrics: Metrics) -> "Tracing | None":
    """None where no collector is named; then not even the SDK is imported."""
    if settings.otlp_endpoint is None:
        return None
    from weir.telemetry.export import exporter  # noqa: PLC0415 - as the function says
    from weir.telemetry.tracing import Tracing  # noqa: PLC0415

    headers = {name: value.get_secret_value() for name, value in settings.otlp_headers.items()}
    return Tracing(
        exporter(settings.otlp_endpoint, settings.otlp_protocol, headers),
        metrics.spans,
        sample=settings.trace_sample,
        trust_callers=settings.trust_traceparent,
        capture_content=settings.capture_content,
        semconv=settings.semconv,
    )


class _Readiness:
    """Not draining, and keys could be read at least once; where an outage means 503 for all, also now."""

    def __init__(self, drain: Drain, commands: Line, *, needs_redis: bool) -> None:
        self._drain = drain
        self._commands = commands
        self._needs_redis = needs_redis
        self.waits_for: str | None = "redis was not reached yet, so no key can be checked"

    def why_not(self) -> str | None:
        if self._drain.announced:
            return "draining"
        if self.waits_for is not None:
            return self.waits_for
        if self._needs_redis and not self._commands.up:
            return "redis is away, so no key can be checked"
        return None


async def _prepare(
    configured: Configured, directory: Directory, redis_url: str, ready: _Readiness, telemetry: Telemetry
) -> None:
    """What needs Redis before the first request: tried until it is there."""
    pause = PAUSE_FIRST
    while True:
        try:
            policy = await directory.eviction_policy()
        except StoreUnavailable as error:
            telemetry.warn("waiting for redis", url=printable(redis_url), why=error.reason)
            await asyncio.sleep(pause)
            pause = min(pause * 2, PAUSE_MAX)
        else:
            break
    await configured.teams_written()
    if policy not in ("noeviction", ""):
        # An evicted bucket is a full one: somebody's limit is gone.
        telemetry.warn("redis may evict limits; set maxmemory-policy noeviction", maxmemory_policy=policy)
    ready.waits_for = "a model of this process is still being loaded"
    try:
        await configured.models_loaded()
    except BadModel as error:
        ready.waits_for = str(error)
        telemetry.warn("a model of this process cannot be loaded", why=str(error))
        return
    ready.waits_for = None
    telemetry.note(
        "ready",
        version=__version__,
        pid=os.getpid(),
        models=[route.model for route in configured.routes.routes()],
        redis=printable(redis_url),
    )


async def _gauge(telemetry: Telemetry, limits: _Limits, turnstile: Turnstile, configured: Configured) -> None:
    """For ever: what is only a state, once a second."""
    metrics, limiter = telemetry.metrics, limits.limiter
    counted = dict.fromkeys(("replayed", "dropped"), 0)
    for state in counted:
        metrics.settlements(state)  # 0 from the start, or the first increase would not be seen
    while True:
        metrics.unsettled.set(limiter.unsettled)
        metrics.waiting.set(turnstile.waiting)
        metrics.replicas.set(limits.replicas.count)
        for state in counted:
            now = getattr(limiter, state)
            metrics.settlements(state).inc(now - counted[state])
            counted[state] = now
        telemetry.show_endpoints(configured.endpoints())
        metrics.show_limits()
        await asyncio.sleep(1.0)
