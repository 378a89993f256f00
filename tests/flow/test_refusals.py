"""Every way to be refused before a byte goes upstream: the status, the code, the field; and nothing is taken."""

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.backend import HANG, JSON, Die, Head
from tests.fakes.clock import run
from tests.flow.house import (
    KEY,
    KEY_LIMITS,
    REVOKED_KEY,
    TEAM_LIMITS,
    UNKNOWN_KEY,
    House,
    chat,
    open_house,
    prompt_tokens,
)
from weir.auth.keys import new_key, new_key_id
from weir.core.errors import UpstreamUnreachable
from weir.core.types import Limits

MAX_BODY = 4096
NATIVE = new_key(new_key_id())
MISTYPED = NATIVE[:-1] + ("a" if NATIVE[-1] != "a" else "b")
DEEP = b"[" * 1500 + b"]" * 1500
WHOLE = b'{"id":"x","usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14}}'
WHOLE_HEAD = Head(200, JSON)
TEXTS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    id: str
    key: str | None
    headers: Headers
    body: bytes | tuple[bytes | None, ...]
    status: int
    code: str
    param: str | None = None
    path: str = "/v1/chat/completions"
    says: str = ""


def raw(text: str) -> bytes:
    """A chat request with this as its last members."""
    return chat()[:-1] + b", " + text.encode() + b"}"


def text(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "prompt": "hello"} | fields).encode()


def length(size: int | str) -> Headers:
    return (("content-length", str(size)),)


