"""A whole Message of Anthropic's as a chat completion, and what its stream shares: finish reason, refusal, usage."""

from typing import Any

import orjson

from weir.core.errors import UpstreamFailed
from weir.dialect.fields import Json, read_json

_FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def completion(body: bytes, created: int) -> Json:
    """Raises UpstreamFailed where it is no Message."""
    try:
        said = read_json(body)
        choice = {"index": 0, "message": _message(said), "logprobs": None, **ending(said)}
        return {
            "id": said["id"],
            "object": "chat.completion",
            "created": created,
            "model": said["model"],
            "choices": [choice],
            "usage": usage(said.get("usage") or {}),
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UpstreamFailed(reason=f"no Message: {type(error).__name__}") from error


def ending(said: Json) -> Json:
    """Why it ended; a stop sequence stands beside it as vLLM tells it."""
    ended = {"finish_reason": _FINISH.get(said.get("stop_reason") or "", "stop")}
    return {**ended, "stop_reason": said["stop_sequence"]} if said.get("stop_sequence") else ended


def refusal(said: Json) -> str | None:
    """Why Claude refused, where it says so."""
    why = (said.get("stop_details") or {}).get("explanation")
    return why if isinstance(why, str) else None


def usage(told: Json) -> Json:
    """Messages counts cached tokens beside the prompt's, chat within them."""
    read, written = count(told.get("cache_read_input_tokens")), count(told.get("cache_creation_input_tokens"))
    prompt = count(told.get("input_tokens")) + read + written
    answer = count(told.get("output_tokens"))
    out: Json = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
    out["prompt_tokens_details"] = {"cached_tokens": read, "cache_write_tokens": written}
    thinking = (told.get("output_tokens_details") or {}).get("thinking_tokens")
    return {**out, "completion_tokens_details": {"reasoning_tokens": thinking}} if thinking is not None else out


def count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def call(block: Json, arguments: str) -> Json:
    return {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": arguments}}


def _message(said: Json) -> Json:
    """Blocks of Anthropic's own tools cannot come, since none can be asked for; sealed thinking has nothing to read."""
    texts, thoughts, calls = [], [], []
    for block in said["content"]:
        kind = block["type"]
        if kind == "text":
            texts.append(block["text"])
        elif kind == "thinking":
            thoughts.append(block["thinking"])
        elif kind == "tool_use":
            calls.append(call(block, orjson.dumps(block["input"]).decode()))
    message: Json = {"role": "assistant", "content": "".join(texts) if texts or not calls else None}
    message["refusal"] = refusal(said)
    if "".join(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message
