"""The events of Anthropic's Messages API as chat.completion.chunk events and `data: [DONE]`. Sans I/O."""

import orjson

from weir.core.errors import UpstreamFailed
from weir.core.sse import EventReader, TooLong
from weir.dialect.anthropic_errors import status_of
from weir.dialect.chat.answer import call, ending, refusal, usage
from weir.dialect.fields import Json, read_json, write_json
from weir.dialect.openai_errors import Told, openai_error, told_in

_SAID = {"text_delta": ("text", "content"), "thinking_delta": ("thinking", "reasoning_content")}


class ChatEvents:
    """Implements `Events`. `tells_usage` is the client's `stream_options.include_usage`.

    An answer that is none of Anthropic's ends with an error event; nothing comes after that, no `[DONE]` either.
    """

    def __init__(self, *, created: int, tells_usage: bool) -> None:
        self._reader = EventReader()
        self._out: list[bytes] = []
        self._tells_usage = tells_usage
        self._head: Json = {"id": "", "object": "chat.completion.chunk", "created": created, "model": ""}
        self._usage: Json = {}
        self._calls: dict[int, int] = {}  # a block's index -> its number among the tool calls
        self._ended = False
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
        # The last event may come without its blank line. Anything else without one was cut off.
        if event is not None and not self._ended and b'"message_stop"' in event.data and event.data.endswith(b"}"):
            self._take(event.data)
        return self._given()

    def _given(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _take(self, data: bytes) -> None:
        try:
            said = read_json(data)
            kind = said["type"]
            if kind == "error":
                failure = told_in(said)
                self._fail(failure or Told(UpstreamFailed.message))
            elif kind == "content_block_delta":
                self._delta(said["delta"], said["index"])
            elif kind == "content_block_start":
                self._block(said["content_block"], said["index"])
            elif kind == "message_start":
                self._begin(said["message"])
            elif kind == "message_delta":
                self._usage |= {name: told for name, told in (said.get("usage") or {}).items() if told is not None}
                self._finish(said["delta"])
            elif kind == "message_stop":
                self._end()
        except (ValueError, LookupError, TypeError, AttributeError):
            self._fail(Told(UpstreamFailed.message))

    def _begin(self, message: Json) -> None:
        self._head |= {"id": message["id"], "model": message["model"]}
        self._usage = dict(message.get("usage") or {})
        self.prompt_tokens = usage(self._usage)["prompt_tokens"]
        self._choice({"role": "assistant", "content": ""})

    def _block(self, block: Json, index: int) -> None:
        kind = block["type"]
        if kind == "tool_use":
            number = self._calls[index] = len(self._calls)
            given = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            self._choice({"tool_calls": [{"index": number, **call(block, given)}]})
        elif kind == "text" and block.get("text"):
            self._choice({"content": block["text"]})

    def _delta(self, delta: Json, index: int) -> None:
        """Signatures and citations have no place in chat."""
        kind = delta["type"]
        if kind in _SAID:
            here, there = _SAID[kind]
            self._choice({there: delta[here]})
        elif kind == "input_json_delta" and index in self._calls and delta["partial_json"]:
            function = {"arguments": delta["partial_json"]}
            self._choice({"tool_calls": [{"index": self._calls[index], "function": function}]})

    def _finish(self, delta: Json) -> None:
        if delta.get("stop_reason"):
            why = refusal(delta)
            self._choice({"refusal": why} if why else {}, ending(delta))

    def _end(self) -> None:
        if self._tells_usage:
            self._emit({**self._head, "choices": [], "usage": usage(self._usage)})
        self._out.append(b"data: [DONE]\n\n")
        self._ended = True

    def _fail(self, failure: Told) -> None:
        self._emit(openai_error(failure.status or status_of(failure.kind), failure))
        self._ended = True

    def _choice(self, delta: Json, ended: Json | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, **(ended or {"finish_reason": None})}
        self._emit({**self._head, "choices": [choice]})

    def _emit(self, event: Json) -> None:
        self._out.append(b"data: " + write_json(event) + b"\n\n")
