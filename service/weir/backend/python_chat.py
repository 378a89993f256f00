"""A function's result as the answer to a chat request: a completion, or the events of a stream."""

import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from typing import Any
from uuid import uuid4

import orjson

from weir.backend.python_run import Run
from weir.backend.results import ChunkMapper, Chunks, Gathering, Json, chunks_of, completion_of, pieces_of

DONE = b"data: [DONE]\n\n"
Write = Callable[[Json], bytes]


def head_of(model: str) -> Json:
    """Of an answer that does not name its own."""
    now = time.time()  # noqa: TID251 - OpenAI's `created` is a date
    return {"id": f"chatcmpl-{uuid4().hex}", "created": int(now), "model": model}


def wants_usage(options: Any) -> bool:
    """A request's `stream_options`."""
    return isinstance(options, dict) and options.get("include_usage") is True


async def answer(
    run: Run,
    result: Any,
    model: str,
    mapper: ChunkMapper | None,
    *,
    stream: bool | None,
    with_usage: bool = False,
    write: Write = orjson.dumps,
) -> Json | AsyncGenerator[bytes, None]:
    """A completion, or a stream's events: as `stream` says, where it is None as the function has answered.

    The first event is there already, so that what fails before it is raised here.
    """
    head = head_of(model)
    whole = completion_of(result, head)
    if whole is not None:
        return _once(_events(chunks_of(whole, with_usage=with_usage), write) + DONE) if stream else whole
    pieces, chunks = pieces_of(result, mapper), Chunks(head, mapper, with_usage=with_usage)
    if stream or (stream is None and pieces is result):
        return await begun(
            streamed(
                run,
                pieces,
                lambda piece: _events(chunks.of(piece), write),
                lambda: _events(chunks.end(), write) + DONE,
            )
        )
    gathering = Gathering(head)
    while (made := await run.next(pieces, chunks.of)) is not None:
        gathering.add(made)
    gathering.add(chunks.end())
    return gathering.completion(chunks.usage)


async def streamed(
    run: Run, pieces: Iterable[Any] | AsyncIterable[Any], of: Callable[[Any], bytes], end: Callable[[], bytes]
) -> AsyncGenerator[bytes, None]:
    """What `of` makes of each piece, and `end` at their end. The next piece is asked for when this one is taken.

    `of` runs where the pieces are made, so that one of a thread costs one hop.
    """
    while (made := await run.next(pieces, of)) is not None:
        if made:
            yield made
    yield end()


async def begun(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same events, after the first one has come; raises what came instead of it."""
    return _behind(await anext(events), events)


def _events(chunks: Iterable[Json], write: Write) -> bytes:
    return b"".join(b"data: " + write(chunk) + b"\n\n" for chunk in chunks)


async def _once(events: bytes) -> AsyncGenerator[bytes, None]:
    yield events


async def _behind(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for events in rest:
            yield events
    finally:
        await rest.aclose()
