"""What an answer says of itself: usage objects and reasons for the end, in every dialect's words. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from weir.core.types import Usage

# Closed lists: a word that is not one of these may be the caller's, and their text may reach no log.
FINISH_REASONS = (
    *("stop", "length", "tool_calls", "content_filter", "function_call"),  # OpenAI's
    *("abort", "error"),  # vLLM's and SGLang's
    *("eos_token", "stop_sequence"),  # TGI's
)
# Inside a JSON string the quotes would be escaped, so these match keys only.
USAGE = re.compile(rb'"usage"\s*:\s*\{')
FINISH = re.compile(rb'"finish_reason"\s*:\s*"(%b)"' % "|".join(FINISH_REASONS).encode())
# Anthropic's words and no others: vLLM writes into a field of this name which of the caller's stop strings it met, and
# that is text of theirs, which no log may hold.
STOP_REASONS = (
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
)
# OpenAI's: a response's status, and what its `incomplete_details` may say (openapi.yaml, Response).
_STATUSES = ("completed", "failed", "in_progress", "cancelled", "queued", "incomplete")
_CUT_SHORT = ("max_output_tokens", "content_filter", "max_messages", "steered", "max_tool_calls")
COUNT_MAX = 2**31 - 1
_CACHED_APART = ("cache_read_input_tokens", "cache_creation_input_tokens")


def parsed(data: bytes | bytearray) -> dict[str, Any]:
    """A JSON object; {} where it is none. Half a surrogate pair, which orjson refuses, is no reason to hear nothing."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            return {}
    return said if isinstance(said, dict) else {}


def as_usage(said: object) -> Usage | None:
    """A usage object as ours; None where it is none, or counts no tokens. Fields that a server leaves out count as 0.

    OpenAI's of chat, Responses, embeddings, images and transcription; Anthropic's of Messages; Cohere's billed units.
    """
    if not isinstance(said, dict):
        return None
    total = _count(said.get("total_tokens"))
    prompt = _count(said.get("prompt_tokens", said.get("input_tokens")))
    told = "prompt_tokens" in said or "input_tokens" in said
    output = said.get("completion_tokens", said.get("output_tokens"))
    # A total alone is a prompt's: so rerankers count (Jina, vLLM), whose answers are numbers.
    output = _number(output)  # what is no number is as if it were not said
    if output is None:
        output = max(total - prompt, 0) if told else 0
    if not told:
        prompt = max(total - output, 0)
    cached = _part(said, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    if "prompt_tokens" not in said and any(name in said for name in _CACHED_APART):
        # Messages counts apart what it read from its cache and what it wrote there; beside `prompt_tokens` these
        # fields are a proxy's additions, and parts of it.
        cached, created = (_count(said.get(name)) for name in _CACHED_APART)
        prompt += cached + created
    if not 0 < prompt + output <= COUNT_MAX or total > COUNT_MAX:
        return None  # also a -1 that lost its sign, or a sum that ran over: nobody's limit shall pay for those
    details = ("completion_tokens_details", "output_tokens_details")
    reasoning = _part(said, details, "reasoning_tokens") or _part(said, details, "thinking_tokens")
    return Usage(prompt, output, cached, reasoning)


def ending_of(said: Mapping[str, Any]) -> str | None:
    """Why an answer ended: its first choice's reason, its stop reason, what cut it short, or its status."""
    choices = said.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return _one_of(FINISH_REASONS, choices[0].get("finish_reason"))
    if (reason := said.get("stop_reason")) is not None:
        return _one_of(STOP_REASONS, reason)
    if said.get("object") != "response":
        return None
    details = said.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return _one_of(_CUT_SHORT, reason) or _one_of(_STATUSES, said.get("status"))


def _one_of(words: tuple[str, ...], said: object) -> str | None:
    return said if isinstance(said, str) and said in words else None


def _number(value: object) -> int | None:
    """A count of tokens, also as JavaScript and Lua write it, 3.0; None where it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _count(value: object) -> int:
    return _number(value) or 0


def _part(said: Mapping[str, Any], names: tuple[str, ...], field: str) -> int:
    for name in names:
        if isinstance(details := said.get(name), dict):
            return _count(details.get(field))
    return 0
