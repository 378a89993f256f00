"""What each engine says: a whole answer, a stream, a stream that fails, and refusals, byte by byte.

The rows are in `clouds.py` and `servers.py`. None is a recording: each is written after the documentation or source that
`source` names; the texts, ids and numbers are ours, the order of keys and the oddities theirs. Streams of chat are those
of `tests/fakes/streams.py`.
"""

from typing import Any, NamedTuple

import orjson

from tests.fakes.streams import Stream


class Refusal(NamedTuple):
    """`words` are those of it that a person reads."""

    status: int
    body: bytes
    words: str


class Says(NamedTuple):
    """`path` is what it is asked, below /v1; `usage` are all tokens of the whole answer. `broken` is a stream that
    fails in its middle, with these `last_words`.
    """

    engine: str
    source: str
    path: str
    answer: bytes
    usage: int
    refusals: tuple[Refusal, ...]
    stream: Stream | None = None
    broken: Stream | None = None
    last_words: str = ""


CHAT, EMBEDDINGS, MESSAGES = "/chat/completions", "/embeddings", "/messages"
WORDS = "A weir holds a river."


def refusal(status: int, words: str, **said: Any) -> Refusal:
    """`said` is the body, with `words` wherever it has "..."."""
    return Refusal(status, orjson.dumps(_filled(said, words)), words)


def broken(engine: str, source: str, error: bytes) -> Stream:
    """A beginning, and then this."""
    head = {"id": "chatcmpl-8d1f", "object": "chat.completion.chunk", "created": 1760000000, "model": "llama-3.3-70b"}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "A weir"}, "finish_reason": None}
    begin = b"data: " + orjson.dumps({**head, "choices": [delta]}) + b"\n\n"
    return Stream(engine, source, begin + error, None, finished=False, error=True)


def _filled(said: Any, words: str) -> Any:
    if isinstance(said, dict):
        return {name: _filled(value, words) for name, value in said.items()}
    return words if said == "..." else said


def chat(message: dict[str, Any], usage: dict[str, Any], choice: dict[str, Any], **more: Any) -> bytes:
    first = {"index": 0, "message": {"role": "assistant", "content": WORDS, **message}, "finish_reason": "stop"}
    head = {"id": "chatcmpl-8d1f", "object": "chat.completion", "created": 1760000000, "model": "llama-3.3-70b"}
    return orjson.dumps({**head, "choices": [{**first, **choice}], **more, "usage": usage})


def used(prompt: int, completion: int, **details: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }


TOO_LONG = "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens."
