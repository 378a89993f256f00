"""The pieces of kept content: messages of parts, as the GenAI conventions' JSON schemas have them, and their bound."""

from collections.abc import Iterator
from typing import Any

import orjson

TEXT_MAX = 64 * 1024  # bytes of text kept of the question, and of the answer
PART_BYTES = 32  # about what a message or a part needs beside its text
WORD_MAX = 32  # characters of a role, a kind, a reason: what is no word is not one, and as text it could be megabytes

# Other people's JSON, of any shape: Any is its honest type.
Json = dict[str, Any]


class Budget:
    """How many bytes may still be kept."""

    __slots__ = ("exceeded", "left")

    def __init__(self) -> None:
        self.left = TEXT_MAX
        self.exceeded = False

    def room(self) -> bool:
        """Whether one more message or part may be kept; empty ones would have no bound otherwise."""
        self.exceeded = self.exceeded or self.left < PART_BYTES
        self.left -= PART_BYTES
        return not self.exceeded

    def take(self, text: object) -> str:
        if not isinstance(text, str) or not text:
            return ""
        data = text.encode(errors="replace")
        if len(data) > self.left:
            self.exceeded = True
            data = data[: max(self.left, 0)]
        self.left -= len(data)
        return data.decode(errors="ignore")

    def take_json(self, value: object) -> str:
        """What stands for the arguments of a call, as text; a text is taken for that already."""
        return self.take(value if isinstance(value, str) else written(value))


class Answer:
    """One answer of perhaps several, put together from what came of it."""

    __slots__ = ("_budget", "_reasoning", "_text", "_tools", "finish_reason")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tools: dict[int, dict[str, str]] = {}
        self.finish_reason = ""

    def say(self, text: object) -> None:
        if kept := self._budget.take(text):
            self._text.append(kept)

    def think(self, text: object) -> None:
        if kept := self._budget.take(text):
            self._reasoning.append(kept)

    def call(self, index: object, *, identity: object = "", name: object = "", arguments: object = "") -> None:
        """More of the call of a tool, however little."""
        if isinstance(index, int) and (index in self._tools or self._budget.room()):
            tool = self._tools.setdefault(index, {"id": "", "name": "", "arguments": ""})
            for member, more in (("id", identity), ("name", name), ("arguments", arguments)):
                tool[member] += self._budget.take(more)

    def end(self, reason: object) -> None:
        if reason:
            self.finish_reason = str(reason)[:WORD_MAX]

    def message(self, *, with_finish_reason: bool) -> Json:
        parts = [part("reasoning", self._reasoning), part("text", self._text)]
        parts += [tool_call(tool["id"], tool["name"], tool["arguments"]) for _, tool in sorted(self._tools.items())]
        message: Json = {"role": "assistant", "parts": [one for one in parts if one]}
        if with_finish_reason:
            # "error" is the schema's word for one that came to no end.
            message["finish_reason"] = self.finish_reason or "error"
        return message


class Answers:
    """All that one request was answered, by the number of the choice."""

    __slots__ = ("_by_index", "budget")

    def __init__(self) -> None:
        self.budget = Budget()
        self._by_index: dict[int, Answer] = {}

    def at(self, index: object = 0) -> Answer | None:
        """None where nothing more may be kept, or the index is none."""
        if not isinstance(index, int) or not (index in self._by_index or self.budget.room()):
            return None
        return self._by_index.setdefault(index, Answer(self.budget))

    def messages(self, *, with_finish_reason: bool) -> list[Json]:
        return [one.message(with_finish_reason=with_finish_reason) for _, one in sorted(self._by_index.items())]


def part(kind: str, pieces: list[str]) -> Json:
    """Nothing where there is no text."""
    text = "".join(pieces)
    return {"type": kind, "content": text} if text else {}


def tool_call(identity: str, name: str, arguments: str) -> Json:
    try:
        read = orjson.loads(arguments)
        orjson.dumps(read)  # takes less deep a nesting than `loads` does
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        read = arguments
    return {"type": "tool_call", "id": identity, "name": name, "arguments": read}


def objects(value: object) -> Iterator[Json]:
    """Those of a list, if it is one."""
    for one in value if isinstance(value, list) else ():
        if isinstance(one, dict):
            yield one


def inside(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def word(value: object) -> str:
    return value[:WORD_MAX] if isinstance(value, str) else ""


def written(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


def parsed(data: bytes) -> Json:
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return inside(said)
