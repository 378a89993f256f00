"""A Responses request as a chat request, and what its answer repeats of it.

Every field of the request stands in one of the tables below or in `chat_request`; any other is refused by name.
"""

from typing import Any, NamedTuple

from weir.core.errors import InvalidValue
from weir.dialect.responses.fields import Fields, a_list, a_string, an_object, member, only, refuse
from weir.dialect.responses.input import Conversation
from weir.dialect.responses.tools import Toolbox

# Hints that change no answer: where to cache and for how long, which tier bills, what a dashboard shows, how long to
# store (nothing is stored here), how to pad events, how the platform's own tools and images are limited.
HINTS = {
    "client_metadata",
    "image",
    "max_tool_calls",
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "service_tier",
    "store",
    "stream_options",
    "truncation",  # an input that is too long is refused by the engine, and the answer says "disabled"
}
_SAME = ("model", "temperature", "top_p", "top_logprobs")
_STATE = {
    "previous_response_id": "no earlier response",
    "conversation": "no conversation",
    "prompt": "no prompt template",
}
_KNOWN = {
    *HINTS,
    *_SAME,
    *_STATE,
    "background",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "parallel_tool_calls",
    "reasoning",
    "safety_identifier",
    "stream",
    "text",
    "tool_choice",
    "tools",
    "user",
}
# An engine shows its reasoning itself, or none; how much of the earlier turns' counts, its chat template decides.
_REASONING = {"effort", "summary", "generate_summary", "context"}
_SEALED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_INCLUDE = {  # beyond those two: what only the platform's own tools, or its store of inputs, would have to say
    _SEALED,
    _LOGPROBS,
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
}
_REPEATED = ("max_output_tokens", "prompt_cache_key", "safety_identifier", "top_logprobs", "user")


class WayBack(NamedTuple):
    """What an answer has to know of its request. `repeated` are the fields that every response says again; `seals`
    says that the client wants its reasoning sealed.
    """

    repeated: Fields
    toolbox: Toolbox
    seals: bool


def chat_request(request: Fields, max_tokens_field: str) -> tuple[Fields, WayBack]:
    _only_what_this_request_says(request)
    only(_KNOWN, request, "")
    include = _included(request)
    toolbox = Toolbox()
    if request.get("tools") is not None:
        toolbox.offer(request["tools"], "tools")
    messages = Conversation(request.get("instructions"), toolbox).read(request.get("input"))
    chat: Fields = {name: request[name] for name in _SAME if request.get(name) is not None}
    chat["messages"] = messages
    chat |= _tools(request, toolbox) | _text(request) | _reasoning(request)
    if request.get("max_output_tokens") is not None:
        chat[max_tokens_field] = request["max_output_tokens"]
    if _LOGPROBS in include or request.get("top_logprobs"):
        chat["logprobs"] = True
    elif "top_logprobs" in chat:
        del chat["top_logprobs"]  # 0 of none: engines refuse it without `logprobs`
    who = request.get("user") or request.get("safety_identifier")
    if who is not None:
        chat["user"] = who
    if request.get("stream"):
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat, WayBack(_repeated(request), toolbox, _SEALED in include)


def _only_what_this_request_says(request: Fields) -> None:
    for name, nothing in _STATE.items():
        if request.get(name) is not None:
            raise InvalidValue(
                f"'{name}' is not understood: this endpoint stores {nothing}. Send the whole conversation as 'input' "
                "instead, with every item of the earlier answers.",
                param=name,
            )
    if request.get("background"):
        raise InvalidValue(
            "'background' is not understood: this endpoint stores no answer to be fetched later. Leave it out, send "
            "the whole conversation as 'input' and set 'stream' for an answer that takes long.",
            param="background",
        )


def _included(request: Fields) -> set[str]:
    include = {a_string(name, "include") for name in a_list(request.get("include") or [], "include")}
    for name in include - _INCLUDE:
        raise refuse(f"'{name}' is not understood. Leave it out.", "include")
    return include


def _tools(request: Fields, toolbox: Toolbox) -> Fields:
    functions, choice = toolbox.choose(request.get("tool_choice"))
    if not functions:  # engines refuse a choice among no tools
        if choice not in (None, "auto", "none"):
            raise refuse("a tool is required, but none is offered in 'tools'.", "tool_choice")
        return {}
    chosen: Fields = {"tools": functions}
    if choice is not None:
        chosen["tool_choice"] = choice
    if request.get("parallel_tool_calls") is not None:
        chosen["parallel_tool_calls"] = request["parallel_tool_calls"]
    return chosen


def _text(request: Fields) -> Fields:
    text = an_object(request.get("text") or {}, "text")
    only({"format", "verbosity"}, text, "text")
    form = an_object(text.get("format") or {"type": "text"}, "text.format")
    chosen: Fields = {}
    match form.get("type"):
        case "text":
            pass
        case "json_object":
            chosen["response_format"] = {"type": "json_object"}
        case "json_schema":
            only({"type", "name", "schema", "description", "strict"}, form, "text.format")
            schema = {name: form[name] for name in ("description", "strict") if form.get(name) is not None}
            schema |= {"name": member(form, "name", "text.format")}
            schema |= {"schema": an_object(form.get("schema"), "text.format.schema")}
            chosen["response_format"] = {"type": "json_schema", "json_schema": schema}
        case kind:
            raise refuse(f"'{kind}' is not understood. Use text, json_schema or json_object.", "text.format.type")
    if text.get("verbosity") is not None:
        chosen["verbosity"] = text["verbosity"]
    return chosen


def _reasoning(request: Fields) -> Fields:
    reasoning = an_object(request.get("reasoning") or {}, "reasoning")
    only(_REASONING, reasoning, "reasoning")
    effort = reasoning.get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _repeated(request: Fields) -> Fields:
    """What the SDK's `Response` requires, and what a client may want to see again."""
    reasoning: Fields = request.get("reasoning") or {}
    text: Fields = request.get("text") or {}
    said: Fields = {name: request[name] for name in _REPEATED if request.get(name) is not None}
    return said | {
        "background": False,
        "instructions": request.get("instructions"),
        "max_output_tokens": request.get("max_output_tokens"),
        "metadata": request.get("metadata") or {},
        "model": request.get("model"),
        "parallel_tool_calls": _or(request.get("parallel_tool_calls"), default=True),
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "store": False,
        "temperature": request.get("temperature"),  # what an engine does by default, its model's files say
        "text": {**text, "format": text.get("format") or {"type": "text"}},
        "tool_choice": _or(request.get("tool_choice"), default="auto"),
        "tools": request.get("tools") or [],
        "top_p": request.get("top_p"),
        "truncation": "disabled",
    }


def _or(value: Any, *, default: Any) -> Any:
    """0 and false are values."""
    return default if value is None else value
