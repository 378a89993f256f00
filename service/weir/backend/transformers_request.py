"""What a request asks of a model in this process: OpenAI's fields, and the few of vLLM that are sampling. Pure.

Source: OpenAI's API reference, "Create chat completion" and "Create completion"; vLLM's "Extra parameters" for top_k,
min_p and repetition_penalty. A field that changes the answer and cannot be honoured is refused by name.
"""

from typing import Any, NamedTuple

import orjson

from weir.backend.results_refused import Refused
from weir.core.operations import CHAT, TEXT

# Requests are other people's JSON, of any shape: Any is its honest type.
Json = dict[str, Any]

TEXT_MAX_TOKENS = 16  # OpenAI's default of a completion; a chat has none

# What changes an answer, and the values with which it does not. Absent and null are always such.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "response_format": ({"type": "text"},),
    "tool_choice": ("auto", "none"),
    "functions": ([],),
    "modalities": (["text"],),
    "suffix": ("",),
    "echo": (False,),
}


class Bounds(NamedTuple):
    low: float
    high: float
    whole: bool = False


NUMBERS = {
    "temperature": Bounds(0, 2),
    "top_p": Bounds(0, 1),
    "top_k": Bounds(-1, 2**31, whole=True),  # 0 and -1: all tokens
    "min_p": Bounds(0, 1),
    "repetition_penalty": Bounds(0.01, 100),
    "seed": Bounds(-(2**63), 2**63 - 1, whole=True),
    "max_tokens": Bounds(1, 2**31, whole=True),
    "max_completion_tokens": Bounds(1, 2**31, whole=True),
}


class Sampling(NamedTuple):
    """How a token is chosen. None: as the model's own generation_config says, else as OpenAI's defaults are."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def over(self, own: "Sampling") -> "Sampling":
        """What is asked, and for the rest the model's own."""
        return own._replace(**{name: value for name, value in self._asdict().items() if value is not None})


class Asked(NamedTuple):
    """One request. A chat has `messages`, a completion a `prompt`: a text or its tokens."""

    messages: list[Json] | None
    tools: list[Json] | None
    prompt: str | list[int]
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...]
    stream: bool
    with_usage: bool


def read(path: str, body: bytes) -> Asked:
    """Raises Refused."""
    if path not in (CHAT.path, TEXT.path):
        raise Refused("This model answers chat and text completions only.", 404, code="not_found")
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused("The request body is not valid JSON.", code="malformed_body") from error
    if not isinstance(given, dict):
        raise Refused("The request body must be a JSON object.", code="malformed_body")
    chat = path == CHAT.path
    for name, values in NEUTRAL.items():
        _check_neutral(name, given.get(name), values if chat or name != "logprobs" else ())
    numbers = {name: _number(name, given.get(name), bounds) for name, bounds in NUMBERS.items()}
    most = numbers.pop("max_completion_tokens") or numbers["max_tokens"]
    del numbers["max_tokens"]
    options = given.get("stream_options")
    return Asked(
        messages=_messages(given.get("messages")) if chat else None,
        tools=_tools(given) if chat else None,
        prompt="" if chat else _prompt(given.get("prompt")),
        max_tokens=most if chat else most or TEXT_MAX_TOKENS,
        sampling=Sampling(**numbers),
        stop=_stop(given.get("stop")),
        stream=given.get("stream") is True,
        with_usage=isinstance(options, dict) and options.get("include_usage") is True,
    )


def _check_neutral(name: str, value: Any, values: tuple[Any, ...]) -> None:
    # By type too: 0 is not False here, since a completion's `logprobs: 0` asks for some.
    if value is not None and not any(type(value) is type(one) and value == one for one in values):
        raise _unsupported(f"This model does not support this value of '{name}'; leave it out.", name)


def _unsupported(message: str, name: str) -> Refused:
    return Refused(message, code="unsupported_value", param=name)


def _number(name: str, value: Any, bounds: Bounds) -> Any:
    """An int where the bounds are `whole`."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if bounds.whole else int | float):
        kind = "a whole number" if bounds.whole else "a number"
        raise Refused(f"'{name}' must be {kind}.", code="invalid_type", param=name)
    if not bounds.low <= value <= bounds.high:
        raise Refused(f"'{name}' must be between {bounds.low:g} and {bounds.high:g}.", code="invalid_value", param=name)
    return value


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        raise Refused("'stop' must be a text, or a list of texts.", code="invalid_value", param="stop")
    return tuple(stops)


def _prompt(value: Any) -> str | list[int]:
    """One prompt. A list of texts or of lists is several, of which OpenAI takes more than we do."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and isinstance(value[0], str | list):
        raise _unsupported("This model takes one prompt at a time.", "prompt")
    if not isinstance(value, list) or not all(type(token) is int and token >= 0 for token in value):
        raise Refused("'prompt' must be a text, or a list of tokens.", code="invalid_value", param="prompt")
    return value


def _tools(given: Json) -> list[Json] | None:
    tools = given.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise Refused("'tools' must be a list of tools.", code="invalid_value", param="tools")
    return tools if tools and given.get("tool_choice") != "none" else None


# -- messages, as chat templates read them: texts, and the arguments of calls as objects -------------------------------


def _messages(value: Any) -> list[Json]:
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        raise Refused("'messages' must be a list of messages.", code="invalid_value", param="messages")
    return [_message(message) for message in value]


def _message(given: Json) -> Json:
    role = given.get("role")
    if not isinstance(role, str):
        raise Refused("Each message must have a 'role'.", code="invalid_value", param="messages")
    # Templates are older than the role `developer`.
    message = {**given, "role": "system" if role == "developer" else role, "content": _text(given.get("content"))}
    if isinstance(calls := given.get("tool_calls"), list):
        message["tool_calls"] = [_call(call) for call in calls]
    return message


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) < len(texts):
        raise _unsupported("This model reads text only; leave out images, sound and files.", "messages")
    return "".join(known)


def _call(given: Any) -> Any:
    """OpenAI has arguments as a text; templates want the object (huggingface.co/docs/transformers/chat_extras)."""
    function = given.get("function") if isinstance(given, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return given
    try:
        arguments = orjson.loads(function["arguments"])
    except orjson.JSONDecodeError:  # as a model wrote it, once
        return given
    return {**given, "function": {**function, "arguments": arguments}}
