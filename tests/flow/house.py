"""The whole request path in one process: real rooms, the reference limiter, and a backend that reads from a script."""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog.testing
from prometheus_client import CollectorRegistry

from tests.fakes.backend import ScriptedBackend, Step
from tests.fakes.client import Client, Conversation
from tests.fakes.clock import ManualClock
from tests.fakes.ports import FakeKeyStore
from weir.admission import Admission
from weir.admission.limiter_local import LocalLimiter
from weir.auth import Authenticator
from weir.auth.keys import digest
from weir.backend import Backend
from weir.core.errors import NotFound, Unauthenticated
from weir.core.operations import OPERATIONS
from weir.core.types import Endpoint, Limits, Principal, Route, Timeouts, Window
from weir.gateway.clients import Clients
from weir.gateway.completions import Completions, Rooms
from weir.gateway.dispatch import Dispatch
from weir.gateway.door import Door
from weir.gateway.drain import Drain
from weir.gateway.turnstile import Turnstile
from weir.gateway.watch import Watches
from weir.routing import RouteTable
from weir.telemetry import Telemetry
from weir.telemetry.logs import logger_class
from weir.telemetry.metrics import Metrics
from weir.usage import PromptEstimator

KEY, REVOKED_KEY, UNKNOWN_KEY = "sk-of-search-1", "sk-of-search-2", "sk-of-nobody"
PRINCIPAL = Principal("search", "key1", digest(KEY.encode(), None))
REVOKED = Principal("search", "key2", digest(REVOKED_KEY.encode(), None))
CHAT = "/v1/chat/completions"

KEY_LIMITS = Limits(rpm=600, tpm=60_000, concurrency=10)
TEAM_LIMITS = Limits(rpm=1_200, tpm=120_000, concurrency=20)
NO_LIMITS = Limits()


def chat(**fields: Any) -> bytes:
    """A small chat request that needs 50 tokens and its prompt; fields that are None are left out."""
    whole = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50} | fields
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


def prompt_tokens(body: bytes) -> int:
    """What is reserved for a prompt that no settled request has taught us anything about."""
    return PromptEstimator().estimate("m", len(body))


