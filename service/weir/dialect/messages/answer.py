"""A whole chat completion as Anthropic's Message, and the words that its stream shares: stop reason and usage."""

from typing import Any

import orjson

from weir.core.errors import UpstreamFailed
from weir.dialect.fields import Json, as_object, read_json
from weir.dialect.openai_errors import GAVE_UP

_STOP_REASONS = {"length": "max_tokens", "content_filter": "refusal"}
_CALLED = {"tool_calls", "function_call"}


def message(body: bytes, name: str) -> Json:
    """Raises UpstreamFailed where it is no chat completion. `name` is for what the server gave none."""
    try:
        said = read_json(body)
        choice = said["choices"][0]
        if choice.get("finish_reason") in GAVE_UP:
            raise UpstreamFailed(reason="the engine gave the answer up")
        told = choice["message"]
        content = _content(told, name)
        reason, matched = stop_reason(choice, called=content[-1:] != [] and content[-1]["type"] == "tool_use")
        out = beginning(said, name)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UpstreamFailed(reason=f"no chat completion: {type(error).__name__}") from error
    if told.get("refusal"):
        reason = "refusal"
    return {**out, "content": content, "stop_reason": reason, "stop_sequence": matched}


def beginning(said: Json, name: str) -> Json:
    """What is known of a Message before its first block."""
    return {
        "id": said.get("id") or f"msg_{name}",
        "type": "message",
        "role": "assistant",
        "model": said.get("model") or "",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage(said),
    }


def stop_reason(choice: Json, *, called: bool) -> tuple[str, str | None]:
    """The reason, and the stop sequence where it was one."""
    finish, matched = str(choice.get("finish_reason")), choice.get("stop_reason")
    if finish in _CALLED or (called and finish not in _STOP_REASONS):
        return "tool_use", None  # a call that the client asked for by name ends with "stop"
    if finish == "stop" and isinstance(matched, str):
        return "stop_sequence", matched  # vLLM alone says which; elsewhere it is a plain end
    return _STOP_REASONS.get(finish, "end_turn"), None


def usage(said: Json) -> Json:
    """Chat counts cached tokens within the prompt's, Messages beside them."""
    told = said.get("usage") or {}
    cached = _count((told.get("prompt_tokens_details") or {}).get("cached_tokens"))
    return {
        "input_tokens": max(_count(told.get("prompt_tokens")) - cached, 0),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": _count(told.get("completion_tokens")),
    }


def thought(said: Json) -> str:
    """DeepSeek and llama.cpp say the first, Ollama the second; vLLM has changed from the one to the other."""
    return text(said.get("reasoning_content") or said.get("reasoning"))


def text(value: Any) -> str:
    """Raises TypeError: where chat has a text, it has nothing else."""
    if value is None or isinstance(value, str):
        return value or ""
    raise TypeError


def calls(said: Json) -> list[Json]:
    """A message's or delta's tool calls, with the one that older servers tell as `function_call`."""
    told = said.get("tool_calls") or []
    return [*told, {"index": 0, "function": said["function_call"]}] if said.get("function_call") else told


def arguments(function: Json) -> str:
    """As text; a few servers send them as the object that they stand for."""
    told = function.get("arguments")
    return told if isinstance(told, str) else "" if told is None else orjson.dumps(told).decode()


def call_id(name: str, number: int) -> str:
    """For servers that name none; the client tells its results by it."""
    return f"toolu_{name}_{number}"


def _content(told: Json, name: str) -> list[Json]:
    content: list[Json] = []
    if thought(told):
        content.append({"type": "thinking", "thinking": thought(told), "signature": ""})
    texts = (text(told.get("content")), text(told.get("refusal")))
    content += [{"type": "text", "text": said} for said in texts if said]
    for call in calls(told):
        function = call["function"]
        number = call.get("id") or call_id(name, len(content))
        given = as_object(arguments(function))
        content.append({"type": "tool_use", "id": number, "name": function["name"], "input": given})
    return content


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0
