"""BodyScanner: usage from a single JSON answer, small or of several MB, wherever the answer keeps it."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from weir.core.types import Usage
from weir.usage.body_scanner import BodyScanner

SAID = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
DETAILS = {
    **SAID,
    "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 0},
}
EMBEDDED = {"prompt_tokens": 8, "total_tokens": 8}
LOOKALIKE = '{"choices":[],"usage":{"prompt_tokens":999,"completion_tokens":999,"total_tokens":1998}}'
VECTOR = [0.0023064255, -0.009327292, 1.5e-07, -0.0028842222] * 256


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def chat(content: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], **more}


def embeddings(count: int, vector: Any = VECTOR) -> dict[str, Any]:
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    return {"object": "list", "data": data, "model": "text-embedding-3-small"}


ANTHROPIC = {"input_tokens": 4, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 6, "output_tokens": 9}
RESPONSES = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 8},
    "total_tokens": 42,
}
IMAGES = {"total_tokens": 110, "input_tokens": 50, "output_tokens": 60, "input_tokens_details": {"text_tokens": 10}}


def message(text: str, usage: dict[str, Any], reason: str | None = "end_turn") -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "message", "content": content, "stop_reason": reason, "stop_sequence": None, "usage": usage}


# vLLM (chat_completion/protocol.py) writes its own fields behind usage; prompt_logprobs has a line a prompt token.
LOGPROBS = [{str(i): {"logprob": -0.5, "rank": 1, "decoded_token": " weir"}} for i in range(4000)]
BESIDE = {"token": " weir", "logprob": -0.5, "bytes": [32, 119, 101, 105, 114], "top_logprobs": []}

# What a caller may write into their request, and Responses repeats behind its own usage; into what a model's tool is
# asked, and into what a vendor's fields repeat.
FORGED = {"usage": {"input_tokens": 1, "output_tokens": 1}, "finish_reason": "length", "stop_reason": "refusal"}
FORGED_DEEP = {"choices": [FORGED], "response": FORGED, "meta": {"billed_units": {"input_tokens": 1}}, **FORGED}
TOOLS = [{"type": "function", "name": "t", "parameters": {"type": "object", "properties": FORGED_DEEP, "w": "w" * 99}}]


def responses(times: int, **more: Any) -> dict[str, Any]:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "hello hi"}]}]
    said = {"id": "r", "object": "response", "status": "completed", "instructions": LOOKALIKE, "output": output}
    return {**said, **more, "text": {"format": {"schema": FORGED_DEEP}}, "tools": TOOLS * times, "metadata": FORGED}


def tool_use(times: int) -> dict[str, Any]:
    content = [{"type": "tool_use", "id": "t", "name": "n", "input": FORGED_DEEP}] * times
    return {"type": "message", "usage": ANTHROPIC, "content": content, "stop_reason": "tool_use"}


SIZES_OF_ECHO = {"": 1, "large-": 300, "huge-": 4000}  # parsed; outlined and parsed; outlined as it passes
ECHOES = {
    size + name: (compact(body(times)), usage, reason)
    for size, times in SIZES_OF_ECHO.items()
    for name, body, usage, reason in [
        ("responses", lambda times: responses(times, usage=RESPONSES), Usage(30, 12, 16, 8), "completed"),
        ("responses-silent", responses, None, "completed"),
        ("messages", tool_use, Usage(40, 9, 30), "tool_use"),
        ("chat", lambda times: chat("A.", usage=SAID, kv_transfer_params=TOOLS * times), Usage(30, 12), "stop"),
    ]
}


BODIES = {
    # OpenAI's order, the other way round, and in between
    "chat": (compact(chat("A weir.", usage=DETAILS, service_tier="default")), Usage(30, 12, 16, 8)),
    "usage-first": (compact({"usage": SAID, **chat("A weir.")}), Usage(30, 12)),
    "indented": (json.dumps(chat("A weir.", usage=DETAILS), indent=4).encode() + b"\n", Usage(30, 12, 16, 8)),
    "spaces": (b'{ "choices" : [ ] , "usage" : { "prompt_tokens" : 3 , "completion_tokens" : 4 } }\r\n', Usage(3, 4)),
    # the embeddings object has no completion
    "embedding": (compact({**embeddings(1), "usage": EMBEDDED}), Usage(8, 0)),
    # text that looks like usage
    "lookalike": (compact(chat(LOOKALIKE, usage=SAID)), Usage(30, 12)),
    "lookalike-after": (compact({"usage": SAID, **chat(LOOKALIKE)}), Usage(30, 12)),
    "lookalike-escaped-twice": (compact(chat(json.dumps(LOOKALIKE), usage=SAID)), Usage(30, 12)),
    "lookalike-only": (compact(chat(LOOKALIKE)), None),
    "nested": (compact({"usage": SAID, **chat("x"), "x_vendor": {"usage": {"prompt_tokens": 9}}}), Usage(30, 12)),
    "nested-only": (compact(chat("x", x_vendor={"usage": {"prompt_tokens": 9, "completion_tokens": 9}})), None),
    # large: the text of a long answer, vectors, base64
    "large-chat": (compact(chat("weir " * 60_000, usage=DETAILS)), Usage(30, 12, 16, 8)),
    "large-usage-first": (compact({"usage": DETAILS, **chat("weir " * 60_000)}), Usage(30, 12, 16, 8)),
    "large-lookalike": (compact(chat(LOOKALIKE * 3000, usage=SAID)), Usage(30, 12)),
    "large-lookalike-after": (compact({"usage": SAID, **chat(LOOKALIKE * 3000)}), Usage(30, 12)),
    "large-lookalike-only": (compact(chat(LOOKALIKE * 3000)), None),
    "large-indented": (json.dumps(chat("weir " * 60_000, usage=DETAILS), indent=4).encode(), Usage(30, 12, 16, 8)),
    "large-no-usage": (compact(chat("weir " * 60_000)), None),
    "embeddings-3mb": (compact({**embeddings(240), "usage": EMBEDDED}), Usage(8, 0)),
    "embeddings-3mb-first": (compact({"usage": EMBEDDED, **embeddings(240)}), Usage(8, 0)),
    "embeddings-3mb-indented": (json.dumps({**embeddings(100), "usage": EMBEDDED}, indent=2).encode(), Usage(8, 0)),
    "embeddings-base64": (compact({**embeddings(500, "zczMPQAAgD8" * 700), "usage": EMBEDDED}), Usage(8, 0)),
    # usage in the middle of a large answer
    "vllm-prompt-logprobs": (compact(chat("A.", usage=SAID, prompt_logprobs=LOGPROBS)), Usage(30, 12)),
    "vllm-logprobs-on-both-sides": (
        compact(chat("A.", logprobs={"content": [BESIDE] * 3000}, usage=SAID, prompt_logprobs=LOGPROBS)),
        Usage(30, 12),
    ),
    # other dialects
    "messages": (compact(message("A.", ANTHROPIC)), Usage(40, 9, 30)),
    "large-messages": (compact(message("weir " * 60_000, ANTHROPIC)), Usage(40, 9, 30)),
    "responses": (compact({"object": "response", "output": [], "usage": RESPONSES}), Usage(30, 12, 16, 8)),
    "large-responses": (compact({"output": "weir " * 60_000, "usage": RESPONSES, "user": None}), Usage(30, 12, 16, 8)),
    "rerank": (compact({"results": [], "usage": {"total_tokens": 15}}), Usage(15, 0)),
    "rerank-cohere": (compact({"results": [], "meta": {"billed_units": {"input_tokens": 15}}}), Usage(15, 0)),
    "rerank-cohere-searches": (compact({"results": [], "meta": {"billed_units": {"search_units": 1}}}), None),
    "rerank-meta-null": (compact({"results": [], "meta": None}), None),
    "large-rerank": (
        compact({"results": ["w" * 99] * 999, "meta": {"billed_units": {"input_tokens": 15}}}),
        Usage(15, 0),
    ),
    "images": (compact({"data": [{"b64_json": "iVBO" * 50_000}], "usage": IMAGES}), Usage(50, 60)),
    "transcription": (compact({"text": "A.", "usage": {"type": "duration", "seconds": 9}}), None),
    # what is no answer
    "error": (b'{"error":{"message":"no","type":"server_error","param":null,"code":null}}', None),
    "usage-null": (compact(chat("A.", usage=None)), None),
    "html": (b'<html><body>"usage":{"prompt_tokens":1</body></html>', None),
    "list": (b'[{"usage":{"prompt_tokens":1}}]', None),
    "cut-off": (compact(chat("A weir.", usage=SAID))[:-20], None),
    "empty": (b"", None),
}


def in_pieces_of(size: int, body: bytes) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def read(pieces: Iterator[bytes] | list[bytes]) -> Usage | None:
    scanner = BodyScanner()
    for piece in pieces:
        assert scanner.feed(piece) is piece
    usage = scanner.usage
    assert scanner.usage == usage, "asked twice"
    return usage


@pytest.mark.parametrize("size", [97, 4096, 65_536, 1 << 30], ids=["97", "4k", "64k", "whole"])
@pytest.mark.parametrize(("body", "usage"), BODIES.values(), ids=BODIES)
def test_usage_of_a_body(body, usage, size):
    assert read(in_pieces_of(size, body)) == usage


@pytest.mark.parametrize("name", ["chat", "usage-first", "lookalike", "nested", "error"])
def test_small_body_cut_anywhere(name):
    body, usage = BODIES[name]
    assert read(in_pieces_of(1, body)) == usage
    for at in range(len(body) + 1):
        assert read([body[:at], body[at:]]) == usage, f"cut at {at}"


@pytest.mark.parametrize("size", [kilobytes * 1024 + off for kilobytes in (16, 64, 80) for off in (-1, 0, 1)])
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_body_of_a_size_at_which_something_changes(first, size):
    """Buffers of round sizes: usage must not fall between two of them."""
    text = "w" * (size - len(compact(chat("", usage=SAID))))
    body = compact({"usage": SAID, **chat(text)} if first else chat(text, usage=SAID))
    assert len(body) == size
    for piece in (1000, 16_384, 65_536, size):
        assert read(in_pieces_of(piece, body)) == Usage(30, 12), f"pieces of {piece}"


@pytest.mark.parametrize("behind", [15_000, 16_200, 16_300, 16_384, 17_000, 60_000])
def test_usage_at_any_distance_from_the_end(behind):
    """A vendor's fields may stand behind usage; behind a large answer too."""
    body = compact(chat("w" * 100_000, usage=SAID, x_vendor="v" * behind))
    assert read(in_pieces_of(4096, body)) == Usage(30, 12)


