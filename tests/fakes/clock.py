"""Time that passes only when a test says so, or when there is nothing left to do."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 20_000.0  # virtual seconds; whoever waits longer waits for nothing


class ManualClock:
    """Stands still until `advance`. Called it gives seconds, `microseconds` the same for limiters."""

    def __init__(self, seconds: float = 1_000.0) -> None:
        self._microseconds = round(seconds * 1_000_000)

    def __call__(self) -> float:
        return self._microseconds / 1_000_000

    def microseconds(self) -> int:
        return self._microseconds

    def advance(self, seconds: float) -> None:
        self._microseconds += round(seconds * 1_000_000)


class _Leaping(selectors.BaseSelector):
    """Never waits: where a real selector would sleep, this one moves the loop's time forward."""

    def __init__(self) -> None:
        self._inner = selectors.SelectSelector()
        self.now = 1_000.0
        self._give_up = self.now + PATIENCE

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._inner.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            raise AssertionError("everybody waits, and nobody will ever wake anybody")
        self.now += timeout + 1e-9
        if self.now > self._give_up:
            self._give_up = self.now + PATIENCE
            raise AssertionError(f"{PATIENCE:g} virtual seconds have passed, and still something waits")
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def close(self) -> None:
        self._inner.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time leaps to the next timer when nothing else is to be done.

    An hour's timeout takes no time, is hit exactly, and a test that would hang fails at once.
    """

    def __init__(self) -> None:
        self._leaping = _Leaping()
        super().__init__(self._leaping)

    def time(self) -> float:
        return self._leaping.now


def run(play: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a play to its end on a loop of its own, strictly: what a task of it raised unheard is raised here."""
    unheard: list[dict[str, Any]] = []

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        unheard.append(context)

    async def listened() -> T:
        asyncio.get_running_loop().set_exception_handler(note)
        return await play()

    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        result = runner.run(listened())
    assert not unheard, f"a task ended with an error that nobody heard: {unheard}"
    return result
