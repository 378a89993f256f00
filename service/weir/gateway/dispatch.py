"""Sends a request to one of its model's endpoints; to another one, or to a fallback, where that did not do it.

Only before the first byte of an answer, and only where nobody can be working on it: nobody was there, the connection
broke before a byte of an answer, or the server itself refused (429, 502, 503, 529). A model that is silent may be
thinking, and whoever asks another one then pays twice.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from random import random
from time import perf_counter
from types import TracebackType
from typing import NamedTuple, Protocol

from weir.backend import Backend, BackendResponse, Call
from weir.core.asgi import Headers
from weir.core.errors import EndpointsFull, GatewayError, InvalidValue, NotServed, UpstreamTrouble
from weir.core.exchange import Attempt
from weir.core.types import Endpoint, Route, Timeouts
from weir.gateway.trouble import REFUSALS, Trouble, retry_after, trouble_of
from weir.routing import CAP, Health, Note, RetryBudget, Trial, backoff, choose, unheard

# Reading a refusal to its end saves the connection; a server that needs longer for it than this does not get it.
DRAIN_SECONDS, DRAIN_MAX = 0.05, 64 * 1024


# Told before each attempt; gives the headers that only this one carries.
OnAttempt = Callable[[Attempt], Headers]


class Patience(Protocol):
    """Who looks after the request meanwhile: `Watch`."""

    @property
    def found(self) -> GatewayError | None:
        """What the request is being ended for, if it is."""

    def again(self, timeouts: Timeouts) -> None:
        """The time to the first byte begins anew, by these timeouts; the total goes on."""


class Dispatch:
    """Knows the backends by the name of their kind, and counts what is in flight where.

    `find` gives the route of a fallback's name. `note` hears of each retry, fallback (taken or passed
    over), ejection and restoration.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        find: Callable[[str], Route | None] = lambda _: None,
        *,
        health: Health | None = None,
        note: Note = unheard,
        clock: Callable[[], float] | None = None,
        rand: Callable[[], float] = random,
    ) -> None:
        self.backends = backends
        self.find = find
        self.clock = clock or asyncio.get_running_loop().time
        self.health = health or Health(self.clock, note, rand)
        self.note = note
        self.rand = rand
        self._budgets: dict[str, RetryBudget] = {}

    def send(
        self,
        route: Route,
        call_for: Callable[[Route], Call],
        patience: Patience,
        on_attempt: OnAttempt,
        attempts: list[Attempt],
    ) -> "Dispatched":
        """Enter the result for the answer's beginning; raises what `Backend.send` raises, and `EndpointsFull`.

        `call_for` builds the request for a route, once for each. It may raise NotServed or InvalidValue, where the
        request cannot be put into the words of that route's server: of a fallback, that only means the next one.
        Each attempt is appended to `attempts`.
        """
        return Dispatched(self, route, call_for, patience, on_attempt, attempts)

    def budget(self, route: Route) -> RetryBudget:
        known = self._budgets.get(route.model)
        if known is None:
            known = self._budgets[route.model] = RetryBudget(self.clock())
        return known


class _Step(NamedTuple):
    """What to do next. The place at the endpoint is taken from the moment in which it was chosen."""

    route: Route
    endpoint: Endpoint
    trial: Trial | None
    pause: float