# Legal JSON, or what servers call so, that strict parsers refuse: the bytes pass, and the usage is charged.
UNCLEAN = {
    "half-a-surrogate": b'{"choices":[{"text":"\\ud83c"}],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    "minus-infinity": b'{"choices":[{"logprobs":[-Infinity]}],"usage":{"prompt_tokens":3,"completion_tokens":4}}',
    "not-a-number": b'{"usage":{"prompt_tokens":3,"completion_tokens":4},"choices":[{"logprobs":[NaN]}]}',
}


@pytest.mark.parametrize("body", UNCLEAN.values(), ids=UNCLEAN)
def test_usage_of_an_unclean_body(body):
    assert read([body]) == Usage(3, 4)


def test_pieces_of_a_large_body_are_not_kept():
    """An embedding answer of 64 MB must not be gathered to find a few numbers at its end."""
    scanner = BodyScanner()
    piece = b"0.25," * 3277
    scanner.feed(b'{"object":"list","data":[')
    tracemalloc.start()
    try:
        for _ in range(4096):
            scanner.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    scanner.feed(b'0],"usage":{"prompt_tokens":8,"total_tokens":8}}')
    assert peak < 4 << 20
    assert scanner.usage == Usage(8, 0)


@pytest.mark.parametrize("size", [97, 65_536, 1 << 30], ids=["97", "64k", "whole"])
@pytest.mark.parametrize(("body", "usage", "reason"), ECHOES.values(), ids=ECHOES)
def test_what_an_answer_repeats_is_not_its_own(body, usage, reason, size):
    scanner = BodyScanner()
    for piece in in_pieces_of(size, body):
        scanner.feed(piece)
    assert (scanner.usage, scanner.finish_reason, scanner.cut) == (usage, reason, False)


