"""Every way to be refused: the status, the shape of the error, and that nothing was taken from any bucket.

Sent by hand, since an HTTP client would tidy up what is wrong.
"""

import contextlib
import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.system.harness import (
    Admin,
    Key,
    RawAnswer,
    RawExchange,
    Upstream,
    Weir,
    configuration,
    eventually,
    free_port,
    model,
    raw_request,
)

MAX_BODY = 1 << 20
JSON = ("Content-Type", "application/json")
CODE = re.compile(r"[a-z0-9_]+")
SOON = 10.0  # what needs no waiting is answered within this; real figures are milliseconds

# Slow to fill, so that what a refusal takes can be seen: 6000 requests and tokens, of which one comes in ten seconds.
LIMITS = {"rpm": 6, "tpm": 6, "concurrency": 5, "burst_seconds": 60_000}
DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture(scope="module")
def black_hole() -> Iterator[str]:
    """An address that takes no connection and refuses none: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@pytest.fixture(scope="module")
def strict(redis_url: str, upstream: Upstream, black_hole: str) -> Iterator[Weir]:
    """A Weir that waits one second for a body and takes a mebibyte of it."""
    plays = ["html", "unauthorized", "broken", "overloaded", "cut_body", "rate_limited", "bad_request"]
    config = configuration(
        redis_url,
        [
            model("chat", upstream.url, default_max_tokens=64),
            model("hidden", upstream.url),
            *(model(play, upstream.url) for play in plays),
            model("hang", upstream.url, timeouts={"connect": 1, "first_byte": 1}),
            model("nobody", f"http://127.0.0.1:{free_port()}/v1", timeouts={"connect": 1}),
            model("black-hole", black_hole, timeouts={"connect": 1}),
        ],
        server={"max_body_bytes": MAX_BODY, "body_timeout_seconds": 1},
    )
    with Weir(config) as weir:
        yield weir


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    """May use everything but `hidden`; key and team have the same limits, so that both are watched."""
    names = "chat,html,unauthorized,broken,overloaded,cut_body,rate_limited,bad_request,hang,nobody,black-hole"
    return admin.key(admin.team(**LIMITS), models=names, **LIMITS)


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "chat", "messages": [{"role": "user", "content": "hello"}]} | fields).encode()


def without(name: str) -> bytes:
    whole = json.loads(chat())
    del whole[name]
    return json.dumps(whole).encode()


@dataclass(frozen=True)
class Case:
    """What is sent, and what must come back. `KEY` in a header stands for the good key."""

    id: str
    status: int | set[int]
    code: str | None = None  # None: the contracts do not name it, but there is one
    body: bytes | None = field(default_factory=chat)
    headers: tuple[tuple[str, str], ...] = (("Authorization", "Bearer KEY"), JSON)
    says: str = ""  # in the message
    path: str = "/v1/chat/completions"
    retry_after: str | None = None
    within: float = SOON
    after: tuple[bytes, ...] = ()  # sent piece by piece after the head, as far as it is taken
    shape: Callable[[Any], None] | None = None

    def bytes_for(self, key: Key) -> bytes:
        headers = [(name, value.replace("KEY", key.secret)) for name, value in self.headers]
        return raw_request(self.body, headers, self.path)


def openai_error(answer: Any) -> dict[str, Any]:
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["message"]
    assert isinstance(answer["error"]["type"], str)
    return answer["error"]


AUTH = ("Authorization", "Bearer KEY")
CHUNKED = ("Transfer-Encoding", "chunked")
FIELDS_AT_FAULT = [
    ("messages-not-a-list", {"messages": "hello"}, "messages"),
    ("max-tokens-negative", {"max_tokens": -1}, "max_tokens"),
    ("max-tokens-a-string", {"max_tokens": "100"}, "max_tokens"),
    ("max-tokens-a-fraction", {"max_tokens": 1.5}, "max_tokens"),
    ("max-tokens-true", {"max_tokens": True}, "max_tokens"),
    ("max-tokens-beyond-53-bits", {"max_tokens": 2**60}, "max_tokens"),
    ("max-completion-tokens-negative", {"max_completion_tokens": -5}, "max_completion_tokens"),
    ("n-ten-thousand", {"n": 10_000}, "n"),
    ("n-zero", {"n": 0}, "n"),
    ("n-negative", {"n": -1}, "n"),
    ("n-a-string", {"n": "2"}, "n"),
    ("model-a-number", {"model": 7}, "model"),
    ("stream-a-string", {"stream": "yes"}, "stream"),
    ("stream-options-a-list", {"stream": True, "stream_options": []}, "stream_options"),
]

CASES = [
    # Who are you?
    Case("no-key", 401, "invalid_api_key", headers=(JSON,)),
    Case("key-empty", 401, "invalid_api_key", headers=(("Authorization", "Bearer "), JSON)),
    Case("key-by-basic", 401, "invalid_api_key", headers=(("Authorization", "Basic KEY"), JSON)),
    Case("key-malformed", 401, "invalid_api_key", headers=(("Authorization", "Bearer sk-weir-short"), JSON)),
    Case("key-not-ascii", 401, "invalid_api_key", headers=(("Authorization", "Bearer s\xe9same"), JSON)),
    Case("key-of-ten-thousand", 401, "invalid_api_key", headers=(("Authorization", "Bearer " + "k" * 10_000), JSON)),
    Case("key-unknown", 401, "invalid_api_key", headers=(("Authorization", "Bearer sk-foreign-unknown"), JSON)),
    Case("key-twice", {400, 401}, headers=(AUTH, AUTH, JSON)),
    Case("key-and-another", {400, 401}, headers=(AUTH, ("Authorization", "Bearer sk-other"), JSON)),
    # Which model?
    Case("model-unknown", 404, "model_not_found", chat(model="no-such-model")),
    Case("model-not-allowed", 404, "model_not_found", chat(model="hidden")),
    Case("model-missing", 400, body=without("model"), says="model"),
    # What is that?
    Case("body-empty", 400, body=b""),
    Case("body-not-json", 400, body=b"hello"),
    Case("body-cut-json", 400, body=chat()[:-1]),
    Case("body-not-utf8", 400, body=b'{"model": "chat", "messages": [{"role": "user", "content": "\xff\xfe"}]}'),
    Case("body-with-half-a-character", 400, body=b'{"model": "chat", "messages": [{"content": "\\ud800"}]}'),
    Case("body-a-list", 400, body=b"[1, 2]"),
    Case("body-a-string", 400, body=b'"model"'),
    Case("body-null", 400, body=b"null"),
    Case("body-nested-deep", 400, body=b'{"model": "chat", "messages": ' + DEEP + b"}"),
    Case("body-nested-deep-in-an-unknown-field", 400, body=chat()[:-1] + b', "x": ' + DEEP + b"}"),
    Case("nan", 400, body=chat()[:-1] + b', "temperature": NaN}'),
    Case("infinity", 400, body=chat()[:-1] + b', "temperature": -Infinity}'),
    Case("messages-missing", 400, body=without("messages"), says="messages"),
    Case("prompt-missing", 400, body=b'{"model": "chat"}', path="/v1/completions", says="prompt"),
    Case("input-missing", 400, body=b'{"model": "chat"}', path="/v1/embeddings", says="input"),
    Case("best-of-10000", 400, body=b'{"model": "chat", "prompt": "a", "best_of": 10000}', path="/v1/completions"),
    *(Case(name, 400, body=chat(**fields), says=says) for name, fields, says in FIELDS_AT_FAULT),
    # How much of it?
    Case("too-large-by-its-length", 413, body=None, headers=(AUTH, JSON, ("Content-Length", str(MAX_BODY + 1)))),
    Case("length-of-an-exabyte", 413, body=None, headers=(AUTH, JSON, ("Content-Length", str(2**60)))),
    Case(
        "too-large-and-expecting-100",
        413,
        body=None,
        headers=(AUTH, JSON, ("Content-Length", str(MAX_BODY + 1)), ("Expect", "100-continue")),
    ),
    Case(
        "too-large-in-chunks",
        413,
        body=None,
        headers=(AUTH, JSON, CHUNKED),
        after=(b"10000\r\n" + b" " * 65536 + b"\r\n",) * (MAX_BODY // 65536 + 1),  # and no last chunk
    ),
    Case("gzip", 415, body=b"\x1f\x8b\x08\x00", headers=(AUTH, JSON, ("Content-Encoding", "gzip"))),
    Case("unknown-coding", 415, headers=(AUTH, JSON, ("Content-Encoding", "x-secret"))),
    # A head that two readers would read in two ways.
    Case("host-twice", 400, headers=(AUTH, JSON, ("Host", "a.example"), ("Host", "b.example"))),
    Case("type-twice", 400, headers=(AUTH, JSON, ("Content-Type", "text/plain"))),
    Case("length-twice", 400, headers=(AUTH, JSON, ("Content-Length", "5"), ("Content-Length", "70"))),
    Case("length-twice-the-same", 400, headers=(AUTH, JSON, *(("Content-Length", str(len(chat()))),) * 2)),
    Case("length-and-chunked", 400, headers=(AUTH, JSON, ("Content-Length", "5"), CHUNKED)),
    Case("length-twin", 400, headers=(AUTH, JSON, ("Content_Length", "5"), ("Content-Length", str(len(chat()))))),
    Case("type-twin", 400, headers=(AUTH, JSON, ("Content_Type", "text/plain"))),
    # A body that never ends.
    Case("half-a-body", 408, body=None, headers=(AUTH, JSON, ("Content-Length", "100")), after=(b'{"model": ',)),
    Case("no-body", 408, body=None, headers=(AUTH, JSON, ("Content-Length", "100"))),
    Case("no-last-chunk", 408, body=None, headers=(AUTH, JSON, CHUNKED), after=(b"1\r\n{\r\n",)),
    # The upstream's trouble.
    Case("upstream-html", 502, "upstream_error", chat(model="html")),
    Case("upstream-html-to-a-stream", 502, "upstream_error", chat(model="html", stream=True)),
    Case("upstream-cut-body", 502, "upstream_error", chat(model="cut_body")),
    Case("upstream-401", 502, "upstream_error", chat(model="unauthorized")),
    Case("upstream-500", 502, "upstream_error", chat(model="broken")),
    Case("upstream-503", 503, body=chat(model="overloaded"), retry_after="7"),
    Case("upstream-not-there", 502, "upstream_unreachable", chat(model="nobody")),
    Case("upstream-takes-no-connection", {502, 504}, body=chat(model="black-hole")),
    Case("upstream-says-nothing", 504, "upstream_timeout", chat(model="hang"), says="first byte"),
    Case("upstream-says-nothing-yet", 504, "upstream_timeout", chat(model="hang", stream=True), says="first byte"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_refused_and_nothing_taken(case: Case, strict: Weir, key: Key) -> None:
    before = settled(strict, key)

    answer = exchange(strict, case, key)

    assert answer.status in (case.status if isinstance(case.status, set) else {case.status})
    assert answer.first_line.startswith(b"HTTP/1.1 %d" % answer.status), "the first answer was another one"
    error = openai_error(answer.json())
    assert answer.values["content-type"].startswith("application/json")
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer.values["x-request-id"])
    if case.code:
        assert error["code"] == case.code
    else:
        assert CODE.fullmatch(error["code"])
    assert case.says in error["message"]
    if answer.status == 401 and case.headers != (JSON,):
        assert error["message"].startswith("Incorrect API key provided")
    if case.retry_after:
        assert answer.values["retry-after"] == case.retry_after
    assert answer.seconds < case.within
    assert key.secret not in answer.body.decode()
    eventually(lambda: strict.what_is_left(key) == before, within=2, why=f"every bucket as before: {before}")


def exchange(weir: Weir, case: Case, key: Key) -> RawAnswer:
    with RawExchange(weir.port, case.bytes_for(key)) as raw:
        for piece in case.after:
            if not raw.send(piece):
                break
        return raw.read()


def settled(weir: Weir, key: Key) -> dict[str, float]:
    """What is left, once two looks agree: nothing of the test before is on its way any more."""
    seen: list[dict[str, float]] = [{}]

    def same() -> bool:
        seen.append(weir.what_is_left(key))
        return seen[-1] == seen[-2]

    eventually(same)
    return seen[-1]


class TestKeys:
    def test_a_mistyped_native_key_is_refused_like_an_unknown_one(self, strict: Weir, key: Key) -> None:
        mistyped = key.secret[:-1] + ("a" if key.secret[-1] != "a" else "b")
        answers = [
            exchange(strict, Case("", 401, headers=(("Authorization", f"Bearer {secret}"), JSON)), key)
            for secret in (mistyped, "sk-foreign-unknown")
        ]
        assert [a.status for a in answers] == [401, 401]
        assert answers[0].json() == answers[1].json(), "there is one body of 401, that does not tell why"

    def test_a_native_key_has_its_format(self, key: Key) -> None:
        assert re.fullmatch(r"sk-weir-[0-9A-Za-z]{12}_[0-9A-Za-z]{32}[0-9A-Za-z]{6}", key.secret)

    def test_a_model_of_others_is_refused_like_an_unknown_one(self, strict: Weir, key: Key) -> None:
        def told(name: str) -> Any:
            answer = exchange(strict, Case("", 404, body=chat(model=name)), key)
            return answer.status, json.dumps(answer.json()).replace(name, "NAME")

        assert told("hidden") == told("not-there-at-all")

    @pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
    def test_the_scheme_is_read_as_http_has_it(self, strict: Weir, admin: Admin, scheme: str) -> None:
        headers = (("authorization", f"{scheme} KEY"), JSON)
        assert exchange(strict, Case("", 200, headers=headers), admin.key()).status == 200


class TestSlowBodies:
    def test_a_body_that_drips_for_ever_is_cut_too(self, strict: Weir, key: Key) -> None:
        """One byte in 50 ms keeps any time between bytes short; the body as a whole has one second."""
        head = Case("", 408, body=None, headers=(AUTH, JSON, ("Content-Length", "100000"))).bytes_for(key)
        with RawExchange(strict.port, head) as raw:
            done = threading.Event()

            def drip() -> None:
                while not done.wait(0.05) and raw.send(b" "):
                    pass

            dripping = threading.Thread(target=drip)
            dripping.start()
            try:
                answer = raw.read()
            finally:
                done.set()
                dripping.join()
        assert answer.status == 408
        assert openai_error(answer.json())["code"]
        assert 0.5 < answer.seconds < SOON

    def test_a_slow_body_within_the_time_is_taken(self, strict: Weir, admin: Admin) -> None:
        key = admin.key()
        whole = Case("", 200).bytes_for(key)
        with RawExchange(strict.port, whole[:-10]) as raw:
            time.sleep(0.2)
            raw.send(whole[-10:])
            assert raw.read().status == 200


class TestUpstreamTrouble:
    def test_not_there_is_said_within_the_connect_timeout(self, strict: Weir, admin: Admin) -> None:
        key = admin.key()
        answer = exchange(strict, Case("", 502, body=chat(model="black-hole")), key)
        assert answer.seconds < 1 + 4, "the connect timeout is one second"
        assert openai_error(answer.json())["code"] in {"upstream_unreachable", "upstream_timeout"}

    @pytest.mark.parametrize(
        ("play", "status", "code"),
        [
            pytest.param("bad_request", 400, "context_length_exceeded", id="400"),
            pytest.param("rate_limited", 429, "engine_busy", id="429"),
        ],
    )
    def test_a_refusal_of_the_upstream_passes_as_it_is(
        self, *, strict: Weir, admin: Admin, play: str, status: int, code: str
    ) -> None:
        answer = exchange(strict, Case("", status, body=chat(model=play)), admin.key())
        assert answer.status == status
        assert answer.json()["error"] == {
            "message": f"upstream says {code}",
            "type": code,
            "param": None,
            "code": code,
        }
        assert answer.values["x-request-id"]
        if status == 429:
            assert answer.values["retry-after"] == "7"

    def test_tells_nothing_of_its_address(self, strict: Weir, admin: Admin) -> None:
        answer = exchange(strict, Case("", 502, body=chat(model="nobody")), admin.key())
        assert b"127.0.0.1" not in answer.body


def test_one_bad_request_does_not_hurt_the_next(strict: Weir, admin: Admin) -> None:
    """After the whole table, the same process still answers."""
    key = admin.key()
    for case in CASES[::7]:
        exchange(strict, case, key)
    assert strict.chat(key).status_code == 200


class TestTheConnectionAfterwards:
    """What was left of a refused request is never taken for the next one."""

    def test_a_refusal_that_was_read_whole_leaves_it_usable(self, strict: Weir, key: Key, admin: Admin) -> None:
        refused, good = Case("", 401, headers=(JSON,)), Case("", 200)
        with RawExchange(strict.port, refused.bytes_for(key)) as raw:
            assert raw.read().status == 401
            follow(raw, good.bytes_for(admin.key()))

    @pytest.mark.parametrize(
        "head",
        [
            pytest.param((AUTH, JSON, ("Content-Length", str(MAX_BODY + 1))), id="too-large"),
            pytest.param((JSON, ("Content-Length", "500000")), id="no-key"),
            pytest.param((AUTH, JSON, ("Content-Encoding", "gzip"), ("Content-Length", "500000")), id="gzip"),
        ],
    )
    def test_a_body_that_was_not_read_is_not_a_request(
        self, *, strict: Weir, key: Key, head: tuple[tuple[str, str], ...]
    ) -> None:
        hidden = raw_request(None, [], "/smuggled-in-a-body", "GET")
        with RawExchange(strict.port, Case("", 413, body=None, headers=head).bytes_for(key)) as raw:
            raw.send(hidden)
            assert raw.read().status in {401, 413, 415}
            raw.send(hidden * 3)
            raw.socket.settimeout(1)
            with contextlib.suppress(TimeoutError, ConnectionError):
                assert raw.socket.recv(1000) == b"", "the body was answered"

    def test_two_requests_sent_at_once_are_answered_in_order(self, strict: Weir, key: Key, admin: Admin) -> None:
        good = Case("", 200).bytes_for(admin.key())
        with RawExchange(strict.port, Case("", 404, body=chat(model="none")).bytes_for(key) + good) as raw:
            assert raw.read().status == 404
            follow(raw, b"")


def follow(raw: RawExchange, sent: bytes) -> None:
    """The next answer on the same connection is a good one."""
    raw.send(sent)
    second = http.client.HTTPResponse(raw.socket)
    try:
        second.begin()
        assert second.status == 200
        assert json.loads(second.read())["choices"]
    finally:
        second.close()


@pytest.mark.parametrize(
    ("method", "path", "statuses"),
    [
        pytest.param("GET", "/v1/chat/completions", {404, 405}, id="get-on-post"),
        pytest.param("DELETE", "/v1/models", {404, 405}, id="delete-on-get"),
        pytest.param("POST", "/v1/no/such/path", {404}, id="no-such-path"),
        pytest.param("GET", "/v1/models/../../etc/passwd", {404}, id="dots-in-the-path"),
        pytest.param("GET", "/metrics", {404}, id="ops-path-on-the-data-port"),
        pytest.param("GET", "/admin/v1/teams", {404}, id="admin-on-the-data-port"),
    ],
)
def test_no_such_door(*, strict: Weir, key: Key, method: str, path: str, statuses: set[int]) -> None:
    with RawExchange(strict.port, raw_request(b"", [("Authorization", f"Bearer {key.secret}")], path, method)) as raw:
        answer = raw.read()
    assert answer.status in statuses
    openai_error(answer.json())
    assert answer.values["x-request-id"]
