"""Where log lines are written: gathered for a moment, and by a thread of its own.

Whoever reads our output may stop reading (a full disk, a stuck collector), and a write to a full pipe waits for ever:
it may hold up the log, and not a single request. What nobody takes is held up to a bound, then dropped and counted.
"""

import asyncio
import atexit
import os
from collections.abc import Callable
from io import RawIOBase
from queue import SimpleQueue
from threading import Lock, Thread
from time import monotonic, sleep
from typing import IO

# A line written by itself costs 8 us, and each writing takes the interpreter from the loop: 7 us a request with 0.02.
FLUSH_SECONDS = 0.1
HELD_MAX = 8 << 20  # bytes that wait for a reader
OVERDUE_SECONDS = 0.5  # after which a hand-over that was promised is taken for forgotten
PATIENCE = 2.0  # seconds that the end of a process waits for a reader


class Lines:
    """Call `msg` with a line. A killed process loses the lines of its last moment, not its settlements.

    `out` is best a raw file: a buffered one has a lock, and the interpreter does not end while a thread holds that.
    `on_dropped` hears how many lines were dropped, each time.
    """

    def __init__(self, out: RawIOBase | IO[bytes], on_dropped: Callable[[int], None] = lambda _count: None) -> None:
        self._out = out
        self.on_dropped = on_dropped
        self._pid = os.getpid()
        self._waiting: list[bytes] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # who has promised to hand them over,
        self._due = 0.0  # and until when
        self._batches: SimpleQueue[bytes] = SimpleQueue()
        self._writer: Thread | None = None
        self._writing, self._handing = Lock(), Lock()
        self._handed = self._written = 0  # bytes; each counted up under its own lock
        atexit.register(self.flush)

    def msg(self, line: bytes) -> None:
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        # Not the first line alone: the loop that promised may have ended, and of two threads neither may be the first.
        if len(self._waiting) == 1 or loop is not self._loop or monotonic() > self._due:
            if loop is None:
                self.flush()  # outside of a loop nothing waits
                return
            loop.call_later(FLUSH_SECONDS, self._hand_over)
            self._loop, self._due = loop, monotonic() + OVERDUE_SECONDS

    debug = info = warning = error = critical = msg

    def flush(self) -> None:
        """Write what waits; where a reader is slow, for at most PATIENCE."""
        if os.getpid() != self._pid:
            return  # a copy, made by a fork: the lines are the parent's, and its thread is not here
        if self._writer is None:
            lines, self._waiting = self._waiting, []
            if lines:
                self._write(b"\n".join(lines) + b"\n")
            return
        self._hand_over()
        until = monotonic() + PATIENCE
        while self._written < self._handed and monotonic() < until:
            sleep(0.001)

    def _hand_over(self) -> None:
        with self._handing:  # other threads log too, though seldom
            lines, self._waiting = self._waiting, []
            if not lines:
                return
            if self._handed - self._written > HELD_MAX:
                self.on_dropped(len(lines))
                return
            batch = b"\n".join(lines) + b"\n"
            self._handed += len(batch)
            self._batches.put(batch)
            if self._writer is None:
                self._writer = Thread(target=self._write_on, name="weir log", daemon=True)
                self._writer.start()

    def _write_on(self) -> None:
        while True:
            batch = self._batches.get()
            self._write(batch)
            self._written += len(batch)

    def _write(self, batch: bytes) -> None:
        with self._writing:
            try:
                rest = memoryview(batch)
                while rest:
                    written = self._out.write(rest)
                    if written is None:  # full, and made not to block: trying at once would keep a core busy
                        sleep(FLUSH_SECONDS)
                    else:
                        rest = rest[written:]
            except (OSError, ValueError):  # nobody will ever read it; who serves requests goes on
                self.on_dropped(batch.count(b"\n"))
