"""Bytes out = bytes in: what the upstream said is what the client gets, and what the upstream gets is built by us."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.harness import (
    Admin,
    Key,
    RawExchange,
    Upstream,
    Weir,
    chat_bytes,
    clean_environment,
    configuration,
    events_of,
    free_port,
    model,
    unique,
)

OURS = "upstream-secret-of-ours"
OTHERS = "upstream-secret-of-another-model"


@pytest.fixture(scope="module")
def relaying(redis_url: str, upstream: Upstream) -> Iterator[Weir]:
    config = configuration(
        redis_url,
        [
            model("public-name", upstream.url, upstream_model="vendor/Upstream-Name", aliases=["gpt-4o-mini"]),
            model(
                "with-key",
                upstream.url,
                endpoints=[{"url": upstream.url, "api_key_env": "UPSTREAM_TEST_KEY"}],
                default_max_tokens=77,
            ),
            model(
                "with-another-key", upstream.url, endpoints=[{"url": upstream.url, "api_key_env": "UPSTREAM_OTHER_KEY"}]
            ),
            model("fragile", upstream.url),  # alone with its failures, so that they touch no other test
            model("impatient", upstream.url, timeouts={"connect": 1, "first_byte": 5, "idle": 1}),
            model("short", upstream.url, timeouts={"connect": 1, "first_byte": 5, "idle": 5, "total": 1}),
        ],
        server={"sse_keepalive_seconds": 1},
    )
    with Weir(config, env=clean_environment(UPSTREAM_TEST_KEY=OURS, UPSTREAM_OTHER_KEY=OTHERS)) as weir:
        yield weir


@pytest.fixture(scope="module")
def key(admin: Admin) -> Key:
    return admin.key()


PLAYS: list[dict[str, Any]] = [
    {"play": "answer", "chunks": 5},
    {"play": "answer", "chunks": 5, "eol": "\r\n"},
    {"play": "answer", "chunks": 5, "comments": True},
    {"play": "answer", "chunks": 3, "chunk_bytes": 1 << 20},
    {"play": "answer", "chunks": 5, "no_usage": True},
    {"play": "tools"},
    {"play": "parallel_tools"},
    {"play": "reasoning"},
    {"play": "vendor"},
]
IDS = [
    "words",
    "crlf",
    "comments",
    "a-megabyte-each",
    "no-usage",
    "tool",
    "parallel-tools",
    "reasoning",
    "vendor-fields",
]


def lines(stream: bytes) -> list[bytes]:
    """With their ends, without the empty ones."""
    return [line for line in stream.splitlines(keepends=True) if line.strip()]


class TestBytes:
    @pytest.mark.parametrize("script", PLAYS, ids=IDS)
    def test_a_stream_with_usage_is_what_was_sent(
        self, *, relaying: Weir, key: Key, upstream: Upstream, script: dict[str, Any]
    ) -> None:
        mark = unique("mark")
        options = {"stream": True, "stream_options": {"include_usage": True}}
        answer = relaying.chat(key, model="public-name", user=mark, x_script=script, **options)
        assert answer.status_code == 200
        assert answer.content == upstream.answer_of(mark)
        assert answer.content.rstrip().endswith(b"data: [DONE]")

    @pytest.mark.parametrize("script", PLAYS, ids=IDS)
    def test_a_stream_without_usage_lacks_only_that(
        self, *, relaying: Weir, key: Key, upstream: Upstream, script: dict[str, Any]
    ) -> None:
        mark = unique("mark")
        answer = relaying.chat(key, model="public-name", user=mark, x_script=script, stream=True)
        sent = events_of(upstream.answer_of(mark))
        with_usage = [event for event in sent if isinstance(event, dict) and event.get("usage")]
        assert len(with_usage) == (0 if script.get("no_usage") else 1), "usage is asked for, whatever the client says"
        assert events_of(answer.content) == [event for event in sent if event not in with_usage]
        assert lines(answer.content) == [line for line in lines(upstream.answer_of(mark)) if b'"usage"' not in line]

    @pytest.mark.parametrize("play", ["answer", "tools", "parallel_tools", "reasoning", "vendor"])
    def test_a_whole_answer_is_what_was_sent(self, *, relaying: Weir, key: Key, upstream: Upstream, play: str) -> None:
        mark = unique("mark")
        answer = relaying.chat(key, model="public-name", user=mark, x_script=play)
        assert answer.status_code == 200
        assert answer.content == upstream.answer_of(mark)

    def test_a_whole_answer_that_is_zipped_against_our_wish_is_readable_or_refused(
        self, relaying: Weir, key: Key
    ) -> None:
        answer = relaying.chat(key, model="fragile", x_script="zipped")
        if answer.status_code == 200:
            assert answer.json()["choices"][0]["message"]["content"] == "zipped"
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")

    def test_a_whole_answer_in_chunks_can_be_read(self, relaying: Weir, key: Key) -> None:
        answer = relaying.chat(key, model="public-name", x_script="in_chunks")
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == "in chunks"
        record = relaying.record(request_id=answer.headers["x-request-id"])
        assert record["tokens_from"] == "reported"

    def test_an_upstream_that_closes_idle_connections_is_no_failure(self, relaying: Weir, key: Key) -> None:
        statuses = [relaying.chat(key, model="public-name", x_script="hangs_up").status_code for _ in range(40)]
        assert statuses == [200] * 40

    def test_headers_of_a_stream(self, relaying: Weir, key: Key) -> None:
        answer = relaying.chat(key, model="public-name", stream=True)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        assert "no-cache" in answer.headers["cache-control"]


class TestWhatTheUpstreamGets:
    def test_nothing_of_the_client_that_is_not_its_business(self, relaying: Weir, key: Key, upstream: Upstream) -> None:
        mark = unique("mark")
        private = {
            "cookie": "session=private",
            "forwarded": "for=10.1.2.3",
            "x-forwarded-for": "10.1.2.3",
            "x-real-ip": "10.1.2.3",
            "proxy-authorization": "Basic private",
            "te": "trailers",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        sent = chat_bytes(key, "public-name", headers=private, user=mark)
        with RawExchange(relaying.port, sent) as client:
            assert client.read().status == 200
        record = upstream.record(mark)
        names = [name.lower() for name, _ in record["headers"]]
        values = " ".join(value for _, value in record["headers"])
        assert not set(names) & (set(private) - {"traceparent"})
        assert "authorization" not in names
        assert key.secret not in values
        assert "0af7651916cd43dd8448eb211c80319c" in dict(record["headers"])["traceparent"]
        assert names.count("content-length") == 1
        assert len(names) == len(set(names)), "no header twice"

    @pytest.mark.parametrize(
        ("name", "secret"),
        [
            pytest.param("with-key", OURS, id="its-key"),
            pytest.param("with-another-key", OTHERS, id="another-key"),
            pytest.param("public-name", None, id="no-key"),
        ],
    )
    def test_the_key_that_belongs_to_this_model_and_no_other(
        self, *, relaying: Weir, key: Key, upstream: Upstream, name: str, secret: str | None
    ) -> None:
        """All of them are at one address, and share its connections."""
        mark = unique("mark")
        assert relaying.chat(key, model=name, user=mark).status_code == 200
        headers = {name.lower(): value for name, value in upstream.record(mark)["headers"]}
        assert headers.get("authorization") == (f"Bearer {secret}" if secret else None)

    @pytest.mark.parametrize("asked", ["public-name", "gpt-4o-mini"], ids=["name", "alias"])
    def test_its_own_name_of_the_model(self, *, relaying: Weir, key: Key, upstream: Upstream, asked: str) -> None:
        mark = unique("mark")
        assert relaying.chat(key, model=asked, user=mark).status_code == 200
        assert upstream.record(mark)["json"]["model"] == "vendor/Upstream-Name"

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    def test_every_field_that_we_do_not_know(
        self, *, relaying: Weir, key: Key, upstream: Upstream, stream: bool
    ) -> None:
        mark = unique("mark")
        fields = {
            "x_vendor": {"deep": [1, {"er": None}], "text": 'with "quotes", \\ and \u00fc'},
            "temperature": 0.10000000000000001,
            "seed": 12345678901234567,
            "guided_json": {"model": "not this one", "stream": True, "max_tokens": 5},
            "logit_bias": {"50256": -100},
        }
        sent = {"messages": [{"role": "user", "content": 'say "model": "x"'}], "user": mark, "stream": stream} | fields
        assert relaying.post(key, model="public-name", **sent).status_code == 200
        got = upstream.record(mark)["json"]
        changed = {"model", "stream_options", "max_tokens", "max_completion_tokens"}
        assert {name: value for name, value in got.items() if name not in changed} == sent

    def test_the_bytes_around_our_splices_are_untouched(self, relaying: Weir, key: Key, upstream: Upstream) -> None:
        """Spaces, key order, escapes and long numbers survive: nothing is parsed and written again."""
        mark = unique("mark")
        body = (
            '{ "user" :"MARK",\n  "temperature": 1.0e-1, "big": 123456789012345678901234567890,'
            '\t"messages": [ {"role":"user", "content": "\\u0068ello \\/ there"} ],'
            '"model":"public-name" , "max_tokens" : 9 }'
        ).replace("MARK", mark)
        answer = relaying.http.post(
            "/v1/chat/completions", content=body.encode(), headers=key.headers | {"content-type": "application/json"}
        )
        assert answer.status_code == 200
        got = base64.b64decode(upstream.record(mark)["body"]).decode()
        assert got == body.replace('"public-name"', '"vendor/Upstream-Name"')

    @pytest.mark.parametrize(
        ("fields", "bound"),
        [
            pytest.param({}, 77, id="the-default-of-the-model"),
            pytest.param({"max_tokens": 5}, 5, id="what-the-client-asked"),
            pytest.param({"max_completion_tokens": 6}, 6, id="what-the-client-asked-in-the-newer-field"),
        ],
    )
    def test_a_bound_on_the_answer(
        self, *, relaying: Weir, key: Key, upstream: Upstream, fields: dict[str, int], bound: int
    ) -> None:
        mark = unique("mark")
        assert relaying.chat(key, model="with-key", user=mark, **fields).status_code == 200
        got = upstream.record(mark)["json"]
        assert [got[name] for name in ("max_tokens", "max_completion_tokens") if name in got] == [bound]


AMBIGUOUS = [
    # A body that two parsers may read in two ways: refused, or made to mean one thing.
    pytest.param('"model": "public-name", "model": "other-name"', id="model-twice"),
    pytest.param('"model": "other-name", "model": "public-name"', id="model-twice-turned"),
    pytest.param('"model": "public-name", "mod\\u0065l": "other-name"', id="model-twice-once-escaped"),
    pytest.param('"mod\\u0065l": "public-name"', id="model-escaped"),
    pytest.param('"model": "public-name", "max_tokens": 1, "max_tokens": 9999', id="bound-twice"),
    pytest.param('"model": "public-name", "max_tokens": 9999, "max_tokens": 1', id="bound-twice-turned"),
    pytest.param('"model": "public-name", "n": 1, "n": 8', id="n-twice"),
    pytest.param('"model": "public-name", "stream": true, "stream": false', id="stream-twice"),
    pytest.param(
        '"model": "public-name", "stream": true, "stream_options": {"include_usage": true}, '
        '"stream_options": {"include_usage": false}',
        id="usage-twice",
    ),
    pytest.param(
        '"model": "public-name", "stream": true, "stream_opt\\u0069ons": {"include_usage": false}', id="usage-escaped"
    ),
    pytest.param(
        '"model": "public-name", "stream": true, "stream_options": {"include_usage": true, "include_usage": false}',
        id="usage-twice-inside",
    ),
]


@pytest.mark.parametrize("fields", AMBIGUOUS)
def test_nobody_reads_a_body_differently_than_we_did(
    *, relaying: Weir, key: Key, upstream: Upstream, fields: str
) -> None:
    mark = unique("mark")
    body = f'{{{fields}, "user": "{mark}", "messages": [{{"role": "user", "content": "hi"}}]}}'
    sent = key.headers | {"content-type": "application/json"}
    answer = relaying.http.post("/v1/chat/completions", content=body.encode(), headers=sent)
    if answer.status_code == 400:
        assert upstream.records(mark) == []
        return
    assert answer.status_code == 200, answer.text
    pairs = json.loads(base64.b64decode(upstream.record(mark)["body"]), object_pairs_hook=list)
    read: dict[str, set[str]] = {}
    for name, value in pairs:
        read.setdefault(name, set()).add(json.dumps(value))
    for name in ("model", "max_tokens", "n", "stream", "stream_options"):
        assert len(read.get(name, {""})) == 1, f"{name} can be read as {read[name]}"
    assert read["model"] == {'"vendor/Upstream-Name"'}
    if "stream_opt" in fields:
        assert read["stream_options"] == {'[["include_usage", true]]'}
        assert relaying.record(request_id=answer.headers["x-request-id"])["tokens_from"] == "reported"


class TestStreamsThatFail:
    @pytest.mark.parametrize(
        ("play", "name"),
        [
            pytest.param("cut_stream", "fragile", id="reset"),
            pytest.param("unfinished_stream", "fragile", id="ends-without-its-end"),
            pytest.param("silent", "impatient", id="falls-silent"),
            pytest.param({"play": "endless", "delay_ms": 50}, "short", id="goes-on-for-too-long"),
        ],
    )
    def test_say_so_and_end(self, *, relaying: Weir, key: Key, play: Any, name: str) -> None:
        answer = relaying.chat(key, model=name, stream=True, x_script=play)
        assert answer.status_code == 200
        events = [event for event in events_of(answer.content) if event != ""]
        assert events[0]["choices"], "what came before the failure is there"
        error = events[-1]["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] in {"upstream_error", "upstream_timeout", "upstream_unreachable"}
        assert b"[DONE]" not in answer.content
        record = relaying.record(request_id=answer.headers["x-request-id"])
        assert record["outcome"] not in {"ok", "complete", "success", "client_disconnect"}

    def test_an_error_event_of_the_upstream_passes_and_nothing_follows(self, relaying: Weir, key: Key) -> None:
        answer = relaying.chat(key, model="fragile", stream=True, x_script="error_event")
        errors = [event["error"] for event in events_of(answer.content) if "error" in event]
        assert errors[0]["code"] == "engine_dead"
        assert len(errors) == 1
        assert b"[DONE]" not in answer.content


def test_silence_is_filled_with_comments(relaying: Weir, key: Key) -> None:
    """So that no load balancer takes a thinking model for a dead one."""
    sent = chat_bytes(key, "public-name", stream=True, x_script="silent")
    with RawExchange(relaying.port, sent) as client:
        assert client.read_event().startswith(b"data: ")
        assert client.read_event().strip() == b": ping"


def test_several_endpoints_all_get_work(redis_url: str, upstream: Upstream, admin: Admin) -> None:
    other = Upstream()
    try:
        both = [{"url": upstream.url}, {"url": other.url}]
        mark = unique("mark")
        with Weir(configuration(redis_url, [model("shared", upstream.url, endpoints=both)])) as weir:
            key = admin.key()
            for _ in range(40):
                assert weir.chat(key, model="shared", user=mark).status_code == 200
        counts = [len(u.records(mark)) for u in (upstream, other)]
        assert sum(counts) == 40
        assert min(counts) > 0  # 40 fair choices miss one of two once in 10^12
    finally:
        other.close()


def test_a_dead_endpoint_is_tried_elsewhere(redis_url: str, upstream: Upstream, admin: Admin) -> None:
    endpoints = [{"url": f"http://127.0.0.1:{free_port()}/v1"}, {"url": upstream.url}]
    config = configuration(redis_url, [model("half", upstream.url, endpoints=endpoints, retries=2)])
    with Weir(config) as weir:
        key = admin.key(rpm=1, burst_seconds=1200)
        statuses = [weir.chat(key, model="half").status_code for _ in range(20)]
        assert statuses == [200] * 20
        assert weir.metric("weir_upstream_events_total", 'event="retry"') > 0  # 20 fair choices miss it once in 10^6
        assert weir.remaining(key, "requests") == 0, "each was charged once, however often it was tried"
