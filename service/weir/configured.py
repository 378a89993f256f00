"""What a changed configuration changes while requests run: models, where they are served, teams and their keys."""

import asyncio
import os
from collections.abc import Iterator
from urllib.parse import quote

from pydantic import BaseModel

from weir.auth.directory_redis import Directory
from weir.backend import Backend
from weir.backend.echo import EchoBackend
from weir.backend.engines import ENGINES, Engine
from weir.backend.health import HealthChecks
from weir.backend.openai import OpenAIBackend
from weir.backend.python import PythonBackend
from weir.backend.transformers import TransformersBackend
from weir.core.errors import StoreUnavailable
from weir.core.operations import CHAT, EMBEDDINGS, OPERATIONS, TEXT
from weir.core.types import EMBEDDED, Endpoint, HealthCheck, Price, Route, Timeouts
from weir.routing import RouteTable
from weir.settings import EndpointSettings, Model, Settings
from weir.telemetry import Telemetry

ASSUMED_MAX_TOKENS = 4096
ALL = frozenset(operation.name for operation in OPERATIONS)
HERE = {
    "echo": Engine(frozenset({CHAT.name, TEXT.name, EMBEDDINGS.name})),
    "python": Engine(PythonBackend.serves),
    "transformers": Engine(TransformersBackend.serves),
}
SERVERS = "openai"  # the one backend that asks servers, of whatever kind
PAUSE_FIRST, PAUSE_MAX = 0.1, 5.0  # seconds between attempts to reach Redis
WRITERS = 16  # teams that are written at a time; a file may have thousands
# What is compiled at start and stays; everything else of the tree is live.
FIXED = ("server", "redis", "limits", "keys", "drain", "telemetry")


class Configured:
    """Requests under way keep the route and the endpoint that they have."""

    def __init__(self, settings: Settings, directory: Directory, telemetry: Telemetry, checks: HealthChecks) -> None:
        self.routes = RouteTable(())
        self.backends: dict[str, Backend] = {}
        self._settings = settings
        self._directory = directory
        self._telemetry = telemetry
        self._checks = checks
        self._endpoints: dict[tuple[str, str], Endpoint] = {}
        self._embedded: dict[str, tuple[object, ...]] = {}  # the options of each backend in this process
        self._replaced: list[Backend] = []  # by a newer configuration
        self._teams_wanted = asyncio.Event()
        self._take(settings)

    async def look_in(self) -> None:
        """Health checks of the endpoints that want them, from now on."""
        await self._checks.watch(self.endpoints())

    def endpoints(self) -> Iterator[Endpoint]:
        """All that requests may go to now."""
        return (endpoint for route in self.routes.routes() for endpoint in route.endpoints)

    async def apply(self, settings: Settings) -> None:
        """Make a newer configuration live, as far as it can be without a restart."""
        before, self._settings = self._settings, settings
        self._take(settings)
        replaced, self._replaced = self._replaced, []
        for backend in replaced:
            await backend.close()  # what is under way there comes to its end
        await self.look_in()
        self.write_teams()
        self._telemetry.reloaded([name for section in FIXED for name in _changed(before, settings, section)])

    def write_teams(self) -> None:
        """Bring teams and keys of the configuration to Redis; also wanted whenever Redis may have lost them."""
        if self._settings.teams:
            self._teams_wanted.set()

    async def keep_teams(self) -> None:
        """For ever: write the teams when somebody wants it, again and again while Redis is away."""
        while True:
            await self._teams_wanted.wait()
            self._teams_wanted.clear()
            await self.teams_written()

    async def teams_written(self) -> None:
        """Returns when Redis has all teams and keys of the configuration, which win over what was set by hand."""
        pause = PAUSE_FIRST
        while True:
            try:
                await apply_teams(self._settings, self._directory)
            except StoreUnavailable as error:
                self._telemetry.warn("teams of the configuration wait for redis", why=error.reason)
                await asyncio.sleep(pause)
                pause = min(pause * 2, PAUSE_MAX)
            else:
                return

    async def models_loaded(self) -> None:
        """Returns when every model of this process is in memory. Raises BadModel."""
        for backend in tuple(self.backends.values()):
            if isinstance(backend, TransformersBackend):
                await backend.ready()

    async def close(self) -> None:
        await self._checks.close()
        for backend in (*self.backends.values(), *self._replaced):
            await backend.close()

    def _take(self, settings: Settings) -> None:
        before, self._embedded = self._embedded, {}
        for model in settings.models:
            name = _backend_name(model)
            if name == SERVERS:
                self.backends.setdefault(name, OpenAIBackend())
                continue
            # An embedded backend is one object per model, so that each has its own options.
            options = (model.target, model.python, model.echo, model.upstream_model, model.transformers)
            self._embedded[name] = options
            if before.get(name) != options:
                if name in self.backends:
                    self._replaced.append(self.backends[name])
                self.backends[name] = _embedded(model)
        self._endpoints = {
            (model.name, endpoint.url): _kept(
                self._endpoints.get((model.name, endpoint.url)), _endpoint(model, endpoint)
            )
            for model in settings.models
            for endpoint in model.endpoints
        }
        self.routes.replace([self._route(model) for model in settings.models])

    def _route(self, model: Model) -> Route:
        endpoints = [self._endpoints[model.name, endpoint.url] for endpoint in model.endpoints]
        engine = ENGINES[model.kind_of(model.endpoints[0])] if model.endpoints else HERE[model.backend]
        versioned = any(endpoint.api_version for endpoint in model.endpoints)
        serves = engine.served(versioned=versioned) if model.serves is None else frozenset(model.serves)
        timeouts = model.timeouts
        places = [endpoint.max_in_flight for endpoint in endpoints]
        return Route(
            model=model.name,
            backend=_backend_name(model),
            upstream_model=model.upstream_model or model.name,
            endpoints=endpoints or [Endpoint(EMBEDDED, model=model.name)],
            timeouts=Timeouts(timeouts.connect, timeouts.first_byte, timeouts.idle, timeouts.total),
            default_max_tokens=model.default_max_tokens or ASSUMED_MAX_TOKENS,
            always_cap=model.default_max_tokens is not None,
            max_tokens_field=model.max_tokens_field or engine.max_tokens_field,
            thinks=model.thinks,
            says_done=engine.says_done,
            serves=None if serves >= ALL else serves,
            owned_by=model.owned_by,
            aliases=model.aliases,
            places=sum(filter(None, places)) if places and None not in places else None,
            early_headers=model.early_headers,
            price=Price(model.price.input, model.price.output),
            retries=model.retries,
            fallbacks=model.fallbacks,
        )


