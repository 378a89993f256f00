"""What is read of a body, what is refused and by which name, and what goes upstream of it."""

import base64
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.client import wire_of_client
from tests.fakes.clock import run
from weir.core.asgi import Message
from weir.core.errors import BadRequest, BodyTooLarge, ClientGone, InvalidValue, MalformedBody
from weir.core.operations import CHAT, EMBEDDINGS, MESSAGES, OPERATIONS, RESPONSES, TEXT, Operation
from weir.core.types import Endpoint, Route
from weir.gateway.request import MEDIA_TOKENS, CompletionRequest, outgoing, read_body, read_request
from weir.gateway.watch import Watches

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
HELLO = [{"role": "user", "content": "hello"}]


def body(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": HELLO} | fields)


def read(operation: Operation = CHAT, **fields: Any) -> CompletionRequest:
    return read_request(operation, body(**fields))


MALFORMED = [
    pytest.param(b"", id="empty"),
    pytest.param(b" ", id="space"),
    pytest.param(b"hello", id="text"),
    pytest.param(b'{"model":"m"', id="cut"),
    pytest.param(b'{"model":"m",}', id="comma-too-many"),
    pytest.param(b"{'model':'m'}", id="single-quotes"),
    pytest.param(b'{"model":"m"}{}', id="two"),
    pytest.param(b"[]", id="list"),
    pytest.param(b'"model"', id="string"),
    pytest.param(b"null", id="null"),
    pytest.param(b"7", id="number"),
    pytest.param(b'{"x":NaN}', id="nan"),
    pytest.param(b'{"x":Infinity}', id="infinity"),
    pytest.param(b'{"x":"\xff"}', id="not-utf-8"),
    pytest.param(b'{"x":"\\ud800"}', id="half-a-surrogate"),
    pytest.param(b'{"x":"a\nb"}', id="raw-newline"),
    pytest.param(b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", id="deep"),
    pytest.param(b'{"x":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}", id="deep-objects"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte-order-mark"),
]


@pytest.mark.parametrize("sent", MALFORMED)
def test_malformed(sent: bytes) -> None:
    with pytest.raises(MalformedBody) as refused:
        read_request(CHAT, sent)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "malformed_body", None)


def test_the_sentence_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(MalformedBody) as refused:
        read_request(CHAT, b'{"messages": canary-in-a-prompt}')
    assert "canary" not in refused.value.text


BAD_VALUES = [
    *(pytest.param(CHAT, {"model": v}, "model", id=f"model-{v!r}") for v in (None, "", 7, True, [], {}, ["m"])),
    *(pytest.param(CHAT, {"messages": v}, "messages", id=f"messages-{v!r}") for v in (None, [], {}, "hi", 5, True)),
    *(pytest.param(TEXT, {"prompt": v}, "prompt", id=f"prompt-{v!r}") for v in (None, [], {}, 5, True)),
    *(pytest.param(EMBEDDINGS, {"input": v}, "input", id=f"input-{v!r}") for v in (None, [], {}, 5, True)),
    *(pytest.param(CHAT, {"stream": v}, "stream", id=f"stream-{v!r}") for v in ("true", 1, 0, [], {})),
    *(
        pytest.param(CHAT, {name: v}, name, id=f"{name}-{v!r}")
        for name in ("max_tokens", "max_completion_tokens", "n")
        for v in (0, -1, "5", 1.0, 1.5, True, False, [], {}, 2**31, 2**53, 10**18)
    ),
    *(pytest.param(CHAT, {"n": v}, "n", id=f"n-{v}") for v in (129, 10_000)),
    *(pytest.param(CHAT, {"n_predict": v}, "n_predict", id=f"n_predict-{v!r}") for v in (-2, "5", 1.5, [], 2**31)),
    *(pytest.param(RESPONSES, {"input": "a", "n_cmpl": v}, "n_cmpl", id=f"n_cmpl-{v!r}") for v in (0, -1, 129, "2")),
    *(
        pytest.param(
            operation,
            {operation.prompt: "a", "max_completion_tokens": v},
            "max_completion_tokens",
            id=f"{operation.name}-max_completion_tokens-{v!r}",
        )
        for operation in (TEXT, RESPONSES)
        for v in (0, -1, "5")
    ),
    *(pytest.param(TEXT, {"prompt": "a", "best_of": v}, "best_of", id=f"best_of-{v}") for v in (0, 129, "2", 1.5)),
    *(
        pytest.param(CHAT, {"stream": True, "stream_options": v}, "stream_options", id=f"stream_options-{v!r}")
        for v in ([], "usage", 1, True)
    ),
    pytest.param(
        CHAT, {"stream": True, "stream_options": {"include_usage": "yes"}}, "include_usage", id="include_usage-text"
    ),
    pytest.param(
        CHAT,
        {"stream": True, "stream_options": {"include_usage": True, "Include_Usage": False}},
        "Include_Usage",
        id="include_usage-as-go-reads-it",
    ),
    *(
        pytest.param(
            operation,
            {operation.prompt: [{"role": "user", "content": "a"}], "max_tokens": 9, name: v},
            name,
            id=f"{operation.name}-{name}",
        )
        for operation in (CHAT, RESPONSES, MESSAGES)
        for name, v in (
            ("models", ["other"]),
            ("fallbacks", [{"model": "other"}]),
            ("fallbacks", "other"),
            ("Models", []),
        )
    ),
]


@pytest.mark.parametrize(("operation", "fields", "param"), BAD_VALUES)
def test_bad_value(operation: Operation, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        read(operation, **fields)
    assert (refused.value.status, refused.value.code) == (400, "invalid_value")
    assert refused.value.param is not None
    assert param in refused.value.param
    assert param in refused.value.text


class TestOutputTokens:
    @pytest.mark.parametrize(
        ("fields", "tokens"),
        [
            pytest.param({}, None, id="none"),
            pytest.param({"max_tokens": None}, None, id="null"),
            pytest.param({"max_tokens": 5}, 5, id="old-name"),
            pytest.param({"max_completion_tokens": 6}, 6, id="new-name"),
            pytest.param({"max_tokens": 1, "max_completion_tokens": 10_000}, 10_000, id="the-larger"),
            pytest.param({"max_tokens": 10_000, "max_completion_tokens": 1}, 10_000, id="the-larger-turned"),
            pytest.param({"max_tokens": 7, "max_completion_tokens": None}, 7, id="the-other-null"),
            pytest.param({"max_tokens": 2**31 - 1}, 2**31 - 1, id="largest"),
            pytest.param({"n_predict": 9}, 9, id="llama.cpps-own"),
            pytest.param({"max_tokens": 1, "n_predict": 10_000}, 10_000, id="llama.cpps-own-overrules"),
            pytest.param({"max_tokens": 10_000, "n_predict": 1}, 10_000, id="elsewhere-it-is-nothing"),
            pytest.param({"n_predict": -1}, None, id="llama.cpps-own-without-a-bound"),
            pytest.param({"max_tokens": 5, "n_predict": -1}, 5, id="a-bound-and-none"),
            pytest.param({"n_predict": 0}, None, id="nothing-but-the-prompt-and-only-llama.cpp-knows"),
        ],
    )
    def test_is_the_larger_of_both(self, fields: dict[str, Any], tokens: int | None) -> None:
        assert read(**fields).output_tokens == tokens

    @pytest.mark.parametrize("operation", [TEXT, RESPONSES], ids=lambda operation: operation.name)
    def test_is_the_largest_that_llama_cpp_would_read(self, operation: Operation) -> None:
        official = operation.caps[0]
        asked = {operation.prompt: "a", official: 1, "max_completion_tokens": 10_000, "n": 8}
        request = read(operation, **asked)
        assert (request.output_tokens, request.choices) == (10_000, 8)

    def test_of_a_text_that_is_only_scored(self) -> None:
        """OpenAI's completions take 0; what a server makes of it is settled."""
        assert read(TEXT, prompt="a", echo=True, max_tokens=0).output_tokens is None

    def test_of_embeddings_is_none_at_all(self) -> None:
        request = read(EMBEDDINGS, input="a", max_tokens=500, n=5, stream=True)
        assert (request.output_tokens, request.choices, request.streaming) == (0, 1, False)


class TestChoices:
    @pytest.mark.parametrize(
        ("operation", "fields", "choices"),
        [
            pytest.param(CHAT, {}, 1, id="one"),
            pytest.param(CHAT, {"n": None}, 1, id="null"),
            pytest.param(CHAT, {"n": 8}, 8, id="n"),
            pytest.param(CHAT, {"n": 128}, 128, id="most"),
            pytest.param(CHAT, {"n": 2, "n_cmpl": 8}, 8, id="llama.cpps-own-overrules"),
            pytest.param(RESPONSES, {"input": "a", "n_cmpl": 3}, 3, id="llama.cpps-own-in-responses"),
            pytest.param(TEXT, {"prompt": "a", "best_of": 5}, 5, id="best-of"),
            pytest.param(TEXT, {"prompt": "a", "n": 2, "best_of": 5}, 5, id="best-of-counts-if-larger"),
            pytest.param(TEXT, {"prompt": "a", "n": 5, "best_of": 2}, 5, id="n-counts-if-larger"),
            pytest.param(TEXT, {"prompt": ["a", "b", "c"]}, 3, id="prompts"),
            pytest.param(TEXT, {"prompt": ["a", "b", "c"], "n": 2}, 6, id="prompts-times-n"),
            pytest.param(TEXT, {"prompt": [1, 2, 3]}, 1, id="one-prompt-of-token-ids"),
            pytest.param(TEXT, {"prompt": [[1, 2], [3]]}, 2, id="prompts-of-token-ids"),
            pytest.param(TEXT, {"prompt": "", "prompt_embeds": ["a", "b"]}, 3, id="vllms-vectors-beside-a-text"),
            pytest.param(TEXT, {"prompt": ["a", "b"], "prompt_embeds": "c", "n": 2}, 6, id="one-of-vllms-vectors"),
            pytest.param(TEXT, {"prompt": None, "prompt_embeds": ["a"] * 4}, 4, id="vllms-vectors-and-no-text"),
            pytest.param(TEXT, {"prompt": "a", "prompt_embeds": None}, 1, id="no-vectors"),
            pytest.param(CHAT, {"prompt_embeds": ["a", "b"]}, 1, id="vectors-that-chat-does-not-have"),
            pytest.param(CHAT, {"prompt": []}, 1, id="a-prompt-that-chat-does-not-have"),
            pytest.param(CHAT, {"prompt": ["a", "b"]}, 1, id="prompts-that-chat-does-not-have"),
        ],
    )
    def test_are_what_may_be_answered(self, operation: Operation, fields: dict[str, Any], choices: int) -> None:
        assert read(operation, **fields).choices == choices


class TestUsage:
    @pytest.mark.parametrize(
        ("fields", "wants"),
        [
            pytest.param({"stream": True}, False, id="not-asked"),
            pytest.param({"stream": True, "stream_options": None}, False, id="null"),
            pytest.param({"stream": True, "stream_options": {}}, False, id="empty"),
            pytest.param({"stream": True, "stream_options": {"include_usage": False}}, False, id="no"),
            pytest.param({"stream": True, "stream_options": {"include_usage": True}}, True, id="yes"),
            pytest.param({"stream": False, "stream_options": {"include_usage": True}}, False, id="no-stream"),
        ],
    )
    def test_is_wanted(self, *, fields: dict[str, Any], wants: bool) -> None:
        assert read(**fields).wants_usage == wants


IMAGE = "data:image/png;base64," + base64.b64encode(b"\x01\x02\x03" * 50_000).decode()
AUDIO = base64.b64encode(b"\x01\x02\x03" * 50_000).decode()


def parts(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, *content]}]


IMAGE_PART = {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}}
MEDIA = [
    # content parts, how many are no text, bytes of them at least
    pytest.param([IMAGE_PART], 1, len(IMAGE), id="image"),
    pytest.param([IMAGE_PART, IMAGE_PART], 2, 2 * len(IMAGE), id="two-images"),
    pytest.param([{"type": "image_url", "image_url": IMAGE}], 1, len(IMAGE), id="image-as-a-text"),
    pytest.param([{"type": "input_audio", "input_audio": {"data": AUDIO, "format": "wav"}}], 1, len(AUDIO), id="audio"),
    pytest.param([{"type": "file", "file": {"file_data": AUDIO, "filename": "a.pdf"}}], 1, len(AUDIO), id="file"),
    pytest.param([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}], 1, 0, id="address"),
    pytest.param([{"image_url": {"url": IMAGE}}], 1, len(IMAGE), id="without-a-type"),
    pytest.param([{"type": "of_tomorrow", "data": AUDIO}, IMAGE_PART], 1, len(IMAGE), id="what-nobody-knows-is-text"),
]
LONG = "x" * 5_000
URL_TOOL = {"type": "function", "function": {"name": "get", "parameters": {"properties": {"url": {"type": "string"}}}}}
CALLS = [
    {"type": "function_call", "call_id": "c", "name": "get", "arguments": LONG},
    {"type": "custom_tool_call", "call_id": "c", "name": "get", "input": LONG},
    {"type": "function_call_output", "call_id": "c", "output": LONG},
    {"type": "reasoning", "encrypted_content": LONG, "summary": []},
]
RESULTS = [
    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": LONG}},
    {
        "type": "web_search_tool_result",
        "content": [{"type": "web_search_result", "url": "u", "encrypted_content": LONG}],
    },
]
SHOT = {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot", "image_url": IMAGE}}


class TestMedia:
    @pytest.mark.parametrize(("content", "count", "size"), MEDIA)
    def test_is_not_counted_as_text(self, content: list[dict[str, Any]], count: int, size: int) -> None:
        sent = body(messages=parts(*content))
        request = read_request(CHAT, sent)
        assert request.media_tokens > 0
        assert request.media_tokens == count * read(messages=parts(IMAGE_PART)).media_tokens
        assert request.text_bytes == len(sent) - size
        assert request.text_bytes > 0

    def test_text_is_all_text(self) -> None:
        sent = body(messages=[{"role": "user", "content": "x" * 10_000}])
        request = read_request(CHAT, sent)
        assert (request.text_bytes, request.media_tokens) == (len(sent), 0)

    @pytest.mark.parametrize(
        ("operation", "fields"),
        [
            pytest.param(RESPONSES, {"input": CALLS, "tools": [URL_TOOL]}, id="responses"),
            pytest.param(MESSAGES, {"messages": parts(*RESULTS), "max_tokens": 9, "tools": [URL_TOOL]}, id="messages"),
        ],
    )
    def test_calls_of_tools_and_their_results_are_text(self, operation: Operation, fields: dict[str, Any]) -> None:
        """Also where some tool has a parameter called `url`."""
        sent = orjson.dumps({"model": "m", **fields})
        request = read_request(operation, sent)
        assert (request.text_bytes, request.media_tokens) == (len(sent), 0)

    def test_a_picture_of_the_screen_is_none(self) -> None:
        sent = orjson.dumps({"model": "m", "input": [*CALLS, SHOT]})
        request = read_request(RESPONSES, sent)
        assert (request.text_bytes, request.media_tokens) == (len(sent) - len(IMAGE), MEDIA_TOKENS)

    def test_talk_about_images_is_text(self) -> None:
        text = '{"type":"image_url","image_url":{"url":"' + "x" * 1_000 + '"}}'
        sent = body(messages=[{"role": "user", "content": text}])
        request = read_request(CHAT, sent)
        assert (request.text_bytes, request.media_tokens) == (len(sent), 0)

    def test_long_texts_in_text_parts_are_text(self) -> None:
        sent = body(messages=[*parts(IMAGE_PART), *parts({"type": "text", "text": "x" * 10_000})])
        assert read_request(CHAT, sent).text_bytes == len(sent) - len(IMAGE)

    @pytest.mark.parametrize(
        ("operation", "fields"),
        [
            pytest.param(CHAT, {"messages": [1, None, "image_url", []]}, id="messages-of-anything"),
            pytest.param(CHAT, {"messages": [{"content": [1, None, "image_url"]}]}, id="parts-of-anything"),
            pytest.param(CHAT, {"messages": [{"content": [{"type": ["image_url"]}]}]}, id="type-a-list"),
            pytest.param(CHAT, {"messages": [{"content": [{"type": "image_url"}]}]}, id="no-image"),
            pytest.param(CHAT, {"messages": [{"content": [{"type": "image_url", "image_url": 5}]}]}, id="a-number"),
            pytest.param(TEXT, {"prompt": "image_url", "messages": None}, id="messages-null"),
            pytest.param(TEXT, {"prompt": "image_url", "messages": 5}, id="messages-a-number"),
            pytest.param(EMBEDDINGS, {"input": "image_url", "messages": 5}, id="messages-beside-input"),
        ],
    )
    def test_odd_forms_are_the_upstreams_to_refuse(self, operation: Operation, fields: dict[str, Any]) -> None:
        assert read(operation, **fields).text_bytes > 0


NAMES = st.sampled_from(["type", "image_url", "content", "text", "include_usage", "file", "file_data"])
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    NAMES,
)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
FIELDS = (
    *("model", "messages", "prompt", "input", "stream", "stream_options", "n", "best_of", "max_tokens", "image_url"),
    *("n_predict", "n_cmpl", "prompt_embeds"),
)


