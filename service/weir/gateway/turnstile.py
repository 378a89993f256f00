"""Overload: a bounded number of requests goes on to the models, a bounded number waits, the rest is told so at once.

Who waits is served by start-time fair queueing (Goyal, Vin and Cheng, 1996) over teams, a request's cost being its
reserved tokens: a team that asks for ten times as much waits ten times as long, and moves nobody else. Every request
that is served is counted, not only those that waited, so a greedy team does not begin each queue at the front.
"""

import asyncio
from collections import deque
from math import ceil
from types import TracebackType

from weir.core.errors import Overloaded

RETRY_MAX = 30.0  # seconds
TEAMS_KEPT = 10_000


class _Waiter:
    """One request that waits. `came` is when, in virtual time; `number` tells whom of two with one turn to serve first.

    Its future gives None for a turn, or the seconds after which to come back.
    """

    __slots__ = ("came", "future", "number", "route", "since", "team", "timer", "tokens")

    def __init__(self, team: str, route: str, tokens: int, came: float, number: int, since: float) -> None:
        self.team = team
        self.route = route
        self.tokens = tokens
        self.came = came
        self.number = number
        self.since = since
        # No exception: what is raised from there would keep the request's frames, and so its body, in here.
        self.future: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None


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
        self._limits: dict[str, int | None] = {}
        self._queues: dict[str, dict[str, deque[_Waiter]]] = {}  # route -> team -> who waits, in order
        self._count_of: dict[str, int] = {}  # team -> how many of it wait
        self._now = 0.0  # virtual: the turn that was served last
        self._finish: dict[str, float] = {}
        self._count = 0

    def place(self, team: str, route: str, limit: int | None, tokens: int) -> "Place":
        """Enter the result: waits for its turn, and says whether it had to. `limit` is the route's number of places.

        Raises:
            Overloaded: there is no room to wait, or the wait took too long.

        """
        return Place(self, team, route, limit, tokens)

    # -- a place's own business

    def enter(self, team: str, route: str, limit: int | None, tokens: int) -> _Waiter | None:
        """Taken if None, else to be waited for with `wait`."""
        if not self.waiting:
            on_route = self._on_route.get(route, 0)
            if self.in_flight < self._places and (limit is None or on_route < limit):
                start = self._now = max(self._now, self._finish.get(team, 0.0))
                self._finish[team] = start + tokens
                self.in_flight += 1
                self._on_route[route] = on_route + 1
                return None
        if self._limits.get(route) != limit:
            self._limits[route] = limit
            self._serve()  # a changed configuration may have made room for whoever waits
        if route not in self._queues and self._room(route):
            # Others wait, for another route. Time stands still for them, or this one's turns would pass theirs.
            self._take(team, route, tokens, max(self._now, self._finish.get(team, 0.0)))
            return None
        return self._queue(team, route, tokens)

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
            come_back = await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._drop(waiter)
            elif turn.result() is None:
                self.leave(waiter.route)  # its turn came in the very moment in which it left
            else:
                self.refused -= 1  # it never heard
            raise
        if come_back is not None:
            raise Overloaded(retry_after=come_back)

    # -- details

    def _room(self, route: str) -> bool:
        limit = self._limits.get(route)
        return self.in_flight < self._places and (limit is None or self._on_route.get(route, 0) < limit)

    def _take(self, team: str, route: str, tokens: int, start: float) -> None:
        """Charged only now: who waits in vain has had nothing."""
        self._finish[team] = start + tokens
        self.in_flight += 1
        self._on_route[route] = self._on_route.get(route, 0) + 1

    def _queue(self, team: str, route: str, tokens: int) -> _Waiter:
        if self.waiting >= self._max_waiting:
            self._make_room(team)
        self._count += 1
        waiter = _Waiter(team, route, tokens, self._now, self._count, self._loop.time())
        self._queues.setdefault(route, {}).setdefault(team, deque()).append(waiter)
        self._count_of[team] = self._count_of.get(team, 0) + 1
        waiter.timer = self._loop.call_later(self._wait_seconds, self._refuse, waiter)
        self.waiting += 1
        return waiter

    def _make_room(self, team: str) -> None:
        """The queue is full: the newest of whoever has most in it goes, which may be the one that comes."""
        longest = max(self._count_of, key=self._count_of.__getitem__, default=team)
        if self._count_of.get(team, 0) >= self._count_of.get(longest, 0):
            self.refused += 1
            raise Overloaded(retry_after=self._patience())
        newest = max((teams[longest][-1] for teams in self._queues.values() if longest in teams), key=_number)
        self._refuse(newest)

    def _refuse(self, waiter: _Waiter) -> None:
        patience = self._patience()
        self._drop(waiter)
        if not waiter.future.done():
            self.refused += 1
            waiter.future.set_result(patience)

    def _patience(self) -> float:
        """As long as those who wait have waited: whoever comes back before that finds them still there."""
        heads = (queue[0].since for teams in self._queues.values() for queue in teams.values())
        oldest = min(heads, default=self._loop.time())
        return float(min(max(ceil(self._loop.time() - oldest), 1), RETRY_MAX))

    def _drop(self, waiter: _Waiter) -> None:
        """It waits no more, whatever became of it."""
        if waiter.timer is None:
            return
        waiter.timer.cancel()
        waiter.timer = None
        self.waiting -= 1
        teams = self._queues[waiter.route]
        queue = teams[waiter.team]
        if queue[0] is waiter:
            queue.popleft()
        else:
            queue.remove(waiter)
        if not queue:
            del teams[waiter.team]
            if not teams:
                del self._queues[waiter.route]
        left = self._count_of[waiter.team] - 1
        if left:
            self._count_of[waiter.team] = left
        else:
            del self._count_of[waiter.team]

    def _serve(self) -> None:
        """Whoever's turn is next, of those for whom there is room."""
        while self.waiting and self.in_flight < self._places:
            best: tuple[float, int, _Waiter] | None = None
            for route, teams in self._queues.items():
                if self._room(route):
                    for team, queue in teams.items():
                        head = queue[0]
                        turn = (max(head.came, self._finish.get(team, 0.0)), head.number, head)
                        if best is None or turn[:2] < best[:2]:
                            best = turn
            if best is None:
                return
            start, _, waiter = best
            self._drop(waiter)
            if waiter.future.done():
                continue  # it is leaving
            self._now = max(self._now, start)
            self._take(waiter.team, waiter.route, waiter.tokens, start)
            waiter.future.set_result(None)


def _number(waiter: _Waiter) -> int:
    return waiter.number


class Place:
    """The block in which one request is on its way to a model."""

    __slots__ = ("_limit", "_route", "_team", "_tokens", "_turnstile")

    def __init__(self, turnstile: Turnstile, team: str, route: str, limit: int | None, tokens: int) -> None:
        self._turnstile = turnstile
        self._team = team
        self._route = route
        self._limit = limit
        self._tokens = tokens

    async def __aenter__(self) -> bool:
        waiter = self._turnstile.enter(self._team, self._route, self._limit, self._tokens)
        if waiter is None:
            return False
        await self._turnstile.wait(waiter)
        return True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turnstile.leave(self._route)
