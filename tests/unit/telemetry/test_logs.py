"""Log lines: JSON on a pipe, one a request, and nothing in them that is a secret or a prompt."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from weir.core.exchange import Attempt, Exchange
from weir.core.types import Principal
from weir.telemetry import Telemetry
from weir.telemetry.levels import EVERYBODY, Change, Setting
from weir.telemetry.logs import configure
from weir.telemetry.metrics import Metrics
from weir.telemetry.telemetry import RECORD_MAX

CANARY = "canary-of-a-prompt"


class Pipe:
    """A stream that is no terminal, and the lines that were written to it."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self.stream = io.TextIOWrapper(self._bytes, "utf-8", write_through=True)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._bytes.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The configuration of logging is the process's; put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []  # so that configuring does not close what is not ours
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def pipe() -> Pipe:
    made = Pipe()
    configure("info", made.stream)
    return made


def exchange() -> Exchange:
    made = Exchange("id-1", "chat", started=100.0)
    made.principal = Principal("search", "key1", "d" * 64)
    made.model, made.status, made.streaming = "m", 200, True
    made.attempts.append(Attempt("http://a/v1", "m", 100.001, 101.5, "ok", 200))
    made.sent, made.answered, made.first_byte, made.ended = 100.001, 100.101, 100.1021, 101.5
    made.input_tokens, made.output_tokens, made.tokens_from, made.finish_reason = 11, 3, "reported", "stop"
    return made


FIELDS = {
    "event", "request_id", "team", "key_id", "model", "endpoint", "status", "outcome", "ttft_ms", "duration_ms",
    "overhead_ms", "input_tokens", "output_tokens", "tokens_from",
}  # fmt: skip


class TestRequestLine:
    def test_has_every_field_that_is_promised(self, pipe: Pipe) -> None:
        telemetry = Telemetry(Metrics())
        one = exchange()
        telemetry.begin(one)
        telemetry.record(one)
        (line,) = pipe.lines
        assert set(line) >= FIELDS
        assert line["event"] == "request"
        assert (line["team"], line["key_id"], line["model"]) == ("search", "key1", "m")
        assert (line["ttft_ms"], line["duration_ms"]) == (102.1, 1500.0)
        assert line["overhead_ms"] == pytest.approx(2.1)
        assert (line["input_tokens"], line["output_tokens"], line["tokens_from"]) == (11, 3, "reported")
        assert line["level"] == "info"
        assert line["timestamp"].endswith("Z")

    def test_bears_the_moment_of_its_end(self, pipe: Pipe) -> None:
        one = exchange()
        one.ended = time.perf_counter() - 60
        Telemetry(Metrics()).record(one)
        age = datetime.now(UTC) - datetime.fromisoformat(pipe.lines[0]["timestamp"])
        assert 60 <= age.total_seconds() < 90

    def test_of_somebody_unknown_has_them_too(self, pipe: Pipe) -> None:
        one = Exchange("id-1", "chat", ended=1.0)
        one.status, one.outcome, one.code, one.reason = 401, "refused_key", "invalid_api_key", "unknown"
        Telemetry(Metrics()).record(one)
        (line,) = pipe.lines
        assert set(line) >= FIELDS
        assert (line["team"], line["key_id"], line["model"], line["ttft_ms"]) == (None, None, None, None)
        assert (line["code"], line["reason"]) == ("invalid_api_key", "unknown")

    def test_has_no_digest(self, pipe: Pipe) -> None:
        Telemetry(Metrics()).record(exchange())
        assert "d" * 64 not in json.dumps(pipe.lines)

    def test_names_shadow_refusals(self, pipe: Pipe) -> None:
        one = exchange()
        one.shadow_refusals = ("key requests",)
        Telemetry(Metrics()).record(one)
        assert pipe.lines[0]["shadow_refusals"] == ["key requests"]


def counted(telemetry: Telemetry) -> float | None:
    return telemetry.metrics.registry.get_sample_value("weir_overhead_seconds_count")


class TestTogether:
    """Inside of a loop, where requests are served."""

    def test_a_few_wait_for_each_other_and_not_for_long(self, pipe: Pipe) -> None:
        async def scene() -> None:
            telemetry = Telemetry(Metrics())
            for _ in range(RECORD_MAX - 1):
                telemetry.record(exchange())
            assert counted(telemetry) == 0
            async with asyncio.timeout(10):
                while len(pipe.lines) < RECORD_MAX - 1:
                    await asyncio.sleep(0.01)

        asyncio.run(scene())

    def test_many_do_not_wait(self, pipe: Pipe) -> None:
        async def scene() -> None:
            telemetry = Telemetry(Metrics())
            for _ in range(3 * RECORD_MAX + 1):
                telemetry.record(exchange())
            assert counted(telemetry) == 3 * RECORD_MAX
            telemetry.catch_up()
            assert counted(telemetry) == 3 * RECORD_MAX + 1

        asyncio.run(scene())


