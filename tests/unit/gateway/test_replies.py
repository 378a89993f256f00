"""Headers of limits and refusals as a client's parser reads them, and error bodies in OpenAI's shape."""

import asyncio
import json
import math
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.client import stays
from tests.fakes.clock import run
from weir.core.asgi import Headers, Message
from weir.core.errors import (
    BadRequest,
    ClientGone,
    ClientStalled,
    GatewayError,
    InvalidValue,
    ModelNotFound,
    RequestTooLargeForLimit,
    TokensExceeded,
    Unauthenticated,
    UpstreamBusy,
    UpstreamFailed,
)
from weir.core.types import Window
from weir.gateway.replies import Reply, duration, error_body, limit_headers, retry_headers
from weir.gateway.wire import AsgiWire
from weir.usage import EventScanner

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DURATIONS = [
    (0.0, b"0ms"),
    (0.0000001, b"1ms"),
    (0.012, b"12ms"),
    (0.0121, b"13ms"),
    (0.5, b"500ms"),
    (0.999, b"999ms"),
    (1.0, b"1s"),
    (1.001, b"2s"),
    (59.0, b"59s"),
    (59.5, b"1m0s"),
    (60.0, b"1m0s"),
    (61.2, b"1m2s"),
    (360.0, b"6m0s"),
    (3599.5, b"1h0m0s"),
    (3723.0, b"1h2m3s"),
    (90_061.0, b"25h1m1s"),
]


@pytest.mark.parametrize(("seconds", "text"), DURATIONS, ids=[text.decode() for _, text in DURATIONS])
def test_duration(seconds: float, text: bytes) -> None:
    assert duration(seconds) == text


def seconds_of(text: str) -> float:
    """A duration as Go's time.ParseDuration reads it, which is where OpenAI's form comes from."""
    assert re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?|\d+ms", text)
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|h|m|s)", text))


@LAW
@given(st.floats(0, 10**6))
def test_whoever_waits_a_duration_has_waited_long_enough(seconds: float) -> None:
    said = seconds_of(duration(seconds).decode())
    assert said >= seconds - 1e-9
    assert said - seconds <= (1.0 if seconds >= 1 else 0.0011)


# -- a parser for RFC 8941 lists of strings with integer parameters, written from its section 4.2 and nothing else