NO: Headers = ()
REFUSALS = [
    # Who are you?
    Row("no-key", None, NO, chat(), 401, "invalid_api_key"),
    Row("unknown-key", UNKNOWN_KEY, NO, chat(), 401, "invalid_api_key"),
    Row("revoked-key", REVOKED_KEY, NO, chat(), 401, "invalid_api_key"),
    Row("native-key-of-nobody", NATIVE, NO, chat(), 401, "invalid_api_key"),
    Row("mistyped-key", MISTYPED, NO, chat(), 401, "invalid_api_key"),
    Row("empty-key", "", NO, chat(), 401, "invalid_api_key"),
    Row("key-with-a-space", f"{KEY} {KEY}", NO, chat(), 401, "invalid_api_key"),
    Row("key-of-ten-thousand", "k" * 10_000, NO, chat(), 401, "invalid_api_key"),
    Row("key-not-ascii", "s\xe9same", NO, chat(), 401, "invalid_api_key"),
    Row("basic", None, (("authorization", f"Basic {KEY}"),), chat(), 401, "invalid_api_key"),
    Row("key-without-scheme", None, (("authorization", KEY),), chat(), 401, "invalid_api_key"),
    Row("unknown-key-in-x-api-key", None, (("x-api-key", UNKNOWN_KEY),), chat(), 401, "invalid_api_key"),
    Row("unknown-key-in-api-key", None, (("api-key", UNKNOWN_KEY),), chat(), 401, "invalid_api_key"),
    Row("another-key-in-x-api-key", UNKNOWN_KEY, (("x-api-key", KEY),), chat(), 401, "invalid_api_key"),
    Row("revoked-key-and-bad-body", REVOKED_KEY, NO, b"nonsense", 401, "invalid_api_key"),
    Row("revoked-key-and-unknown-model", REVOKED_KEY, NO, chat(model="x"), 401, "invalid_api_key"),
    # A head that two readers would read in two ways.
    Row("authorization-twice", KEY, (("authorization", f"Bearer {KEY}"),), chat(), 400, "invalid_request"),
    Row("authorization-twin", KEY, (("x_authorization", "b"),), chat(), 400, "invalid_request"),
    Row("host-twice", KEY, (("host", "a"), ("host", "b")), chat(), 400, "invalid_request"),
    Row("type-twice", KEY, (("content-type", "a/b"), ("content-type", "a/b")), chat(), 400, "invalid_request"),
    Row("length-twice", KEY, (*length(5), *length(6)), chat(), 400, "invalid_request"),
    Row("length-and-chunked", KEY, (*length(5), ("transfer-encoding", "chunked")), chat(), 400, "invalid_request"),
    Row("length-negative", KEY, length(-5), chat(), 400, "invalid_request"),
    Row("length-in-words", KEY, length("five"), chat(), 400, "invalid_request"),
    Row("length-of-5000-digits", KEY, length("9" * 5000), chat(), 413, "request_too_large"),
    Row("control-character", KEY, (("x-a", "b\x00c"),), chat(), 400, "invalid_request"),
    Row("too-many-headers", KEY, tuple((f"x-{n}", "v") for n in range(200)), chat(), 431, "headers_too_large"),
    Row("too-large-headers", KEY, (("x-a", "v" * 40_000),), chat(), 431, "headers_too_large"),
    Row("gzip", KEY, (("content-encoding", "gzip"),), b"\x1f\x8b", 415, "unsupported_content_encoding"),
    Row("unknown-coding", KEY, (("content-encoding", "x"),), chat(), 415, "unsupported_content_encoding"),
    # What do you want?
    Row("empty-body", KEY, NO, b"", 400, "malformed_body"),
    Row("not-json", KEY, NO, b"hello", 400, "malformed_body"),
    Row("cut-json", KEY, NO, chat()[:-1], 400, "malformed_body"),
    Row("two-objects", KEY, NO, chat() * 2, 400, "malformed_body"),
    Row("not-utf-8", KEY, NO, chat().replace(b"hello", b"\xff\xfe"), 400, "malformed_body"),
    Row("nan", KEY, NO, raw('"temperature": NaN'), 400, "malformed_body"),
    Row("infinity", KEY, NO, raw('"temperature": -Infinity'), 400, "malformed_body"),
    Row("a-list", KEY, NO, b"[1]", 400, "malformed_body"),
    Row("a-text", KEY, NO, b'"model"', 400, "malformed_body"),
    Row("null", KEY, NO, b"null", 400, "malformed_body"),
    Row("deep", KEY, NO, chat()[:-1] + b', "x": ' + DEEP + b"}", 400, "malformed_body"),
    Row("model-missing", KEY, NO, chat(model=None), 400, "invalid_value", "model", says="/v1/models"),
    Row("model-a-number", KEY, NO, chat(model=7), 400, "invalid_value", "model"),
    Row("model-empty", KEY, NO, chat(model=""), 400, "invalid_value", "model"),
    Row("model-twice", KEY, NO, raw('"model": "other"'), 400, "invalid_value", "model"),
    Row("model-twice-escaped", KEY, NO, raw('"mod\\u0065l": "other"'), 400, "invalid_value", "model"),
    Row("max-tokens-twice", KEY, NO, raw('"max_tokens": 9000'), 400, "invalid_value", "max_tokens"),
    Row("messages-missing", KEY, NO, chat(messages=None), 400, "invalid_value", "messages"),
    Row("messages-empty", KEY, NO, chat(messages=[]), 400, "invalid_value", "messages"),
    Row("messages-a-text", KEY, NO, chat(messages="hello"), 400, "invalid_value", "messages"),
    Row("messages-an-object", KEY, NO, chat(messages={"role": "user"}), 400, "invalid_value", "messages"),
    Row("max-tokens-negative", KEY, NO, chat(max_tokens=-1), 400, "invalid_value", "max_tokens"),
    Row("max-tokens-zero", KEY, NO, chat(max_tokens=0), 400, "invalid_value", "max_tokens"),
    Row("max-tokens-a-text", KEY, NO, chat(max_tokens="5"), 400, "invalid_value", "max_tokens"),
    Row("max-tokens-true", KEY, NO, chat(max_tokens=True), 400, "invalid_value", "max_tokens"),
    Row("max-tokens-a-fraction", KEY, NO, chat(max_tokens=1.5), 400, "invalid_value", "max_tokens"),
    Row("max-tokens-huge", KEY, NO, chat(max_tokens=2**53), 400, "invalid_value", "max_tokens"),
    Row(
        "max-completion-tokens-negative",
        KEY,
        NO,
        chat(max_completion_tokens=-1),
        400,
        "invalid_value",
        "max_completion_tokens",
    ),
    Row("n-of-ten-thousand", KEY, NO, chat(n=10_000), 400, "invalid_value", "n"),
    Row("n-zero", KEY, NO, chat(n=0), 400, "invalid_value", "n"),
    Row("n-a-text", KEY, NO, chat(n="2"), 400, "invalid_value", "n"),
    Row("best-of-1000", KEY, NO, text(best_of=1000), 400, "invalid_value", "best_of", TEXTS),
    Row("stream-a-text", KEY, NO, chat(stream="yes"), 400, "invalid_value", "stream"),
    Row("stream-options", KEY, NO, chat(stream=True, stream_options=[1]), 400, "invalid_value", "stream_options"),
    Row("prompt-missing", KEY, NO, text(prompt=None), 400, "invalid_value", "prompt", TEXTS),
    Row("prompt-empty", KEY, NO, text(prompt=[]), 400, "invalid_value", "prompt", TEXTS),
    Row("prompt-a-number", KEY, NO, text(prompt=3), 400, "invalid_value", "prompt", TEXTS),
    Row("input-missing", KEY, NO, b'{"model": "m"}', 400, "invalid_value", "input", EMBEDDINGS),
    Row("input-empty", KEY, NO, b'{"model": "m", "input": []}', 400, "invalid_value", "input", EMBEDDINGS),
    # How much, and how fast?
    Row("too-large-by-its-length", KEY, length(MAX_BODY + 1), (None,), 413, "request_too_large"),
    Row("too-large-in-one", KEY, NO, chat(x="y" * MAX_BODY), 413, "request_too_large"),
    Row("too-large-in-pieces", KEY, NO, (*(b" " * 1000,) * 5, None), 413, "request_too_large"),
    Row("too-large-in-its-last-piece", KEY, NO, (b" " * 4000, b" " * 97), 413, "request_too_large"),
    Row("never-ends", KEY, NO, (b'{"model"', None), 408, "request_timeout"),
    Row("never-begins", KEY, length(100), (None,), 408, "request_timeout"),
    # Which model?
    Row("unknown-model", KEY, NO, chat(model="x"), 404, "model_not_found", "model"),
    Row("unknown-model-of-4000", KEY, NO, chat(model="x" * 3000), 404, "model_not_found", "model"),
]  # fmt: skip


