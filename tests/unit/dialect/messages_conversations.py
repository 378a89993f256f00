"""Conversations in both dialects, written after the two specifications; the tests of either direction read them.

`chat` is OpenAI's chat completions (its API description), `messages` Anthropic's Messages API (its reference). Each row
is the same request and the same answer told twice, so each may be translated into the other, both ways.
"""

from typing import Any, NamedTuple

Json = dict[str, Any]

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**SCHEMA, "additionalProperties": False}


class Conversation(NamedTuple):
    name: str
    messages_request: Json
    chat_request: Json
    chat_answer: Json
    messages_answer: Json


def chat_answer(message: Json, finish: str = "stop", **choice: Any) -> Json:
    said = {"role": "assistant", "content": None, "refusal": None, **message}
    return {
        "id": "answer-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": said, "logprobs": None, "finish_reason": finish, **choice}],
        "usage": {
            "prompt_tokens": 25,
            "completion_tokens": 7,
            "total_tokens": 32,
            "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
        },
    }


def messages_answer(content: list[Json], reason: str = "end_turn", sequence: str | None = None) -> Json:
    return {
        "id": "answer-1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": {
            "input_tokens": 20,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 5,
            "output_tokens": 7,
        },
    }


def text(said: str) -> Json:
    return {"type": "text", "text": said}


def tool_use(call: str, given: Json, name: str = "weather") -> Json:
    return {"type": "tool_use", "id": call, "name": name, "input": given}


def tool_call(call: str, arguments: str, name: str = "weather") -> Json:
    return {"id": call, "type": "function", "function": {"name": name, "arguments": arguments}}


HELLO = {"role": "user", "content": "Hello"}
ASKED = {"model": "m", "max_tokens": 100, "messages": [HELLO]}
ANSWERED = (chat_answer({"content": "Hi!"}), messages_answer([text("Hi!")]))
TOOL = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
FUNCTION = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
CALLED = (
    chat_answer({"tool_calls": [tool_call("call_1", '{"city":"Oslo"}')]}, "tool_calls"),
    messages_answer([tool_use("call_1", {"city": "Oslo"})], "tool_use"),
)
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}


def asked(**more: Any) -> Json:
    return ASKED | more


CONVERSATIONS = [
    Conversation("plain", asked(), asked(), *ANSWERED),
    Conversation(
        "instructions",
        asked(system="Be brief."),
        asked(messages=[{"role": "system", "content": "Be brief."}, HELLO]),
        *ANSWERED,
    ),
    Conversation(
        "turns",
        asked(messages=[HELLO, {"role": "assistant", "content": "Hi!"}, HELLO]),
        asked(messages=[HELLO, {"role": "assistant", "content": "Hi!"}, HELLO]),
        *ANSWERED,
    ),
    Conversation(
        "how-it-is-sampled",
        asked(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END", "\n\n"], metadata={"user_id": "u-1"}),
        asked(temperature=0.5, top_p=0.9, top_k=40, stop=["END", "\n\n"], user="u-1"),
        chat_answer({"content": "Hi"}, stop_reason="END"),
        messages_answer([text("Hi")], "stop_sequence", "END"),
    ),
    Conversation("streamed", asked(stream=True), asked(**STREAMED), *ANSWERED),
    Conversation(
        "cut-off",
        asked(),
        asked(),
        chat_answer({"content": "Hi"}, "length"),
        messages_answer([text("Hi")], "max_tokens"),
    ),
    Conversation(
        "image-in-base64",
        asked(
            messages=[
                {
                    "role": "user",
                    "content": [
                        text("What is it?"),
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    ],
                }
            ]
        ),
        asked(
            messages=[
                {
                    "role": "user",
                    "content": [
                        text("What is it?"),
                        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    ],
                }
            ]
        ),
        *ANSWERED,
    ),
    Conversation(
        "image-by-address",
        asked(
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}}],
                }
            ]
        ),
        asked(
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}]}
            ]
        ),
        *ANSWERED,
    ),
    Conversation(
        "pdf",
        asked(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                            "title": "a.pdf",
                        }
                    ],
                }
            ]
        ),
        asked(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "file",
                            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="},
                        }
                    ],
                }
            ]
        ),
        *ANSWERED,
    ),
    Conversation("tools", asked(tools=[TOOL]), asked(tools=[FUNCTION]), *CALLED),
    Conversation(
        "tool-by-name",
        asked(tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}),
        asked(tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "weather"}}),
        *CALLED,
    ),
    Conversation(
        "some-tool-one-at-a-time",
        asked(tools=[TOOL], tool_choice={"type": "any", "disable_parallel_tool_use": True}),
        asked(tools=[FUNCTION], tool_choice="required", parallel_tool_calls=False),
        *CALLED,
    ),
    Conversation(
        "no-tool",
        asked(tools=[TOOL], tool_choice={"type": "none"}),
        asked(tools=[FUNCTION], tool_choice="none"),
        *ANSWERED,
    ),
    Conversation(
        "strict-tool",
        asked(tools=[{**TOOL, "input_schema": CLOSED, "strict": True}], tool_choice={"type": "auto"}),
        asked(
            tools=[{"type": "function", "function": {**FUNCTION["function"], "parameters": CLOSED, "strict": True}}],
            tool_choice="auto",
        ),
        *CALLED,
    ),
    Conversation(
        "results-of-two-tools",
        asked(
            tools=[TOOL],
            messages=[
                HELLO,
                {"role": "assistant", "content": [text("I look."), tool_use("a", {"city": "Oslo"}), tool_use("b", {})]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "a", "content": "rain"},
                        {"type": "tool_result", "tool_use_id": "b", "content": "sun"},
                        text("And?"),
                    ],
                },
            ],
        ),
        asked(
            tools=[FUNCTION],
            messages=[
                HELLO,
                {
                    "role": "assistant",
                    "content": "I look.",
                    "tool_calls": [tool_call("a", '{"city":"Oslo"}'), tool_call("b", "{}")],
                },
                {"role": "tool", "tool_call_id": "a", "content": "rain"},
                {"role": "tool", "tool_call_id": "b", "content": "sun"},
                {"role": "user", "content": "And?"},
            ],
        ),
        chat_answer(
            {"content": "More.", "tool_calls": [tool_call("c", "{}"), tool_call("d", '{"city":"Rome"}')]}, "tool_calls"
        ),
        messages_answer([text("More."), tool_use("c", {}), tool_use("d", {"city": "Rome"})], "tool_use"),
    ),
    Conversation(
        "answer-to-a-schema",
        asked(output_config={"format": {"type": "json_schema", "schema": CLOSED}}),
        asked(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "output", "strict": True, "schema": CLOSED},
            }
        ),
        *ANSWERED,
    ),
    Conversation(
        "effort",
        asked(thinking={"type": "adaptive"}, output_config={"effort": "high"}),
        asked(reasoning_effort="high"),
        chat_answer({"content": "Hi!", "reasoning_content": "They greet."}),
        messages_answer([{"type": "thinking", "thinking": "They greet.", "signature": ""}, text("Hi!")]),
    ),
    Conversation("no-thinking", asked(thinking={"type": "disabled"}), asked(reasoning_effort="none"), *ANSWERED),
]
