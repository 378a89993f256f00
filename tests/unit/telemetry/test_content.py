"""What is kept of a question and its answer: the conventions' form, however the bytes come, and never more than so much."""

import json
from typing import Any

import pytest

from weir.telemetry.content import BODY_MAX, EVENT_MAX, Content
from weir.telemetry.content_parts import TEXT_MAX


def question(operation: str = "chat", **body: Any) -> tuple[Any, bool]:
    content = Content()
    content.asked(operation, json.dumps(body).encode())
    said = content.question()
    return said and json.loads(said), content.cut


def answer(*chunks: bytes, with_finish_reason: bool = True, operation: str = "chat") -> tuple[Any, bool]:
    content = Content()
    content.asked(operation, b"{}")
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


def typed(**said: Any) -> bytes:
    return f"event: {said['type']}\ndata: {json.dumps(said)}\n\n".encode()


CALL = {"type": "tool_call", "id": "c1", "name": "now", "arguments": {"zone": "UTC"}}
RESULT = {"type": "tool_call_response", "id": "c1", "response": "12:00"}
CONVERSATION = [
    {"role": "user", "parts": [text("What time?"), {"type": "image"}]},
    {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}, text("Let me see."), CALL]},
    {"role": "user", "parts": [RESULT]},
]
IN_MESSAGES = {
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What time?"}, {"type": "image", "source": {"data": "x"}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "CANARY"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "c1", "name": "now", "input": {"zone": "UTC"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "12:00"}]},
    ],
}
IN_RESPONSES = {
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "What time?"}, {"type": "image", "file_id": "f"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "CANARY"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "c1", "name": "now", "arguments": '{"zone":"UTC"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "12:00"},
        {"type": "web_search_call", "id": "w"},
    ],
}
ITEMS = [
    CONVERSATION[0],
    *({"role": "assistant", "parts": [one]} for one in CONVERSATION[1]["parts"]),
    {"role": "tool", "parts": [RESULT]},
    {"role": "assistant", "parts": [{"type": "web_search_call"}]},
]


@pytest.mark.parametrize(
    ("operation", "body", "messages"),
    [
        pytest.param("messages", IN_MESSAGES, CONVERSATION, id="messages"),
        pytest.param("responses", IN_RESPONSES, ITEMS, id="responses"),
    ],
)
def test_a_question_in_other_words(operation: str, body: dict[str, Any], messages: list[Any]) -> None:
    content = Content()
    content.asked(operation, json.dumps(body).encode())
    assert json.loads(content.question() or "") == messages
    assert json.loads(content.instructions() or "") == [text("Be brief.")]


def test_a_response_may_be_asked_for_with_a_text_alone() -> None:
    assert question("responses", input="Hello") == ([{"role": "user", "parts": [text("Hello")]}], False)


def test_a_completion_of_chat_has_no_instructions_apart() -> None:
    content = Content()
    content.asked("chat", b'{"":"x","system":"x","instructions":"x","messages":[{"role":"system","content":"y"}]}')
    assert content.instructions() is None