async def apply_teams(settings: Settings, directory: Directory) -> None:
    """Teams and keys of the configuration, a few teams at a time. Raises StoreUnavailable."""
    waiting = iter(settings.teams)

    async def some() -> None:
        for team in waiting:
            await directory.put_team(team.name, team.limits())
            for key in team.keys:
                await directory.put_key(team.name, key.name, key.limits(), key.digest)

    writers = [asyncio.ensure_future(some()) for _ in range(WRITERS)]
    try:
        await asyncio.gather(*writers)
    finally:
        for writer in writers:
            writer.cancel()


def _kept(known: Endpoint | None, new: Endpoint) -> Endpoint:
    """The one that requests are counted at, with what is new about it; another key is another endpoint."""
    if known is None or (known.headers, known.prefix, known.query) != (new.headers, new.prefix, new.query):
        return new
    known.weight, known.max_in_flight, known.health = new.weight, new.max_in_flight, new.health
    return known


def _endpoint(model: Model, endpoint: EndpointSettings) -> Endpoint:
    health, engine = endpoint.health, ENGINES[model.kind_of(endpoint)]
    header, form = engine.key
    deployed = engine.deployments and endpoint.api_version is not None
    return Endpoint(
        endpoint.url,
        endpoint.weight,
        ((header, form.format(os.environ[endpoint.api_key_env])),) if endpoint.api_key_env else (),
        provider=engine.provider,
        prefix=f"/openai/deployments/{quote(model.upstream_model or model.name, safe='')}" if deployed else "",
        query=f"api-version={endpoint.api_version}" if deployed else "",
        model=model.name,
        max_in_flight=endpoint.max_in_flight,
        health=HealthCheck(health.path, health.interval_seconds, health.timeout_seconds) if health else None,
    )


def _embedded(model: Model) -> Backend:
    if model.backend == "transformers":
        return TransformersBackend(model.upstream_model or model.name, **model.transformers.model_dump())
    if model.target is None:
        return EchoBackend(delay_seconds=model.echo.delay_ms / 1000)
    around = model.python
    return PythonBackend(
        model.target,
        chunk_mapper=around.chunk_mapper,
        pre_hook=around.pre_hook,
        post_hook=around.post_hook,
        threads=around.threads,
    )


def _backend_name(model: Model) -> str:
    return SERVERS if model.endpoints else f"{model.backend} {model.name}"


def _changed(before: Settings, after: Settings, section: str) -> Iterator[str]:
    old: BaseModel = getattr(before, section)
    new: BaseModel = getattr(after, section)
    for name in type(old).model_fields:
        if getattr(old, name) != getattr(new, name):
            yield f"{section}.{name}"