class Parser:
    def __init__(self, text: str) -> None:
        assert text.isascii()
        self.text, self.at = text, 0

    def take(self, pattern: str) -> str:
        found = re.compile(pattern).match(self.text, self.at)
        assert found, f"{pattern} is not at {self.at} of {self.text!r}"
        self.at = found.end()
        return found[0]

    def strings(self) -> list[tuple[str, dict[str, int]]]:
        items = [self.item()]
        while self.at < len(self.text):
            self.take(r"[ \t]*,[ \t]*")
            items.append(self.item())
        return items

    def item(self) -> tuple[str, dict[str, int]]:
        value = self.take(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"')[1:-1]
        parameters: dict[str, int] = {}
        while self.text.startswith(";", self.at):
            self.take(r"; *")
            name = self.take(r"[a-z*][a-z0-9_.*-]*")
            self.take("=")
            assert name not in parameters
            parameters[name] = int(self.take(r"-?[0-9]{1,15}"))
        return value, parameters


WINDOWS = (
    Window("key", "requests", 60, 12, 60, 48.0),
    Window("key", "tokens", 1_000, 990, 60, 0.6),
    Window("key", "concurrency", 5, 3, 0, 0.0),
    Window("team", "requests", 600, 7, 30, 29.65),
    Window("team", "tokens", 90_000, -40, 3600, 3601.6),
)


def limits_of(windows: tuple[Window, ...]) -> dict[str, str]:
    headers = limit_headers(windows)
    assert len({name for name, _ in headers}) == len(headers), "each once"
    assert all(name == name.lower() for name, _ in headers)
    return {name.decode(): value.decode() for name, value in headers}


class TestLimitHeaders:
    def test_of_nobody_who_is_limited_are_none(self) -> None:
        assert limits_of(()) == {}
        assert limits_of((WINDOWS[2],)) == {}, "places are no rate"

    def test_openai_shows_whichever_has_less_left(self) -> None:
        said = limits_of(WINDOWS)
        shown = {name: value for name, value in said.items() if name.startswith("x-ratelimit-")}
        assert shown == {
            "x-ratelimit-limit-requests": "600",
            "x-ratelimit-remaining-requests": "7",
            "x-ratelimit-reset-requests": "30s",
            "x-ratelimit-limit-tokens": "90000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "1h0m2s",
        }

    def test_ietf_shows_all(self) -> None:
        said = limits_of(WINDOWS)
        assert Parser(said["ratelimit-policy"]).strings() == [
            ("key-requests", {"q": 60, "w": 60}),
            ("key-tokens", {"q": 1_000, "w": 60}),
            ("team-requests", {"q": 600, "w": 30}),
            ("team-tokens", {"q": 90_000, "w": 3600}),
        ]
        assert Parser(said["ratelimit"]).strings() == [
            ("key-requests", {"r": 12, "t": 48}),
            ("key-tokens", {"r": 990, "t": 1}),
            ("team-requests", {"r": 7, "t": 30}),
            ("team-tokens", {"r": 0, "t": 3602}),
        ]

    def test_a_limit_in_shadow_is_promised_to_nobody(self) -> None:
        shadow = Window("key", "requests", 1, 0, 60, 60.0, shadow=True)
        assert limits_of((shadow,)) == {}
        said = limits_of((shadow, *WINDOWS[3:]))
        assert said["x-ratelimit-limit-requests"] == "600"
        assert "key-requests" not in said["ratelimit"] + said["ratelimit-policy"]

    def test_requests_alone_say_nothing_of_tokens(self) -> None:
        assert not any("tokens" in name for name in limits_of((WINDOWS[0],)))

    @LAW
    @given(
        st.lists(
            st.builds(
                Window,
                st.sampled_from(["key", "team"]),
                st.sampled_from(["requests", "tokens", "concurrency"]),
                st.integers(1, 10**9),
                st.integers(-(10**9), 10**9),
                st.integers(0, 86_400),
                st.floats(0, 10**6),
                st.booleans(),
            ),
            max_size=6,
            unique_by=lambda window: (window.scope, window.unit),
        ).map(tuple)
    )
    def test_parse_whatever_the_windows(self, windows: tuple[Window, ...]) -> None:
        said = limits_of(windows)
        shown = [window for window in windows if window.seconds and not window.shadow]
        assert bool(said) == bool(shown)
        if shown:
            policies, states = Parser(said["ratelimit-policy"]).strings(), Parser(said["ratelimit"]).strings()
            names = [f"{window.scope}-{window.unit}" for window in shown]
            assert [name for name, _ in policies] == [name for name, _ in states] == names
            assert all(state["r"] >= 0 and state["t"] >= 0 for _, state in states)
            for window, (_, state) in zip(shown, states, strict=True):
                assert state["t"] == math.ceil(window.reset)


def refused(retry_after: float | None, kind: type[TokensExceeded] = TokensExceeded) -> GatewayError:
    return kind(WINDOWS[1], WINDOWS, needed=5, retry_after=retry_after, detail="no")


RETRIES = [
    # error, retry-after, retry-after-ms, x-should-retry
    pytest.param(refused(0.0001), "1", "1", None, id="almost-nothing"),
    pytest.param(refused(0.25), "1", "250", None, id="a-quarter"),
    pytest.param(refused(1.0), "1", "1000", None, id="one"),
    pytest.param(refused(1.0001), "2", "1001", None, id="rounded-up"),
    pytest.param(refused(60.0), "60", "60000", None, id="a-minute"),
    pytest.param(refused(60.001), "61", "60001", "false", id="more-than-a-minute"),
    pytest.param(refused(None, RequestTooLargeForLimit), None, None, "false", id="never"),  # type: ignore[arg-type]
    pytest.param(UpstreamBusy(retry_after=7.0), "7", "7000", None, id="upstream"),
    pytest.param(UpstreamFailed(), None, None, None, id="without"),
    pytest.param(BadRequest(should_retry=True), None, None, "true", id="do"),
]


@pytest.mark.parametrize(("error", "seconds", "milliseconds", "should"), RETRIES)
def test_retry_headers(error: GatewayError, seconds: str | None, milliseconds: str | None, should: str | None) -> None:
    said = {name.decode(): value.decode() for name, value in retry_headers(error)}
    expected = {"retry-after": seconds, "retry-after-ms": milliseconds, "x-should-retry": should}
    assert said == {name: value for name, value in expected.items() if value is not None}


BODIES = [
    pytest.param(Unauthenticated(reason="revoked canary"), "invalid_request_error", None, "invalid_api_key", id="401"),
    pytest.param(ModelNotFound(param="model"), "invalid_request_error", "model", "model_not_found", id="404"),
    pytest.param(InvalidValue("'n' is odd.", param="n"), "invalid_request_error", "n", "invalid_value", id="400"),
    pytest.param(refused(1), "tokens", None, "tokens_exceeded", id="429"),
    pytest.param(UpstreamFailed(reason="canary host"), "upstream_error", None, "upstream_error", id="502"),
]


@pytest.mark.parametrize(("error", "type_", "param", "code"), BODIES)
def test_error_body(*, error: GatewayError, type_: str, param: str | None, code: str) -> None:
    said = json.loads(error_body(error))
    assert said == {"error": {"message": error.text, "type": type_, "param": param, "code": code}}
    assert "canary" not in str(said), "the reason is for the log"


class Wire:
    """What a reply sends."""

    def __init__(self, *, read: bool = True) -> None:
        self.messages: list[Message] = []
        self.cuts = 0
        self._read = read

    async def send(self, message: Message) -> None:
        if not self._read:
            await asyncio.get_running_loop().create_future()
        self.messages.append(message)

    def cut(self) -> None:
        self.cuts += 1

    def stop_reading(self) -> None:
        self._read = False

    def reply(self, *, last: bool = False) -> Reply:
        return Reply(AsgiWire(stays, self.send, self.cut), "id-1", last=last)

    @property
    def headers(self) -> Headers:
        headers: Headers = self.messages[0]["headers"]
        return headers

    def value(self, name: bytes) -> bytes | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, f"{name!r} is there {len(values)} times"
        return values[0] if values else None


async def began(wire: Wire, *, scanner: EventScanner | None = None) -> Reply:
    reply = wire.reply()
    assert reply.start(200, b"text/event-stream", []) is None
    if scanner is not None:
        reply.streaming = True
        reply.scanner = scanner
    return reply


class TestReply:
    def test_a_refusal_is_a_status_and_a_body(self) -> None:
        wire = Wire()
        run(lambda: wire.reply().fail(refused(0.5), WINDOWS))
        head, body = wire.messages
        assert (head["type"], head["status"]) == ("http.response.start", 429)
        assert wire.value(b"x-request-id") == b"id-1"
        assert wire.value(b"content-type") == b"application/json"
        assert wire.value(b"content-length") == b"%d" % len(body["body"])
        assert wire.value(b"retry-after-ms") == b"500"
        assert wire.value(b"x-ratelimit-remaining-requests") == b"7"
        assert body["body"] == error_body(refused(0.5))
        assert not body.get("more_body")

    def test_the_last_answer_of_a_connection_says_so(self) -> None:
        wire = Wire()
        run(lambda: wire.reply(last=True).fail(UpstreamFailed(), ()))
        assert wire.value(b"connection") == b"close"

    @pytest.mark.parametrize(
        ("sent", "strip", "before"),
        [
            pytest.param(b"", False, b"", id="nothing-sent"),
            pytest.param(b"data: {}\n\n", False, b"", id="between-events"),
            pytest.param(b"data: {}\n\ndata: {", False, b"\n\n", id="half-an-event-out"),
            pytest.param(b"data: {}\n\ndata: {", True, b"", id="half-an-event-held-back"),
            pytest.param(b"data: " + b"x" * 70_000, True, b"\n\n", id="half-a-large-event-out"),
        ],
    )
    def test_a_failure_mid_stream_is_an_event_and_the_end(self, *, sent: bytes, strip: bool, before: bytes) -> None:
        wire = Wire()

        async def scene() -> None:
            scanner = EventScanner(strip_usage=strip)
            scanner.feed(sent)
            reply = await began(wire, scanner=scanner)
            await reply.fail(UpstreamFailed(), ())

        run(scene)
        last: dict[str, Any] = dict(wire.messages[-1])
        assert last["body"] == before + b"data: " + error_body(UpstreamFailed()) + b"\n\n"
        assert not last.get("more_body")
        assert [message["type"] for message in wire.messages].count("http.response.start") == 1

    def test_a_json_answer_that_broke_off_stays_broken(self) -> None:
        wire = Wire()

        async def scene() -> None:
            reply = await began(wire)
            await reply.fail(UpstreamFailed(), ())

        run(scene)
        assert len(wire.messages) == 1
        assert wire.cuts == 1, "or the client would think it whole"

    @pytest.mark.parametrize("error", [ClientGone(), ClientStalled()], ids=["gone", "stalled"])
    def test_nothing_is_said_to_a_client_that_does_not_listen(self, error: ClientGone) -> None:
        wire = Wire()

        async def scene() -> None:
            reply = await began(wire, scanner=EventScanner())
            wire.stop_reading()
            await reply.fail(error, ())

        run(scene)
        assert len(wire.messages) == 1
        assert wire.cuts == 1

    @pytest.mark.parametrize("started", [True, False], ids=["mid-stream", "before-the-head"])
    def test_a_farewell_that_nobody_reads_comes_to_an_end(self, *, started: bool) -> None:
        wire = Wire()

        async def scene() -> None:
            reply = await began(wire, scanner=EventScanner()) if started else wire.reply()
            wire.stop_reading()
            await reply.fail(UpstreamFailed(), ())

        run(scene)
        assert wire.cuts == 1