OF_MESSAGES = [
    {"type": "thinking", "thinking": "hm", "signature": "CANARY"},
    {"type": "text", "text": "Gr\u00fc\u00df Gott"},
    {"type": "tool_use", "id": "c1", "name": "now", "input": {"zone": "UTC"}},
]
MESSAGE = json.dumps({"type": "message", "role": "assistant", "content": OF_MESSAGES, "stop_reason": "stop"}).encode()
MESSAGE_STREAM = b"".join(
    [
        typed(type="message_start", message={"type": "message", "content": []}),
        typed(type="content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        typed(type="content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        typed(type="content_block_start", index=1, content_block={"type": "text", "text": ""}),
        typed(type="ping"),
        typed(type="content_block_delta", index=1, delta={"type": "text_delta", "text": "Gr\u00fc\u00df "}),
        typed(type="content_block_delta", index=1, delta={"type": "text_delta", "text": "Gott"}),
        typed(type="content_block_start", index=2, content_block={"type": "tool_use", "id": "c1", "name": "now"}),
        typed(type="content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": '{"zone"'}),
        typed(type="content_block_delta", index=2, delta={"type": "input_json_delta", "partial_json": ':"UTC"}'}),
        typed(type="content_block_stop", index=2),
        typed(type="message_delta", delta={"stop_reason": "stop"}, usage={"output_tokens": 3}),
        typed(type="message_stop"),
    ]
)
OUTPUT = [
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Gr\u00fc\u00df Gott"}]},
    {"type": "function_call", "call_id": "c1", "name": "now", "arguments": '{"zone":"UTC"}'},
]
RESPONSE = {"object": "response", "status": "stop", "output": OUTPUT}
RESPONSE_STREAM = b"".join(
    [
        typed(type="response.created", response={**RESPONSE, "status": "in_progress", "output": []}),
        typed(type="response.reasoning_summary_text.delta", output_index=0, delta="hm"),
        typed(type="response.output_text.delta", output_index=1, delta="Gr\u00fc\u00df "),
        typed(type="response.output_text.delta", output_index=1, delta="Gott"),
        typed(type="response.output_item.added", output_index=2, item={**OUTPUT[2], "arguments": ""}),
        typed(type="response.function_call_arguments.delta", output_index=2, delta='{"zone":'),
        typed(type="response.function_call_arguments.delta", output_index=2, delta='"UTC"}'),
        typed(type="response.completed", response=RESPONSE),
    ]
)
IN_OTHER_WORDS = pytest.mark.parametrize(
    ("operation", "said"),
    [
        pytest.param("messages", MESSAGE, id="message"),
        pytest.param("messages", MESSAGE_STREAM, id="messages-stream"),
        pytest.param("responses", json.dumps(RESPONSE).encode(), id="response"),
        pytest.param("responses", RESPONSE_STREAM, id="responses-stream"),
    ],
)


class TestAnswersInOtherWords:
    @IN_OTHER_WORDS
    def test_however_they_are_cut(self, operation: str, said: bytes) -> None:
        for at in range(1, len(said), 31):
            assert answer(said[:at], said[at:], operation=operation) == ([SAID], False)

    def test_that_broke_off(self) -> None:
        said = MESSAGE_STREAM[: MESSAGE_STREAM.index(b"Gott")], RESPONSE_STREAM[: RESPONSE_STREAM.index(b"Gott")]
        for operation, half in zip(("messages", "responses"), said, strict=True):
            ((message,), _) = answer(half, operation=operation)
            assert message["parts"] == [*SAID["parts"][:1], text("Gr\u00fc\u00df ")]
            assert message["finish_reason"] == "error"

    def test_the_reason_of_a_response_that_is_incomplete(self) -> None:
        cut = {**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
        ((message,), _) = answer(json.dumps(cut).encode(), operation="responses")
        assert message["finish_reason"] == "max_output_tokens"

    @pytest.mark.parametrize("operation", ["messages", "responses"])
    @pytest.mark.parametrize(
        "said",
        [
            b'{"type":"error","error":{"type":"api_error","message":"no"}}',
            b'event: error\ndata: {"type":"error","error":{"message":"no"}}\n\n',
            b'data: {"type":7}\n\ndata: {"type":[]}\n\ndata: [1]\n\n',
            b'{"object":"list","type":"list"}',
        ],
    )
    def test_what_is_no_answer(self, operation: str, said: bytes) -> None:
        assert answer(said, operation=operation) == (None, False)

    @pytest.mark.parametrize("operation", ["messages", "responses"])
    def test_nonsense_is_left_out(self, operation: str) -> None:
        for field in ("messages", "input"):
            for nonsense in (
                7,
                [1, {"role": 7, "content": 8}],
                [{"type": []}],
                [{"type": "tool_use", "content": [[]]}],
            ):
                question(operation, **{field: nonsense})
        for kind in ("content_block_start", "content_block_delta", "response.output_item.added"):
            for inner in ("content_block", "delta", "item"):
                for nonsense in (7, [1], {"type": "tool_use", "id": 7}, {"partial_json": 7}, {"type": {}}):
                    answer(typed(type=kind, index="x", output_index=[], **{inner: nonsense}), operation=operation)

    def test_a_long_one_is_cut(self) -> None:
        delta = typed(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "word " * 100})
        ((message,), cut) = answer(*[delta] * 500, operation="messages")
        assert cut
        assert TEXT_MAX - 40 < len(message["parts"][0]["content"]) <= TEXT_MAX


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
