"""What a Python function gives, as OpenAI's objects: a `chat.completion`, or its `chat.completion.chunk`s. Pure.

Everything is known by its form, never by its class, so that no framework has to be installed: OpenAI's objects by
`model_dump`, Haystack's `StreamingChunk` by `content`, `tool_calls`, `reasoning` and `finish_reason`.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

COMPLETION, CHUNK = "chat.completion", "chat.completion.chunk"

# What functions give is of any shape: Any is its honest type.
Json = dict[str, Any]
ChunkMapper = Callable[[Any], str]


class NoAnswer(TypeError):
    """A function gave what is no answer in any form that we know."""


class AsItIs:
    """A type that stands for itself: it is passed on, also where a mapper was given for the function's own chunks."""


def as_json(thing: Any) -> Json | None:
    """A dictionary, or what a pydantic model writes; None for all else."""
    if isinstance(thing, Mapping):
        return dict(thing)
    dump = getattr(thing, "model_dump", None)
    if not callable(dump) or isinstance(thing, type):
        return None
    dumped = dump(mode="json")
    return dumped if isinstance(dumped, dict) else None


def text_of(chunk: Any) -> str:
    """The mapper where none was given: a text, what has `.content`, or else its `str`."""
    if isinstance(chunk, str):
        return chunk
    content = getattr(chunk, "content", "" if chunk is None else chunk)
    return "" if content is None else str(content)


