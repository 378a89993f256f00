"""The output items of a response while they come to be: what a model says in, events out.

Whole answers and streams are built by the same hands, so that they cannot differ. Only one item of reasoning or words
is open at a time, as in OpenAI's own streams; calls stay open until the end, as their pieces may come interleaved.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from weir.dialect.responses.fields import Fields
from weir.dialect.responses.free_text import FreeText
from weir.dialect.responses.sealed import sealed
from weir.dialect.responses.tools import Tool, Toolbox


class _Item(Protocol):
    """`shown` is the item as it stands; `place` is in each of its events."""

    shown: Fields
    place: Fields

    def end(self) -> Iterator[Fields]:
        """The events before `response.output_item.done`."""
        ...


class Output:
    """The items of one response. Each method gives the events that it causes, without their numbers."""

    def __init__(self, suffix: str, toolbox: Toolbox, *, seals: bool) -> None:
        self._suffix = suffix
        self._toolbox = toolbox
        self._seals = seals
        self._items: list[_Item] = []
        self._open: list[_Item] = []
        self._speaking: _Reasoning | _Message | None = None
        self._calls: dict[int, _Call] = {}

    @property
    def items(self) -> list[Fields]:
        return [item.shown for item in self._items]

    def think(self, text: str) -> Iterator[Fields]:
        reasoning = self._speaking
        if not isinstance(reasoning, _Reasoning):
            yield from self._stop_speaking()
            self._speaking = reasoning = _Reasoning(self._place("rs"), seals=self._seals)
            yield from self._begin(reasoning)
            yield from reasoning.begin()
        yield from reasoning.add(text)

    def say(self, kind: str, text: str, logprobs: list[Fields]) -> Iterator[Fields]:
        """`kind` is output_text or refusal."""
        message = self._speaking
        if not isinstance(message, _Message):
            yield from self._stop_speaking()
            self._speaking = message = _Message(self._place("msg"))
            yield from self._begin(message)
        yield from message.add(kind, text, logprobs)

    def call(self, index: int, call_id: str, function: str, arguments: str) -> Iterator[Fields]:
        """A piece of the call at `index`; raises ValueError where the first one does not name its function."""
        call = self._calls.get(index)
        # Some engines number every call 0 and tell them apart by their ids.
        if call is None or (function and call_id and call_id != call.shown["call_id"]):
            if not function:
                raise ValueError("a call that names no function")
            yield from self._stop_speaking()
            tool = self._toolbox.called(function)
            place = self._place("ctc" if tool.custom else "fc")
            call = _Call(place, call_id or f"call_{self._suffix}_{place['output_index']}", tool)
            self._calls[index] = call
            yield from self._begin(call)
        if arguments:
            yield from call.add(arguments)

    def end(self, status: str) -> Iterator[Fields]:
        """`status` is that of whatever is still open."""
        self._speaking = None
        for item in list(self._open):
            yield from self._finish(item, status)

    def _place(self, prefix: str) -> Fields:
        index = len(self._items)
        return {"item_id": f"{prefix}_{self._suffix}_{index}", "output_index": index}

    def _begin(self, item: _Item) -> Iterator[Fields]:
        self._items.append(item)
        self._open.append(item)
        yield _of_item("response.output_item.added", item)

    def _stop_speaking(self) -> Iterator[Fields]:
        if self._speaking is not None:
            yield from self._finish(self._speaking, "completed")
            self._speaking = None

    def _finish(self, item: _Item, status: str) -> Iterator[Fields]:
        self._open.remove(item)
        yield from item.end()
        item.shown["status"] = status
        yield _of_item("response.output_item.done", item)


class _Reasoning:
    def __init__(self, place: Fields, *, seals: bool) -> None:
        self.place = place
        self.shown: Fields = {"id": place["item_id"], "type": "reasoning", "summary": [], "content": []}
        self.shown |= {"encrypted_content": None, "status": "in_progress"}
        self._seals = seals
        self._said: list[str] = []

    def begin(self) -> Iterator[Fields]:
        yield _of_part("response.content_part.added", self, 0, part={"type": "reasoning_text", "text": ""})

    def add(self, text: str) -> Iterator[Fields]:
        self._said.append(text)
        yield _of_part("response.reasoning_text.delta", self, 0, delta=text)

    def end(self) -> Iterator[Fields]:
        text = "".join(self._said)
        part = {"type": "reasoning_text", "text": text}
        yield _of_part("response.reasoning_text.done", self, 0, text=text)
        yield _of_part("response.content_part.done", self, 0, part=part)
        self.shown["content"] = [part]
        if self._seals:
            self.shown["encrypted_content"] = sealed(text)


class _Message:
    def __init__(self, place: Fields) -> None:
        self.place = place
        self.shown: Fields = {"id": place["item_id"], "type": "message", "role": "assistant", "content": []}
        self.shown["status"] = "in_progress"
        self._kind = ""  # of the part that is open
        self._parts: list[Fields] = []
        self._said: list[str] = []
        self._logprobs: list[Fields] = []

    def add(self, kind: str, text: str, logprobs: list[Fields]) -> Iterator[Fields]:
        if kind != self._kind:
            yield from self._end_part()
            self._kind = kind
            yield _of_part("response.content_part.added", self, len(self._parts), part=self._part(""))
        self._said.append(text)
        self._logprobs += logprobs
        more: Fields = {"logprobs": logprobs} if kind == "output_text" else {}
        yield _of_part(f"response.{kind}.delta", self, len(self._parts), delta=text, **more)

    def end(self) -> Iterator[Fields]:
        yield from self._end_part()
        self.shown["content"] = self._parts

    def _end_part(self) -> Iterator[Fields]:
        if not self._kind:
            return
        part, index = self._part("".join(self._said)), len(self._parts)
        told = {name: part[name] for name in ("text", "logprobs", "refusal") if name in part}
        yield _of_part(f"response.{self._kind}.done", self, index, **told)
        yield _of_part("response.content_part.done", self, index, part=part)
        self._parts.append(part)
        self._kind, self._said, self._logprobs = "", [], []

    def _part(self, text: str) -> Fields:
        if self._kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs if text else []}


class _Call:
    def __init__(self, place: Fields, call_id: str, tool: Tool) -> None:
        self.place = place
        self._field = "input" if tool.custom else "arguments"
        self._event = f"response.{'custom_tool_call_input' if tool.custom else 'function_call_arguments'}"
        self._free_text = FreeText() if tool.custom else None
        self._said: list[str] = []
        kind = "custom_tool_call" if tool.custom else "function_call"
        self.shown: Fields = {"id": place["item_id"], "type": kind, "call_id": call_id, "name": tool.name}
        if tool.namespace is not None:
            self.shown["namespace"] = tool.namespace
        self.shown |= {self._field: "", "status": "in_progress"}

    def add(self, arguments: str) -> Iterator[Fields]:
        delta = arguments if self._free_text is None else self._free_text.feed(arguments)
        if delta:
            self._said.append(delta)
            yield _of(f"{self._event}.delta", self, delta=delta)

    def end(self) -> Iterator[Fields]:
        if self._free_text is not None and (rest := self._free_text.flush()):
            self._said.append(rest)
            yield _of(f"{self._event}.delta", self, delta=rest)
        whole = "".join(self._said)
        self.shown[self._field] = whole
        named = {"name": self.shown["name"]} if self._free_text is None else {}
        yield _of(f"{self._event}.done", self, **named, **{self._field: whole})


def _of(kind: str, item: _Item, **more: Any) -> Fields:
    return {"type": kind, **item.place, **more}


def _of_part(kind: str, item: _Item, index: int, **more: Any) -> Fields:
    return {"type": kind, **item.place, "content_index": index, **more}


def _of_item(kind: str, item: _Item) -> Fields:
    # A copy, as the item goes on to change.
    return {"type": kind, "output_index": item.place["output_index"], "item": dict(item.shown)}
