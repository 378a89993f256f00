"""The events of a response as its function's pieces come. Pure. OpenAI's API description, `ResponseStreamEvent`.

One item is open at a time: reasoning, text, or a function call. Another kind, or another call, closes it.
"""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from weir.api.library.types import Response
from weir.backend.results import ChunkMapper, reasoning_of, text_of, tool_call, usage_of

Json = dict[str, Any]
TEXT, REASONING, CALL = "message", "reasoning", "function_call"
PREFIXES = {TEXT: "msg", REASONING: "rs", CALL: "fc"}


class ResponseEvents:
    """Each event has its name as `type`, and a number. A `Response` among the pieces is the end, as it is."""

    def __init__(self, response: Response, mapper: ChunkMapper = text_of) -> None:
        self.usage: Json | None = None
        self.ended = False
        self._response = response
        self._mapper = mapper
        self._number = 0
        self._output: list[Json] = []
        self._item: Json | None = None  # the open one, with what it holds so far
        self._held: list[str] = []
        self._calls: dict[int, str] = {}  # the call ids of tool call deltas, by their index

    def of(self, piece: Any) -> list[Json]:
        return [] if self.ended else [*self._begin(), *self._of(piece)]

    def end(self) -> list[Json]:
        if self.ended:
            return []
        usage = None if self.usage is None else response_usage(self.usage)
        events = [*self._begin(), *self._close()]
        completed = self._response.model_copy(update={"status": "completed", "output": self._output, "usage": usage})
        return [*events, self._event("response.completed", response=completed.model_dump(mode="json"))]

    def failed(self, error: Json) -> Json:
        """The last event of a stream that broke: OpenAI's `ResponseErrorEvent`."""
        said = {"message": error["message"], "code": error.get("code"), "param": error.get("param")}
        return self._event("error", **said)

    def _begin(self) -> Iterator[Json]:
        if self._number == 0:
            begun = self._response.model_copy(update={"status": "in_progress"}).model_dump(mode="json")
            yield self._event("response.created", response=begun)
            yield self._event("response.in_progress", response=begun)

    def _of(self, piece: Any) -> Iterator[Json]:
        if isinstance(piece, Response):
            self.ended = True
            yield self._event("response.completed", response=piece.model_dump(mode="json"))
            return
        event = getattr(piece, "to_event_dict", None)
        if callable(event):
            told = event()
            yield {"type": "response.event", **told}
            return
        self.usage = usage_of(piece) or self.usage
        reasoning, calls = reasoning_of(piece), list(self._calls_of(piece))
        if reasoning is not None:
            yield from self._add_reasoning(reasoning)
        for call_id, name, arguments in calls:
            yield from self._add_call(call_id, name, arguments)
        if reasoning is None and not calls and (text := self._text(piece)):
            yield from self._add_text(text)

    def _text(self, piece: Any) -> str:
        content = piece if isinstance(piece, str) else getattr(piece, "content", None)
        return content if isinstance(content, str) else self._mapper(piece)

    def _calls_of(self, piece: Any) -> Iterator[tuple[str, str | None, str]]:
        """Call id, name and arguments: of a piece with `function_call_*`, or with `tool_calls` as in a chat."""
        if isinstance(piece, str):
            return
        if getattr(piece, "function_call_id", None) is not None and hasattr(piece, "function_call_arguments"):
            arguments = piece.function_call_arguments
            yield (
                str(piece.function_call_id),
                getattr(piece, "function_call_name", None),
                "" if arguments is None else str(arguments),
            )
        for number, call in enumerate(getattr(piece, "tool_calls", None) or ()):
            said = tool_call(call, number)
            call_id = said.get("id") or self._calls.get(said["index"]) or f"call_{uuid4().hex}"
            self._calls[said["index"]] = call_id
            yield call_id, said["function"].get("name"), said["function"].get("arguments") or ""

    # -- the open item

    def _add_text(self, text: str) -> Iterator[Json]:
        if not self._is_open(TEXT):
            yield from self._open(TEXT, role="assistant", content=[])
            yield self._of_item("response.content_part.added", content_index=0, part=_text_part(""))
        self._held.append(text)
        yield self._of_item("response.output_text.delta", content_index=0, delta=text, logprobs=[])

    def _add_reasoning(self, text: str) -> Iterator[Json]:
        if not self._is_open(REASONING):
            yield from self._open(REASONING, summary=[])
            part = {"type": "summary_text", "text": ""}
            yield self._of_item("response.reasoning_summary_part.added", summary_index=0, part=part)
        self._held.append(text)
        yield self._of_item("response.reasoning_summary_text.delta", summary_index=0, delta=text)

    def _add_call(self, call_id: str, name: str | None, arguments: str) -> Iterator[Json]:
        if self._item is None or not self._is_open(CALL) or self._item["call_id"] != call_id:
            yield from self._open(CALL, call_id=call_id, name=name or "function", arguments="")
        elif name is not None:
            self._item["name"] = name
        if arguments:
            self._held.append(arguments)
            yield self._of_item("response.function_call_arguments.delta", delta=arguments)

    def _is_open(self, kind: str) -> bool:
        return self._item is not None and self._item["type"] == kind

    def _open(self, kind: str, **fields: Any) -> Iterator[Json]:
        yield from self._close()
        self._held = []
        self._item = {"id": f"{PREFIXES[kind]}_{uuid4().hex}", "type": kind, "status": "in_progress", **fields}
        yield self._event("response.output_item.added", output_index=len(self._output), item=dict(self._item))

    def _close(self) -> Iterator[Json]:
        item = self._item
        if item is None:
            return
        whole = "".join(self._held)
        item["status"] = "completed"
        if item["type"] == TEXT:
            part = _text_part(whole)
            item["content"] = [part]
            yield self._of_item("response.output_text.done", content_index=0, text=whole, logprobs=[])
            yield self._of_item("response.content_part.done", content_index=0, part=part)
        elif item["type"] == REASONING:
            part = {"type": "summary_text", "text": whole}
            item["summary"] = [part]
            yield self._of_item("response.reasoning_summary_text.done", summary_index=0, text=whole)
            yield self._of_item("response.reasoning_summary_part.done", summary_index=0, part=part)
        else:
            item["arguments"] = whole
            yield self._of_item("response.function_call_arguments.done", name=item["name"], arguments=whole)
        yield self._event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._item = None

    def _of_item(self, kind: str, **fields: Any) -> Json:
        item_id = self._item["id"] if self._item is not None else None
        return self._event(kind, item_id=item_id, output_index=len(self._output), **fields)

    def _event(self, kind: str, **fields: Any) -> Json:
        event = {"type": kind, **fields, "sequence_number": self._number}
        self._number += 1
        return event


def response_usage(usage: Json) -> Json:
    """In the words of the Responses API, also where it was told in those of a chat."""
    if "input_tokens" in usage:
        return usage
    read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    of_read, of_written = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": of_read.get("cached_tokens") or 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": of_written.get("reasoning_tokens") or 0},
        "total_tokens": usage.get("total_tokens", read + written),
    }


def _text_part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": []}