def no_secrets(answer: bytes) -> bool:
    return not any(secret.encode() in answer for secret in (KEY, REVOKED_KEY, UNKNOWN_KEY, NATIVE, MISTYPED))


@pytest.mark.parametrize("row", REFUSALS, ids=[row.id for row in REFUSALS])
def test_refused_and_nothing_taken(row: Row) -> None:
    async def scene() -> None:
        async with open_house(max_body_bytes=MAX_BODY) as house:
            answer = await house.ask(row.body, key=row.key, path=row.path, headers=row.headers).over()
            error = answer.error
            assert (answer.status, error["code"], error["param"]) == (row.status, row.code, row.param)
            assert isinstance(error["type"], str)
            assert answer.complete
            assert row.says in error["message"]
            assert answer.header("content-type") == "application/json"
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.header("x-request-id") or "")
            assert no_secrets(answer.body)
            assert no_secrets(repr(house.logged).encode())
            for name in set(answer.names()):
                answer.header(name)  # there once
            if row.status == 401:
                assert error["message"].startswith("Incorrect API key provided")
            assert house.backend.visits == []
            assert await house.untouched()
            assert [line["event"] for line in house.logged] == ["request"], "one line, and no bug"
            assert (house.record["status"], house.record["tokens_from"]) == (row.status, "none")
            assert house.record["outcome"] != "ok"

    run(scene)


class TestTooLarge:
    def test_is_said_before_a_byte_is_read(self) -> None:
        async def scene() -> None:
            async with open_house(max_body_bytes=MAX_BODY) as house:
                conversation = house.ask([b"{", None], headers=length(MAX_BODY + 1))
                assert (await conversation.over()).status == 413
                assert conversation.taken == 0

        run(scene)

    def test_is_not_what_is_as_large_as_allowed(self) -> None:
        async def scene() -> None:
            body = chat(x="")
            body = chat(x="y" * (MAX_BODY - len(body)))
            for sent in (body, [body[:100], body[100:]]):
                async with open_house(WHOLE_HEAD, WHOLE, max_body_bytes=MAX_BODY) as house:
                    assert (await house.ask(sent).over()).status == 200

        run(scene)