class TestBug:
    def test_says_where_and_what_kind_and_no_word_of_the_request(self, pipe: Pipe) -> None:
        def breaks(prompt: str) -> None:
            raise ValueError(f"cannot read {prompt}")

        try:
            breaks(CANARY)
        except ValueError as bug:
            Telemetry(Metrics()).report(bug, exchange())
        (line,) = pipe.lines
        assert (line["event"], line["level"], line["kind"]) == ("bug", "error", "ValueError")
        assert line["request_id"] == "id-1"
        assert any("breaks" in place for place in line["where"])
        assert CANARY not in json.dumps(line)


class TestRedis:
    def test_is_said_once_per_change(self, pipe: Pipe) -> None:
        telemetry = Telemetry(Metrics())
        telemetry.redis_changed(False, "timeout")
        telemetry.redis_changed(True, "")
        assert [(line["event"], line["level"]) for line in pipe.lines] == [
            ("redis is away", "error"),
            ("redis is there", "info"),
        ]


class TestConfigure:
    def test_leaves_out_what_is_below_the_level(self) -> None:
        made = Pipe()
        configure("warning", made.stream)
        telemetry = Telemetry(Metrics())
        telemetry.note("started")
        telemetry.warn("careful", setting="a")
        assert [line["event"] for line in made.lines] == ["careful"]

    @pytest.mark.parametrize("odd", [None, "a\udcff"], ids=["usual", "odd"])
    def test_the_level_of_a_line_is_its_severity(self, pipe: Pipe, odd: str | None) -> None:
        Telemetry(Metrics()).warn("careful", level="debug", odd=odd)
        assert pipe.lines[0]["level"] == "warning"

    def test_a_level_that_is_set_is_news_and_not_its_severity(self, pipe: Pipe) -> None:
        telemetry = Telemetry(Metrics())
        telemetry.level_changed(Change(EVERYBODY, Setting("error")))
        telemetry.level_changed(Change(EVERYBODY, None))
        assert [(line["event"], line["level"], line["now"]) for line in pipe.lines] == [
            ("log level set", "info", "error"),
            ("log level ended", "info", None),
        ]

    def test_what_libraries_log_goes_the_same_way(self, pipe: Pipe) -> None:
        logging.getLogger("somebody.else").warning("look at %s", "this")
        logging.getLogger("somebody.else").info("too quiet")
        (line,) = pipe.lines
        assert (line["event"], line["logger"], line["level"]) == ("look at this", "somebody.else", "warning")

    def test_an_exception_of_a_library_is_one_line_without_local_values(self, pipe: Pipe) -> None:
        def breaks(prompt: str) -> None:
            raise ValueError("no")

        try:
            breaks(CANARY)
        except ValueError:
            logging.getLogger("somebody.else").exception("it broke")
        (line,) = pipe.lines
        assert "ValueError" in json.dumps(line)
        assert CANARY not in json.dumps(line), "frames are logged without their variables"

    def test_no_line_is_too_odd_to_be_written(self, pipe: Pipe) -> None:
        """A file's name may hold half a surrogate; whoever logs it must not be told that it cannot be."""
        logging.getLogger("somebody.else").warning("no such file: %s\n\x1b[31m", "a\udcff")
        Telemetry(Metrics()).note("counted", number=2**70, where={1: "one"})
        odd, large = pipe.lines
        assert (odd["event"], odd["level"]) == ("no such file: a\udcff\n\x1b[31m", "warning")
        assert (large["number"], large["where"]) == (2**70, {"1": "one"})
        assert odd["timestamp"].endswith("Z")
        assert len(odd["timestamp"]) == len("2026-11-21T15:37:46.590946Z")

    def test_what_asyncio_quotes_is_left_out(self, pipe: Pipe) -> None:
        """It repeats a callback's arguments, and the text of an exception that nobody heard."""
        log = logging.getLogger("asyncio")
        log.error("Exception in callback Wire.take(b'%s')\nhandle: <Handle Wire.take(b'%s')>", CANARY, CANARY)
        log.error("Task exception was never retrieved\nfuture: <Task exception=ValueError('%s')>", CANARY)
        assert [line["event"] for line in pipe.lines] == [
            "Exception in callback Wire.take",
            "Task exception was never retrieved",
        ]
        assert CANARY not in json.dumps(pipe.lines)

    def test_a_terminal_gets_text(self) -> None:
        terminal = Terminal()
        configure("info", terminal)
        Telemetry(Metrics()).note("started", port=8080)
        assert "started" in terminal.getvalue()
        assert "8080" in terminal.getvalue()
        assert not terminal.getvalue().startswith("{")