@LAW
@given(st.sampled_from(OPERATIONS), st.dictionaries(st.sampled_from(FIELDS), ANYTHING), st.booleans())
def test_any_object_is_read_or_refused(operation: Operation, fields: dict[str, Any], whole: bool) -> None:
    """A body is other people's JSON: whatever its shape, the worst is a 400."""
    sent = orjson.dumps({"model": "m", operation.prompt: HELLO} | fields if whole else fields)
    try:
        request = read_request(operation, sent)
    except BadRequest:
        return
    assert request.choices >= 1
    assert 0 <= request.text_bytes <= len(sent)


def route(**fields: Any) -> Route:
    return Route(**{"model": "m", "backend": "b", "upstream_model": "m", "endpoints": [Endpoint("u")]} | fields)


OUTGOING = [
    # operation, what the client says, the route, cap, what is different upstream
    pytest.param(CHAT, {}, {}, None, {}, id="nothing"),
    pytest.param(CHAT, {}, {"upstream_model": "v/M"}, None, {"model": "v/M"}, id="model"),
    pytest.param(CHAT, {"model": "alias"}, {}, None, {"model": "m"}, id="alias"),
    pytest.param(CHAT, {"stream": True}, {}, None, {"stream_options": {"include_usage": True}}, id="usage"),
    pytest.param(
        CHAT,
        {"stream": True, "stream_options": {"include_usage": False, "vendor": 1}},
        {},
        None,
        {"stream_options": {"include_usage": True, "vendor": 1}},
        id="usage-switched-off-and-a-vendor-option",
    ),
    pytest.param(
        CHAT,
        {"stream": True, "stream_options": None},
        {},
        None,
        {"stream_options": {"include_usage": True}},
        id="usage-null",
    ),
    pytest.param(CHAT, {"stream": True, "stream_options": {"include_usage": True}}, {}, None, {}, id="usage-wanted"),
    pytest.param(CHAT, {"stream_options": {"include_usage": True}}, {}, None, {}, id="no-stream-no-usage"),
    pytest.param(CHAT, {}, {}, 77, {"max_tokens": 77}, id="cap"),
    pytest.param(CHAT, {"max_tokens": None}, {}, 77, {"max_tokens": 77}, id="cap-over-null"),
    pytest.param(
        CHAT, {}, {"max_tokens_field": "max_completion_tokens"}, 77, {"max_completion_tokens": 77}, id="cap-by-its-name"
    ),
    pytest.param(
        TEXT,
        {"prompt": "a"},
        {"max_tokens_field": "max_completion_tokens"},
        77,
        {"max_tokens": 77},
        id="cap-of-a-text-has-one-name",
    ),
    pytest.param(
        CHAT,
        {"max_completion_tokens": 5},
        {"max_tokens_field": "max_completion_tokens"},
        5,
        {},
        id="a-cap-by-the-name-that-is-known",
    ),
    pytest.param(
        CHAT, {"max_completion_tokens": 5, "max_tokens": None}, {}, 5, {"max_tokens": 5}, id="a-null-where-it-is-known"
    ),
    pytest.param(
        CHAT, {"max_tokens": 5}, {"max_tokens_field": "max_completion_tokens"}, 5, {}, id="the-old-name-is-the-clients"
    ),
    pytest.param(
        TEXT,
        {"prompt": "a", "max_completion_tokens": 5},
        {},
        5,
        {"max_tokens": 5},
        id="a-text-is-bounded-by-one-name",
    ),
    pytest.param(
        TEXT,
        {"prompt": "a", "max_tokens": None, "max_completion_tokens": 5},
        {},
        5,
        {"max_tokens": 5},
        id="a-text-with-a-null",
    ),
    pytest.param(
        RESPONSES, {"input": "a", "max_completion_tokens": 5}, {}, 5, {"max_output_tokens": 5}, id="of-responses"
    ),
    pytest.param(EMBEDDINGS, {"input": "a", "n_predict": -1}, {}, 0, {}, id="vectors-have-no-cap"),
    pytest.param(CHAT, {"n_predict": 9}, {}, 9, {"max_tokens": 9}, id="a-cap-that-only-llama.cpp-knows"),
    pytest.param(CHAT, {"max_tokens": 9, "n_predict": -1}, {}, 9, {"n_predict": 9}, id="no-cap-that-overrules-one"),
    pytest.param(CHAT, {"n_predict": -1}, {}, 77, {"max_tokens": 77, "n_predict": 77}, id="no-cap-in-any-words"),
    pytest.param(CHAT, {"n_predict": -1}, {}, None, {}, id="no-cap-where-no-limit-needs-one"),
    pytest.param(EMBEDDINGS, {"input": "a"}, {"upstream_model": "e"}, None, {"model": "e"}, id="embeddings"),
]


