"""What was asked and said, for the spans of sampled requests, where somebody has switched that on.

It reads copies of the bytes that pass, keeps a bounded part, and never fails: what it does not understand is left out.
The form is that of the GenAI conventions' JSON schemas: messages of parts. Images and sounds are named, not kept.
"""

import orjson

from weir.telemetry.content_dialects import DIALECTS, Dialect, parts_of
from weir.telemetry.content_parts import Answers, Budget, Json, parsed

BODY_MAX = 4 * 1024 * 1024  # a larger body is not read: parsing it would keep the loop for some 10 ms
EVENT_MAX = 256 * 1024


class Content:
    """One request's question and its answer. See `Listener`; `cut` says that there was more than is kept."""

    __slots__ = ("_answer", "_answers", "_dialect", "_instructions", "_is_json", "_question", "cut")

    def __init__(self) -> None:
        self.cut = False
        self._dialect: Dialect | None = None  # nothing is listened to where nobody asked anything, as of vectors
        self._instructions: list[Json] = []
        self._question: list[Json] = []
        self._answer = bytearray()  # an unfinished line of events, or a JSON answer so far
        self._is_json: bool | None = None
        self._answers = Answers()

    def asked(self, operation: str, body: bytes) -> None:
        dialect = self._dialect = DIALECTS.get(operation)
        if dialect is None:
            return
        if len(body) > BODY_MAX:
            self.cut = True
            return
        fields, budget = parsed(body), Budget()
        # The newest first, because of a long conversation the end is what the model answered.
        for message in reversed(dialect.messages(fields)):
            if not budget.room():
                break
            if isinstance(message, dict):
                self._question.append(dialect.read(message, budget))
        self._question.reverse()
        if dialect.instructions is not None:
            self._instructions = parts_of(fields.get(dialect.instructions), budget)
        self.cut = self.cut or budget.exceeded

    def said(self, chunk: bytes) -> None:
        if self._dialect is None or self._answers.budget.exceeded:
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
                self._dialect.event(parsed(line[5:]), self._answers)
        if len(rest) > EVENT_MAX:
            self._give_up()

    def instructions(self) -> str | None:
        """gen_ai.system_instructions: those that stand apart from the conversation; None where there are none."""
        return orjson.dumps(self._instructions).decode() if self._instructions else None

    def question(self) -> str | None:
        """gen_ai.input.messages; None where there are none."""
        return orjson.dumps(self._question).decode() if self._question else None

    def answer(self, *, with_finish_reason: bool) -> str | None:
        """gen_ai.output.messages, one for each choice; None where there are none."""
        if self._is_json and self._dialect is not None:
            self._dialect.whole(parsed(bytes(self._answer)), self._answers)
            self._answer.clear()
            self._is_json = False
        self.cut = self.cut or self._answers.budget.exceeded
        messages = self._answers.messages(with_finish_reason=with_finish_reason)
        return orjson.dumps(messages).decode() if messages else None

    def _give_up(self) -> None:
        self._answer.clear()
        self._answers.budget.exceeded = True
