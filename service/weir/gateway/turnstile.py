"""Overload: a bounded number of requests goes on to the models, a bounded number waits, the rest is told so at once.

Who waits is served by start-time fair queueing (Goyal, Vin and Cheng, 1996) over teams, a request's cost being its
reserved tokens: a team that asks for ten times as much waits ten times as long, and moves nobody else. Every request is
counted, not only those that wait, so a greedy team does not begin each queue at the front.
"""

import asyncio
from collections import deque
from heapq import heappop, heappush
from math import ceil
from types import TracebackType

from weir.core.errors import Overloaded

RETRY_MAX = 30.0  # seconds
TEAMS_KEPT = 10_000


class _Waiter:
    """One request that waits. `start` is its turn in virtual time, in tokens."""

    __slots__ = ("future", "number", "route", "since", "start", "team", "timer")

    def __init__(self, team: str, route: str, start: float, number: int, since: float) -> None:
        self.team = team
        self.route = route
        self.start = start
        self.number = number  # of two with one turn, the earlier
        self.since = since
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None

    def __lt__(self, other: "_Waiter") -> bool:
        return (self.start, self.number) < (other.start, other.number)


class Turnstile:
    """`places` in all, and `max_waiting` in front of them for at most `wait_seconds`. A route may have fewer places."""

    def __init__(self, *, places: int, max_waiting: int, wait_seconds: float) -> None:
        self._places = places
        self._max_waiting = max_waiting
        self._wait_seconds = wait_seconds
        self._loop = asyncio.get_running_loop()
        self.in_flight = 0
        self.waiting = 0
        self.refused = 0
        self._on_route: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self._queues: dict[str, list[_Waiter]] = {}
        self._of_team: dict[str, deque[_Waiter]] = {}
        self._now = 0.0  # virtual: the turn that was served last
        self._finish: dict[str, float] = {}
        self._count = 0

    def place(self, team: str, route: str, limit: int | None, tokens: int) -> "Place":
        """Enter the result: waits for its turn. `limit` is the route's own number of places.

        Raises:
            Overloaded: there is no room to wait, or the wait took too long.

        """
        return Place(self, team, route, limit, tokens)

    # -- a place's own business

    def enter(self, team: str, route: str, limit: int | None, tokens: int) -> _Waiter | None:
        """Taken if None, else to be waited for with `wait`."""
        finish = self._finish.get(team, 0.0)
        start = max(self._now, finish)
        on_route = self._on_route.get(route, 0)
        if not self.waiting and self.in_flight < self._places and (limit is None or on_route < limit):
            self._finish[team] = start + tokens
            self._now = start
            self._take(route, on_route)
            return None
        if limit is None:
            self._limits.pop(route, None)
        else:
            self._limits[route] = limit
        if self._room(route):  # others wait for another route
            self._finish[team] = start + tokens
            self._now = start
            self._take(route, on_route)
            return None
        return self._queue(team, route, start, tokens)

    def leave(self, route: str) -> None:
        self.in_flight -= 1
        left = self._on_route[route] - 1
        if left:
            self._on_route[route] = left
        else:
            del self._on_route[route]
        if self.waiting:
            self._serve()
        elif len(self._finish) > TEAMS_KEPT:
            self._finish = {team: finish for team, finish in self._finish.items() if finish > self._now}

    async def wait(self, waiter: _Waiter) -> None:
        turn = waiter.future
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._done(waiter)
                self.waiting -= 1
            elif turn.exception() is None:
                self.leave(waiter.route)  # its turn came in the very moment in which it left
            raise

    # -- details

    def _take(self, route: str, on_route: int) -> None:
        self.in_flight += 1
        self._on_route[route] = on_route + 1

    def _room(self, route: str) -> bool:
        limit = self._limits.get(route)
        return self.in_flight < self._places and (limit is None or self._on_route.get(route, 0) < limit)

    def _queue(self, team: str, route: str, start: float, tokens: int) -> _Waiter:
        now = self._loop.time()
        if self.waiting >= self._max_waiting:
            self._make_room(team, now)
        self._finish[team] = start + tokens
        self._count += 1
        waiter = _Waiter(team, route, start, self._count, now)
        heappush(self._queues.setdefault(route, []), waiter)
        self._of_team.setdefault(team, deque()).append(waiter)
        waiter.timer = self._loop.call_later(self._wait_seconds, self._refuse, waiter)
        self.waiting += 1
        return waiter

    def _make_room(self, team: str, now: float) -> None:
        """The queue is full: the newest of whoever has most in it goes, which may be the one that comes."""
        longest = max(self._of_team, key=lambda name: len(self._of_team[name]), default=team)
        mine = self._of_team.get(team)
        if not self._max_waiting or longest == team or (mine and len(mine) >= len(self._of_team[longest])):
            self.refused += 1
            raise Overloaded(retry_after=self._patience(now))
        self._refuse(self._of_team[longest][-1])

    def _refuse(self, waiter: _Waiter) -> None:
        patience = self._patience(self._loop.time())
        if self._done(waiter):
            self.refused += 1
            self.waiting -= 1
            waiter.future.set_exception(Overloaded(retry_after=patience))

    def _patience(self, now: float) -> float:
        """As long as those who wait have waited: whoever comes back before that finds them still there."""
        oldest = min((queue[0].since for queue in self._of_team.values() if queue), default=now)
        return float(min(max(ceil(now - oldest), 1.0), RETRY_MAX))

    def _done(self, waiter: _Waiter) -> bool:
        """Out of its team's list; False if it was answered or has left before."""
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
        queue = self._of_team.get(waiter.team)
        if queue is not None:
            if queue[0] is waiter:
                queue.popleft()
            elif waiter in queue:
                queue.remove(waiter)
            if not queue:
                del self._of_team[waiter.team]
        return not waiter.future.done()

    def _serve(self) -> None:
        """Whoever's turn is next, of those for whom there is room."""
        while self.waiting and self.in_flight < self._places:
            best: list[_Waiter] | None = None
            for route, queue in list(self._queues.items()):
                while queue and queue[0].future.done():  # refused, or gone
                    self._done(heappop(queue))
                if not queue:
                    del self._queues[route]
                elif self._room(route) and (best is None or queue[0] < best[0]):
                    best = queue
            if best is None:
                return
            waiter = heappop(best)
            self._done(waiter)
            self.waiting -= 1
            self._now = max(self._now, waiter.start)
            self._take(waiter.route, self._on_route.get(waiter.route, 0))
            waiter.future.set_result(None)


class Place:
    """The block in which one request is on its way to a model."""

    __slots__ = ("_limit", "_route", "_team", "_tokens", "_turnstile")

    def __init__(self, turnstile: Turnstile, team: str, route: str, limit: int | None, tokens: int) -> None:
        self._turnstile = turnstile
        self._team = team
        self._route = route
        self._limit = limit
        self._tokens = tokens

    async def __aenter__(self) -> None:
        waiter = self._turnstile.enter(self._team, self._route, self._limit, self._tokens)
        if waiter is not None:
            await self._turnstile.wait(waiter)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turnstile.leave(self._route)