@pytest.mark.parametrize(("operation", "fields", "routed", "cap", "different"), OUTGOING)
def test_outgoing(
    *, operation: Operation, fields: dict[str, Any], routed: dict[str, Any], cap: int | None, different: dict[str, Any]
) -> None:
    sent = body(vendor={"model": "m", "n": 5}, **fields)
    request = read_request(operation, sent)
    went = outgoing(request, route(**routed), cap)
    assert orjson.loads(went) == orjson.loads(sent) | different
    if not different:
        assert went is sent, "the very bytes"


@pytest.mark.parametrize(
    "sent",
    [
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"max_completion_tokens" : 5, "vendor":1}',
        b'{"model":"m","messages":[{"role":"user","content":"\\"max_completion_tokens\\""}],"max_completion_tokens":5}',
        b'{"x":{"max_completion_tokens":7},"max_completion_tokens":5,"model":"m","messages":[{"role":"user"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\u0061"}],"max_completion_tokens":5}',
    ],
    ids=["once", "in-a-text", "in-an-object", "beside-an-escape"],
)
def test_a_cap_gets_the_name_that_the_server_knows(sent: bytes) -> None:
    went = orjson.loads(outgoing(read_request(CHAT, sent), route(), 5))
    said = orjson.loads(sent)
    del said["max_completion_tokens"]
    assert went == said | {"max_tokens": 5}
    assert outgoing(read_request(CHAT, sent), route(), None) is sent, "where no limit needs it, the very bytes"


