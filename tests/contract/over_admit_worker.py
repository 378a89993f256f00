"""One process of the load in test_never_over_admit.py: many tasks that ask, are cancelled, fail, and settle.

Everything that it was granted and has settled goes to its journal first, which a `kill -9` does not take away.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from weir.admission import Admission, Grant
from weir.admission.limiter_redis import RedisLimiter
from weir.core import layout
from weir.core.errors import LimitExceeded, StoreUnavailable
from weir.core.types import Ask, Principal
from weir.store import Batcher, connect


@dataclass(frozen=True, slots=True)
class Orders:
    """`until` on the clock that all processes of a machine share (time.monotonic)."""

    url: str
    callers: list[list[str]]
    seed: int
    until: float
    lease_seconds: float
    tasks: int
    overuse: float
    clock_error: float
    journal: str


class WrongClockLoop(asyncio.SelectorEventLoop):
    error = 0.0

    def time(self) -> float:
        return super().time() + self.error


class Worker:
    def __init__(self, orders: Orders, batcher: Batcher, limiter: RedisLimiter) -> None:
        self._orders = orders
        self._batcher = batcher
        self._limiter = limiter
        self._admission = Admission(limiter)
        self._callers = [Principal(*caller) for caller in orders.callers]
        self._random = random.Random(orders.seed)
        self._journal = os.open(orders.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.counts: Counter[str] = Counter()

    def note(self, *words: object) -> None:
        os.write(self._journal, (" ".join(map(str, words)) + "\n").encode())

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask_again_and_again()) for _ in range(self._orders.tasks - 1)]
            tasks.append(group.create_task(self._stream_long()))
            while time.monotonic() < self._orders.until:
                await asyncio.sleep(0.02)
            for task in tasks:  # as a gateway whose drain deadline has come
                task.cancel()

    async def _ask_again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        while time.monotonic() < self._orders.until:
            try:
                if self._random.random() < 0.15:
                    request = loop.create_task(self._request())
                    try:
                        await asyncio.sleep(self._random.choice((0.0, 0.0, 0.001, 0.004, 0.02)) * self._random.random())
                    finally:
                        request.cancel()
                        with contextlib.suppress(asyncio.CancelledError):
                            await request
                    self.counts["cancelled"] += 1
                else:
                    await self._request()
            except LimitExceeded as refusal:
                self.counts[f"{refusal.window.scope} {refusal.window.unit}"] += 1
                await asyncio.sleep(0.04 + 0.12 * self._random.random())
            except StoreUnavailable:
                self.counts["unavailable"] += 1
                await asyncio.sleep(0.05)

    async def _stream_long(self) -> None:
        """Longer than a lease, so that it lives from renewals."""
        while time.monotonic() < self._orders.until:
            try:
                await self._request(hold=1.5 * self._orders.lease_seconds)
            except (LimitExceeded, StoreUnavailable):
                await asyncio.sleep(0.02)

    async def _request(self, hold: float | None = None) -> None:
        rnd = self._random
        principal = rnd.choice(self._callers)
        fate, share = rnd.random(), rnd.random()
        hold = hold or 0.001 + 0.04 * rnd.random() ** 2
        output = None if rnd.random() < 0.1 else rnd.randrange(1, 90)
        ask = Ask("m", "m", rnd.randrange(1, 60), output, rnd.choice((1, 1, 1, 2)), 25)

        def charge(error: BaseException | None) -> int | None:
            grant = reservation.grant
            used: int | None = ask.prompt_tokens + int((grant.tokens - ask.prompt_tokens) * share)
            if error is None and fate < 0.1:
                used = None
            elif error is None and fate < 0.1 + self._orders.overuse:
                used = grant.tokens + int(grant.tokens * share)
            elif error is None and fate > 0.95:
                used = 0
            words[:] = [grant.id, -1 if used is None else used]
            self.note("settled", *words)
            return used

        words: list[Any] = []

        reservation = self._admission.reserve(principal, ask, charge)
        async with reservation as grant:
            self.note("granted", grant.id, grant.tokens)
            self.counts["granted"] += 1
            await asyncio.sleep(hold)
        if rnd.random() < 0.1:
            self._deliver_again(grant, words)

    def _deliver_again(self, grant: Grant, words: list[Any]) -> None:
        """As a retry might: the same settlement once more, behind the limiter's back."""
        names = self._limiter._names(grant.principal)
        reservation = layout.reservation(grant.principal.team, grant.id)
        again = self._batcher.call("EVALSHA", self._limiter._settle.sha, 7, *names, reservation, *words)
        again.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.counts["delivered again"] += 1


async def main(orders: Orders) -> int:
    loop = asyncio.get_running_loop()
    client = connect(orders.url)
    batcher = Batcher(client, command_seconds=2.0)
    limiter = RedisLimiter(batcher, lease_seconds=orders.lease_seconds)
    tending = loop.create_task(limiter.tend())
    worker = Worker(orders, batcher, limiter)
    await worker.run()
    left = await limiter.flush(20.0)
    worker.note("ended", left)
    tending.cancel()
    await batcher.close()
    await client.aclose()
    print(json.dumps(worker.counts))
    return left


if __name__ == "__main__":
    given = Orders(**json.loads(sys.argv[1]))
    WrongClockLoop.error = given.clock_error
    with asyncio.Runner(loop_factory=WrongClockLoop) as runner:
        sys.exit(runner.run(main(given)))
