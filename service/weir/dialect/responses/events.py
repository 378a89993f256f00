"""A stream of chat chunks as the events of a response (OpenAI's `ResponseStreamEvent`)."""

from collections.abc import Iterable, Iterator

import orjson

from weir.core.errors import UpstreamFailed
from weir.core.sse import EventReader, TooLong
from weir.dialect.fields import read_json, write_json
from weir.dialect.responses.answer import Answer
from weir.dialect.responses.fields import Fields
from weir.dialect.responses.request import WayBack

_DONE = b"[DONE]"
_BROKE_OFF = "The model's server failed in the middle of its answer."


class ResponseEvents:
    """See `Events`. What is no chat chunk is UpstreamFailed while nothing has been told, and a failed response later.

    Usage comes after the finish, so the terminal event waits for upstream's [DONE]; without one there is none.
    `fixed` are the request's fields that a response repeats; they are written once, as JSON.
    """

    __slots__ = ("_answer", "_begun", "_ended", "_fixed", "_number", "_reader", "_written")

    def __init__(self, way_back: WayBack, fixed: Iterable[str]) -> None:
        self._fixed = {name: way_back.repeated[name] for name in fixed}
        written = {name: orjson.Fragment(orjson.dumps(value)) for name, value in self._fixed.items()}
        self._answer = Answer(way_back._replace(repeated={**way_back.repeated, **written}))
        self._reader = EventReader()
        self._written: list[bytes] = []
        self._number = 0
        self._begun = self._ended = False

    @property
    def prompt_tokens(self) -> int:
        return self._answer.prompt_tokens

    def feed(self, chunk: bytes) -> bytes:
        try:
            for event in self._reader.feed(chunk):
                if event.data:  # an empty one says nothing: some servers keep the line open with it
                    self._read(event.data)
        except TooLong:
            self._give_up("an event without an end")
        return self._taken()

    def flush(self) -> bytes:
        event = self._reader.flush()
        if event is not None and event.data.strip() == _DONE:
            self._read(event.data)
        return self._taken()

    def _read(self, data: bytes) -> None:
        if self._ended:
            return
        if data.strip() == _DONE:
            if self._begun:  # a stream of nothing but its end is none
                self._end(self._answer.end())
            return
        try:
            chunk = read_json(data)
        except ValueError:
            self._give_up("an event that is no JSON")
            return
        if not isinstance(chunk, dict):
            self._give_up("an event that is no object")
            return
        if not self._begun:
            self._begun = True
            self._write(self._answer.begin(chunk))
        if chunk.get("error"):
            self._end(self._failed(chunk["error"]))
            return
        try:
            self._write(self._answer.read(chunk, "delta"))
        except UpstreamFailed as error:
            self._give_up(error.text)

    def _give_up(self, reason: str) -> None:
        if not self._begun:
            raise UpstreamFailed(reason=reason)
        self._end(self._failed({"message": _BROKE_OFF}))

    def _failed(self, error: object) -> Iterator[Fields]:
        """As the API does it: an error in words for whoever reads events, and the response's own end."""
        told: Fields = error if isinstance(error, dict) else {"message": str(error)}
        code = told.get("code")
        failure = {
            "code": code if isinstance(code, str) else "server_error",  # vLLM writes the status there
            "message": str(told.get("message") or _BROKE_OFF),
        }
        yield {"type": "error", **failure, "param": told.get("param")}
        yield from self._answer.fail(failure)

    def _end(self, events: Iterable[Fields]) -> None:
        if not self._ended:
            self._ended = True
            self._write(events)

    def _write(self, events: Iterable[Fields]) -> None:
        for event in events:
            event["sequence_number"] = self._number
            self._number += 1
            self._written.append(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), self._json(event)))

    def _json(self, event: Fields) -> bytes:
        try:
            return orjson.dumps(event)
        except TypeError:  # half a surrogate pair, which is to meet its other half at the client
            if "response" in event:
                event = {**event, "response": {**event["response"], **self._fixed}}
            return write_json(event)

    def _taken(self) -> bytes:
        taken = b"".join(self._written)
        self._written.clear()
        return taken