WRITTEN = [
    # an answer without usage, and how many bytes a model wrote in it
    pytest.param(responses(50), 8, id="responses"),
    pytest.param(responses(500), 8, id="large-responses"),
    pytest.param({"output": [], "text": {"content": "of the request"}}, 0, id="responses-format"),
    pytest.param(
        {"output": [{"type": "reasoning", "summary": [{"text": "abc"}], "encrypted_content": "x" * 99}]},
        3,
        id="responses-reasoning",
    ),
    pytest.param(
        {"output": [{"arguments": '{"a":1}', "name": "f"}, {"type": "custom_tool_call", "input": "abc"}]},
        10,
        id="responses-tools",
    ),
    pytest.param(chat("\u00fc\u4e00"), 5, id="chat-in-utf-8"),
    pytest.param(chat("abc", prompt_logprobs=LOGPROBS[:50]), 3, id="chat-beside-logprobs"),
    pytest.param(
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]},
        2,
        id="chat-tools",
    ),
    pytest.param({"choices": [{"message": {"reasoning_content": "abc", "content": "de"}}]}, 5, id="chat-reasoning"),
    pytest.param({"choices": [{"text": "abc"}, {"text": "de"}]}, 5, id="completions"),
    pytest.param(message("abc", {}), 3, id="messages"),
    pytest.param(
        {"content": [{"type": "thinking", "thinking": "abc", "signature": "x" * 99}, {"input": {"a": 1}}]},
        3 + len("a1"),
        id="messages-thinking-and-tools",
    ),
    pytest.param({"content": [{"input": json.loads('{"a":' * 900 + '"b"' + "}" * 900)}]}, 901, id="messages-deep"),
    pytest.param({"text": "abc"}, 3, id="transcription"),
    pytest.param(embeddings(2), 0, id="embeddings"),
    pytest.param(embeddings(200), 0, id="huge-embeddings"),
    pytest.param({"results": [{"relevance_score": 0.5}]}, 0, id="rerank"),
    pytest.param({"data": [{"b64_json": "iVBO" * 50_000}]}, 0, id="images"),
    pytest.param({"a": "b"}, len('{"a":"b"}'), id="no-answer-that-we-know"),
    pytest.param({"error": {"message": "no"}}, 0, id="error"),
]