class TestSlowBody:
    def test_that_drips_has_no_more_time_than_one_that_hangs(self) -> None:
        async def scene() -> None:
            async with open_house(body_seconds=5) as house:
                loop = asyncio.get_running_loop()
                since = loop.time()
                assert (await house.ask([b"{", None]).over()).status == 408
                assert 5 <= loop.time() - since < 6

        run(scene)


class TestOneBody401:
    def test_for_unknown_revoked_and_mistyped(self) -> None:
        async def scene() -> None:
            async with open_house() as house:
                answers = [await house.ask(key=key).over() for key in (UNKNOWN_KEY, REVOKED_KEY, MISTYPED, NATIVE)]
                assert len({answer.body for answer in answers}) == 1
                reasons = [record.get("reason") for record in house.records]
                assert len(set(reasons)) > 1, "the difference is in the log"

        run(scene)

    def test_and_a_model_that_the_key_may_not_use_does_not_exist(self) -> None:
        async def scene() -> None:
            bodies = []
            for limits, name in ((KEY_LIMITS, "x"), (Limits(rpm=600, models=("other-*",)), "m")):
                async with open_house(key_limits=limits) as house:
                    answer = await house.ask(chat(model=name)).over()
                    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
                    assert await house.untouched()
                    bodies.append(answer.error)
            assert bodies[0]["message"] == bodies[1]["message"]
            assert bodies[0] == bodies[1], "nobody can tell the one from the other"

        run(scene)

    def test_a_revocation_acts_on_the_next_request(self) -> None:
        async def scene() -> None:
            async with open_house(WHOLE_HEAD, WHOLE) as house:
                assert (await house.ask().over()).status == 200
                known = house.limits.pop("key1")
                assert (await house.ask().over()).status == 401
                house.limits["key1"] = known
                assert (await house.ask().over()).status == 200

        run(scene)

    def test_an_outage_of_the_store_is_503_with_the_time_to_come_back(self) -> None:
        async def scene() -> None:
            async with open_house(WHOLE_HEAD, WHOLE) as house:
                house.keys.away = True
                answer = await house.ask().over()
                assert answer.status == 503
                assert answer.error["code"] == "limits_unavailable"
                assert answer.header("retry-after") == "1"

        run(scene)


LIMIT_ROWS = [
    # limits of the key, limits of the team, seconds until it passes (None: never), code, scope in the message
    pytest.param(Limits(rpm=1), TEAM_LIMITS, 60.0, "rate_limit_exceeded", "your key", id="requests-of-the-key"),
    pytest.param(KEY_LIMITS, Limits(rpm=2, burst_seconds=30), 30.0, "rate_limit_exceeded", "your team", id="team"),
    pytest.param(Limits(tpm=100), TEAM_LIMITS, None, "tokens_exceeded", "your key", id="tokens-of-the-key"),
    pytest.param(KEY_LIMITS, Limits(tpm=100), None, "tokens_exceeded", "your team", id="tokens-of-the-team"),
    pytest.param(Limits(concurrency=1), TEAM_LIMITS, 1.0, "concurrency_exceeded", "your key", id="places-of-the-key"),
]  # fmt: skip