def completion_of(result: Any, head: Json) -> Json | None:
    """A whole answer; None where this is none, and may be one in pieces.

    `head` are id, date and model, for what does not name its own.
    """
    if isinstance(result, str):
        message = {"role": "assistant", "content": result}
        return {**head, "object": COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    given = as_json(result)
    if given is None or "choices" not in given or given.get("object") == CHUNK:
        return None
    return {**head, "object": COMPLETION, **given}


def pieces_of(result: Any, mapper: ChunkMapper | None) -> Iterable[Any] | AsyncIterable[Any]:
    """What is no whole answer: the pieces of one. Raises NoAnswer."""
    if isinstance(result, AsyncIterable):
        return result
    if not _is_piece(result) and isinstance(result, Iterable) and not isinstance(result, bytes | bytearray | Mapping):
        return result
    if result is not None and (_is_piece(result) or mapper is not None):
        return (result,)
    raise NoAnswer(f"a function gave {type(result).__name__}, which is no answer")


def _is_piece(thing: Any) -> bool:
    """One piece, though it may be iterable, as pydantic's models are."""
    if hasattr(thing, "__next__"):
        return False
    given = as_json(thing)
    return (given is not None and "choices" in given) or any(
        getattr(thing, name, None) is not None for name in ("content", "to_event_dict", "reasoning")
    )


class Chunks:
    """The pieces of one answer as the events of its stream, one after another.

    The finish reason is "stop" unless a piece brings another one. `usage` is what a piece has said: nothing is counted.
    """

    def __init__(self, head: Json, mapper: ChunkMapper | None = None, *, with_usage: bool = False) -> None:
        self.usage: Json | None = None
        self._head = {**head, "object": CHUNK}
        self._mapper = mapper
        self._with_usage = with_usage
        self._begun = False
        self._finished = False

    def of(self, piece: Any) -> list[Json]:
        """None for a piece that only tells usage; an event of the function's own is {"event": ...}."""
        if self._mapper is None or isinstance(piece, AsItIs):
            given = as_json(piece)
            if given is not None and "choices" in given:
                return self._passed_on(given)
        event = getattr(piece, "to_event_dict", None)
        if callable(event):
            return [{"event": event()}]
        told = self._note_usage(piece)
        finish = _finish_reason(piece)
        delta = self._delta(piece)
        if told and finish is None and delta == {"content": ""}:
            return []
        return [self._chunk(delta, finish)]

    def end(self) -> list[Json]:
        """What is still missing: a finish reason, and the usage if somebody asked for it."""
        events = [] if self._finished else [self._chunk({"content": ""}, "stop")]
        if self._with_usage and self.usage is not None:
            events.append({**self._head, "choices": [], "usage": self.usage})
        return events

    def _delta(self, piece: Any) -> Json:
        reasoning = reasoning_of(piece)
        calls = None if isinstance(piece, str) else getattr(piece, "tool_calls", None)
        if reasoning is None and not calls:
            return {"content": (self._mapper or text_of)(piece)}
        content = getattr(piece, "content", None)
        delta: Json = {"content": content if isinstance(content, str) and content else None}
        if reasoning is not None:
            delta["reasoning_content"] = reasoning
        if calls:
            delta["tool_calls"] = [tool_call(call, number) for number, call in enumerate(calls)]
        return delta

    def _chunk(self, delta: Json, finish: str | None) -> Json:
        # Once: clients that join deltas key by key would read "assistantassistant".
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", **delta}
        self._finished = self._finished or finish is not None
        return {**self._head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    def _passed_on(self, given: Json) -> list[Json]:
        """OpenAI's own object, as it is; but its usage chunk comes at the end, and only for those who asked."""
        if given.get("usage"):
            self.usage = given["usage"]
            if not given["choices"]:
                return []
        if given.get("object") == COMPLETION:
            given = {key: value for key, value in given.items() if key != "usage"}
            chunks = list(chunks_of(given))
        else:
            choices = [{"finish_reason": None, **choice} for choice in given["choices"]]
            chunks = [{**self._head, **given, "choices": choices}]
        self._begun = True
        self._finished = self._finished or any(
            choice["finish_reason"] is not None for chunk in chunks for choice in chunk["choices"]
        )
        return chunks

    def _note_usage(self, piece: Any) -> bool:
        told = usage_of(piece)
        if told is not None:
            self.usage = told
        return told is not None


def usage_of(piece: Any) -> Json | None:
    """As OpenAI's objects have it, or Haystack's chunks in their `meta`."""
    meta = getattr(piece, "meta", None)
    told = as_json(getattr(piece, "usage", None) or (meta.get("usage") if isinstance(meta, Mapping) else None))
    return told or None


def reasoning_of(piece: Any) -> str | None:
    """The text of `.reasoning`; None where there is none."""
    reasoning = getattr(piece, "reasoning", None)
    text = getattr(reasoning, "reasoning_text", None)
    return (text if isinstance(text, str) else str(reasoning or "")) or None


def tool_call(call: Any, number: int) -> Json:
    """OpenAI's form of a tool call or a part of one: of OpenAI's own, or of anything with a (tool_)name and arguments.

    `number` is its place, for what does not say so itself.
    """
    given = as_json(call)
    if given is not None and "function" in given:
        return {"index": number, **given}

    def said(*names: str) -> Any:
        found = (given.get(name) if given is not None else getattr(call, name, None) for name in names)
        return next((value for value in found if value is not None), None)

    index, name, arguments = said("index"), said("tool_name", "name"), said("arguments", "args")
    function: Json = {}
    if name is not None:
        function["name"] = name
    if arguments is not None:
        function["arguments"] = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    made: Json = {"index": number if index is None else index, "type": "function", "function": function}
    return made if said("id") is None else {**made, "id": said("id")}


def _finish_reason(piece: Any) -> str | None:
    reason = getattr(piece, "finish_reason", None)
    reason = getattr(reason, "value", reason)  # an enumeration's
    return None if reason is None else str(reason)


def chunks_of(completion: Json, *, with_usage: bool = False) -> Iterator[Json]:
    """A whole answer as a stream, for whoever asked for one."""
    head = {key: value for key, value in completion.items() if key not in ("choices", "usage")}
    head["object"] = CHUNK
    for place, choice in enumerate(completion["choices"]):
        index = choice.get("index", place)
        delta = {key: value for key, value in (choice.get("message") or {}).items() if value is not None}
        if "tool_calls" in delta:
            delta["tool_calls"] = [tool_call(call, number) for number, call in enumerate(delta["tool_calls"])]
        said = {"index": index, "delta": delta, "finish_reason": None}
        if choice.get("logprobs") is not None:
            said["logprobs"] = choice["logprobs"]
        yield {**head, "choices": [said]}
        yield {
            **head,
            "choices": [{"index": index, "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"}],
        }
    if with_usage and completion.get("usage"):
        yield {**head, "choices": [], "usage": completion["usage"]}


class Gathering:
    """The way back: the chunks of a stream joined to one completion, for whoever did not ask for a stream.

    A function's own events have no place in a completion, and are left out.
    """

    def __init__(self, head: Json) -> None:
        self._head = {**head, "object": COMPLETION}
        self._choices: dict[int, Json] = {}

    def add(self, chunks: Iterable[Json]) -> None:
        for chunk in chunks:
            for choice in chunk.get("choices", ()):
                index = choice.get("index", 0)
                known = self._choices.setdefault(
                    index, {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
                )
                _join(known["message"], choice.get("delta") or {})
                if choice.get("finish_reason") is not None:
                    known["finish_reason"] = choice["finish_reason"]
                _join_logprobs(known, choice.get("logprobs"))

    def completion(self, usage: Json | None) -> Json:
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            message = choice["message"]
            if "tool_calls" in message:
                message["tool_calls"] = [
                    {key: value for key, value in call.items() if key != "index"} for call in message["tool_calls"]
                ]
                message["content"] = message["content"] or None
        whole = {**self._head, "choices": choices}
        return whole if usage is None else {**whole, "usage": usage}


def _join(message: Json, delta: Json) -> None:
    for key, value in delta.items():
        if value is None:
            continue
        if key == "tool_calls":
            _join_calls(message.setdefault(key, []), value)
        elif key != "role" and isinstance(value, str) and isinstance(message.get(key), str):
            message[key] += value
        else:
            message[key] = value


def _join_calls(known: list[Json], parts: list[Json]) -> None:
    for part in parts:
        index = part.get("index", 0)
        call = next((call for call in known if call["index"] == index), None)
        if call is None:
            call = {"index": index, "type": "function", "function": {"name": "", "arguments": ""}}
            known.append(call)
        call.update({key: value for key, value in part.items() if key != "function" and value is not None})
        said = part.get("function") or {}
        if said.get("name"):
            call["function"]["name"] = said["name"]
        call["function"]["arguments"] += said.get("arguments") or ""


def _join_logprobs(choice: Json, logprobs: Json | None) -> None:
    for key, values in (logprobs or {}).items():
        if isinstance(values, list):
            choice.setdefault("logprobs", {}).setdefault(key, []).extend(values)
