"""How each API that clients speak writes questions and answers, read as the GenAI conventions' messages of parts.

Sources: OpenAI's API description (chat completions, completions, Responses) and Anthropic's (Messages). What is not
understood is left out; of what is no text, the kind is named.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from weir.core.operations import CHAT, MESSAGES, RESPONSES, TEXT
from weir.telemetry.content_parts import (
    WORD_MAX,
    Answer,
    Answers,
    Budget,
    Json,
    inside,
    objects,
    part,
    tool_call,
    word,
)


class Dialect(Protocol):
    """Reads one API's words. Never raises, whatever it is given."""

    @property
    def instructions(self) -> str | None:
        """The field of those that stand apart from the conversation."""

    def messages(self, fields: Json) -> list[Any]:
        """The conversation, unread."""

    def read(self, message: Json, budget: Budget) -> Json: ...

    def whole(self, said: Json, answers: Answers) -> None: ...

    def event(self, said: Json, answers: Answers) -> None: ...


class Chat:
    """Chat completions, and completions, which are the same with a prompt."""

    instructions = None

    def messages(self, fields: Json) -> list[Any]:
        messages, prompt = fields.get("messages"), fields.get("prompt")
        if messages is None:
            prompts = prompt if isinstance(prompt, list) else [prompt]
            return [{"role": "user", "content": text} for text in prompts if isinstance(text, str)]
        return messages if isinstance(messages, list) else []

    def read(self, message: Json, budget: Budget) -> Json:
        parts = parts_of(message.get("content"), budget)
        if message.get("role") == "tool":
            parts = [_result(message.get("tool_call_id"), parts, budget)]
        for call in objects(message.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, dict) and budget.room():
                name, arguments = budget.take(function.get("name")), budget.take(function.get("arguments"))
                parts.append(tool_call(budget.take(call.get("id")), name, arguments))
        return {"role": word(message.get("role")), "parts": parts}

    def whole(self, said: Json, answers: Answers) -> None:
        self._take(said, "message", answers)

    def event(self, said: Json, answers: Answers) -> None:
        self._take(said, "delta", answers)

    def _take(self, said: Json, where: str, answers: Answers) -> None:
        for choice in objects(said.get("choices")):
            answer = answers.at(choice.get("index", 0))
            if answer is None:
                continue
            inner = choice.get(where)
            told = inner if isinstance(inner, dict) else {"content": choice.get("text")}
            answer.say(told.get("content"))
            answer.think(told.get("reasoning_content") or told.get("reasoning"))
            for place, call in enumerate(objects(told.get("tool_calls"))):
                function = inside(call.get("function"))
                answer.call(
                    call.get("index", place),
                    identity=call.get("id"),
                    name=function.get("name"),
                    arguments=function.get("arguments"),
                )
            answer.end(choice.get("finish_reason"))


class Messages:
    """Anthropic's."""

    instructions = "system"

    def messages(self, fields: Json) -> list[Any]:
        messages = fields.get("messages")
        return messages if isinstance(messages, list) else []

    def read(self, message: Json, budget: Budget) -> Json:
        return {"role": word(message.get("role")), "parts": parts_of(message.get("content"), budget)}

    def whole(self, said: Json, answers: Answers) -> None:
        if said.get("type") == "message" and (answer := answers.at()) is not None:
            for place, block in enumerate(objects(said.get("content"))):
                answer.say(block.get("text"))
                answer.think(block.get("thinking"))
                if block.get("type") == "tool_use":
                    arguments = answers.budget.take_json(block.get("input"))
                    answer.call(place, identity=block.get("id"), name=block.get("name"), arguments=arguments)
            answer.end(said.get("stop_reason"))

    def event(self, said: Json, answers: Answers) -> None:
        kind, delta, index = _kind(said), inside(said.get("delta")), said.get("index")
        answer = answers.at() if kind in _BLOCKS else None
        if answer is None:
            return
        match kind:
            case "content_block_start":
                block = inside(said.get("content_block"))
                answer.say(block.get("text"))
                if block.get("type") == "tool_use":
                    answer.call(index, identity=block.get("id"), name=block.get("name"))
            case "content_block_delta":
                answer.say(delta.get("text"))
                answer.think(delta.get("thinking"))
                if "partial_json" in delta:
                    answer.call(index, arguments=delta["partial_json"])
            case "message_delta":
                answer.end(delta.get("stop_reason"))