@pytest.mark.parametrize(("key_limits", "team_limits", "seconds", "code", "scope"), LIMIT_ROWS)
def test_limit(*, key_limits: Limits, team_limits: Limits, seconds: float | None, code: str, scope: str) -> None:
    async def scene() -> None:
        async with open_house(HANG, key_limits=key_limits, team_limits=team_limits) as house:
            running = house.ask()
            await asyncio.sleep(0.5)
            before = await house.windows()
            answer = await house.ask().over()
            assert answer.status == 429
            assert answer.error["code"] == code
            assert scope in answer.error["message"]
            assert await house.windows() == before, "a refusal costs nothing"
            refused = house.record
            assert refused["outcome"].startswith("refused_")
            milliseconds = int(answer.header("retry-after-ms") or 0)
            assert int(answer.header("retry-after") or 0) == -(-milliseconds // 1000)
            if seconds is not None:
                assert milliseconds == seconds * 1000
            assert answer.header("x-should-retry") is None
            assert f"{milliseconds / 1000:g} second" in answer.error["message"]
            if code != "concurrency_exceeded":
                await exact_wait(house, milliseconds / 1000)
            running.leave()
            await running.over()

    run(scene)


async def exact_wait(house: House, seconds: float) -> None:
    """Two milliseconds before the time it is refused; at the time it passes."""
    house.clock.advance(seconds - 0.002)
    assert (await house.ask().over()).status == 429
    house.clock.advance(0.002)
    house.backend.script = [WHOLE_HEAD, WHOLE]
    assert (await house.ask().over()).status == 200


class TestWhereWaitingCannotHelp:
    def test_a_request_larger_than_the_bucket(self) -> None:
        async def scene() -> None:
            async with open_house(key_limits=Limits(tpm=100)) as house:
                answer = await house.ask(chat(max_tokens=101)).over()
                assert (answer.status, answer.error["code"]) == (429, "request_too_large_for_limit")
                assert answer.header("x-should-retry") == "false"
                assert answer.header("retry-after") is None
                assert "100" in answer.error["message"]
                assert await house.untouched()

        run(scene)

    @pytest.mark.parametrize(
        ("used", "should_retry"),
        [pytest.param(60, None, id="a-minute"), pytest.param(61, "false", id="more-than-a-minute")],
    )
    def test_a_long_wait(self, *, used: int, should_retry: str | None) -> None:
        """A token comes each second; whoever asks for all of them waits for those that were used."""

        async def scene() -> None:
            async with open_house(WHOLE_HEAD, key_limits=Limits(tpm=60, burst_seconds=600)) as house:
                house.backend.script = [WHOLE_HEAD, b'{"usage":{"prompt_tokens":%d}}' % used]
                assert (await house.ask().over()).status == 200
                body = chat(max_tokens=600 - prompt_tokens(chat(max_tokens=100)))
                answer = await house.ask(body).over()
                assert (answer.status, answer.error["code"]) == (429, "tokens_exceeded")
                assert answer.header("x-should-retry") == should_retry
                assert answer.header("retry-after") == str(used)
                assert answer.header("retry-after-ms") == str(used * 1000)

        run(scene)


ATTACKS = [
    # The larger of the two names counts, and every choice.
    pytest.param({"max_tokens": 1, "max_completion_tokens": 10_000}, 10_000, id="both-names"),
    pytest.param({"max_tokens": 10_000, "max_completion_tokens": 1}, 10_000, id="both-names-turned"),
    pytest.param({"max_tokens": 1_000, "n": 8}, 8_000, id="eight-choices"),
    pytest.param({"max_tokens": None}, 4_096, id="no-name"),
    pytest.param({"max_tokens": None, "n": 2}, 8_192, id="no-name-two-choices"),
]


@pytest.mark.parametrize(("fields", "output"), ATTACKS)
def test_what_is_reserved(*, fields: dict[str, Any], output: int) -> None:
    async def scene() -> None:
        async with open_house(HANG) as house:
            before = {(w.scope, w.unit): w.remaining for w in await house.windows()}
            body = chat(**fields)
            conversation = house.ask(body)
            await asyncio.sleep(1)
            after = {(w.scope, w.unit): w.remaining for w in await house.windows()}
            for scope in ("key", "team"):
                assert before[scope, "tokens"] - after[scope, "tokens"] == prompt_tokens(body) + output
                assert before[scope, "requests"] - after[scope, "requests"] == 1
                assert before[scope, "concurrency"] - after[scope, "concurrency"] == 1
            if fields.get("max_tokens", 1) is None:
                sent = json.loads(house.backend.visit.call.body)
                assert sent["max_tokens"] == 4_096, "what is reserved is a true bound"
            conversation.leave()
            await conversation.over()

    run(scene)


class TestHeadersOfLimits:
    """On every answer to a caller who is known."""

    @staticmethod
    def assert_there(names: Iterable[str]) -> None:
        said = set(names)
        for unit in ("requests", "tokens"):
            for part in ("limit", "remaining", "reset"):
                assert f"x-ratelimit-{part}-{unit}" in said
        assert {"ratelimit", "ratelimit-policy"} <= said

    @pytest.mark.parametrize(
        ("script", "body", "status"),
        [
            pytest.param((WHOLE_HEAD, WHOLE), chat(), 200, id="whole"),
            pytest.param((Head(), b"data: [DONE]\n\n"), chat(stream=True), 200, id="stream"),
            pytest.param((Head(400, JSON), b'{"error":{}}'), chat(), 400, id="upstream-400"),
            pytest.param((Die(UpstreamUnreachable()),), chat(), 502, id="502"),
            pytest.param((HANG,), chat(), 504, id="504"),
            pytest.param((Die(RuntimeError()),), chat(), 500, id="a-bug"),
            pytest.param((Head(503, JSON),), chat(), 503, id="upstream-503"),
            pytest.param((), b"no json", 400, id="400"),
            pytest.param((), chat(model="x"), 404, id="404"),
            pytest.param((), chat(max_tokens=10**6), 429, id="429"),
        ],
    )
    def test_once_each(self, *, script: tuple[Any, ...], body: bytes, status: int) -> None:
        async def scene() -> None:
            async with open_house(*script) as house:
                answer = await house.ask(body).over()
                assert answer.status == status
                self.assert_there(answer.names())
                for name in set(answer.names()):
                    answer.header(name)
                assert answer.header("x-ratelimit-limit-requests") == "600"
                assert answer.header("x-ratelimit-limit-tokens") == "60000"

        run(scene)

    def test_say_what_is_left_now(self) -> None:
        async def scene() -> None:
            async with open_house(WHOLE_HEAD, WHOLE) as house:
                for left in (599, 598):
                    answer = await house.ask().over()
                    assert answer.header("x-ratelimit-remaining-requests") == str(left)
                failed = house.backend
                failed.script = [Die(UpstreamUnreachable())]
                answer = await house.ask().over()
                assert answer.header("x-ratelimit-remaining-requests") == "598", "given back before it was said"

        run(scene)


class TestRequestId:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            pytest.param("abc-DEF_0.9", True, id="good"),
            pytest.param("a" * 128, True, id="longest"),
            pytest.param("a" * 129, False, id="too-long"),
            pytest.param("a b", False, id="space"),
            pytest.param("", False, id="empty"),
            pytest.param("\xfc", False, id="not-ascii"),
            pytest.param("a\n", False, id="newline"),
        ],
    )
    def test_of_the_client_is_kept_if_it_has_the_form(self, *, given: str, kept: bool) -> None:
        async def scene() -> None:
            async with open_house() as house:
                answer = await house.ask(b"", headers=[("x-request-id", given)]).over()
                said = answer.header("x-request-id")
                assert (said == given) == kept
                assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", said or "")
                assert house.record["request_id"] == said

        run(scene)

    def test_is_new_each_time(self) -> None:
        async def scene() -> None:
            async with open_house() as house:
                ids = {(await house.ask(b"").over()).header("x-request-id") for _ in range(10)}
                assert len(ids) == 10

        run(scene)


