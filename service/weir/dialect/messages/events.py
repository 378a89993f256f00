"""chat.completion.chunk events as those of Anthropic's Messages API ("Streaming messages"). Sans I/O.

Chat tells its tool calls by index, in any order; Messages has one block at a time. So the call that is being told goes
out as it comes, and what belongs to another waits until that one is complete: at the latest until the stream's end.
"""

from typing import Any

import orjson

from weir.core.errors import UpstreamFailed
from weir.core.sse import EventReader, TooLong
from weir.dialect.anthropic_errors import error
from weir.dialect.fields import Json, read_json, write_json
from weir.dialect.messages.answer import arguments, beginning, call_id, calls, stop_reason, text, thought, usage
from weir.dialect.openai_errors import GAVE_UP, Told, told_in

_PIECES = {"text": "text_delta", "thinking": "thinking_delta", "tool_use": "input_json_delta"}


class _Block:
    """`pieces` is what waits, and of a tool call all that was told, so that one sees when it is complete."""

    __slots__ = ("closed", "id", "kind", "name", "pieces")

    def __init__(self, kind: str, call: str = "", name: str = "") -> None:
        self.kind = kind
        self.id = call
        self.name = name
        self.pieces: list[str] = []
        self.closed = False

    @property
    def complete(self) -> bool:
        """An object that has ended cannot go on; a text can be ended anywhere."""
        if self.kind != "tool_use":
            return True
        try:
            return isinstance(orjson.loads("".join(self.pieces)), dict)
        except orjson.JSONDecodeError:
            return False

    def beginning(self) -> Json:
        if self.kind == "tool_use":
            return {"type": "tool_use", "id": self.id, "name": self.name, "input": {}}
        # Another vendor's thinking has no signature; the member must be there.
        return {"type": self.kind, self.kind: ""} | ({"signature": ""} if self.kind == "thinking" else {})


class MessageEvents:
    """Implements `Events`. An answer that is none of chat's ends with `event: error`; nothing comes after that.

    `name` is for what the server gave none.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reader = EventReader()
        self._out: list[bytes] = []
        self._begun = self._ended = self._refused = False
        self._open: _Block | None = None
        self._number = -1  # of the latest block
        self._waiting: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self._finish: Json = {}
        self._usage = usage({})
        self.prompt_tokens = 0

    def feed(self, chunk: bytes) -> bytes:
        try:
            for event in self._reader.feed(chunk):
                if event.data and not self._ended:
                    self._take(event.data)
        except TooLong:
            self._fail(Told(UpstreamFailed.message))
        return self._given()

    def flush(self) -> bytes:
        event = self._reader.flush()
        # Some servers save the blank line after the terminator. Anything else without one was cut off.
        if event is not None and not self._ended and event.data.strip() == b"[DONE]":
            self._end()
        return self._given()

    def _given(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _take(self, data: bytes) -> None:
        if data.strip() == b"[DONE]":
            self._end()
            return
        try:
            said = read_json(data)
            failure = told_in(said)
            if failure is None:
                self._chunk(said)
            else:
                self._fail(failure)
        except (ValueError, LookupError, TypeError, AttributeError):
            self._fail(Told(UpstreamFailed.message))

    def _chunk(self, said: Json) -> None:
        if said.get("usage"):
            self._usage = usage(said)
            self.prompt_tokens = self._usage["input_tokens"] + self._usage["cache_read_input_tokens"]
        for choice in said.get("choices") or ():
            self._begin(said)  # and not before: Azure speaks of its filter first, without an id
            delta = choice.get("delta") or {}
            self._say("thinking", thought(delta))
            self._say("text", text(delta.get("content")))
            if delta.get("refusal"):
                self._refused = True
                self._say("text", text(delta["refusal"]))
            for call in calls(delta):
                self._call(call)
            if choice.get("finish_reason") in GAVE_UP:
                self._fail(Told(UpstreamFailed.message))
                return
            if choice.get("finish_reason"):
                self._finish = choice
                self._drain()

    def _say(self, kind: str, piece: str) -> None:
        if not piece:
            return
        last = self._waiting[-1] if self._waiting else self._open
        self._write(last if last is not None and last.kind == kind else _Block(kind), piece)

    def _call(self, told: Json) -> None:
        function = told.get("function") or {}
        index = told.get("index")
        if index is None:  # without one, a name begins a new call
            index = len(self._calls) - (0 if function.get("name") or not self._calls else 1)
        block = self._calls.get(index)
        # Some servers give every call the same index, and an id of its own.
        if block is None or (block.id and function.get("name") and told.get("id") not in {None, "", block.id}):
            block = self._calls[index] = _Block("tool_use")
        block.id = block.id or told.get("id") or ""
        block.name = block.name or function.get("name") or ""
        self._write(block, arguments(function))

    def _write(self, block: _Block, piece: str) -> None:
        if block.closed:  # it was complete, so this is white space
            return
        if block is not self._open and block not in self._waiting:
            if not self._waiting and (block.name or block.kind != "tool_use") and self._gives_way():
                self._start(block)
            else:
                self._waiting.append(block)
        if block is not self._open or block.kind == "tool_use":
            block.pieces.append(piece)
        if block is self._open:
            self._tell(block, piece)

    def _gives_way(self) -> bool:
        return self._open is None or self._open.complete

    def _start(self, block: _Block) -> None:
        self._stop()
        self._open = block
        self._number += 1
        block.id = block.id or call_id(self._name, self._number)
        start = {"type": "content_block_start", "index": self._number, "content_block": block.beginning()}
        self._emit("content_block_start", start)

    def _tell(self, block: _Block, piece: str) -> None:
        if piece:
            member = "partial_json" if block.kind == "tool_use" else block.kind
            delta = {"type": _PIECES[block.kind], member: piece}
            self._emit("content_block_delta", {"type": "content_block_delta", "index": self._number, "delta": delta})

    def _stop(self) -> None:
        if self._open is not None:
            self._open.closed = True
            self._open = None
            self._emit("content_block_stop", {"type": "content_block_stop", "index": self._number})

    def _drain(self) -> None:
        """No delta comes any more: what waited goes out in its turn."""
        for block in self._waiting:
            self._start(block)
            self._tell(block, "".join(block.pieces))
        self._waiting.clear()
        self._stop()

    def _begin(self, said: Json) -> None:
        if not self._begun:
            self._begun = True
            self._emit("message_start", {"type": "message_start", "message": beginning(said, self._name)})

    def _end(self) -> None:
        if not self._begun:  # a stream of nothing but its end is no answer
            self._fail(Told(UpstreamFailed.message))
            return
        self._drain()
        reason, matched = stop_reason(self._finish, called=bool(self._calls))
        delta = {"stop_reason": "refusal" if self._refused else reason, "stop_sequence": matched}
        # Chat tells usage at the end only, so it stands here whole, and not as what was added since the start.
        self._emit("message_delta", {"type": "message_delta", "delta": delta, "usage": self._usage})
        self._emit("message_stop", {"type": "message_stop"})
        self._ended = True

    def _fail(self, failure: Told) -> None:
        self._emit("error", error(failure.status or 500, failure.message))
        self._ended = True

    def _emit(self, name: str, event: dict[str, Any]) -> None:
        self._out.append(b"event: " + name.encode() + b"\ndata: " + write_json(event) + b"\n\n")
