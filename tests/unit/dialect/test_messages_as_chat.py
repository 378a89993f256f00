"""A Messages client before a server of chat completions: what is carried in the nearest form, and what is refused."""

from hashlib import sha256
from typing import Any

import orjson
import pytest

from tests.unit.dialect.messages_conversations import (
    ASKED,
    CLOSED,
    FUNCTION,
    HELLO,
    PIXEL,
    SCHEMA,
    TOOL,
    asked,
    chat_answer,
    messages_answer,
    text,
    tool_call,
    tool_use,
)
from weir.core.errors import InvalidValue, MalformedBody, UpstreamFailed
from weir.dialect.anthropic_errors import error_body, error_type
from weir.dialect.messages.as_chat import FIELDS, MessagesAsChat

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
IMAGE_URL = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
EPHEMERAL = {"cache_control": {"type": "ephemeral"}}
CALL = {"role": "assistant", "content": [tool_use("a", {})]}
CALLED = {"role": "assistant", "content": None, "tool_calls": [tool_call("a", "{}")]}


def as_chat(request: dict[str, Any], **how: Any) -> Any:
    return orjson.loads(MessagesAsChat(orjson.dumps(request), **how).body)


def said(*messages: Any) -> dict[str, Any]:
    return asked(messages=list(messages))


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def result(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "a", "content": content, **more}


def tool(content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "a", "content": content}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def document(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
PLAIN = {"type": "text", "media_type": "text/plain", "data": "Once."}

MESSAGES = [
    # name                        Messages says                                              chat says
    ("blocks-of-one-text", said(user(text("Hello"))), [HELLO]),
    ("several-texts", said(user(text("a"), text("b"))), [user(text("a"), text("b"))]),
    ("turns-of-one-role", said(HELLO, HELLO), [user(text("Hello"), text("Hello"))]),
    ("assistant-texts", said(HELLO, {"role": "assistant", "content": [text("a"), text("b")]}), [HELLO, {"role": "assistant", "content": "ab"}]),
    ("begun-answer", said(HELLO, {"role": "assistant", "content": "{"}), [HELLO, {"role": "assistant", "content": "{"}]),
    ("empty-blocks", said(user()), [{"role": "user", "content": ""}]),
    ("cache-control", said(user({**text("Hello"), **EPHEMERAL})), [HELLO]),
    ("image-between-texts", said(user(text("a"), IMAGE, text("b"))), [user(text("a"), IMAGE_URL, text("b"))]),
    ("thinking-of-earlier", said(HELLO, {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, text("Hi")]}), [HELLO, {"role": "assistant", "content": "Hi", "reasoning_content": "Hm."}]),
    ("sealed-thinking-of-earlier", said(HELLO, {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "s"}, text("Hi")]}), [HELLO, {"role": "assistant", "content": "Hi"}]),
    ("result", said(CALL, user(result("rain"))), [CALLED, tool("rain")]),
    ("result-of-nothing", said(CALL, user({"type": "tool_result", "tool_use_id": "a"})), [CALLED, tool("")]),
    ("result-of-texts", said(CALL, user(result([text("a"), text("b")]))), [CALLED, tool("a\nb")]),
    ("result-that-failed", said(CALL, user(result("no such city", is_error=True))), [CALLED, tool("Error: no such city")]),
    (
        "result-with-an-image",
        said(CALL, user(result([text("seen:"), IMAGE]), text("And?"))),
        [CALLED, tool("seen:\n[image: in the next user message]"), user(text("From the result of tool call a:"), IMAGE_URL, text("And?"))],
    ),
    (
        "result-with-a-pdf",
        said(CALL, user(result([document(PDF)]))),
        [CALLED, tool("[file: in the next user message]"), user(text("From the result of tool call a:"), {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}})],
    ),
    ("text-before-results", said(CALL, user(text("So."), result("rain"))), [CALLED, tool("rain"), {"role": "user", "content": "So."}]),
    ("document-of-text", said(user(document(PLAIN, title="Tale", context="A tale."))), [{"role": "user", "content": "Tale\nA tale.\nOnce."}]),
    ("document-of-blocks", said(user(document({"type": "content", "content": [text("Once."), IMAGE]}, title="Tale"))), [user(text("Tale"), text("Once."), IMAGE_URL)]),
    ("document-of-a-string", said(user(document({"type": "content", "content": "Once."}))), [{"role": "user", "content": "Once."}]),
    ("pdf-with-its-context", said(user(document(PDF, context="A tale."))), [user(text("A tale."), {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}})]),
    ("citations-switched-off", said(user(document(PLAIN, citations={"enabled": False}))), [{"role": "user", "content": "Once."}]),
    ("search-result", said(user({"type": "search_result", "title": "Oslo", "source": "https://a.test", "content": [text("rain")]})), [{"role": "user", "content": "Oslo (https://a.test)\nrain"}]),
    ("system-blocks", asked(system=[text("a"), {**text("b"), **EPHEMERAL}]), [system("a\n\nb"), HELLO]),
    ("system-of-claude-code", asked(system=[text("x-anthropic-billing-header: cc_version=2.1; cch=0af3;"), text("You are Claude Code.")]), [system("You are Claude Code."), HELLO]),
    ("system-that-says-nothing", {**said(HELLO, system("")), "system": ""}, [HELLO]),
    ("system-at-the-head", {**said(system("b"), HELLO), "system": "a"}, [system("a\n\nb"), HELLO]),
    ("system-in-between", said(HELLO, system("Now be brief."), HELLO), [HELLO, system("Now be brief."), HELLO]),
    ("system-at-the-end", said(HELLO, system("Now be brief.")), [HELLO, system("Now be brief.")]),
    ("system-before-a-result", said(CALL, system("Be brief."), user(result("rain")), HELLO), [CALLED, tool("rain"), HELLO, system("Be brief.")]),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "messages"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES])
