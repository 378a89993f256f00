"""A client of chat completions before Claude: what is carried in the nearest form, and what is refused."""

from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletion

from tests.unit.dialect.messages_conversations import (
    ASKED,
    CLOSED,
    FUNCTION,
    HELLO,
    PIXEL,
    TOOL,
    asked,
    chat_answer,
    messages_answer,
    text,
    tool_call,
    tool_use,
)
from weir.core.errors import InvalidValue, MalformedBody, UpstreamFailed
from weir.dialect.chat.as_messages import FIELDS, ChatAsMessages

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
IMAGE_URL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"}}
CALL = {"role": "assistant", "content": [tool_use("a", {})]}
CALLED = {"role": "assistant", "tool_calls": [tool_call("a", "{}")]}


def translated(request: dict[str, Any]) -> ChatAsMessages:
    return ChatAsMessages(orjson.dumps(request), default_max_tokens=4096)


def as_messages(request: dict[str, Any]) -> Any:
    return orjson.loads(translated(request).body)


def said(*messages: Any) -> dict[str, Any]:
    return asked(messages=list(messages))


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def tool(content: Any, call: str = "a") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call, "content": content}


def result(content: Any, call: str = "a") -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, "content": content}


def file(data: str, **more: Any) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, **more}}


def document(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


def system(content: Any, role: str = "system") -> dict[str, Any]:
    return {"role": role, "content": content}


MESSAGES = [
    # name                      chat says                                               Messages says
    ("parts-of-one-text", said(user(text("Hello"))), {"messages": [HELLO]}),
    ("turns-of-one-role", said(HELLO, HELLO), {"messages": [user(text("Hello"), text("Hello"))]}),
    ("named-speaker", said({**HELLO, "name": "ann"}), {"messages": [HELLO]}),
    ("system-and-developer", said(system("a"), system([text("b")], "developer"), HELLO), {"system": [text("a"), text("b")], "messages": [HELLO]}),
    ("system-in-between", said(HELLO, system("a"), HELLO), {"system": "a", "messages": [user(text("Hello"), text("Hello"))]}),
    ("system-that-is-empty", said(system(""), HELLO), {"messages": [HELLO]}),
    ("begun-answer", said(HELLO, {"role": "assistant", "content": "{"}), {"messages": [HELLO, {"role": "assistant", "content": "{"}]}),
    ("assistant-that-says-nothing", said(HELLO, {"role": "assistant", "content": ""}, HELLO), {"messages": [user(text("Hello"), text("Hello"))]}),
    ("assistant-that-refused", said(HELLO, {"role": "assistant", "content": None, "refusal": "No."}), {"messages": [HELLO, {"role": "assistant", "content": "No."}]}),
    ("assistant-parts", said(HELLO, {"role": "assistant", "content": [text("a"), {"type": "refusal", "refusal": "b"}]}), {"messages": [HELLO, {"role": "assistant", "content": [text("a"), text("b")]}]}),
    ("earlier-reasoning", said(HELLO, {"role": "assistant", "content": "Hi", "reasoning_content": "Hm."}), {"messages": [HELLO, {"role": "assistant", "content": "Hi"}]}),
    ("image", said(user(IMAGE_URL)), {"messages": [user(IMAGE)]}),
    ("pdf-without-a-name", said(user(file("data:application/pdf;base64,JVBERi0="))), {"messages": [user(document({"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}))]}),
    ("text-file", said(user(file("data:text/markdown;charset=utf-8;base64,T25jZQ==", filename="a.md"))), {"messages": [user(document({"type": "text", "media_type": "text/plain", "data": "Once"}, title="a.md"))]}),
    ("result", said(CALLED, tool("rain")), {"messages": [CALL, user(result("rain"))]}),
    ("result-of-parts", said(CALLED, tool([text("a"), IMAGE_URL])), {"messages": [CALL, user(result([text("a"), IMAGE]))]}),
    ("results-and-a-word", said(CALLED, tool("a"), tool("b", "b"), HELLO), {"messages": [CALL, user(result("a"), result("b", "b"), text("Hello"))]}),
    ("ids-of-other-makers", said({"role": "assistant", "tool_calls": [tool_call("functions.f:0", "{}")]}, tool("a", "functions.f:0")), {"messages": [{"role": "assistant", "content": [tool_use("functions_f_0", {})]}, user(result("a", "functions_f_0"))]}),
    ("arguments-that-are-no-object", said({"role": "assistant", "tool_calls": [tool_call("a", "oops")]}), {"messages": [{"role": "assistant", "content": [tool_use("a", {"arguments": "oops"})]}]}),
    ("arguments-that-are-empty", said({"role": "assistant", "content": "", "tool_calls": [tool_call("a", "")]}), {"messages": [CALL]}),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "told"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_history(request_, told):
    assert as_messages(request_) == {"model": "m", "max_tokens": 100, **told}


JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": CLOSED}}
ADAPTIVE = {"thinking": {"type": "adaptive"}}

FIELD_ROWS = [
    # name                  chat says                                                   Messages says
    ("stop-of-one", {"stop": "END"}, {"stop_sequences": ["END"]}),
    ("most-tokens-by-both-names", {"max_tokens": 5, "max_completion_tokens": 9}, {"max_tokens": 9}),
    ("most-tokens-by-the-newer-name", {"max_tokens": None, "max_completion_tokens": 9}, {"max_tokens": 9}),
    ("most-tokens-by-none", {"max_tokens": None}, {"max_tokens": 4096}),
    ("temperature-of-one", {"temperature": 1}, {"temperature": 1}),
    ("not-streamed", {"stream": False}, {}),
    ("streamed", {"stream": True}, {"stream": True}),
    ("safety-identifier", {"user": "a", "safety_identifier": "b"}, {"metadata": {"user_id": "b"}}),
    ("function-without-parameters", {"tools": [{"type": "function", "function": {"name": "f", "strict": False}}]}, {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]}),
    ("one-call-at-a-time", {"tools": [FUNCTION], "parallel_tool_calls": False}, {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
    ("no-call-at-a-time", {"tools": [FUNCTION], "tool_choice": "none", "parallel_tool_calls": False}, {"tools": [TOOL], "tool_choice": {"type": "none"}}),
    ("calls-in-parallel", {"tools": [FUNCTION], "parallel_tool_calls": True}, {"tools": [TOOL]}),
    ("choice-without-tools", {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}, {}),
    ("format-text", {"response_format": {"type": "text"}}, {}),
    ("format-and-effort", {"response_format": JSON_SCHEMA, "reasoning_effort": "minimal"}, {**ADAPTIVE, "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": CLOSED}}}),
    ("nulls", dict.fromkeys(["temperature", "stop", "user", "tools", "tool_choice", "response_format", "reasoning_effort", "seed", "n", "unheard_of", "logit_bias", "stream_options"]), {}),
    ("neutral", {name: values[0] for name, values in FIELDS.neutral.items()}, {}),
    ("neutral-as-floats", {"frequency_penalty": 0.0, "presence_penalty": 0.0, "logit_bias": {}}, {}),
    ("hints", {name: {"any": "thing"} for name in FIELDS.hints}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("more", "told"), [row[1:] for row in FIELD_ROWS], ids=[row[0] for row in FIELD_ROWS])
def test_fields(more, told):
    assert as_messages(asked(**more)) == ASKED | told


AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}

REFUSALS = [
    # name                     request                                             param, a word of the message
    ("unknown-field", asked(colour="red"), "colour", "colour"),
    ("temperature", asked(temperature=1.2), "temperature", "from 0 to 1"),
    ("temperature-that-is-none", asked(temperature="hot"), "temperature", "number"),
    ("several-answers", asked(n=2), "n", "'n'"),
    ("log-probabilities", asked(logprobs=True), "logprobs", "logprobs"),
    ("top-log-probabilities", asked(top_logprobs=3), "top_logprobs", "top_logprobs"),
    ("seed", asked(seed=1), "seed", "seed"),
    ("frequency-penalty", asked(frequency_penalty=0.1), "frequency_penalty", "frequency_penalty"),
    ("presence-penalty", asked(presence_penalty=-1), "presence_penalty", "presence_penalty"),
    ("bias", asked(logit_bias={"1": 5}), "logit_bias", "logit_bias"),
    ("audio-out", asked(modalities=["text", "audio"]), "modalities", "modalities"),
    ("verbosity", asked(verbosity="high"), "verbosity", "verbosity"),
    ("web-search", asked(web_search_options={"search_context_size": "low"}), "web_search_options", "web_search_options"),
    ("functions", asked(functions=[{"name": "f"}]), "functions", "functions"),
    ("json-object", asked(response_format={"type": "json_object"}), "response_format.type", "json_object"),
    ("schema-that-is-none", asked(response_format={"type": "json_schema"}), "response_format.json_schema", "object"),
    ("effort", asked(reasoning_effort="utmost"), "reasoning_effort", "utmost"),
    ("custom-tool", asked(tools=[{"type": "custom", "custom": {"name": "f"}}]), "tools[0].type", "custom"),
    ("tool-choice", asked(tools=[FUNCTION], tool_choice={"type": "allowed_tools"}), "tool_choice", "allowed_tools"),
    ("tool-choice-by-another-word", asked(tools=[FUNCTION], tool_choice="any"), "tool_choice", "any"),
    ("role", said({"role": "function", "content": "a"}), "messages[0].role", "function"),
    ("audio-in", said(user(text("a"), AUDIO)), "messages[0].content[1]", "input_audio"),
    ("audio-of-earlier", said({"role": "assistant", "audio": {"id": "a"}}), "messages[0].audio", "audio"),
    ("image-of-the-assistant", said({"role": "assistant", "content": [IMAGE_URL]}), "messages[0].content[0]", "image_url"),
    ("image-that-is-a-path", said(user({"type": "image_url", "image_url": {"url": "file:///a"}})), "messages[0].content[0].image_url.url", "data:"),
    ("file-kept-elsewhere", said(user({"type": "file", "file": {"file_id": "f"}})), "messages[0].content[0].file.file_id", "file_id"),
    ("file-that-is-a-table", said(user(file("data:application/vnd.ms-excel;base64,AA=="))), "messages[0].content[0].file.file_data", "ms-excel"),
    ("file-that-is-no-text", said(user(file("data:text/plain;base64,/w=="))), "messages[0].content[0].file.file_data", "base64"),
    ("function-call-of-earlier", said({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}), "messages[0].function_call", "function_call"),
    ("custom-tool-of-earlier", said({"role": "assistant", "tool_calls": [{"type": "custom", "id": "a"}]}), "messages[0].tool_calls[0]", "custom"),
    ("result-of-nothing", said({"role": "tool", "content": "a"}), "messages[0].tool_call_id", "string"),
    ("messages-missing", {"model": "m"}, "messages", "list"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "param", "word"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_what_has_no_counterpart_is_refused_by_name(request_, param, word):
    with pytest.raises(InvalidValue, match=word) as refused:
        translated(request_)
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"'])
def test_what_is_no_object_is_malformed(body):
    with pytest.raises(MalformedBody):
        ChatAsMessages(body, default_max_tokens=1)


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
REFUSED = {"stop_details": {"type": "refusal", "category": "bio", "explanation": "I may not."}}

ANSWERS = [
    # name                     Claude says                                                the client reads
    ("nothing", messages_answer([]), chat_answer({"content": ""})),
    ("thinking", messages_answer([THOUGHT, text("Hi")]), chat_answer({"content": "Hi", "reasoning_content": "Hm."})),
    ("sealed-thinking", messages_answer([{"type": "redacted_thinking", "data": "s"}, text("Hi")]), chat_answer({"content": "Hi"})),
    ("thinking-left-out", messages_answer([THOUGHT | {"thinking": ""}, text("Hi")]), chat_answer({"content": "Hi"})),
    ("cited-texts", messages_answer([text("It "), {**text("rains"), "citations": []}]), chat_answer({"content": "It rains"})),
    ("text-and-call", messages_answer([text("I look."), tool_use("a", {})], "tool_use"), chat_answer({"content": "I look.", "tool_calls": [tool_call("a", "{}")]}, "tool_calls")),
    ("refusal", messages_answer([text("Hi")], "refusal") | REFUSED, chat_answer({"content": "Hi", "refusal": "I may not."}, "content_filter")),
    ("window-full", messages_answer([text("Hi")], "model_context_window_exceeded"), chat_answer({"content": "Hi"}, "length")),
    ("paused", messages_answer([text("Hi")], "pause_turn"), chat_answer({"content": "Hi"})),
]  # fmt: skip


@pytest.mark.parametrize(("told", "read"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answers(told, read):
    answer = translated(ASKED).answer(orjson.dumps(told))
    ChatCompletion.model_validate_json(answer, strict=True)
    assert orjson.loads(answer) | {"created": 1} == read


def test_usage_counts_the_cached_within_the_prompt_s():
    told = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 300,
        "output_tokens": 4000,
        "output_tokens_details": {"thinking_tokens": 3000},
    }
    answer = ChatCompletion.model_validate_json(
        translated(ASKED).answer(orjson.dumps(messages_answer([text("Hi")]) | {"usage": told}))
    )
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_unset=True) == {
        "prompt_tokens": 321,
        "completion_tokens": 4000,
        "total_tokens": 4321,
        "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 20},
        "completion_tokens_details": {"reasoning_tokens": 3000},
    }


@pytest.mark.parametrize("body", [b"<html>", b"", b"null", b"[]", b"{}", b'{"content":[{}]}', b'{"content":[]}', b'{"content":[{"type":"text","text":1}]}'])  # fmt: skip
def test_an_answer_that_is_none(body):
    with pytest.raises(UpstreamFailed):
        translated(ASKED).answer(body)


ERRORS = [
    (400, "invalid_request_error", "invalid_request_error", None),
    (401, "authentication_error", "invalid_request_error", "authentication_error"),
    (404, "not_found_error", "invalid_request_error", "not_found_error"),
    (413, "request_too_large", "invalid_request_error", "request_too_large"),
    (429, "rate_limit_error", "rate_limit_error", None),
    (529, "overloaded_error", "upstream_error", "overloaded_error"),
]


@pytest.mark.parametrize(("status", "said_type", "kind", "code"), ERRORS)
def test_upstream_s_refusal_keeps_its_words(status, said_type, kind, code):
    body = orjson.dumps({"type": "error", "error": {"type": said_type, "message": "No."}, "request_id": "r"})
    read = orjson.loads(translated(ASKED).refusal(status, body))
    assert read == {"error": {"message": "No.", "type": kind, "param": None, "code": code}}


def test_a_refusal_that_is_none():
    with pytest.raises(UpstreamFailed):
        translated(ASKED).refusal(400, b"<html>")
