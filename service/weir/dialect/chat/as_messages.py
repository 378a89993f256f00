"""The client speaks OpenAI's chat completions, the model is Claude behind Anthropic's Messages API.

Implements `Translation`.
"""

import time
from typing import Any

from weir.core.errors import InvalidValue
from weir.dialect.chat.answer import completion
from weir.dialect.chat.events import ChatEvents
from weir.dialect.chat.history import MESSAGES, history
from weir.dialect.fields import (
    Fields,
    Json,
    a_list,
    a_number,
    a_string,
    an_object,
    no_counterpart,
    parsed,
    string_in,
    write_json,
)
from weir.dialect.openai_errors import openai_error, told
from weir.dialect.translation import Events

_SAME = ("model", "temperature", "top_p", "top_k")  # top_k is no word of OpenAI's; its engines' clients send it
FIELDS = Fields(
    other=MESSAGES,
    carried=frozenset(
        {*_SAME, "messages", "max_completion_tokens", "max_tokens", "stop", "stream", "stream_options", "user"}
        | {"tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort", "safety_identifier"}
    ),
    # What to cache and how to bill, what to keep for later, and a guess that makes the same answer come sooner.
    hints=frozenset(
        {"service_tier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prediction"}
        | {"metadata", "store"}
    ),
    neutral={
        "n": (1,),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "logprobs": (False,),
        "top_logprobs": (0,),
        "modalities": (["text"],),
        "verbosity": ("medium",),
        "function_call": ("none", "auto"),
    },
)
_CHOICES = {"none": "none", "auto": "auto", "required": "any"}
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}


class ChatAsMessages:
    path = "/messages"

    def __init__(self, body: bytes, *, default_max_tokens: int) -> None:
        """Raises InvalidValue for what has no counterpart, by name. Messages wants a `max_tokens` from everybody."""
        asked = parsed(body)
        FIELDS.refuse_others(asked)
        said = history(asked.get("messages"))
        out: Json = {name: asked[name] for name in _SAME if asked.get(name) is not None}
        if a_number(out.get("temperature", 1), "temperature") > 1:
            # Scaled or clamped, it would be another temperature than the one that was asked for.
            raise InvalidValue("Claude's temperature goes from 0 to 1. Ask for one in between.", param="temperature")
        named = [asked[name] for name in ("max_completion_tokens", "max_tokens") if asked.get(name) is not None]
        out["max_tokens"] = max((a_number(most, "max_tokens") for most in named), default=default_max_tokens)
        if said.system is not None:
            out["system"] = said.system
        out["messages"] = said.messages
        out |= _stop(asked) | _user(asked) | _tools(asked) | _output(asked)
        if asked.get("stream"):
            out["stream"] = True
        self._tells_usage = bool(an_object(asked.get("stream_options") or {}, "stream_options").get("include_usage"))
        self._body = write_json(out)
        # Wall time: OpenAI's `created` is a date.
        self._created = int(time.time())  # noqa: TID251

    @property
    def body(self) -> bytes:
        return self._body

    def answer(self, body: bytes) -> bytes:
        return write_json(completion(body, self._created))

    def refusal(self, status: int, body: bytes) -> bytes:
        return write_json(openai_error(status, told(body)))

    def events(self) -> Events:
        return ChatEvents(created=self._created, tells_usage=self._tells_usage)


def _stop(asked: Json) -> Json:
    stop = asked.get("stop")
    if not stop:
        return {}
    return {"stop_sequences": [stop] if isinstance(stop, str) else a_list(stop, "stop")}


def _user(asked: Json) -> Json:
    """`safety_identifier` is the newer name of `user`."""
    user = asked.get("safety_identifier") or asked.get("user")
    return {"metadata": {"user_id": a_string(user, "user")}} if user else {}


def _tools(asked: Json) -> Json:
    tools = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(a_list(asked.get("tools") or [], "tools"))]
    if not tools:
        return {}
    choice = _choice(asked.get("tool_choice"))
    if asked.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}


def _choice(choice: Any) -> Json:
    if choice is None:
        return {}
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        function = an_object(choice.get("function"), "tool_choice.function")
        return {"type": "tool", "name": string_in(function, "name", "tool_choice.function")}
    kind = choice.get("type") if isinstance(choice, dict) else choice
    raise no_counterpart(f"tool_choice {kind}", MESSAGES, "tool_choice")


def _tool(tool: Any, at: str) -> Json:
    kind = an_object(tool, at).get("type")
    if kind != "function":
        raise no_counterpart(f"tool type {kind}", MESSAGES, f"{at}.type")
    function = an_object(tool.get("function"), f"{at}.function")
    out: Json = {"name": string_in(function, "name", f"{at}.function")}
    out |= {key: function[key] for key in ("description", "strict") if function.get(key)}
    out["input_schema"] = function.get("parameters") or {"type": "object", "properties": {}}
    return out


def _output(asked: Json) -> Json:
    """The form of the answer, and how much to think about it.

    An effort asks for adaptive thinking, which Claude's models since 4.6 take, some of them alone; and only with it may
    earlier turns come without their signed thinking, as they do in chat. "none" switches thinking off.
    """
    config: Json = {}
    effort = asked.get("reasoning_effort")
    thinking: Json = {}
    if effort == "none":
        thinking = {"thinking": {"type": "disabled"}}
    elif effort is not None:
        if a_string(effort, "reasoning_effort") not in _EFFORTS:
            raise no_counterpart(f"reasoning_effort {effort}", MESSAGES, "reasoning_effort")
        thinking = {"thinking": {"type": "adaptive"}}
        config["effort"] = _EFFORTS[effort]
    form = an_object(asked.get("response_format") or {"type": "text"}, "response_format")
    if form.get("type") == "json_schema":
        at = "response_format.json_schema"
        schema = an_object(an_object(form.get("json_schema"), at).get("schema"), f"{at}.schema")
        config["format"] = {"type": "json_schema", "schema": schema}
    elif form.get("type") != "text":
        # json_object too: Claude writes JSON to a schema only, and must forbid what the schema does not name.
        raise no_counterpart(f"response_format {form.get('type')}", MESSAGES, "response_format.type")
    return thinking | ({"output_config": config} if config else {})