@dataclass
class House:
    rooms: Rooms
    client: Client
    backend: ScriptedBackend
    keys: FakeKeyStore
    limits: dict[str, tuple[Limits, Limits]]
    limiter: LocalLimiter
    clock: ManualClock
    routes: dict[str, Route]
    _logged: list[Mapping[str, Any]]
    noted: list[tuple[str, dict[str, object]]]  # what dispatch said of retries, fallbacks and ejections
    _full: list[Window] = field(default_factory=list)

    def ask(
        self,
        body: bytes | Iterable[bytes | None] | None = None,
        *,
        key: str | None = KEY,
        path: str = CHAT,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Conversation:
        """A request, started."""
        authorized = [("authorization", f"Bearer {key}")] if key is not None else []
        return self.client.post(path, chat() if body is None else body, [*authorized, *headers])

    async def windows(self) -> list[Window]:
        return list(await self.limiter.standing(PRINCIPAL))

    async def untouched(self) -> bool:
        """Every bucket and every place is exactly as it was before the first request."""
        return await self.windows() == self._full

    async def charged(self) -> tuple[int, int]:
        """(requests, tokens) taken since the beginning, the same of key and team, with no place still held."""
        taken: dict[tuple[str, str], int] = {}
        for before, after in zip(self._full, await self.windows(), strict=True):
            taken[after.scope, after.unit] = before.remaining - after.remaining
        assert taken["key", "requests"] == taken["team", "requests"]
        assert taken["key", "tokens"] == taken["team", "tokens"]
        assert taken["key", "concurrency"] == taken["team", "concurrency"] == 0, "a place is still held"
        return taken["key", "requests"], taken["key", "tokens"]

    @property
    def logged(self) -> list[Mapping[str, Any]]:
        self.rooms.telemetry.catch_up()
        return self._logged

    @property
    def registry(self) -> CollectorRegistry:
        """The metrics, of all that is finished."""
        self.rooms.telemetry.catch_up()
        return self.rooms.telemetry.metrics.registry

    @property
    def records(self) -> list[Mapping[str, Any]]:
        return [line for line in self.logged if line["event"] == "request"]

    @property
    def record(self) -> Mapping[str, Any]:
        """The line of the only request."""
        (record,) = self.records
        return record

    def at_rest(self) -> bool:
        """Nothing is counted as under way any more, anywhere."""
        in_flight = self.registry.get_sample_value("weir_in_flight_requests")
        endpoints = [endpoint.in_flight for route in self.routes.values() for endpoint in route.endpoints]
        return (
            not in_flight
            and not any(endpoints)
            and not self.rooms.drain.in_flight
            and not len(self.rooms.watches)
            and all(visit.left for visit in self.backend.visits if visit.entered)
        )


def route(name: str = "m", **fields: Any) -> Route:
    known: dict[str, Any] = {
        "backend": "scripted",
        "upstream_model": name,
        "endpoints": [Endpoint("http://upstream/v1")],
        "timeouts": Timeouts(connect=2, first_byte=30, idle=10, total=100),
        "retries": 0,
    }
    return Route(model=name, **(known | fields))


async def not_here(scope: Any, receive: Any, send: Any) -> None:
    """What the door leads to when it is no hot path."""
    await send({"type": "http.response.start", "status": NotFound.status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def open_house(
    *script: Step,
    routes: Iterable[Route] | None = None,
    key_limits: Limits = KEY_LIMITS,
    team_limits: Limits = TEAM_LIMITS,
    backends: Mapping[str, Backend] | None = None,
    body_seconds: float = 5.0,
    write_seconds: float = 5.0,
    ping_seconds: float = 1_000.0,
    announce: float = 0.0,
    deadline: float = 60.0,
    max_body_bytes: int = 1 << 20,
    places: int = 1000,
    max_waiting: int = 100,
) -> AsyncIterator[House]:
    """Everything that a request passes; telemetry's lines are kept instead of written."""
    clock = ManualClock()
    keys = FakeKeyStore({PRINCIPAL.digest: PRINCIPAL, REVOKED.digest: REVOKED})
    limits = {PRINCIPAL.key_id: (key_limits, team_limits)}

    def limits_of(principal: Principal) -> tuple[Limits, Limits]:
        if principal.key_id not in limits:
            raise Unauthenticated(reason="revoked")
        return limits[principal.key_id]

    limiter = LocalLimiter(limits_of, clock.microseconds)
    backend = ScriptedBackend(*script)
    table = {one.model: one for one in (routes or [route()])}
    watches = Watches(body_seconds=body_seconds, write_seconds=write_seconds, ping_seconds=ping_seconds)
    noted: list[tuple[str, dict[str, object]]] = []
    structlog.configure(wrapper_class=logger_class("info"))
    with structlog.testing.capture_logs() as logged:
        rooms = Rooms(
            auth=Authenticator(keys, clock),
            admission=Admission(limiter),
            routes=RouteTable(table.values()),
            dispatch=Dispatch(
                {"scripted": backend, **(backends or {})},
                table.get,
                note=lambda kind, fields: noted.append((kind, fields)),
            ),
            estimator=PromptEstimator(),
            telemetry=Telemetry(Metrics()),
            watches=watches,
            clients=Clients(),
            turnstile=Turnstile(places=places, max_waiting=max_waiting, wait_seconds=10),
            drain=Drain(watches, announce=announce, deadline=deadline),
            max_body_bytes=max_body_bytes,
        )
        hot = {prefix + one.path: Completions(one, rooms) for one in OPERATIONS for prefix in ("", "/v1")}
        house = House(
            rooms=rooms,
            client=Client(Door(hot, not_here)),
            backend=backend,
            keys=keys,
            limits=limits,
            limiter=limiter,
            clock=clock,
            routes=table,
            _logged=logged,
            noted=noted,
        )
        house._full = await house.windows()
        try:
            yield house
        finally:
            watches.close()
    assert house.at_rest(), "a request is over and something of it is left"


def error_of(event: bytes) -> dict[str, Any]:
    """The error object of one event's data."""
    said = json.loads(event)
    assert set(said) == {"error"}
    assert set(said["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = said["error"]
    return error