class TestBodiesThatPass:
    """Odd, and none of our business: the upstream decides."""

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            pytest.param(chat(prompt=[]), "/v1/chat/completions", id="chat-with-an-empty-prompt"),
            pytest.param(text(prompt="an image_url and input_audio"), TEXTS, id="text-about-images"),
            pytest.param(
                text(prompt="an image_url")[:-1] + b', "messages": null}', TEXTS, id="text-with-null-messages"
            ),
            pytest.param(text(prompt="an image_url", messages=3), TEXTS, id="text-with-messages-of-3"),
            pytest.param(
                b'{"model": "m", "input": "an image_url", "messages": 3}', EMBEDDINGS, id="embedding-with-messages-of-3"
            ),
            pytest.param(chat(messages=[{"content": [{"type": "image_url"}]}]), "/chat/completions", id="no-image"),
            pytest.param(chat(messages=[1, None, "image_url"]), "/chat/completions", id="messages-of-anything"),
            pytest.param(chat(stream=None, n=None, max_tokens=None), "/chat/completions", id="nulls"),
            pytest.param(chat(best_of=1, n=1), "/chat/completions", id="best-of-in-chat"),
        ],
    )
    def test_pass(self, *, body: bytes, path: str) -> None:
        async def scene() -> None:
            async with open_house(WHOLE_HEAD, WHOLE) as house:
                assert (await house.ask(body, path=path).over()).status == 200
                assert [line["event"] for line in house.logged] == ["request"]

        run(scene)
