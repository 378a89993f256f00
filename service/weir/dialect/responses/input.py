"""The `input` of a Responses request as chat messages.

What belongs to one turn of the model (its reasoning, its words, its calls) is one assistant message there. Reasoning
travels as `reasoning_content`, the field of vLLM, SGLang and llama.cpp.
"""

from collections.abc import Callable

import orjson

from weir.core.errors import InvalidValue
from weir.dialect.responses.fields import Fields, a_list, a_string, an_object, member, only, optional, refuse
from weir.dialect.responses.parts import is_text, joined, text_of_parts, to_content
from weir.dialect.responses.sealed import unsealed
from weir.dialect.responses.tools import INPUT, Toolbox, full_name

# What an item says about itself that changes no answer: its name and state, how far a turn was, who called a tool.
_HINTS = {"type", "id", "status", "phase", "caller", "created_by"}
_ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_MESSAGE = {"role", "content"} | _HINTS
_CALL = {"call_id", "name", "namespace", "arguments"} | _HINTS
_CUSTOM_CALL = {"call_id", "name", "namespace", "input"} | _HINTS
_OUTPUT = {"call_id", "name", "namespace", "output"} | _HINTS
_REASONING = {"summary", "content", "encrypted_content"} | _HINTS
_TOOLS = {"role", "tools"} | _HINTS
_SEE_BELOW = "The output of this call is in the next message."


class _Turn:
    """What the model did before somebody else spoke: one assistant message."""

    __slots__ = ("calls", "thoughts", "words")

    def __init__(self) -> None:
        self.thoughts: list[str] = []
        self.words: list[str] = []
        self.calls: list[Fields] = []

    def message(self) -> Fields:
        # A message without words and calls, only thought, is refused by engines where its content is null.
        content = "\n\n".join(self.words) if self.words or not self.calls else None
        message: Fields = {"role": "assistant", "content": content}
        if self.thoughts:
            message["reasoning_content"] = "\n\n".join(self.thoughts)
        if self.calls:
            message["tool_calls"] = self.calls
        return message


