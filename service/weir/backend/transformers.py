"""A local Hugging Face model in this process, by transformers and torch: the extra `local`. Chat and text completions.

One answer at a time, made in a thread of the model's own, token by token; the others wait in its line. A client that
leaves is out of the line, or ends what is made for it at the next token. What is made is kept for a client that reads
slowly: it is never more than one answer, and the next one need not wait for that client.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from types import TracebackType

import orjson

from weir.backend.backend import BackendResponse, Call, Sink
from weir.backend.python_chat import begun
from weir.backend.python_threads import Lane, Threads
from weir.backend.results_refused import Refusal, place_of, refusal_of
from weir.backend.transformers_answer import CHAT, TEXT, Totals, Writer
from weir.backend.transformers_model import BadModel, Device, Dtype, LocalModel, Options, check, load
from weir.backend.transformers_request import Asked, read
from weir.core.asgi import Headers
from weir.core.errors import UpstreamFailed
from weir.core.types import Endpoint

JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
FAILED = "The model in this process failed."
NOT_LOADED = "The model could not be loaded; the platform team sees why."

__all__ = ["BadModel", "TransformersBackend", "check"]


class TransformersBackend:
    """See `Backend`. `model` is a folder, or a name at the Hugging Face hub. Raises BadModel."""

    serves = frozenset({"chat", "text_completion"})

    def __init__(
        self, model: str, *, device: Device = "auto", dtype: Dtype = "auto", threads: int | None = None
    ) -> None:
        check(model)
        self._name = model
        self._options = Options(device, dtype, threads)
        self._threads = Threads(1)
        self._loading: asyncio.Future[LocalModel] | None = None

    async def ready(self) -> LocalModel:
        """The model, loaded in its thread when this is first awaited. Raises BadModel, then and ever after."""
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load())
        # Whoever asked first may leave; the others still want it.
        return await asyncio.shield(self._loading)

    def send(self, endpoint: Endpoint, call: Call) -> "_Answer":
        return _Answer(self, endpoint, call)

    async def close(self) -> None:
        """What is under way goes on to its end, and its thread with it."""
        self._threads.close()

    def take(self) -> Lane:
        """A place in the model's line. Give it back by `Lane.leave`."""
        return self._threads.take()

    async def _load(self) -> LocalModel:
        lane = self.take()
        try:
            return await lane.run(lambda: load(self._name, self._options))
        finally:
            lane.leave(_nothing_more)


class _Run:
    """One generation: made in the model's thread, heard on the loop."""

    def __init__(self, model: LocalModel, lane: Lane, asked: Asked) -> None:
        self._model = model
        self._lane = lane
        self._asked = asked
        self._left = False
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[str | None] = asyncio.Queue()
        self._work = asyncio.ensure_future(lane.run(self._generate))
        self._work.add_done_callback(self._done)

    async def texts(self) -> AsyncIterator[str]:
        """As they come."""
        while (text := await self._heard.get()) is not None:
            yield text

    def totals(self) -> Totals:
        """After the last text; raises what the generation raised."""
        return self._work.result()

    def leave(self) -> None:
        """End it: at once where it waits, else at the next token."""
        self._left = True
        self._work.cancel()
        self._lane.leave(_nothing_more)

    def _generate(self) -> Totals:
        return self._model.generate(self._asked, self._tell, lambda: self._left)

    def _tell(self, text: str) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._heard.put_nowait, text)

    def _done(self, work: "asyncio.Future[Totals]") -> None:
        if not work.cancelled():
            work.exception()  # seen, though nobody may be there to be told
        self._heard.put_nowait(None)


class _Answer:
    """The block and the answer in one."""

    __slots__ = ("_backend", "_call", "_endpoint", "_pieces", "_run", "content_type", "headers", "status")

    def __init__(self, backend: TransformersBackend, endpoint: Endpoint, call: Call) -> None:
        self._backend = backend
        self._endpoint = endpoint
        self._call = call
        self._run: _Run | None = None
        self._pieces: AsyncGenerator[bytes, None] = _once(b"")
        self.status, self.content_type = 200, JSON
        self.headers: Headers = []

    async def __aenter__(self) -> BackendResponse:
        try:
            await self._begin()
        except BadModel as error:
            raise UpstreamFailed(NOT_LOADED, reason=str(error)) from error
        except Exception as error:
            await self._leave()
            refusal = refusal_of(error)
            if refusal is None:
                raise UpstreamFailed(FAILED, reason=place_of(error)) from error
            self._refuse(refusal)
        except BaseException:
            await self._leave()
            raise
        return self

    async def read(self) -> bytes:
        try:
            return await anext(self._pieces, b"")
        except Exception as error:
            raise UpstreamFailed(FAILED, reason=place_of(error)) from error

    async def pump(self, sink: Sink) -> None:
        while piece := await self.read():
            rest = sink(piece)
            if rest is not None:
                await rest

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._leave()

    async def _leave(self) -> None:
        await self._pieces.aclose()
        run, self._run = self._run, None
        if run is not None:
            run.leave()

    def _refuse(self, refusal: Refusal) -> None:
        self.status, self.content_type = refusal.status, JSON
        self._pieces = _once(orjson.dumps({"error": refusal.error}))

    async def _begin(self) -> None:
        """Ask, and wait for the first text: until it is there, a failure is a status."""
        asked = read(self._call.path, self._call.whole)
        model = await self._backend.ready()
        self._run = run = _Run(model, self._backend.take(), asked)
        now = time.time()  # noqa: TID251 - OpenAI's `created` is a date
        writer = Writer(TEXT if asked.messages is None else CHAT, self._endpoint.model, int(now))
        if asked.stream:
            self._pieces = await begun(_events(run, writer, with_usage=asked.with_usage))
            self.content_type = EVENTS
        else:
            text = "".join([text async for text in run.texts()])
            self._pieces = _once(writer.whole(text, run.totals()))


async def _events(run: _Run, writer: Writer, *, with_usage: bool) -> AsyncGenerator[bytes, None]:
    async for text in run.texts():
        yield writer.piece(text)
    yield writer.end(run.totals(), with_usage=with_usage)


async def _once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


def _nothing_more() -> None:
    """The last job of a place in the line."""
