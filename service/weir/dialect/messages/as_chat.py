"""The client speaks Anthropic's Messages API (POST /v1/messages), the model's server OpenAI's chat completions only.

So Claude Code works with vLLM, Ollama, TGI or llama.cpp. Implements `Translation`.
"""

from hashlib import sha256
from typing import Any
from uuid import uuid4

import orjson

from weir.core.errors import InvalidValue
from weir.dialect.anthropic_errors import error
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
from weir.dialect.messages.answer import message
from weir.dialect.messages.events import MessageEvents
from weir.dialect.messages.history import CHAT, chat_messages
from weir.dialect.openai_errors import told
from weir.dialect.translation import Events

_SAME = ("model", "temperature", "top_p", "top_k")  # top_k is no word of OpenAI's; vLLM, TGI and llama.cpp know it
FIELDS = Fields(
    other=CHAT,
    carried=frozenset(
        {*_SAME, "messages", "system", "max_tokens", "stop_sequences", "metadata", "stream", "tools", "tool_choice"}
        | {"thinking", "output_config", "output_format"}
    ),
    # Where to cache, whom and how fast to bill, and which old turns Anthropic's servers may leave out: the model here
    # reads the conversation as the client sent it.
    hints=frozenset(
        {"cache_control", "service_tier", "speed", "billing_policy", "user_profile_id", "workspace_id", "diagnostics"}
        | {"context_management", "fallback_credit_token"}
    ),
    neutral={},
)
_OUTPUT_CONFIG = {"effort", "format", "task_budget"}  # a task budget is advice to the model, enforced by nobody
_USER_MAX = 64  # characters that OpenAI takes as `user`
# The tokens of a thinking budget up to which an effort is the nearest; above them all it is "high".
_EFFORTS = ((4_096, "low"), (16_384, "medium"))
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


class MessagesAsChat:
    """`thinks` False says that upstream's model knows no effort, so neither thinking nor effort is asked for: Claude
    Code asks every model whose name it does not know, and Ollama refuses that for models that cannot think.
    """

    path = "/chat/completions"

    def __init__(self, body: bytes, *, max_tokens_field: str = "max_tokens", thinks: bool = True) -> None:
        """Raises InvalidValue for what has no counterpart, by name."""
        asked = parsed(body)
        FIELDS.refuse_others(asked)
        out: Json = {name: asked[name] for name in _SAME if asked.get(name) is not None}
        out["messages"] = chat_messages(asked.get("system"), asked.get("messages"))
        if asked.get("max_tokens") is not None:
            out[max_tokens_field] = a_number(asked["max_tokens"], "max_tokens")
        if asked.get("stop_sequences"):
            out["stop"] = a_list(asked["stop_sequences"], "stop_sequences")
        if asked.get("stream"):
            # Usage is asked for whatever the client says: Messages always tells it, and chat only then.
            out |= {"stream": True, "stream_options": {"include_usage": True}}
        out |= _user(asked) | _tools(asked) | _output(asked)
        if thinks:
            out |= _effort(asked)
        self._body = orjson.dumps(out)
        self._name = uuid4().hex

    @property
    def body(self) -> bytes:
        return self._body

    def answer(self, body: bytes) -> bytes:
        return write_json(message(body, self._name))

    def refusal(self, status: int, body: bytes) -> bytes:
        return write_json(error(status, told(body).message))

    def events(self) -> Events:
        return MessageEvents(self._name)


def _user(asked: Json) -> Json:
    user = an_object(asked.get("metadata") or {}, "metadata").get("user_id")
    if not user:
        return {}
    name = a_string(user, "metadata.user_id")
    # It tells callers apart and nothing else, so a digest does as well where the name is too long.
    return {"user": name if len(name) <= _USER_MAX else sha256(name.encode()).hexdigest()}


def _tools(asked: Json) -> Json:
    tools = [_tool(tool, f"tools[{n}]") for n, tool in enumerate(a_list(asked.get("tools") or [], "tools"))]
    if not tools:
        return {}  # servers refuse an empty list, and a choice without tools
    choice = an_object(asked.get("tool_choice") or {}, "tool_choice")
    out: Json = {"tools": tools}
    if not choice:
        return out
    kind = string_in(choice, "type", "tool_choice")
    if kind == "tool":
        out["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
    elif kind in _CHOICES:
        out["tool_choice"] = _CHOICES[kind]
    else:
        raise no_counterpart(f"tool_choice {kind}", CHAT, "tool_choice.type")
    if choice.get("disable_parallel_tool_use"):
        out["parallel_tool_calls"] = False
    return out


def _tool(tool: Any, at: str) -> Json:
    kind = an_object(tool, at).get("type") or "custom"
    if kind != "custom":  # run by Anthropic's servers, or with a schema that only Claude knows
        raise no_counterpart(f"tool type {kind}", CHAT, f"{at}.type")
    schema = an_object(tool.get("input_schema"), f"{at}.input_schema")
    if tool.get("input_examples"):
        schema = {**schema, "examples": tool["input_examples"]}
    function = {"name": string_in(tool, "name", at), "parameters": schema}
    function |= {key: tool[key] for key in ("description", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": function}


def _output(asked: Json) -> Json:
    """`output_format` is the older name of `output_config.format`."""
    config = an_object(asked.get("output_config") or {}, "output_config")
    for name in config.keys() - _OUTPUT_CONFIG:
        raise no_counterpart(f"output_config.{name}", CHAT, f"output_config.{name}")
    at = "output_config.format" if config.get("format") else "output_format"
    form = an_object(config.get("format") or asked.get("output_format") or {}, at)
    if not form:
        return {}
    if form.get("type") != "json_schema":
        raise no_counterpart(f"{at} {form.get('type')}", CHAT, at)
    # Claude's answers always match the schema; only `strict` asks OpenAI's for the same.
    schema = {"name": "output", "strict": True, "schema": an_object(form.get("schema"), f"{at}.schema")}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _effort(asked: Json) -> Json:
    """How hard to think, in the one word that chat has for it.

    vLLM gives `reasoning_effort` to the model's chat template, Ollama makes its `think` of it, OpenAI knows it for its
    reasoning models; "none" is off, where a model can be. Adaptive thinking leaves it to the model, which is what an
    absent word means to all of them. Thinking comes back whole: chat cannot leave it out (`display`).
    """
    thinking = an_object(asked.get("thinking") or {}, "thinking")
    effort = (asked.get("output_config") or {}).get("effort")
    kind = string_in(thinking, "type", "thinking") if thinking else "adaptive"
    if kind not in {"enabled", "adaptive", "between_tools", "disabled"}:
        raise no_counterpart(f"thinking type {kind}", CHAT, "thinking.type")
    if kind == "disabled":
        return {"reasoning_effort": "none"}
    if effort:
        return {"reasoning_effort": a_string(effort, "output_config.effort")}
    if kind != "enabled":
        return {}
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        raise InvalidValue("'thinking.budget_tokens' must be a number.", param="thinking.budget_tokens")
    return {"reasoning_effort": next((word for most, word in _EFFORTS if budget <= most), "high")}
