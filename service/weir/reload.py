"""Watches the configuration's file, and hands on what is good in it while requests run.

A ConfigMap is changed by swapping a symlink, an editor writes or replaces the file: all of it shows in what `stat` says
of the path. It is asked once a second, and a change is taken when the file has been at rest for one turn.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from weir.settings import BadSettings, Settings

SECONDS = 1.0

Fingerprint = tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings come from: the file that is watched, and how to read it together with environment and flags."""

    path: Path
    read: Callable[[], Settings]  # raises BadSettings
    seen: Fingerprint  # of what was read at start; taken before reading, so that no change falls in between


class Reload:
    """`apply` makes settings live; `refused` hears everything that is wrong with those that are not taken."""

    def __init__(
        self, source: Source, apply: Callable[[Settings], Awaitable[None]], refused: Callable[[list[str]], None]
    ) -> None:
        self._source = source
        self._apply = apply
        self._refused = refused
        self._taken = self._seen = source.seen

    async def tend(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.look()

    async def look(self) -> None:
        """Once: take what has changed and come to rest since."""
        now = fingerprint(self._source.path)
        before, self._seen = self._seen, now
        if now == self._taken or now != before:
            return
        self._taken = now
        try:
            # Reading takes as long as some hundred requests.
            await self._apply(await asyncio.to_thread(self._source.read))
        except BadSettings as bad:
            self._refused([str(problem) for problem in bad.problems])
        except Exception as bug:  # noqa: BLE001 - whatever is in this file, the next one is read
            # Here, because prometheus_client may not be there before `weir serve` has made a directory for its workers.
            from weir.telemetry.logs import where  # noqa: PLC0415

            self._refused([f"{type(bug).__name__} in {where(bug)[-1]}"])  # its text may quote what is in the file


def fingerprint(path: Path) -> Fingerprint:
    """None where there is no file, which between two steps of a swap can be so."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