def test_history(request_, messages):
    assert as_chat(request_)["messages"] == messages


USAGE = {"stream": True, "stream_options": {"include_usage": True}}
JSON_SCHEMA = {"type": "json_schema", "schema": CLOSED}
RESPONSE_FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "output", "strict": True, "schema": CLOSED}}}  # fmt: skip

FIELD_ROWS = [
    # name                 Messages says                                                      chat says
    ("streamed", {"stream": True}, USAGE),
    ("streamed-usage-whatever-the-client-says", {"stream": True, "stream_options": None}, USAGE),
    ("not-streamed", {"stream": False}, {}),
    ("nulls", {"system": None, "temperature": None, "tools": None, "thinking": None, "metadata": None, "container": None}, {}),
    ("nothing-asked-of-others", {"mcp_servers": [], "tools": [], "tool_choice": {"type": "auto"}}, {}),
    ("temperature-of-zero", {"temperature": 0}, {"temperature": 0}),
    ("long-user", {"metadata": {"user_id": "u" * 65}}, {"user": sha256(b"u" * 65).hexdigest()}),
    ("custom-tool", {"tools": [{**TOOL, "type": "custom", **EPHEMERAL}]}, {"tools": [FUNCTION]}),
    ("examples-of-input", {"tools": [{**TOOL, "input_examples": [{"city": "Oslo"}]}]}, {"tools": [{"type": "function", "function": {**FUNCTION["function"], "parameters": {**SCHEMA, "examples": [{"city": "Oslo"}]}}}]}),
    ("older-output-format", {"output_format": JSON_SCHEMA}, RESPONSE_FORMAT),
    ("format-and-effort", {"output_config": {"format": JSON_SCHEMA, "effort": "low"}}, {**RESPONSE_FORMAT, "reasoning_effort": "low"}),
    ("task-budget", {"output_config": {"task_budget": {"type": "tokens", "total": 9}}}, {}),
    ("thinking-small", {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"reasoning_effort": "low"}),
    ("thinking-middling", {"thinking": {"type": "enabled", "budget_tokens": 10_000}}, {"reasoning_effort": "medium"}),
    ("thinking-large", {"thinking": {"type": "enabled", "budget_tokens": 31_999}}, {"reasoning_effort": "high"}),
    ("thinking-and-effort", {"thinking": {"type": "enabled", "budget_tokens": 1024}, "output_config": {"effort": "max"}}, {"reasoning_effort": "max"}),
    ("thinking-adaptive", {"thinking": {"type": "adaptive"}}, {}),
    ("thinking-between-tools", {"thinking": {"type": "between_tools"}}, {}),
    ("no-thinking-whatever-the-effort", {"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, {"reasoning_effort": "none"}),
    ("hints", {name: {"any": "thing"} for name in FIELDS.hints}, {}),
    (
        "claude-code",
        {
            "stream": True,
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "high"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "metadata": {"user_id": "u"},
            "tools": [{**TOOL, "eager_input_streaming": True}],
        },
        {**USAGE, "reasoning_effort": "high", "user": "u", "tools": [FUNCTION]},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("more", "told"), [row[1:] for row in FIELD_ROWS], ids=[row[0] for row in FIELD_ROWS])
def test_fields(more, told):
    assert as_chat(asked(**more)) == ASKED | told


def test_the_name_of_the_most_tokens():
    assert as_chat(ASKED, max_tokens_field="max_completion_tokens") == {
        "model": "m",
        "max_completion_tokens": 100,
        "messages": [HELLO],
    }


@pytest.mark.parametrize(
    "thinking", [{"type": "enabled", "budget_tokens": 9000}, {"type": "disabled"}], ids=["on", "off"]
)
def test_a_model_that_cannot_think_is_not_asked_to(thinking):
    assert as_chat(asked(thinking=thinking, output_config={"effort": "max"}), thinks=False) == ASKED


WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search"}

REFUSALS = [
    # name                   request                                                   param, a word of the message
    ("unknown-field", asked(colour="red"), "colour", "colour"),
    ("mcp-servers", asked(mcp_servers=[{"type": "url"}]), "mcp_servers", "mcp_servers"),
    ("container", asked(container="c"), "container", "container"),
    ("thread", asked(thread={"type": "create"}), "thread", "thread"),
    ("where-it-is-processed", asked(inference_geo="eu"), "inference_geo", "inference_geo"),
    ("server-tool", asked(tools=[TOOL, WEB_SEARCH]), "tools[1].type", "web_search_20250305"),
    ("tool-without-a-schema", asked(tools=[{"name": "a"}]), "tools[0].input_schema", "object"),
    ("tool-choice", asked(tools=[TOOL], tool_choice={"type": "some"}), "tool_choice.type", "some"),
    ("output-config", asked(output_config={"colour": 1}), "output_config.colour", "colour"),
    ("output-format", asked(output_config={"format": {"type": "xml"}}), "output_config.format", "xml"),
    ("thinking", asked(thinking={"type": "aloud"}), "thinking.type", "aloud"),
    ("thinking-budget", asked(thinking={"type": "enabled"}), "thinking.budget_tokens", "number"),
    ("role", said({"role": "judge", "content": "a"}), "messages[0].role", "role"),
    ("block", said(HELLO, user(text("a"), {"type": "hologram"})), "messages[1].content[1]", "hologram"),
    ("block-of-a-server-tool", said({"role": "assistant", "content": [{"type": "server_tool_use"}]}), "messages[0].content[0]", "server_tool_use"),
    ("image-kept-by-anthropic", said(user({"type": "image", "source": {"type": "file", "file_id": "f"}})), "messages[0].content[0].source", "file"),
    ("pdf-by-address", said(user(document({"type": "url", "url": "https://a.test"}))), "messages[0].content[0].source", "url"),
    ("citations", said(user(document(PLAIN, citations={"enabled": True}))), "messages[0].content[0].citations", "citations"),
    ("block-in-a-result", said(CALL, user(result([{"type": "tool_reference"}]))), "messages[1].content[0].content[0]", "tool_reference"),
    ("image-in-system", asked(system=[IMAGE]), "system[0]", "image"),
    ("block-that-is-none", said(user("a")), "messages[0].content[0]", "object"),
    ("text-that-is-none", said(user({"type": "text", "text": 1})), "messages[0].content[0].text", "string"),
    ("message-that-is-none", said("a"), "messages[0]", "object"),
    ("content-that-is-none", said({"role": "user", "content": 1}), "messages[0].content", "list"),
    ("messages-that-are-none", asked(messages="a"), "messages", "list"),
    ("messages-missing", {"model": "m"}, "messages", "list"),
    ("max-tokens", asked(max_tokens="many"), "max_tokens", "number"),
]  # fmt: skip


@pytest.mark.parametrize(("request_", "param", "word"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_what_has_no_counterpart_is_refused_by_name(request_, param, word):
    with pytest.raises(InvalidValue, match=word) as refused:
        MessagesAsChat(orjson.dumps(request_))
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"a"'])
def test_what_is_no_object_is_malformed(body):
    with pytest.raises(MalformedBody):
        MessagesAsChat(body)


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": ""}
CALLED_A = tool_call("a", "{}")

ANSWERS = [
    # name                     the server says                                              the client reads
    ("nothing", chat_answer({}), messages_answer([])),
    ("reasoning-by-its-other-name", chat_answer({"content": "Hi", "reasoning": "Hm."}), messages_answer([THOUGHT, text("Hi")])),
    ("refusal", chat_answer({"refusal": "I may not."}), messages_answer([text("I may not.")], "refusal")),
    ("filtered", chat_answer({"content": "Hi"}, "content_filter"), messages_answer([text("Hi")], "refusal")),
    ("call-that-ends-with-stop", chat_answer({"tool_calls": [CALLED_A]}, "stop"), messages_answer([tool_use("a", {})], "tool_use")),
    ("call-that-was-cut-off", chat_answer({"tool_calls": [tool_call("a", '{"ci')]}, "length"), messages_answer([tool_use("a", {"arguments": '{"ci'})], "max_tokens")),
    ("arguments-that-are-no-object", chat_answer({"tool_calls": [tool_call("a", "[1]")]}, "tool_calls"), messages_answer([tool_use("a", {"arguments": "[1]"})], "tool_use")),
    ("arguments-that-are-empty", chat_answer({"tool_calls": [tool_call("a", "")]}, "tool_calls"), messages_answer([tool_use("a", {})], "tool_use")),
    ("arguments-that-are-an-object", chat_answer({"tool_calls": [tool_call("a", {"b": 1})]}, "tool_calls"), messages_answer([tool_use("a", {"b": 1})], "tool_use")),
    ("stop-token", chat_answer({"content": "Hi"}, stop_reason=128001), messages_answer([text("Hi")])),
    ("unknown-end", chat_answer({"content": "Hi"}, "eos_token"), messages_answer([text("Hi")])),
]  # fmt: skip


def answer(told: Any) -> Any:
    return orjson.loads(MessagesAsChat(orjson.dumps(ASKED)).answer(orjson.dumps(told)))


@pytest.mark.parametrize(("told", "read"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_answers(told, read):
    assert answer(told) == read


def test_ids_that_are_missing_are_made():
    function = {"name": "weather", "arguments": "{}"}
    told = chat_answer({"tool_calls": [{"function": function}], "function_call": function}, "function_call") | {
        "id": None
    }
    read = answer(told)
    assert read["id"].startswith("msg_")
    first, second = (block["id"] for block in read["content"])
    assert first.startswith("toolu_")
    assert first != second


USAGES = [
    ("none", None, (0, 0, 0)),
    ("no-details", {"prompt_tokens": 9, "completion_tokens": 2}, (9, 0, 2)),
    ("null-details", {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": None}, (9, 0, 2)),
    ("cached", {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}, (1, 8, 2)),
    ("all-cached", {"prompt_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 9}}, (0, 9, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("told", "read"), [row[1:] for row in USAGES], ids=[row[0] for row in USAGES])
def test_usage(told, read):
    usage = answer(chat_answer({"content": "Hi"}) | {"usage": told})["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == read


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"", b"null", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b'{"choices":[{"message":"a"}]}', b'{"choices":[{"message":{"content":[1]}}]}', b'{"choices":[{"message":{"tool_calls":[{}]}}]}',
     b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"abort"}]}', b'{"choices":[{"message":{"content":"Hi"},"finish_reason":"error"}]}'],
)  # fmt: skip
def test_an_answer_that_is_none(body):
    with pytest.raises(UpstreamFailed):
        MessagesAsChat(orjson.dumps(ASKED)).answer(body)


ERRORS = [
    ("openai", {"error": {"message": "No.", "type": "x", "param": None, "code": "y"}}, "No."),
    ("vllm-once", {"object": "error", "message": "No.", "type": "BadRequestError", "code": 400}, "No."),
    ("tgi", {"error": "No.", "error_type": "validation"}, "No."),
    ("fastapi", {"detail": "No."}, "No."),
    (
        "fastapi-of-fields",
        {"detail": [{"loc": ["body", "messages", 0], "msg": "No.", "type": "t"}, {"msg": "Never."}, 5]},
        "body.messages.0: No.; Never.",
    ),
    ("without-a-message", {"error": {"code": 7}}, '{"code":7}'),
]


@pytest.mark.parametrize(("body", "words"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_upstream_s_refusal_keeps_its_words(body, words):
    read = orjson.loads(MessagesAsChat(orjson.dumps(ASKED)).refusal(429, orjson.dumps(body)))
    assert read == {"type": "error", "error": {"type": "rate_limit_error", "message": words}}


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b"null", b"[]", b'{"error":null}', b'{"error":{}}', b'{"detail":[]}', b'{"detail":[{}]}']
)
def test_a_refusal_that_is_none(body):
    with pytest.raises(UpstreamFailed):
        MessagesAsChat(orjson.dumps(ASKED)).refusal(400, body)


TYPES = [
    (400, "invalid_request_error"),
    (401, "authentication_error"),
    (402, "billing_error"),
    (403, "permission_error"),
    (404, "not_found_error"),
    (413, "request_too_large"),
    (422, "invalid_request_error"),
    (429, "rate_limit_error"),
    (500, "api_error"),
    (502, "api_error"),
    (503, "overloaded_error"),
    (504, "timeout_error"),
    (529, "overloaded_error"),
]


@pytest.mark.parametrize(("status", "kind"), TYPES)
def test_error_types(status, kind):
    assert error_type(status) == kind
    assert orjson.loads(error_body(status, "No.", "r-1")) == {
        "type": "error",
        "error": {"type": kind, "message": "No."},
        "request_id": "r-1",
    }