@pytest.mark.parametrize(("body", "size"), WRITTEN)
def test_what_a_model_wrote(body, size):
    scanner = BodyScanner()
    scanner.feed(compact(body))
    assert (scanner.usage, scanner.content_bytes) == (None, size)


def test_half_a_surrogate_is_written_too():
    scanner = BodyScanner()
    scanner.feed(rb'{"content":[{"text":"\ud83c"},{"input":{"a":["\ud83c",1e999]}}]}')
    assert (scanner.usage, scanner.content_bytes) == (None, len("??a") + len("inf"))


def test_what_is_not_json_counts_whole():
    scanner = BodyScanner()
    scanner.feed(b"<html></html>")
    assert (scanner.usage, scanner.content_bytes) == (None, 13)


def vllm_chat(text: str) -> dict[str, Any]:
    """vLLM says beside finish_reason which of the caller's stop strings it met."""
    return {"choices": [{"text": text, "finish_reason": "stop", "stop_reason": "refusal"}]}


REASONS = [
    # body, why it ended
    pytest.param(chat("A."), "stop", id="chat"),
    pytest.param(chat("w" * 100_000), "stop", id="large-chat"),
    pytest.param(message("A.", ANTHROPIC), "end_turn", id="messages"),
    pytest.param(message("w" * 100_000, ANTHROPIC, "max_tokens"), "max_tokens", id="large-messages"),
    pytest.param(message("A.", ANTHROPIC, None), None, id="messages-null"),
    pytest.param(message("A.", ANTHROPIC, "our secret word"), None, id="not-anthropics-word"),
    pytest.param(message('"stop_reason":"refusal"' + "w" * 100_000, ANTHROPIC, None), None, id="large-lookalike"),
    pytest.param(vllm_chat("A."), "stop", id="vllm"),
    pytest.param(vllm_chat("w" * 100_000), "stop", id="large-vllm"),
    pytest.param({"choices": [{"finish_reason": None, "stop_reason": "secret"}]}, None, id="vllm-unfinished"),
    pytest.param(
        {"object": "response", "status": "completed", "incomplete_details": None}, "completed", id="responses"
    ),
    pytest.param(
        {"object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        "max_output_tokens",
        id="responses-incomplete",
    ),
    pytest.param({"object": "response", "status": {"odd": 1}}, None, id="responses-odd-status"),
    pytest.param({"status": "completed"}, None, id="not-a-response"),
]


@pytest.mark.parametrize(("body", "reason"), REASONS)
@pytest.mark.parametrize("size", [997, 1 << 30], ids=["pieces", "whole"])
def test_why_it_ended(body, reason, size):
    scanner = BodyScanner()
    for piece in in_pieces_of(size, compact(body)):
        scanner.feed(piece)
    scanner.flush()
    assert scanner.finish_reason == reason