def test_a_cap_whose_name_is_escaped_gets_another_beside_it() -> None:
    sent = b'{"model":"m","messages":[{"role":"user"}],"max\\u005fcompletion_tokens":5}'
    assert orjson.loads(outgoing(read_request(CHAT, sent), route(), 5)) == orjson.loads(sent) | {"max_tokens": 5}


class Pieces:
    """An ASGI `receive` that gives a body in pieces, and then the client's leaving."""

    def __init__(self, *pieces: bytes, ends: bool = True) -> None:
        self.messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": not ends or number < len(pieces) - 1}
            for number, piece in enumerate(pieces)
        ]
        self.asked = 0

    async def __call__(self) -> Message:
        self.asked += 1
        return self.messages.pop(0) if self.messages else {"type": "http.disconnect"}


def whole_body(receive: Pieces, content_length: int | None, most: int) -> bytes:
    async def scene() -> bytes:
        watches = Watches(body_seconds=5, write_seconds=5, ping_seconds=5)
        try:
            return await read_body(wire_of_client(receive), content_length, most, watches)
        finally:
            watches.close()

    return run(scene)


class TestReadBody:
    @pytest.mark.parametrize("pieces", [[b"abcd"], [b"ab", b"cd"], [b"", b"abcd", b""], [b"a", b"b", b"c", b"d"]])
    def test_whole(self, pieces: list[bytes]) -> None:
        assert whole_body(Pieces(*pieces), None, 4) == b"abcd"

    def test_empty(self) -> None:
        assert whole_body(Pieces(b""), 0, 4) == b""

    def test_one_that_says_it_is_too_large_is_refused_unread(self) -> None:
        receive = Pieces(b"abcde")
        with pytest.raises(BodyTooLarge, match="4 bytes"):
            whole_body(receive, 5, 4)
        assert receive.asked == 0

    @pytest.mark.parametrize("pieces", [[b"abcde"], [b"abcd", b"e"], [b"abcd", b"e", b"f"]])
    def test_one_that_is_too_large_is_refused_as_soon_as_it_is(self, pieces: list[bytes]) -> None:
        receive = Pieces(*pieces)
        with pytest.raises(BodyTooLarge):
            whole_body(receive, None, 4)
        assert receive.asked <= 2

    @pytest.mark.parametrize("pieces", [[], [b"ab"], [b"ab", b"cd"]])
    def test_a_client_that_leaves_in_the_middle(self, pieces: list[bytes]) -> None:
        with pytest.raises(ClientGone):
            whole_body(Pieces(*pieces, ends=False), None, 100)


@pytest.mark.parametrize("name", ["Model", "MODEL", "MAX_TOKENS", "\u017ftream", "N"])
def test_a_name_of_ours_in_another_case(name: str) -> None:
    """Some servers do not mind the case, and would read another model than we do."""
    with pytest.raises(InvalidValue) as refused:
        read(**{name: 1})
    assert refused.value.param == name


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(("depth", "taken"), [(150, True), (190, True), (260, False), (1000, False)])
def test_depth(*, depth: int, taken: bool) -> None:
    if taken:
        read(x=nested(depth))
        return
    with pytest.raises(InvalidValue, match="nested"):
        read_request(CHAT, body(x=0).replace(b'"x":0', b'"x":' + b"[" * depth + b"]" * depth))


def test_a_wide_body_is_not_deep() -> None:
    read(x=[[number] for number in range(5_000)])


def test_an_answer_that_nobody_could_fetch() -> None:
    sent = orjson.dumps({"model": "m", "input": "x", "background": True})
    with pytest.raises(InvalidValue, match="background"):
        read_request(RESPONSES, sent)