class Dispatched:
    """One request, counted at one endpoint at a time until its last byte.

    `endpoint` and `route` are those of the last attempt. `attempts` is where each is written down.
    """

    __slots__ = (
        "_asked",
        "_been",
        "_call",
        "_call_for",
        "_dispatch",
        "_fallbacks",
        "_judged",
        "_on_attempt",
        "_patience",
        "_retried",
        "_sending",
        "_since",
        "_status",
        "_trial",
        "_tried",
        "attempts",
        "endpoint",
        "route",
    )

    endpoint: Endpoint
    _sending: AbstractAsyncContextManager[BackendResponse]

    def __init__(
        self,
        dispatch: Dispatch,
        route: Route,
        call_for: Callable[[Route], Call],
        patience: Patience,
        on_attempt: OnAttempt,
        attempts: list[Attempt],
    ) -> None:
        self._dispatch = dispatch
        self._call_for = call_for
        self._patience = patience
        self._on_attempt = on_attempt
        self.route = self._asked = route
        self.attempts = attempts
        self._fallbacks = route.fallbacks
        self._been: tuple[str, ...] = (route.model,)
        self._call: Call | None = None  # for the route of the next attempt
        self._trial: Trial | None = None
        self._judged = False  # the endpoint has been told what its answer was worth
        self._status = 0
        self._since = dispatch.clock()
        self._retried = 0
        self._tried: tuple[Endpoint, ...] = ()

    async def __aenter__(self) -> BackendResponse:
        endpoint = self._place()
        if endpoint is not None:
            self._begin(self.route, endpoint, None)
        else:
            await self._move_on(self._first(), None)
        while True:
            refusal: BackendResponse | None = None
            step: _Step | None
            try:
                response = await self._sending.__aenter__()
            except BaseException as error:
                step = self._unanswered(error)
                if step is None:
                    raise
            else:
                try:
                    step = self._answered(response)
                except BaseException:  # a bug where a fallback's request is built
                    await self._sending.__aexit__(None, None, None)
                    raise
                if step is None:
                    self._call = None  # a stream may last for an hour
                    return response
                refusal = response
            await self._move_on(step, refusal)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        endpoint = self.endpoint
        endpoint.in_flight -= 1
        self.attempts[-1].ended = perf_counter()
        if not self._judged and (error is not None or endpoint.standing.failures):
            self._ended(error)
        await self._sending.__aexit__(kind, error, trace)

    @property
    def _spent(self) -> bool:
        """A part of the body has been taken from the client and passed on: nobody can send that a second time."""
        return self._call is not None and self._call.upload is not None and self._call.upload.begun

    # -- where to

    def _place(self) -> Endpoint | None:
        """A place at an endpoint that is well: nearly always. None where more thought is needed."""
        dispatch, route = self._dispatch, self.route
        dispatch.budget(route).requests += 1
        fit = dispatch.health.fit(route.endpoints)
        if fit is not route.endpoints:
            return None
        endpoint = choose(fit, dispatch.rand)
        endpoint.in_flight += 1
        return endpoint

    def _first(self) -> _Step:
        dispatch, route = self._dispatch, self.route
        fit = dispatch.health.fit(route.endpoints, last_resort=not self._fallbacks)
        if not fit and all(endpoint.ejected for endpoint in route.endpoints):
            step = self._fall_back("ejected")
            if step is not None:
                return step
            fit = dispatch.health.fit(route.endpoints)
        if not fit:
            raise EndpointsFull(retry_after=1.0)
        return self._take(route, choose(fit, dispatch.rand))

    def _next(self, trouble: Trouble, wait: float | None = None) -> _Step | None:
        """Another endpoint, or this one again, or a fallback; None where it ends here. `wait` is what it asked for."""
        if not trouble.elsewhere or self._spent:
            return None
        dispatch, route, failed = self._dispatch, self.route, self.endpoint
        self._tried += (failed,)
        if self._retried < route.retries:
            pause = backoff(self._retried, dispatch.rand)
            last_resort = not self._fallbacks
            fit = dispatch.health.fit(route.endpoints, self._tried, last_resort=last_resort)
            if trouble.again and len(route.endpoints) == 1 and (wait is None or wait <= CAP):
                fit = dispatch.health.fit(route.endpoints, last_resort=last_resort)
                pause = max(pause, wait or 0.0)
            now = dispatch.clock()
            if fit and now + pause < self._since + route.timeouts.total and dispatch.budget(route).take(now):
                self._retried += 1
                step = self._take(route, choose(fit, dispatch.rand), pause)
                dispatch.note(
                    "retry",
                    {"model": route.model, "endpoint": failed.url, "to": step.endpoint.url, "why": trouble.word},
                )
                return step
        return self._fall_back(trouble.word)

    def _fall_back(self, why: str) -> _Step | None:
        """The next fallback that has room, and can be told; None where there is none.

        It is no retry, and needs no budget: each request comes there but once. Its request is made here, while the
        last refusal is still there: with nobody left who can be told, that is the client's answer.
        """
        dispatch, asked = self._dispatch, self._asked
        while self._fallbacks:
            name, self._fallbacks = self._fallbacks[0], self._fallbacks[1:]
            route = dispatch.find(name)
            if route is None or route.model in self._been:
                continue
            self._been = (*self._been, route.model)
            fit = dispatch.health.fit(route.endpoints, last_resort=not self._fallbacks)
            if not fit:
                dispatch.note("passed_over", {"model": asked.model, "to": route.model, "why": "no room"})
                continue
            try:
                self._call = self._call_for(route)
            except (NotServed, InvalidValue) as unsaid:
                dispatch.note("passed_over", {"model": asked.model, "to": route.model, "why": unsaid.text})
                continue
            self._retried, self._tried = 0, ()
            dispatch.budget(route).requests += 1
            dispatch.note("fallback", {"model": asked.model, "to": route.model, "why": why})
            return self._take(route, choose(fit, dispatch.rand))
        return None

    def _take(self, route: Route, endpoint: Endpoint, pause: float = 0.0) -> _Step:
        endpoint.in_flight += 1
        return _Step(route, endpoint, self._dispatch.health.begin(endpoint) if endpoint.ejected else None, pause)

    def _give_back(self, endpoint: Endpoint, trial: Trial | None) -> None:
        endpoint.in_flight -= 1
        self._dispatch.health.undecided(endpoint, trial)

    # -- on the way

    def _begin(self, route: Route, endpoint: Endpoint, trial: Trial | None) -> None:
        try:
            call = self._call
            if call is None:
                call = self._call = self._call_for(route)
            self.route, self.endpoint, self._trial = route, endpoint, trial
            self._judged = False
            attempt = Attempt(
                endpoint.url,
                route.model,
                perf_counter(),
                request_bytes=call.size,
                upstream_model=route.upstream_model,
                provider=endpoint.provider,
            )
            self.attempts.append(attempt)
            if headers := self._on_attempt(attempt):
                headers = [*call.headers, *headers]
                call = _new_tuple(Call, (call.path, call.body, headers, call.timeouts, call.upload, call.data))
            self._sending = self._dispatch.backends[route.backend].send(endpoint, call)
        except BaseException:
            self._give_back(endpoint, trial)
            raise

    async def _move_on(self, step: _Step, refusal: BackendResponse | None) -> None:
        """Leave the refusal, wait, and begin the next attempt."""
        try:
            if refusal is not None:
                await self._leave(refusal)
            if step.pause:
                self._patience.again(self.route.timeouts)
                await asyncio.sleep(step.pause)
            self._patience.again(step.route.timeouts)
        except BaseException:
            self._give_back(step.endpoint, step.trial)
            raise
        self._begin(step.route, step.endpoint, step.trial)

    async def _leave(self, refusal: BackendResponse) -> None:
        try:
            with suppress(UpstreamTrouble, TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    size = 0
                    while size < DRAIN_MAX and (chunk := await refusal.read()):
                        size += len(chunk)
        finally:
            await self._sending.__aexit__(None, None, None)

    # -- what came of it

    def _answered(self, response: BackendResponse) -> _Step | None:
        """An answer has begun: None if that is the one."""
        endpoint, status = self.endpoint, response.status
        attempt = self.attempts[-1]
        self._status = attempt.status = status
        if status == 200 and self._trial is None and not endpoint.standing.unreached:
            attempt.result = "ok"
            return None
        health, trial = self._dispatch.health, self._trial
        self._trial = None
        if status < 500:
            health.answered(endpoint, trial)
        else:
            self._judged = True
            health.failed(endpoint, str(status), trial)
        attempt.result = "ok" if status == 200 else str(status)
        if status not in REFUSALS:
            return None
        attempt.ended = perf_counter()
        # Its place is free: who refuses has nothing to do for us. Where nobody else is there, the refusal needs it.
        endpoint.in_flight -= 1
        step = self._next(REFUSALS[status], retry_after(response.headers))
        if step is None:
            endpoint.in_flight += 1
        return step

    def _unanswered(self, error: BaseException) -> _Step | None:
        """No answer has begun. None if it is to be raised."""
        endpoint, health, trial = self.endpoint, self._dispatch.health, self._trial
        endpoint.in_flight -= 1
        trouble = trouble_of(error, self._patience.found)
        attempt = self.attempts[-1]
        attempt.result, attempt.ended = trouble.word, perf_counter()
        if trouble.counts:
            health.failed(endpoint, trouble.word, trial, unreached=trouble.unreached)
        else:
            health.undecided(endpoint, trial)
        return self._next(trouble)

    def _ended(self, error: BaseException | None) -> None:
        """An answer that had begun is over, well or not."""
        endpoint, health = self.endpoint, self._dispatch.health
        if error is None:
            health.completed(endpoint)
        elif self._status == 200:  # what else it says was understood: a refusal of our key is configuration
            trouble = trouble_of(error, self._patience.found)
            self.attempts[-1].result = trouble.word
            if trouble.counts:
                health.failed(endpoint, trouble.word)


_new_tuple = tuple.__new__  # a named tuple by its fields' names costs three times as much
