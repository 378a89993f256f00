"""A model that says what it heard: for laptops, demonstrations and clients' tests. Embedded; needs nothing.

Words are its tokens, and it counts them honestly. With `tools` it calls the first (every one of them, if
`parallel_tool_calls` is true), with a JSON schema as `response_format` it answers with an object of that form.
"""

import asyncio
import base64
import hashlib
import re
import struct
import time
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any

import orjson

from weir.backend.backend import BackendResponse, Call, Sink
from weir.core.asgi import Headers
from weir.core.types import Endpoint

WORD = re.compile(r"\S+\s*")
DIMENSIONS = 64
INLINE_MAX = 64 * 1024  # bytes of a request that is answered on the spot
# A few bytes may ask for much; with these bounds it is less than a tenth of a second.
ANSWERS_MAX = 2048  # of one request, and vectors; OpenAI takes as many inputs
NUMBERS_MAX = 200_000  # in all vectors of one answer
SAMPLE_MAX = 10_000  # values in an answer of a form
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
NOBODY_SPOKE = "Say something, and I will say it too."

# Requests are other people's JSON, of any shape: Any is its honest type.
Json = dict[str, Any]


class EchoBackend:
    """See `Backend`. `delay_seconds` passes before each word of a stream."""

    def __init__(self, *, delay_seconds: float = 0.0) -> None:
        self._delay = delay_seconds

    def send(self, endpoint: Endpoint, call: Call) -> "_Echo":  # noqa: ARG002 - the port's form
        return _Echo(call, self._delay)

    async def close(self) -> None:
        """Nothing is open."""


class _Echo:
    """The block and the answer in one."""

    __slots__ = ("_call", "_delay", "_pieces", "content_type", "headers", "status")

    def __init__(self, call: Call, delay: float) -> None:
        self._call = call
        self._delay = delay
        self.headers: Headers = []

    async def __aenter__(self) -> BackendResponse:
        # A model at work is elsewhere, too: what takes long must not keep the loop.
        call = self._call
        small = call.size <= INLINE_MAX
        self.status, self.content_type, answer = _answer(call) if small else await asyncio.to_thread(_answer, call)
        self._pieces = _once(answer) if isinstance(answer, bytes) else _paced(answer, self._delay)
        return self

    async def read(self) -> bytes:
        async for piece in self._pieces:
            return piece
        return b""

    async def pump(self, sink: Sink) -> None:
        async for piece in self._pieces:
            rest = sink(piece)
            if rest is not None:
                await rest

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pieces.aclose()  # type: ignore[attr-defined]  # both are generators


