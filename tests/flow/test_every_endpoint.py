"""What is charged at every endpoint, streamed or not, served as it is or translated, however it ends: one table."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.backend import HANG, JSON, Die, Head, Step
from tests.fakes.client import Conversation
from tests.fakes.clock import run
from tests.flow.house import House, open_house, prompt_tokens, route
from weir.core.errors import UpstreamFailed
from weir.core.operations import (
    CHAT,
    COUNT_TOKENS,
    EMBEDDINGS,
    IMAGE,
    MESSAGES,
    MODERATIONS,
    RERANK,
    RESPONSES,
    SPEECH,
    TEXT,
    TRANSCRIPTION,
    Operation,
)
from weir.gateway.request import MEDIA_TOKENS

OUTPUT = 50
HELLO = [{"role": "user", "content": "hello"}]
CUT = Die(UpstreamFailed("The model's server broke off in the middle of its answer.", reason="reset"))
BROKEN = Die(UpstreamFailed("The model's server gave an answer that cannot be passed on.", reason="status 500"))
REFUSAL = b'{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context"}}'
MESSAGES_REFUSAL = b'{"type":"error","error":{"type":"invalid_request_error","message":"too long"}}'


def event(**said: Any) -> bytes:
    name = f"event: {said['type']}\n".encode() if "type" in said else b""
    return name + b"data: " + json.dumps(said).encode() + b"\n\n"


def delta(text: str, finish: str | None = None) -> bytes:
    return event(id="c1", choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


def text_delta(text: str, finish: str | None = None) -> bytes:
    return event(id="c1", choices=[{"index": 0, "text": text, "finish_reason": finish}])


OPENAI_USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
TYPED_USAGE = {"input_tokens": 11, "output_tokens": 3}
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Said:
    """An answer of one dialect, whole and streamed. `words` are two pieces of text, `end` what completes the stream."""

    whole: bytes
    begin: tuple[bytes, ...] = ()
    words: tuple[bytes, ...] = ()
    end: tuple[bytes, ...] = ()
    refusal: bytes = REFUSAL
    whole_type: bytes = JSON


IN_CHAT = Said(
    json.dumps(
        {
            "id": "c1",
            "model": "m",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "aa"}, "finish_reason": "stop"}],
            "usage": OPENAI_USAGE,
        }
    ).encode(),
    words=(delta("aa"), delta("bb")),
    end=(delta("", "stop"), event(id="c1", choices=[], usage=OPENAI_USAGE), DONE),
)
IN_TEXT = Said(
    json.dumps({"id": "c1", "choices": [{"index": 0, "text": "aa"}], "usage": OPENAI_USAGE}).encode(),
    words=(text_delta("aa"), text_delta("bb")),
    end=(text_delta("", "stop"), event(id="c1", choices=[], usage=OPENAI_USAGE), DONE),
)


def message_delta(text: str) -> bytes:
    return event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": text})


MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
IN_MESSAGES = Said(
    json.dumps(
        {**MESSAGE, "content": [{"type": "text", "text": "aa"}], "stop_reason": "end_turn", "usage": TYPED_USAGE}
    ).encode(),
    begin=(
        event(
            type="message_start",
            message={**MESSAGE, "content": [], "stop_reason": None, "usage": {"input_tokens": 11, "output_tokens": 0}},
        ),
        event(type="content_block_start", index=0, content_block={"type": "text", "text": ""}),
    ),
    words=(message_delta("aa"), message_delta("bb")),
    end=(
        event(type="content_block_stop", index=0),
        event(type="message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=TYPED_USAGE),
        event(type="message_stop"),
    ),
    refusal=MESSAGES_REFUSAL,
)
RESPONSE = {"id": "resp_1", "object": "response", "model": "m"}
IN_RESPONSES = Said(
    json.dumps({**RESPONSE, "status": "completed", "output": [], "usage": TYPED_USAGE}).encode(),
    begin=(event(type="response.created", response={**RESPONSE, "status": "in_progress"}, sequence_number=0),),
    words=tuple(
        event(type="response.output_text.delta", item_id="m", output_index=0, content_index=0, delta=text)
        for text in ("aa", "bb")
    ),
    end=(event(type="response.completed", response={**RESPONSE, "status": "completed", "usage": TYPED_USAGE}),),
)
IN_VECTORS = Said(b'{"object":"list","data":[],"usage":{"prompt_tokens":14,"total_tokens":14}}')
IN_RANKS = Said(b'{"results":[{"index":0,"relevance_score":0.5}],"usage":{"total_tokens":14}}')
IN_VERDICTS = Said(b'{"id":"modr-1","model":"m","results":[{"flagged":false}]}')
IN_IMAGES = Said(
    b'{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":11,"output_tokens":3,"total_tokens":14}}',
    words=tuple(
        event(type="image_generation.partial_image", b64_json="AAAA", partial_image_index=number) for number in (0, 1)
    ),
    end=(event(type="image_generation.completed", b64_json="AAAA", usage=TYPED_USAGE),),
)
IN_SOUND = Said(
    b"ID3\x00sound",
    words=tuple(event(type="speech.audio.delta", audio="AAAA") for _ in range(2)),
    end=(event(type="speech.audio.done", usage=TYPED_USAGE),),
    whole_type=b"audio/mpeg",
)
IN_WORDS = Said(
    json.dumps({"text": "aa", "usage": {"type": "tokens", **TYPED_USAGE, "total_tokens": 14}}).encode(),
    words=tuple(event(type="transcript.text.delta", delta=text) for text in ("aa", "bb")),
    end=(event(type="transcript.text.done", text="aabb", usage={"type": "tokens", **TYPED_USAGE, "total_tokens": 14}),),
)
IN_NUMBERS = Said(b'{"input_tokens":11}', refusal=MESSAGES_REFUSAL)

BODIES: dict[Operation, dict[str, Any]] = {
    CHAT: {"messages": HELLO, "max_tokens": OUTPUT},
    TEXT: {"prompt": "hello", "max_tokens": OUTPUT},
    MESSAGES: {"messages": HELLO, "max_tokens": OUTPUT},
    RESPONSES: {"input": "hello", "max_output_tokens": OUTPUT},
    EMBEDDINGS: {"input": "hello"},
    RERANK: {"query": "hello", "documents": ["a", "b"]},
    MODERATIONS: {"input": "hello"},
    IMAGE: {"prompt": "a river"},
    SPEECH: {"input": "hello", "voice": "alloy"},
    COUNT_TOKENS: {"messages": HELLO},
    TRANSCRIPTION: {},
}
BOUNDARY = b"of-the-form"
HEADERS = {TRANSCRIPTION: [("content-type", f"multipart/form-data; boundary={BOUNDARY.decode()}")]}
# (asked, what upstream knows, what it says); the second is None where all passes as it is.
PATHS: list[tuple[Operation, Operation | None, Said]] = [
    (CHAT, None, IN_CHAT),
    (TEXT, None, IN_TEXT),
    (MESSAGES, None, IN_MESSAGES),
    (RESPONSES, None, IN_RESPONSES),
    (MESSAGES, CHAT, IN_CHAT),
    (RESPONSES, CHAT, IN_CHAT),
    (CHAT, MESSAGES, IN_MESSAGES),
    (RESPONSES, MESSAGES, IN_MESSAGES),
    (EMBEDDINGS, None, IN_VECTORS),
    (RERANK, None, IN_RANKS),
    (MODERATIONS, None, IN_VERDICTS),
    (IMAGE, None, IN_IMAGES),
    (SPEECH, None, IN_SOUND),
    (COUNT_TOKENS, None, IN_NUMBERS),
    (TRANSCRIPTION, None, IN_WORDS),
]
EACH = pytest.mark.parametrize(
    ("asked", "known", "said"),
    [pytest.param(*path, id=f"{path[0].name}-as-{(path[1] or path[0]).name}") for path in PATHS],
)
EACH_STREAM = pytest.mark.parametrize(
    ("asked", "known", "said"),
    [pytest.param(*p, id=f"{p[0].name}-as-{(p[1] or p[0]).name}") for p in PATHS if p[2].words],
)
UNTOLD = (MODERATIONS, SPEECH, COUNT_TOKENS)  # nobody says what these used


def body_of(asked: Operation, **more: Any) -> bytes:
    fields = {"model": "m", **BODIES[asked], **more}
    return _form(fields) if asked.form else json.dumps(fields).encode()


def _form(fields: dict[str, Any]) -> bytes:
    parts = [b'"%b"\r\n\r\n%b' % (name.encode(), str(value).encode()) for name, value in fields.items()]
    parts.append(b'"file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\nRIFF' + bytes(300))
    head = b"--%b\r\ncontent-disposition: form-data; name=" % BOUNDARY
    return b"".join(head + part + b"\r\n" for part in parts) + b"--%b--\r\n" % BOUNDARY


def prompt_of(asked: Operation, body: bytes) -> int:
    if asked.form:
        return MEDIA_TOKENS
    return 0 if asked is COUNT_TOKENS else prompt_tokens(body)


Does = Callable[[Conversation], Any]


def play(asked: Operation, known: Operation | None, script: tuple[Step, ...], body: bytes, does: Does | None = None):
    """(answer, tokens or None where not even a request was taken, the log's record)"""
    found: list[Any] = []

    async def scene() -> None:
        serves = None if known is None else frozenset({known.name})
        async with open_house(*script, routes=[route(serves=serves)]) as house:
            asking = house.ask(body, path=f"/v1{asked.path}", headers=HEADERS.get(asked, ()))
            if does is not None:
                await does(asking)
            answer = await asking.over()
            await asyncio.sleep(0)
            found.extend((answer, await charged(house), house.record))

    run(scene)
    return tuple(found)


async def charged(house: House) -> int | None:
    requests, tokens = await house.charged()
    assert requests in (0, 1)
    return tokens if requests else None


@EACH
def test_a_whole_answer(asked: Operation, known: Operation | None, said: Said) -> None:
    body = body_of(asked)
    answer, tokens, record = play(asked, known, (Head(200, said.whole_type), said.whole), body)
    assert answer.status == 200
    assert known is not None or answer.body == said.whole
    assert record["outcome"] == "ok"
    assert tokens == (prompt_of(asked, body) if asked in UNTOLD else 14)
    assert (record["tokens_from"] == "reported") is (asked not in UNTOLD)


@EACH_STREAM
def test_a_whole_stream(asked: Operation, known: Operation | None, said: Said) -> None:
    answer, tokens, record = play(asked, known, (*said.begin, *said.words, *said.end), body_of(asked, stream=True))
    assert (answer.status, answer.complete) == (200, True)
    assert known is not None or asked.opt_in_usage or answer.body == b"".join((*said.begin, *said.words, *said.end))
    assert (tokens, record["outcome"], record["tokens_from"]) == (14, "ok", "reported")


@EACH_STREAM
def test_a_stream_that_breaks_off(asked: Operation, known: Operation | None, said: Said) -> None:
    """The client hears of it in its own dialect, and pays for what it got."""
    body = body_of(asked, stream=True)
    answer, tokens, record = play(asked, known, (*said.begin, *said.words, CUT), body)
    assert record["outcome"] == "upstream_error"
    assert b"broke off" in answer.body
    assert b"[DONE]" not in answer.body
    last = json.loads(answer.body.rstrip().rpartition(b"data: ")[2])
    assert last["error"]["message"]
    if asked is MESSAGES:
        assert b"event: error\n" in answer.body
        assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    elif asked is RESPONSES:
        assert b"event: error\n" in answer.body
        assert last["type"] == "error"
    least = 0 if asked in (IMAGE, SPEECH) else 2
    prompt = prompt_of(asked, body)
    assert tokens is not None
    assert min(prompt, 11) + least <= tokens <= max(prompt, 11) + OUTPUT


def test_sound_that_breaks_off() -> None:
    """What the client has of it is paid for, by what was asked; the connection ends, or it would be taken for whole."""
    body = body_of(SPEECH)
    answer, tokens, record = play(SPEECH, None, (Head(200, b"audio/mpeg"), b"ID3\x00so", CUT), body)
    assert (answer.status, answer.complete, record["outcome"]) == (200, False, "upstream_error")
    assert (tokens, record["tokens_from"]) == (prompt_of(SPEECH, body), "estimated")


@EACH_STREAM
def test_a_client_that_leaves(asked: Operation, known: Operation | None, said: Said) -> None:
    body = body_of(asked, stream=True)

    async def leaves(asking: Conversation) -> None:
        await asking.until(lambda conversation: len(conversation.answer.chunks) >= 1)
        asking.leave()

    forever = Head(), *said.begin, *said.words, HANG
    _, tokens, record = play(asked, known, forever, body, leaves)
    assert record["outcome"] == "client_disconnect"
    assert tokens is not None
    assert tokens >= min(prompt_of(asked, body), 11), "leaving early is never free"


@EACH
def test_a_refusal_of_upstream(asked: Operation, known: Operation | None, said: Said) -> None:
    """The client's mistake, told in the client's dialect with upstream's words; it costs nothing."""
    answer, tokens, record = play(asked, known, (Head(400, JSON), said.refusal), body_of(asked))
    assert (answer.status, tokens, record["outcome"]) == (400, None, "upstream_refused")
    assert answer.json()["error"]["message"] == "too long"
    if known is None:
        assert answer.body == said.refusal
    elif asked is MESSAGES:
        assert answer.json()["type"] == "error"
    else:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@EACH
def test_a_failure_of_upstream(asked: Operation, known: Operation | None, said: Said) -> None:
    answer, tokens, record = play(asked, known, (BROKEN,), body_of(asked))
    assert (answer.status, tokens, record["outcome"]) == (502, None, "upstream_error")
    said_type = answer.json()["error"]["type"]
    assert said_type == ("api_error" if asked.dialect == "anthropic" else "upstream_error")
    assert (answer.json().get("type") == "error") is (asked.dialect == "anthropic")


NO_WAY = [
    pytest.param(TEXT, CHAT, id="text-of-a-chat-model"),
    pytest.param(EMBEDDINGS, CHAT, id="vectors-of-a-chat-model"),
    pytest.param(SPEECH, CHAT, id="sound-of-a-chat-model"),
    pytest.param(TEXT, MESSAGES, id="text-of-claude"),
    pytest.param(CHAT, EMBEDDINGS, id="chat-with-vectors"),
    pytest.param(MESSAGES, EMBEDDINGS, id="messages-with-vectors"),
    pytest.param(RERANK, RESPONSES, id="ranks-of-responses"),
]


@pytest.mark.parametrize(("asked", "known"), NO_WAY)
def test_what_the_models_server_does_not_do(asked: Operation, known: Operation) -> None:
    answer, tokens, _ = play(asked, known, (), body_of(asked))
    assert (answer.status, tokens) == (400, None)
    assert "does not answer at this address" in answer.json()["error"]["message"]


def test_a_request_that_cannot_be_put_into_other_words() -> None:
    body = body_of(MESSAGES, tools=[{"type": "web_search_20250305", "name": "web_search"}])
    answer, tokens, record = play(MESSAGES, CHAT, (), body)
    assert (answer.status, tokens, record["outcome"]) == (400, None, "refused_request")
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "web_search" in answer.json()["error"]["message"]


def test_a_count_that_nobody_makes_is_an_estimate_and_says_so() -> None:
    body = body_of(COUNT_TOKENS)
    answer, tokens, record = play(COUNT_TOKENS, CHAT, (), body)
    assert (answer.status, tokens, record["outcome"]) == (200, 0, "ok")
    assert answer.json() == {"input_tokens": prompt_tokens(body)}
    assert answer.header("x-weir-tokens-from") == "estimated"


def test_a_count_by_the_engines_own_tokenizer() -> None:
    async def scene() -> None:
        serves = frozenset({"chat", "tokenize"})
        answer = b'{"count":7,"max_model_len":4096,"tokens":[1,2,3,4,5,6,7]}'
        async with open_house(Head(200, JSON), answer, routes=[route(serves=serves)]) as house:
            counted = await house.ask(body_of(COUNT_TOKENS, system="be brief"), path="/v1/messages/count_tokens").over()
            assert (counted.status, counted.json()) == (200, {"input_tokens": 7})
            assert counted.header("x-weir-tokens-from") is None
            assert house.backend.visit.call.path == "//tokenize"
            asked = json.loads(house.backend.visit.call.body)
            assert [message["role"] for message in asked["messages"]] == ["system", "user"]

    run(scene)


def test_a_key_may_come_in_anthropics_header() -> None:
    async def scene() -> None:
        async with open_house(Head(200, JSON), IN_MESSAGES.whole) as house:
            headers = [("x-api-key", "sk-of-search-1"), ("anthropic-version", "2023-06-01"), ("anthropic-beta", "b-1")]
            answer = await house.ask(body_of(MESSAGES), key=None, path="/v1/messages", headers=headers).over()
            assert answer.status == 200
            sent = dict(house.backend.visit.call.headers)
            assert (sent[b"anthropic-version"], sent[b"anthropic-beta"]) == (b"2023-06-01", b"b-1")
            assert b"x-api-key" not in sent

    run(scene)


@pytest.mark.parametrize("asked", [CHAT, EMBEDDINGS, RESPONSES], ids=lambda one: one.name)
def test_a_200_that_says_it_could_not_is_no_answer(asked: Operation) -> None:
    """LM Studio and OpenRouter do so; it passes as it is, and costs nothing."""
    said = b'{"error":"Unexpected endpoint or method."}'
    answer, tokens, record = play(asked, None, (Head(200, JSON), said), body_of(asked))
    assert (answer.status, answer.body) == (200, said)
    assert (tokens, record["outcome"]) == (None, "upstream_error")


UNENDED = [
    pytest.param((*IN_CHAT.words, delta("", "stop")), True, id="finished"),
    pytest.param(IN_CHAT.words, False, id="broken-off"),
    pytest.param((*IN_CHAT.words, *IN_CHAT.end), True, id="with-done-all-the-same"),
]


@pytest.mark.parametrize("asked", [CHAT, MESSAGES, RESPONSES], ids=lambda one: one.name)
@pytest.mark.parametrize(("says", "ends"), UNENDED)
def test_a_server_that_never_says_done(*, asked: Operation, says: tuple[bytes, ...], ends: bool) -> None:
    async def scene() -> None:
        known = route(serves=frozenset({"chat"}), says_done=False)
        async with open_house(*says, routes=[known]) as house:
            answer = await house.ask(body_of(asked, stream=True), path=f"/v1{asked.path}").over()
            assert house.record["outcome"] == ("ok" if ends else "upstream_error")
            end = {CHAT: b"data: [DONE]\n\n", MESSAGES: b'"message_stop"', RESPONSES: b'"response.completed"'}[asked]
            assert answer.body.count(end) == ends

    run(scene)


def test_a_page_is_no_sound() -> None:
    answer, tokens, record = play(SPEECH, None, (Head(200, b"text/html"), b"<html>log in"), body_of(SPEECH))
    assert (answer.status, tokens, record["outcome"]) == (502, None, "upstream_error")


@pytest.mark.parametrize("asked", [CHAT, RESPONSES], ids=lambda one: one.name)
def test_who_leaves_claude_early_pays_the_prompt_that_it_read(asked: Operation) -> None:
    """And not an estimate: a file in a prompt may be anything."""

    async def leaves(asking: Conversation) -> None:
        await asking.has(b"aa")
        asking.leave()

    begin = IN_MESSAGES.begin[0].replace(b'"input_tokens": 11', b'"input_tokens": 15000')
    script = Head(), begin, *IN_MESSAGES.begin[1:], *IN_MESSAGES.words, HANG
    _, tokens, record = play(asked, MESSAGES, script, body_of(asked, stream=True), leaves)
    assert record["outcome"] == "client_disconnect"
    assert tokens is not None
    assert 15_000 < tokens <= 15_000 + OUTPUT
