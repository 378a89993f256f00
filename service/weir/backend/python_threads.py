"""A bounded number of threads for functions that block, and one line for the calls that have not begun.

Whatever began in one thread goes on in it: a generator's database connection or gradient mode belongs to its thread.
Until then a call belongs to no thread, so that it never waits behind one that is stuck while another is free.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
Job = Callable[[], None]


class Lane:
    """One call: its steps run one after another, in the thread that was the first to be free for it."""

    __slots__ = ("_entered", "_threads", "number", "thread", "waiting")

    def __init__(self, threads: "Threads") -> None:
        self._threads = threads
        self._entered = False
        self.thread: _Thread | None = None  # these three are written under the lock of `Threads`
        self.waiting: Job | None = None  # what it begins with, as long as no thread is free
        self.number = 0  # its place in the line

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

        self._threads.put(self, job)
        self._entered = True
        value, error = await done
        try:
            if error is not None:
                raise error
        finally:
            del error  # or it would hold itself, by its traceback
        return value  # type: ignore[return-value]  # None only where the step gave None

    def leave(self, last: Job) -> None:
        """Run `last` after all that is in line, and give the place back. Nobody waits for it, and it does not raise.

        A call that never asked for a thread needs none for this either.
        """

        def job() -> None:
            try:
                last()
            finally:
                self._threads.left(self)

        if self._entered:
            self._threads.put(self, job)
        else:
            last()


class _Thread:
    """It is a daemon: a function that never returns must not keep the process from ending."""

    def __init__(self, name: str, next_job: "Callable[[_Thread], Job | None]") -> None:
        self.begun = 0  # how many calls are bound to it; all of these are written under the lock of `Threads`
        self.idle = True
        self.line: deque[tuple[int, Job]] = deque()  # the next steps of those calls, with their numbers
        self._given: SimpleQueue[Job | None] = SimpleQueue()  # wakes it, with the job that came while it was idle
        self._next_job = next_job
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def give(self, number: int, job: Job) -> None:
        if self.idle:
            self.idle = False
            self._given.put(job)
        else:
            self.line.append((number, job))

    def end(self) -> None:
        self._given.put(None)

    def _work(self) -> None:
        while (job := self._given.get()) is not None:
            while job is not None:
                job()
                del job  # or an idle thread would hold its last prompt
                job = self._next_job(self)


def _settle(done: "asyncio.Future[T]", outcome: T) -> None:
    if not done.done():
        done.set_result(outcome)


class Threads:
    """At most `most` threads, each started when the others are busy. What came first is done first.

    A thread between two steps of its streams is free for another call: slow readers keep nobody out.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError("at least one thread is needed")
        self._most = most
        self._threads: list[_Thread] = []
        self._waiting: deque[Lane] = deque()  # empty while a thread is idle
        self._numbers = count()
        self._closed = False
        # Re-entrant: a coroutine that is thrown away by the garbage collector, anywhere in here, leaves its lane.
        self._lock = threading.RLock()

    def take(self) -> Lane:
        """Give it back by `Lane.leave`."""
        return Lane(self)

    def close(self) -> None:
        """Each thread ends when nothing is left for it: whoever is under way goes on, as through a reload."""
        with self._lock:
            self._closed = True
            for thread in list(self._threads):
                self._end_if_done(thread)

    def put(self, lane: Lane, job: Job) -> None:
        """Have it done in the lane's thread, or in the first that is free if the lane has none yet."""
        with self._lock:
            if lane.waiting is not None:  # who waited has left: this is all that is still to be done for it
                lane.waiting = job
                return
            number = next(self._numbers)
            if lane.thread is None:
                thread = self._free()
                if thread is None:
                    lane.waiting, lane.number = job, number
                    self._waiting.append(lane)
                    return
                self._bind(lane, thread)
                thread.give(number, job)
            else:
                lane.thread.give(number, job)

    def left(self, lane: Lane) -> None:
        """The lane's last job is done, in its thread, which asks for another one next."""
        with self._lock:
            if lane.thread is not None:
                lane.thread.begun -= 1

    def _free(self) -> _Thread | None:
        """The idle one with the fewest calls; a new one rather than one that has calls."""
        thread = min((one for one in self._threads if one.idle), key=lambda one: one.begun, default=None)
        if (thread is None or thread.begun) and len(self._threads) < self._most:
            thread = _Thread(f"weir-python-{len(self._threads)}", self._next_job)
            self._threads.append(thread)
        return thread

    def _bind(self, lane: Lane, thread: _Thread) -> None:
        lane.thread = thread
        thread.begun += 1

    def _next_job(self, thread: _Thread) -> Job | None:
        """The oldest that this thread can do: a step of its own, or the first of those that have not begun."""
        with self._lock:
            first = self._waiting[0] if self._waiting else None
            if first is not None and not (thread.line and thread.line[0][0] < first.number):
                self._waiting.popleft()
                self._bind(first, thread)
                job, first.waiting = first.waiting, None
                return job
            if thread.line:
                return thread.line.popleft()[1]
            thread.idle = True
            self._end_if_done(thread)
            return None

    def _end_if_done(self, thread: _Thread) -> None:
        if self._closed and thread.idle and not thread.begun:
            self._threads.remove(thread)
            thread.end()