def _answer(call: Call) -> tuple[int, bytes, bytes | Iterator[Json]]:
    """Status, content type, and the whole answer or its events."""
    try:
        answer = ANSWERS[call.path](orjson.loads(call.whole))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        refusal = {
            "message": f"The echo model does not understand this: {error!r}",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
        return 400, JSON, orjson.dumps({"error": refusal})
    return (200, JSON, orjson.dumps(answer)) if isinstance(answer, dict) else (200, EVENTS, answer)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _paced(events: Iterator[Json], delay: float) -> AsyncIterator[bytes]:
    for event in events:
        if delay:
            await asyncio.sleep(delay)
        yield b"data: " + orjson.dumps(event) + b"\n\n"
    yield b"data: [DONE]\n\n"


# -- chat ------------------------------------------------------------------------------------------------------------


def _chat(request: Json) -> Json | Iterator[Json]:
    messages = request["messages"]
    heard = _last_words(messages)
    prompt = sum(len(WORD.findall(_text(message.get("content")))) for message in messages)
    calls = _tool_calls(request, heard)
    said, finish = ([], "tool_calls") if calls else _spoken(request, _shaped(request, heard))
    choices = int(request.get("n") or 1)
    tokens = len(said) or sum(len(WORD.findall(call["function"]["arguments"])) for call in calls)
    usage = _usage(prompt, tokens * choices)
    head = _head(request, "chatcmpl")
    if request.get("stream"):
        return _chat_events(request, {**head, "object": "chat.completion.chunk"}, said, calls, finish, choices, usage)
    message: Json = {"role": "assistant", "content": "".join(said) if said else None}
    if calls:
        message["tool_calls"] = calls
    return {
        **head,
        "object": "chat.completion",
        "choices": [
            {"index": i, "message": message, "logprobs": None, "finish_reason": finish} for i in range(choices)
        ],
        "usage": usage,
    }


def _chat_events(
    request: Json, head: Json, said: list[str], calls: list[Json], finish: str, choices: int, usage: Json
) -> Iterator[Json]:
    def event(index: int, delta: Json, finish_reason: str | None = None) -> Json:
        return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish_reason}]}

    for i in range(choices):
        yield event(i, {"role": "assistant", "content": None if calls else ""})
    for word in said:
        for i in range(choices):
            yield event(i, {"content": word})
    for number, call in enumerate(calls):
        for i in range(choices):
            start = {**call["function"], "arguments": ""}
            yield event(i, {"tool_calls": [{"index": number, "id": call["id"], "type": "function", "function": start}]})
            for piece in WORD.findall(call["function"]["arguments"]):
                yield event(i, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
    for i in range(choices):
        yield event(i, {}, finish)
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": usage}


def _tool_calls(request: Json, heard: str) -> list[Json]:
    tools = [tool["function"] for tool in request.get("tools") or [] if tool.get("type") == "function"]
    choice = request.get("tool_choice")
    if not tools or choice == "none" or request["messages"][-1].get("role") == "tool":
        return []
    if isinstance(choice, dict):
        tools = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    elif request.get("parallel_tool_calls") is not True:
        tools = tools[:1]
    return [
        {
            "id": "call_" + hashlib.sha256(f"{number} {heard}".encode()).hexdigest()[:24],
            "type": "function",
            "function": {
                "name": tool["name"],
                "arguments": orjson.dumps(_Form(heard, form := tool.get("parameters") or {}).sample(form)).decode(),
            },
        }
        for number, tool in enumerate(tools)
    ]


def _shaped(request: Json, heard: str) -> str:
    """What was heard, in the form that was asked for."""
    form = request.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema = form["json_schema"].get("schema") or {}
        return orjson.dumps(_Form(heard, schema).sample(schema)).decode()
    if form.get("type") == "json_object":
        return orjson.dumps({"echo": heard}).decode()
    return heard


class _Form:
    """A value of a JSON schema, with what was heard wherever a text fits; nothing fancy, but it validates."""

    def __init__(self, heard: str, root: Json) -> None:
        self._heard = heard
        self._root = root
        self._left = SAMPLE_MAX

    def sample(self, schema: Json, depth: int = 0) -> Any:  # noqa: C901 - one kind of schema after another
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"the form has more than {SAMPLE_MAX} values")
        if depth > 20:
            return None
        if "$ref" in schema:
            found = self._root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            return self.sample(found, depth + 1)
        for choice in ("anyOf", "oneOf", "allOf"):
            if schema.get(choice):
                return self.sample(schema[choice][0], depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = schema.get("type", "object" if "properties" in schema else "string")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            properties = schema.get("properties") or {}
            return {name: self.sample(inner, depth + 1) for name, inner in properties.items()}
        if kind == "array":
            return [self.sample(schema.get("items") or {}, depth + 1) for _ in range(schema.get("minItems") or 1)]
        # 1 is a number, too, and who wanted a whole one and said "number" is content.
        plain: Json = {"integer": schema.get("minimum", 1), "number": schema.get("minimum", 1), "boolean": True}
        return plain.get(kind, None if kind == "null" else self._heard)


# -- the rest --------------------------------------------------------------------------------------------------------


def _completion(request: Json) -> Json | Iterator[Json]:
    prompt = request["prompt"]
    prompts = prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
    texts = [_text(one) if not isinstance(one, list) else " ".join(map(str, one)) for one in prompts]
    choices = int(request.get("n") or 1)
    if len(texts) * choices > ANSWERS_MAX:
        raise ValueError(f"at most {ANSWERS_MAX} answers, and this asks for {len(texts) * choices}")
    answers = [said for text in texts for said in [_spoken(request, text)] * choices]
    usage = _usage(sum(len(WORD.findall(text)) for text in texts), sum(len(said) for said, _ in answers))
    head = {**_head(request, "cmpl"), "object": "text_completion"}
    if request.get("stream"):
        return _completion_events(request, head, answers, usage)
    return {
        **head,
        "choices": [
            {"index": i, "text": "".join(said), "logprobs": None, "finish_reason": finish}
            for i, (said, finish) in enumerate(answers)
        ],
        "usage": usage,
    }


def _completion_events(request: Json, head: Json, answers: list[tuple[list[str], str]], usage: Json) -> Iterator[Json]:
    for i, (said, finish) in enumerate(answers):
        for word in said:
            yield {**head, "choices": [{"index": i, "text": word, "logprobs": None, "finish_reason": None}]}
        yield {**head, "choices": [{"index": i, "text": "", "logprobs": None, "finish_reason": finish}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": usage}


def _embedding(request: Json) -> Json:
    given = request["input"]
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    size = int(request.get("dimensions") or DIMENSIONS)
    if not 1 <= size <= 4096:
        raise ValueError("dimensions must be between 1 and 4096")
    if len(inputs) > ANSWERS_MAX or len(inputs) * size > NUMBERS_MAX:
        raise ValueError(f"at most {ANSWERS_MAX} inputs and {NUMBERS_MAX} numbers in all")
    vectors = [_vector(orjson.dumps(one), size) for one in inputs]
    as_text = request.get("encoding_format") == "base64"
    tokens = sum(len(one) if isinstance(one, list) else len(WORD.findall(str(one))) for one in inputs)
    return {
        "object": "list",
        "model": request["model"],
        "data": [
            {
                "object": "embedding",
                "index": i,
                "embedding": base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if as_text else vector,
            }
            for i, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vector(text: bytes, size: int) -> list[float]:
    """Same text, same direction; unit length, as embeddings have it."""
    raw = hashlib.shake_256(text).digest(size * 2)
    numbers = [number / 32768.0 for number in struct.unpack(f"<{size}h", raw)]
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [number / length for number in numbers]


def _spoken(request: Json, text: str) -> tuple[list[str], str]:
    """The words of an answer within its limits, and why it ends."""
    stops = request.get("stop") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0]
    words = WORD.findall(text)
    most = request.get("max_completion_tokens") or request.get("max_tokens")
    if most is not None and len(words) > most:
        return words[:most], "length"
    return words, "stop"


def _last_words(messages: list[Json]) -> str:
    for message in reversed(messages):
        if message.get("role") in ("user", "tool") and (text := _text(message.get("content"))):
            return text
    return NOBODY_SPOKE


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text") or "" for part in content if isinstance(part, dict)).strip()
    return content if isinstance(content, str) else ""


def _usage(prompt: int, completion: int) -> Json:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _head(request: Json, kind: str) -> Json:
    # Wall time: OpenAI's `created` is a date.
    now = time.time()  # noqa: TID251
    return {"id": f"{kind}-{int(now * 1000):x}", "created": int(now), "model": request["model"]}


ANSWERS = {"/chat/completions": _chat, "/completions": _completion, "/embeddings": _embedding}
