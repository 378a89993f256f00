"""What is kept of a question and its answer: the conventions' form, however the bytes come, and never more than so much."""

import json
from typing import Any

import pytest

from weir.telemetry.content import BODY_MAX, EVENT_MAX, TEXT_MAX, Content


def question(**body: Any) -> tuple[Any, bool]:
    content = Content()
    content.asked(json.dumps(body).encode())
    said = content.question()
    return said and json.loads(said), content.cut


def answer(*chunks: bytes, with_finish_reason: bool = True) -> tuple[Any, bool]:
    content = Content()
    content.asked(b"{}")
    for chunk in chunks:
        content.said(chunk)
    said = content.answer(with_finish_reason=with_finish_reason)
    return said and json.loads(said), content.cut


def event(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "finish_reason": finish, **({} if delta is None else {"delta": delta}), **more}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


QUESTIONS = {
    "a text": (
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]},
        [{"role": "system", "parts": [text("Be brief.")]}, {"role": "user", "parts": [text("Hello")]}],
    ),
    "parts, of which an image is only named": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,CANARY"}},
                    ],
                }
            ]
        },
        [{"role": "user", "parts": [text("What is this?"), {"type": "image_url"}]}],
    ),
    "a call of a tool and its answer": (
        {
            "messages": [
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone":"UTC"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
                {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "13:00"}]},
            ]
        },
        [
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c1", "name": "now", "arguments": {"zone": "UTC"}}],
            },
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "12:00"}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c2", "response": "13:00"}]},
        ],
    ),
    "a prompt": ({"prompt": "Once"}, [{"role": "user", "parts": [text("Once")]}]),
    "prompts": (
        {"prompt": ["Once", "Twice"]},
        [{"role": "user", "parts": [text("Once")]}, {"role": "user", "parts": [text("Twice")]}],
    ),
    "numbers of tokens": ({"prompt": [1, 2]}, None),
    "nonsense": ({"messages": [1, {"role": 7, "content": 8, "tool_calls": [9]}]}, [{"role": "", "parts": []}]),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_question(name: str) -> None:
    body, messages = QUESTIONS[name]
    assert question(**body) == (messages, False)


STREAM = b"".join(
    [
        b": comment\n\n",
        event({"role": "assistant", "content": ""}),
        event({"reasoning_content": "hm"}),
        event({"content": "Gr\u00fc\u00df "}),
        event({"content": "Gott"}),
        event({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "now", "arguments": '{"zone"'}}]}),
        event({"tool_calls": [{"index": 0, "function": {"arguments": ':"UTC"}'}}]}),
        event({}, "stop"),
        b'data: {"choices":[],"usage":{"prompt_tokens":3}}\n\ndata: [DONE]\n\n',
    ]
)
SAID = {
    "role": "assistant",
    "parts": [
        {"type": "reasoning", "content": "hm"},
        text("Gr\u00fc\u00df Gott"),
        {"type": "tool_call", "id": "c1", "name": "now", "arguments": {"zone": "UTC"}},
    ],
    "finish_reason": "stop",
}


class TestAnswer:
    @pytest.mark.parametrize("at", range(1, len(STREAM), 7))
    def test_a_stream_however_it_is_cut(self, at: int) -> None:
        assert answer(STREAM[:at], STREAM[at:]) == ([SAID], False)

    def test_a_stream_byte_by_byte_with_other_line_ends(self) -> None:
        stream = STREAM.replace(b"\n", b"\r\n")
        assert answer(*(stream[i : i + 1] for i in range(len(stream)))) == ([SAID], False)

    def test_without_the_reason_where_the_conventions_have_none(self) -> None:
        ((message,), _) = answer(STREAM, with_finish_reason=False)
        assert "finish_reason" not in message

    def test_a_stream_that_broke_off(self) -> None:
        assert answer(event({"content": "Gr"}), b'data: {"choices":[{"ind') == (
            [{"role": "assistant", "parts": [text("Gr")], "finish_reason": "error"}],
            False,
        )

    def test_two_choices(self) -> None:
        (messages, _) = answer(event({"content": "b"}, "stop", 1), event({"content": "a"}, "length", 0))
        assert [(one["parts"][0]["content"], one["finish_reason"]) for one in messages] == [
            ("a", "length"),
            ("b", "stop"),
        ]

    def test_a_completion(self) -> None:
        assert answer(event(None, "stop", text="upon a time")) == (
            [{"role": "assistant", "parts": [text("upon a time")], "finish_reason": "stop"}],
            False,
        )

    @pytest.mark.parametrize("cut", [1, 20, 90])
    def test_a_single_answer(self, cut: int) -> None:
        message = {"role": "assistant", "content": "Hello", "tool_calls": None}
        body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()
        expected = [{"role": "assistant", "parts": [text("Hello")], "finish_reason": "stop"}]
        assert answer(body[:cut], body[cut:], b"") == (expected, False)

    @pytest.mark.parametrize(
        "said",
        [b"", b"<html>", b'{"error":{"message":"no"}}', b'{"choices":7}', b'{"choices":[1,{"index":"x"}]}', b"data: 7\n\n"],
    )  # fmt: skip
    def test_what_is_no_answer(self, said: bytes) -> None:
        assert answer(said) == (None, False)

    def test_of_vectors_nothing_is_kept(self) -> None:
        content = Content()
        content.said(b'{"choices":[{"index":0,"message":{"content":"x"}}]}')
        assert content.answer(with_finish_reason=True) is None

    def test_arguments_nested_beyond_what_can_be_written_stay_a_text(self) -> None:
        deep = "[" * 500 + "]" * 500
        stream = event({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": deep}}]})
        ((message,), _) = answer(stream)
        assert message["parts"][0]["arguments"] == deep


class TestBounds:
    def test_of_a_long_conversation_the_end_is_kept(self) -> None:
        messages = [{"role": "user", "content": f"{number:05} " + "x" * 1000} for number in range(200)]
        kept, cut = question(messages=messages)
        assert cut
        assert kept[-1]["parts"][0]["content"].startswith("00199 ")
        assert TEXT_MAX * 0.9 < len(json.dumps(kept)) < TEXT_MAX * 1.3

    def test_a_long_text_is_cut_between_characters(self) -> None:
        kept, cut = question(messages=[{"role": "user", "content": "\u20ac" * TEXT_MAX}])
        content = kept[0]["parts"][0]["content"]
        assert cut
        assert set(content) == {"\u20ac"}
        assert TEXT_MAX - 40 < len(content.encode()) <= TEXT_MAX

    def test_messages_without_text_have_a_bound_too(self) -> None:
        kept, cut = question(messages=[{"role": "user", "content": [{"type": "x"}] * 1000}] * 100)
        assert cut
        assert len(json.dumps(kept)) < TEXT_MAX * 2

    def test_a_body_that_is_too_large_is_not_read(self) -> None:
        assert question(messages=[{"role": "user", "content": "x" * BODY_MAX}]) == (None, True)

    def test_a_long_answer_is_cut(self) -> None:
        ((message,), cut) = answer(*(event({"content": "word " * 100}) for _ in range(500)), event({}, "stop"))
        assert cut
        assert TEXT_MAX - 40 < len(message["parts"][0]["content"]) <= TEXT_MAX

    @pytest.mark.parametrize(
        "said", [b"data: " + b"x" * (EVENT_MAX + 1), b"{" + b" " * (BODY_MAX + 1)], ids=["an-event", "a-body"]
    )
    def test_what_has_no_end_is_given_up(self, said: bytes) -> None:
        assert answer(said, event({"content": "later"})) == (None, True)