class Conversation:
    """Feed it items; `messages` are chat's. Tools that the input itself offers go to `toolbox`."""

    def __init__(self, instructions: object, toolbox: Toolbox) -> None:
        self.messages: list[Fields] = []
        self._toolbox = toolbox
        self._turn: _Turn | None = None  # that is being put together
        self._media: list[Fields] = []  # of tool outputs: only a user's message may carry them
        self._take: dict[str, Callable[[Fields, str], None]] = {
            "message": self._message,
            "reasoning": self._reasoning,
            "function_call": self._function_call,
            "custom_tool_call": self._custom_call,
            "function_call_output": self._call_output,
            "custom_tool_call_output": self._call_output,
            "additional_tools": self._additional_tools,
        }
        if instructions is not None and (told := a_string(instructions, "instructions")):
            self.messages.append({"role": "system", "content": told})

    def read(self, given: object) -> list[Fields]:
        if isinstance(given, str):
            self.messages.append({"role": "user", "content": given})
            return self.messages
        for index, item in enumerate(a_list(given, "input")):
            where = f"input[{index}]"
            fields = an_object(item, where)
            kind = fields.get("type") or ("message" if "role" in fields else "item_reference")
            take = self._take.get(kind) if isinstance(kind, str) else None
            if take is None:
                raise _unknown(kind, where)
            take(fields, where)
        self._end_turn()
        self._show_media()
        return _with_one_beginning(self.messages)

    def _message(self, item: Fields, where: str) -> None:
        only(_MESSAGE, item, where)
        role = _ROLES.get(a_string(item.get("role"), f"{where}.role"))
        if role is None:
            raise refuse(f"'{item['role']}' is not a role. Use user, assistant, system or developer.", f"{where}.role")
        content = item.get("content")
        if role == "assistant":
            self._say(content if isinstance(content, str) else text_of_parts(content, f"{where}.content"))
            return
        self._end_turn()
        self._show_media()
        said = content if isinstance(content, str) else to_content(content, f"{where}.content")
        self.messages.append({"role": role, "content": said})

    def _say(self, text: str) -> None:
        self._end_message()
        self._model_turn().words.append(text)

    def _reasoning(self, item: Fields, where: str) -> None:
        only(_REASONING, item, where)
        text = joined(item.get("content"), "text", f"{where}.content") or unsealed(item.get("encrypted_content"))
        # Reasoning that somebody else has encrypted cannot be read here, and is the one thing that is left out.
        text = text or joined(item.get("summary"), "text", f"{where}.summary")
        if not text:
            return
        self._end_message()
        self._model_turn().thoughts.append(text)

    def _function_call(self, item: Fields, where: str) -> None:
        only(_CALL, item, where)
        self._call(item, member(item, "arguments", where), where)

    def _custom_call(self, item: Fields, where: str) -> None:
        only(_CUSTOM_CALL, item, where)
        self._call(item, orjson.dumps({INPUT: member(item, "input", where)}).decode(), where)

    def _call(self, item: Fields, arguments: str, where: str) -> None:
        function = {"name": full_name(item, where), "arguments": arguments}
        call = {"id": member(item, "call_id", where), "type": "function", "function": function}
        self._model_turn().calls.append(call)

    def _call_output(self, item: Fields, where: str) -> None:
        only(_OUTPUT, item, where)
        self._end_turn()
        call_id, output = optional(item, "call_id", where), item.get("output")
        content = output if isinstance(output, str) else to_content(output, f"{where}.output")
        if not isinstance(content, str):
            media = [part for part in content if not is_text(part)]
            if media:
                self._media += [{"type": "text", "text": f"Output of the call {call_id}:"}, *media]
            content = _plain([part for part in content if is_text(part)]) or (_SEE_BELOW if media else "")
        if call_id is None:  # Codex reports on what it did of itself; chat has no outputs without a call
            told = f"Output of {full_name(item, where)}:\n{content}"
            self.messages.append({"role": "user", "content": told})
            return
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})

    def _additional_tools(self, item: Fields, where: str) -> None:
        only(_TOOLS, item, where)
        self._toolbox.offer(item.get("tools"), f"{where}.tools")

    def _model_turn(self) -> _Turn:
        if self._turn is None:
            self._show_media()
            self._turn = _Turn()
        return self._turn

    def _end_message(self) -> None:
        """Two messages in a row stay two; with calls they are one, as the outputs have to follow right behind it."""
        if self._turn is not None and self._turn.words and not self._turn.calls:
            self._end_turn()

    def _end_turn(self) -> None:
        if self._turn is not None:
            self.messages.append(self._turn.message())
            self._turn = None

    def _show_media(self) -> None:
        """Only here, as nothing may stand between the outputs of one turn's calls."""
        if self._media:
            self.messages.append({"role": "user", "content": self._media})
            self._media = []


def _with_one_beginning(messages: list[Fields]) -> list[Fields]:
    """Instructions and what the developer says before anybody speaks become one message: the templates of many models
    take a single system message, and only as the first.
    """
    count = 0
    for message in messages:
        if message["role"] != "system" or not _all_text(message["content"]):
            break
        count += 1
    if count < 2:
        return messages
    words = [_plain(message["content"]) for message in messages[:count]]
    return [{"role": "system", "content": "\n\n".join(words)}, *messages[count:]]


def _all_text(content: str | list[Fields]) -> bool:
    return isinstance(content, str) or all(is_text(part) for part in content)


def _plain(content: str | list[Fields]) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _unknown(kind: object, where: str) -> InvalidValue:
    if kind == "item_reference":
        says = "names an item of an earlier answer, and this endpoint stores none. Send the item itself."
    else:
        says = (
            "is not understood: the model behind this endpoint speaks chat completions. Send messages, reasoning, "
            "function calls, custom tool calls and their outputs."
        )
    return InvalidValue(f"{where}: an item of the type '{kind}' {says}", param=where)
