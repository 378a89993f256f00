"""Stopping without losing anything: announce, accept a little longer, let streams run, end what is left with a word.

The server's own shutdown comes after this one. uvicorn's and gunicorn's deadlines cut requests before they can settle,
so both are set longer than ours and never reached.
"""

import asyncio

from weir.core.asgi import Headers, Scope
from weir.core.errors import Draining, ServerDraining
from weir.gateway.head import request_id
from weir.gateway.replies import LAST
from weir.gateway.watch import Watches

POLL = 0.05  # seconds


class Drain:
    """`announce` and `deadline` in seconds."""

    def __init__(self, watches: Watches, *, announce: float, deadline: float) -> None:
        self._watches = watches
        self._announce = announce
        self._deadline = deadline
        self.announced = False  # not ready any more, but still accepting
        self.refusing = False
        self.in_flight = 0

    def enter(self) -> None:
        """One request more. Raises Draining when nothing new is taken."""
        self.in_flight += 1
        if self.refusing:
            raise Draining(retry_after=1.0)

    def headers_of(self, scope: Scope) -> Headers:
        """What stands on every answer, also of those that are none of the request path's."""
        named = [(b"x-request-id", request_id(scope).encode())]
        return [*named, LAST] if self.announced else named

    def hurry(self) -> None:
        """Told twice: now."""
        self._announce = self._deadline = 0.0

    def leave(self) -> None:
        self.in_flight -= 1

    async def run(self) -> None:
        """Returns when nothing is in flight."""
        self.announced = True
        loop = asyncio.get_running_loop()
        since = loop.time()
        # A process with nothing to do still waits: load balancers learn of it only now.
        while loop.time() < since + self._announce:
            await asyncio.sleep(POLL)
        self.refusing = True
        since = loop.time()
        while self.in_flight and loop.time() < since + self._deadline:
            await asyncio.sleep(POLL)
        for watch in self._watches:
            watch.end(ServerDraining(retry_after=1.0))
        while self.in_flight:
            await asyncio.sleep(POLL)