class Responses:
    """OpenAI's newer API: a list of items, of which messages are one kind."""

    instructions = "instructions"

    def messages(self, fields: Json) -> list[Any]:
        given = fields.get("input")
        if isinstance(given, str):
            return [{"role": "user", "content": given}]
        return given if isinstance(given, list) else []

    def read(self, message: Json, budget: Budget) -> Json:
        kind = message.get("type", "message")
        if kind in _CALLS:
            call = _item_call(message, budget)
            return {"role": "assistant", "parts": [call]}
        if kind in _RESULTS:
            parts = parts_of(message.get("output"), budget)
            return {"role": "tool", "parts": [_result(message.get("call_id"), parts, budget)]}
        if kind == "reasoning":
            return {"role": "assistant", "parts": _of_kind("reasoning", _thoughts(message, budget))}
        if kind != "message":
            return {"role": "assistant", "parts": [{"type": word(kind)}]}
        return {"role": word(message.get("role")), "parts": parts_of(message.get("content"), budget)}

    def whole(self, said: Json, answers: Answers) -> None:
        if said.get("object") != "response" or (answer := answers.at()) is None:
            return
        for place, item in enumerate(objects(said.get("output"))):
            for piece in objects(item.get("content")) if item.get("type") == "message" else ():
                answer.say(piece.get("text") or piece.get("refusal"))
            if item.get("type") == "reasoning":
                for thought in _thoughts(item, answers.budget):
                    answer.think(thought)
            if item.get("type") in _CALLS:
                arguments = item.get("arguments", item.get("input"))
                answer.call(place, identity=item.get("call_id"), name=item.get("name"), arguments=arguments)
        self._end(said, answer)

    def event(self, said: Json, answers: Answers) -> None:
        kind, item, place = _kind(said), inside(said.get("item")), said.get("output_index")
        answer = answers.at() if kind in _EVENTS else None
        if answer is None:
            return
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            answer.say(said.get("delta"))
        elif kind in ("response.reasoning_text.delta", "response.reasoning_summary_text.delta"):
            answer.think(said.get("delta"))
        elif kind == "response.output_item.added" and item.get("type") in _CALLS:
            answer.call(place, identity=item.get("call_id"), name=item.get("name"))
        elif kind in ("response.function_call_arguments.delta", "response.custom_tool_call_input.delta"):
            answer.call(place, arguments=said.get("delta"))
        elif kind in _ENDS:
            self._end(inside(said.get("response")), answer)

    def _end(self, response: Json, answer: Answer) -> None:
        answer.end(inside(response.get("incomplete_details")).get("reason") or response.get("status"))


_BLOCKS = frozenset({"content_block_start", "content_block_delta", "message_delta"})
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_EVENTS = _ENDS | {
    "response.output_item.added",
    "response.output_text.delta",
    "response.refusal.delta",
    "response.reasoning_text.delta",
    "response.reasoning_summary_text.delta",
    "response.function_call_arguments.delta",
    "response.custom_tool_call_input.delta",
}
_CALLS = ("function_call", "custom_tool_call")
_RESULTS = ("function_call_output", "custom_tool_call_output")
_TEXTS = ("text", "input_text", "output_text", "refusal")


def _kind(said: Json) -> str:
    kind = said.get("type")
    return kind if isinstance(kind, str) else ""


def parts_of(content: object, budget: Budget) -> list[Json]:
    """Of content that is a text, or a list of parts or blocks: texts and calls as they are, of all else its kind."""
    if isinstance(content, str):
        return _of_kind("text", [budget.take(content)])
    parts: list[Json] = []
    for one in objects(content):
        if not budget.room():
            break
        kind = str(one.get("type", "text"))[:WORD_MAX]
        if kind in _TEXTS:
            parts.append({"type": "text", "content": budget.take(one.get("text") or one.get("refusal"))})
        elif kind == "thinking":
            parts.append({"type": "reasoning", "content": budget.take(one.get("thinking"))})
        elif kind == "tool_use":
            name, arguments = budget.take(one.get("name")), budget.take_json(one.get("input"))
            parts.append(tool_call(budget.take(one.get("id")), name, arguments))
        elif kind == "tool_result":
            parts.append(_result(one.get("tool_use_id"), parts_of(one.get("content"), budget), budget))
        else:
            parts.append({"type": kind})
    return parts


def _of_kind(kind: str, texts: Iterable[str]) -> list[Json]:
    one = part(kind, list(texts))
    return [one] if one else []


def _result(identity: object, parts: list[Json], budget: Budget) -> Json:
    response = "".join(one.get("content", "") for one in parts)
    return {"type": "tool_call_response", "id": budget.take(identity), "response": response}


def _item_call(item: Json, budget: Budget) -> Json:
    name, arguments = budget.take(item.get("name")), budget.take(item.get("arguments", item.get("input")))
    return tool_call(budget.take(item.get("call_id")), name, arguments)


def _thoughts(item: Json, budget: Budget) -> list[str]:
    return [budget.take(piece.get("text")) for field in ("summary", "content") for piece in objects(item.get(field))]


_CHAT = Chat()
DIALECTS: dict[str, Dialect] = {
    CHAT.name: _CHAT,
    TEXT.name: _CHAT,
    MESSAGES.name: Messages(),
    RESPONSES.name: Responses(),
}
