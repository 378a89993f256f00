"""A bounded number of threads for functions that block, each with a line of its own.

Whatever began in one thread goes on in it: a generator's database connection or gradient mode belongs to its thread.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Lane:
    """One thread. It is a daemon: a function that never returns must not keep the process from ending."""

    def __init__(self, name: str, lock: threading.Lock) -> None:
        self.taken = 0  # how many calls are in this thread's line; written under the lock, as is the next
        self.ending = False
        self._lock = lock
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def run(self, step: Callable[[], T]) -> T:
        """Wait for `step` in the thread; raises what it raises. Cancelled in line, it is not run at all."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()

        def job() -> None:
            if done.cancelled():
                return
            outcome: tuple[T | None, BaseException | None]
            try:
                outcome = step(), None
            except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
                outcome = None, error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, done, outcome)

        self._jobs.put(job)
        value, error = await done
        try:
            if error is not None:
                raise error
        finally:
            del error  # or it would hold itself, by its traceback
        return value  # type: ignore[return-value]  # None only where the step gave None

    def leave(self, last: Callable[[], None]) -> None:
        """Run `last` after all that is in line, and give the place back. Nobody waits for it, and it does not raise."""

        def job() -> None:
            try:
                last()
            finally:
                with self._lock:
                    self.taken -= 1
                    self.end_if_idle()

        self._jobs.put(job)

    def end_if_idle(self) -> None:
        """If it is to end, and nobody is in its line. Under the lock."""
        if self.ending and not self.taken:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # or an idle thread would hold its last prompt


def _settle(done: "asyncio.Future[T]", outcome: T) -> None:
    if not done.done():
        done.set_result(outcome)


class Threads:
    """At most `most` lanes, each started when the others are busy. Beyond that, calls share the least busy ones."""

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError("at least one thread is needed")
        self._most = most
        self._lanes: list[Lane] = []
        self._closed = False
        self._lock = threading.Lock()

    def take(self) -> Lane:
        """Give it back by `Lane.leave`."""
        with self._lock:
            lane = min(self._lanes, key=lambda lane: lane.taken, default=None)
            if lane is None or (lane.taken and len(self._lanes) < self._most):
                lane = Lane(f"weir-python-{len(self._lanes)}", self._lock)
                lane.ending = self._closed
                if not self._closed:
                    self._lanes.append(lane)
            lane.taken += 1
            return lane

    def close(self) -> None:
        """Each thread ends with the last call in its line: whoever is under way goes on, as through a reload."""
        with self._lock:
            self._closed = True
            lanes, self._lanes = self._lanes, []
            for lane in lanes:
                lane.ending = True
                lane.end_if_idle()
