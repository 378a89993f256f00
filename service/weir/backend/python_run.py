"""One call of a Python function, and what it gives, piece by piece: blocking code in a thread, the rest on the loop."""

import asyncio
import contextvars
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NamedTuple, TypeVar

from weir.backend.python_threads import Lane, Threads
from weir.backend.results_refused import place_of

T = TypeVar("T")
CLOSE_SECONDS = 1.0  # for an asynchronous generator's own ending

_log = logging.getLogger("weir.backend")
_END: Any = object()


class Escaped(Exception):
    """A function let out what is meant for a task or the process: a cancellation that nobody asked for, or an exit."""


class Function(NamedTuple):
    """What is called, and how: `headers_by` says whether it takes a request's headers, and in which way."""

    call: Callable[..., Any]
    on_loop: bool
    headers_by: Literal["keyword", "position"] | None

    @classmethod
    def of(cls, call: Callable[..., Any]) -> "Function":
        """Coroutine and asynchronous generator functions run on the loop, all else in a thread."""
        inner = call if inspect.isroutine(call) or isinstance(call, type) else getattr(call, "__call__", call)  # noqa: B004 - its kind is asked, not whether it is there
        on_loop = any(
            ask(one) for ask in (inspect.iscoroutinefunction, inspect.isasyncgenfunction) for one in (call, inner)
        )
        return cls(call, on_loop, _headers_by(call))

    def arguments(self, model: str, messages: Any, body: Any, headers: dict[str, str]) -> tuple[Any, dict[str, Any]]:
        if self.headers_by == "position":
            return (model, messages, body, headers), {}
        return (model, messages, body), {"headers": headers} if self.headers_by else {}


def _headers_by(call: Callable[..., Any]) -> Literal["keyword", "position"] | None:
    """A fourth argument with a default is an option of the function's own, and no place for headers."""
    try:
        parameters = inspect.signature(call).parameters
    except (TypeError, ValueError):  # some built-in functions have none
        return None
    named = parameters.get("headers")
    if named is not None and named.kind is not named.POSITIONAL_ONLY:
        return "keyword"
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return "keyword"
    places = [one for one in parameters.values() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return "position" if len(places) == 4 and places[3].default is inspect.Parameter.empty else None


class Run:
    """Give it back by `close`, whatever happened. Its steps come one after another, and see one set of contextvars."""

    __slots__ = ("_context", "_lane", "_latest", "_source", "_threads")

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._context = contextvars.copy_context()
        self._lane: Lane | None = None
        self._latest: Any = None  # what was given last, which may have to be closed though nobody waited for it
        self._source: Iterator[Any] | AsyncIterator[Any] | None = None

    async def call(self, function: Function, *arguments: Any, **named: Any) -> Any:
        """Raises what the function raises."""

        def step() -> Any:
            self._latest = function.call(*arguments, **named)
            return self._latest

        with _contained():
            result = step() if function.on_loop else await self._blocking(step)
            if inspect.isawaitable(result):
                result = self._latest = await result
            return result

    async def next(self, pieces: Iterable[Any] | AsyncIterable[Any], make: Callable[[Any], T]) -> T | None:
        """`make` of the next of `pieces`, None at their end. The same pieces each time."""

        def step() -> T | None:
            if self._source is None:
                self._source = iter(pieces)  # type: ignore[arg-type]  # the other kind is below
            piece = next(self._source, _END)  # type: ignore[arg-type]  # likewise
            return None if piece is _END else make(piece)

        with _contained():
            if not isinstance(pieces, AsyncIterable):
                return await self._blocking(step)
            if self._source is None:
                self._source = aiter(pieces)
            piece = await anext(self._source, _END)  # type: ignore[arg-type]  # made one line above
            return None if piece is _END else make(piece)

    async def close(self) -> None:
        """End what still runs. A thread's generator is closed in its thread, after the step that it is in."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.leave(self._close_blocking)
        elif self._source is None:
            self._close_blocking()
        source = self._source
        end = getattr(source, "aclose", None) or (getattr(source, "close", None) if _is_async(source) else None)
        if end is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                ending = end()
                if inspect.isawaitable(ending):
                    await ending
        except Exception as error:  # noqa: BLE001 - other people's code, and there is nobody left to tell
            _log.warning("a function's generator failed when it was closed: %s", place_of(error))

    async def _blocking(self, step: Callable[[], T]) -> T:
        if self._lane is None:
            self._lane = self._threads.take()
        return await self._lane.run(lambda: self._context.run(step))

    def _close_blocking(self) -> None:
        for thing in (self._source, self._latest):
            if hasattr(thing, "__next__") or inspect.iscoroutine(thing):
                try:
                    with suppress(AttributeError):  # an iterator has a close() only if it is a generator
                        self._context.run(thing.close)  # type: ignore[union-attr]  # the line above
                except (Exception, SystemExit) as error:  # noqa: BLE001 - as in `close`, and an exit would end the thread
                    _log.warning("a function's generator failed when it was closed: %s", place_of(error))


class Hooked(NamedTuple):
    """A function with what stands around it: what a hook returns takes the place of what it got, None leaves it."""

    function: Function
    pre_hook: Function | None = None
    post_hook: Function | None = None

    @classmethod
    def of(cls, call: Callable[..., Any], pre: Callable[..., Any] | None, post: Callable[..., Any] | None) -> "Hooked":
        return cls(Function.of(call), pre and Function.of(pre), post and Function.of(post))

    async def ask(
        self, run: Run, request: T, asked: Callable[[T], tuple[str, Any, Any]], headers: dict[str, str]
    ) -> tuple[T, Any]:
        """The request as it was answered, and what came. `asked` gives model, messages and body of a request."""
        if self.pre_hook is not None:
            changed = await run.call(self.pre_hook, request)
            request = request if changed is None else changed
        arguments, named = self.function.arguments(*asked(request), headers)
        result = await run.call(self.function, *arguments, **named)
        if self.post_hook is not None:
            changed = await run.call(self.post_hook, result)
            result = result if changed is None else changed
        return request, result


def _is_async(source: object) -> bool:
    return hasattr(source, "__anext__")


@contextmanager
def _contained() -> Iterator[None]:
    try:
        yield
    except (SystemExit, GeneratorExit) as error:
        raise Escaped(type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Escaped("CancelledError") from error
