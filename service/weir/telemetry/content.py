"""What was asked and said, for the spans of sampled requests, where somebody has switched that on.

It reads copies of the bytes that pass, keeps a bounded part, and never fails: what it does not understand is left out.
The form is that of the GenAI conventions' JSON schemas: messages of parts. Images and sounds are named, not kept.
"""

from typing import Any

import orjson

TEXT_MAX = 64 * 1024  # bytes of text kept of the question, and of the answer
BODY_MAX = 4 * 1024 * 1024  # a larger body is not read: parsing it would keep the loop for some 10 ms
EVENT_MAX = 256 * 1024
PART_BYTES = 32  # about what a message or a part needs beside its text

# Other people's JSON, of any shape: Any is its honest type.
Json = dict[str, Any]


class Content:
    """One request's question and its answer. See `Listener`; `cut` says that there was more than is kept."""

    __slots__ = ("_answer", "_budget", "_choices", "_is_json", "_listening", "_question", "cut")

    def __init__(self) -> None:
        self.cut = False
        self._listening = False  # to the answer: not where nobody asked anything, as of vectors
        self._question: list[Json] = []
        self._answer = bytearray()  # an unfinished line of events, or a JSON answer so far
        self._is_json: bool | None = None
        self._choices: dict[int, _Choice] = {}
        self._budget = _Budget()

    def asked(self, body: bytes) -> None:
        self._listening = True
        if len(body) > BODY_MAX:
            self.cut = True
            return
        fields = _parsed(body)
        budget = _Budget()
        prompt, messages = fields.get("prompt"), fields.get("messages")
        if messages is None:
            prompts = prompt if isinstance(prompt, list) else [prompt]
            messages = [{"role": "user", "content": text} for text in prompts if isinstance(text, str)]
        # The newest first, because of a long conversation the end is what the model answered.
        for message in reversed(messages) if isinstance(messages, list) else ():
            if not budget.room():
                break
            if isinstance(message, dict):
                self._question.append({"role": _role(message), "parts": _parts(message, budget)})
        self._question.reverse()
        self.cut = self.cut or budget.exceeded

    def said(self, chunk: bytes) -> None:
        if not self._listening or self._budget.exceeded:
            return
        self._answer += chunk
        if self._is_json is None and self._answer.lstrip():
            self._is_json = self._answer.lstrip().startswith(b"{")
        if self._is_json:
            if len(self._answer) > BODY_MAX:
                self._give_up()
            return
        *lines, rest = bytes(self._answer).split(b"\n")
        self._answer = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:"):
                self._take(_parsed(line[5:]), "delta")
        if len(rest) > EVENT_MAX:
            self._give_up()

    def question(self) -> str | None:
        """gen_ai.input.messages; None where there are none."""
        return orjson.dumps(self._question).decode() if self._question else None

    def answer(self, *, with_finish_reason: bool) -> str | None:
        """gen_ai.output.messages, one for each choice; None where there are none."""
        if self._is_json:
            self._take(_parsed(bytes(self._answer)), "message")
            self._answer.clear()
            self._is_json = False
        self.cut = self.cut or self._budget.exceeded
        choices = [choice for _, choice in sorted(self._choices.items())]
        messages = [choice.message(with_finish_reason=with_finish_reason) for choice in choices]
        return orjson.dumps(messages).decode() if messages else None

    def _take(self, said: Json, where: str) -> None:
        choices = said.get("choices")
        for written in choices if isinstance(choices, list) else ():
            index = written.get("index", 0) if isinstance(written, dict) else None
            if isinstance(index, int) and (index in self._choices or self._budget.room()):
                choice = self._choices.setdefault(index, _Choice())
                inner = written.get(where)
                choice.take(inner if isinstance(inner, dict) else {"content": written.get("text")}, self._budget)
                choice.finish_reason = str(written.get("finish_reason") or "")[:32] or choice.finish_reason

    def _give_up(self) -> None:
        self._answer.clear()
        self._budget.exceeded = True


class _Budget:
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


class _Choice:
    """One answer of perhaps several, put together from what came of it."""

    __slots__ = ("finish_reason", "reasoning", "text", "tools")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.tools: dict[int, dict[str, str]] = {}
        self.finish_reason = ""

    def take(self, written: Json, budget: _Budget) -> None:
        if text := budget.take(written.get("content")):
            self.text.append(text)
        if reasoning := budget.take(written.get("reasoning_content") or written.get("reasoning")):
            self.reasoning.append(reasoning)
        calls = written.get("tool_calls")
        for place, call in enumerate(calls if isinstance(calls, list) else ()):
            function = call.get("function") if isinstance(call, dict) else None
            if not isinstance(function, dict):
                continue
            index = call.get("index", place)
            if isinstance(index, int) and (index in self.tools or budget.room()):
                tool = self.tools.setdefault(index, {"id": "", "name": "", "arguments": ""})
                tool["id"] += budget.take(call.get("id"))
                tool["name"] += budget.take(function.get("name"))
                tool["arguments"] += budget.take(function.get("arguments"))

    def message(self, *, with_finish_reason: bool) -> Json:
        parts = [_part("reasoning", self.reasoning), _part("text", self.text)]
        parts += [_tool_call(tool["id"], tool["name"], tool["arguments"]) for _, tool in sorted(self.tools.items())]
        message: Json = {"role": "assistant", "parts": [part for part in parts if part]}
        if with_finish_reason:
            # "error" is the schema's word for one that came to no end.
            message["finish_reason"] = self.finish_reason or "error"
        return message


def _role(message: Json) -> str:
    """What is no word is not one: as text it could be megabytes."""
    role = message.get("role")
    return role[:32] if isinstance(role, str) else ""


def _parts(message: Json, budget: _Budget) -> list[Json]:
    """A message of OpenAI's chat as the conventions' parts."""
    content = message.get("content")
    parts = [_part("text", [budget.take(content)])] if isinstance(content, str) else _listed(content, budget)
    if message.get("role") == "tool":
        response = "".join(part.get("content", "") for part in parts)
        return [{"type": "tool_call_response", "id": budget.take(message.get("tool_call_id")), "response": response}]
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and budget.room():
            name, arguments = budget.take(function.get("name")), budget.take(function.get("arguments"))
            parts.append(_tool_call(budget.take(call.get("id")), name, arguments))
    return [part for part in parts if part]


def _listed(content: object, budget: _Budget) -> list[Json]:
    """Content that is a list: texts as they are, of everything else its kind."""
    parts: list[Json] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and budget.room():
            kind = str(part.get("type", "text"))[:32]
            parts.append({"type": kind, "content": budget.take(part.get("text"))} if kind == "text" else {"type": kind})
    return parts


def _part(kind: str, pieces: list[str]) -> Json:
    text = "".join(pieces)
    return {"type": kind, "content": text} if text else {}


def _tool_call(identity: str, name: str, arguments: str) -> Json:
    try:
        read = orjson.loads(arguments)
        orjson.dumps(read)  # takes less deep a nesting than `loads` does
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        read = arguments
    return {"type": "tool_call", "id": identity, "name": name, "arguments": read}


def _parsed(data: bytes) -> Json:
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
