"""A backend that says what a test wrote down, step by step."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

from weir.backend import BackendResponse, Call
from weir.core.asgi import Headers
from weir.core.types import Endpoint

EVENTS = b"text/event-stream"
JSON = b"application/json"


class Pause:
    """Silence until `go()`. `reached` is set when the gateway has come here."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    def go(self) -> None:
        self._released.set()

    async def passed(self) -> None:
        self.reached.set()
        await self._released.wait()


@dataclass(frozen=True)
class Silence:
    """So many seconds of nothing."""

    seconds: float


@dataclass(frozen=True)
class Die:
    """The call or the read raises this."""

    error: Exception


@dataclass(frozen=True)
class Head:
    """The answer's beginning. What stands before it in a script happens while the gateway waits for an answer."""

    status: int = 200
    content_type: bytes = EVENTS
    headers: tuple[tuple[bytes, bytes], ...] = ()


HANG = Silence(float("inf"))
Step = bytes | Head | Pause | Silence | Die


class ScriptedBackend:
    """See `weir.backend.Backend`. Without a `Head` the script begins with the head of an event stream."""

    def __init__(self, *script: Step) -> None:
        self.script = script
        self.visits: list[Visit] = []

    def send(self, endpoint: Endpoint, call: Call) -> "Visit":
        visit = Visit(endpoint, call, list(self.script))
        self.visits.append(visit)
        return visit

    async def close(self) -> None:
        """Nothing is open."""

    @property
    def visit(self) -> "Visit":
        """The only one."""
        (visit,) = self.visits
        return visit


@dataclass
class Visit:
    """One call: the block and the answer in one. `aborted` says that it was left before its end, as an upstream sees
    a client leave; `reads` counts how often the gateway asked for bytes.
    """

    endpoint: Endpoint
    call: Call
    script: list[Step]
    status: int = 0
    content_type: bytes = b""
    headers: Headers = field(default_factory=list)
    reads: int = 0
    ended: bool = False
    entered: bool = False
    left: bool = False

    @property
    def aborted(self) -> bool:
        return self.left and not self.ended

    async def __aenter__(self) -> BackendResponse:
        self.entered = True
        try:
            head = await self._head()
        except BaseException:
            self.left = True
            raise
        self.status, self.content_type, self.headers = head.status, head.content_type, list(head.headers)
        return self

    async def _head(self) -> Head:
        if any(isinstance(step, Head) for step in self.script):
            while not isinstance(self.script[0], Head):
                await self._act(self.script.pop(0))
            return self.script.pop(0)  # type: ignore[return-value]
        if not any(isinstance(step, bytes) for step in self.script):
            while self.script:
                await self._act(self.script.pop(0))
        return Head()

    async def read(self) -> bytes:
        assert not self.left, "read after the block was left"
        self.reads += 1
        while self.script:
            step = self.script.pop(0)
            if isinstance(step, bytes):
                return step
            await self._act(step)
        self.ended = True
        return b""

    async def pump(self, sink: Callable[[bytes], Awaitable[None] | None]) -> None:
        while piece := await self.read():
            rest = sink(piece)
            if rest is not None:
                await rest

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert not self.left, "the block was left twice"
        self.left = True

    async def _act(self, step: Step) -> None:
        if isinstance(step, Pause):
            await step.passed()
        elif isinstance(step, Silence):
            if step.seconds == float("inf"):
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Die):
            self.ended = True
            raise step.error
        else:
            raise AssertionError(f"a script has one head, and bytes only after it: {step!r}")
