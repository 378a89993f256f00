"""Whose requests are logged how: the narrowest that is set counts, until its end, and nothing secret is ever in it."""

import asyncio
import json
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
import structlog
import structlog.testing

from tests.fakes import clock
from weir.core.commands import Word
from weir.core.errors import StoreUnavailable
from weir.core.exchange import Attempt, Exchange
from weir.core.types import Principal, Window
from weir.telemetry import Telemetry
from weir.telemetry.levels import (
    EVERYBODY,
    Change,
    Level,
    Levels,
    Setting,
    Whose,
    as_fields,
    details,
    field_of,
    found_in,
    shows,
)
from weir.telemetry.levels_redis import READ_SECONDS, LevelBook, LevelReader
from weir.telemetry.logs import logger_class
from weir.telemetry.metrics import Metrics

TEAM, KEY = Whose("team", "search"), Whose("key", "key1")
CALLER = Principal("search", "key1", "d" * 64)
COLLEAGUE = Principal("search", "key2", "d" * 64)
STRANGER = Principal("ads", "key3", "d" * 64)


def a(level: Level, until: float = inf) -> Setting:
    return Setting(level, until)


NARROWEST: list[Any] = [
    # what is set                                                      the caller, a colleague, a stranger, nobody known
    pytest.param("info", {}, ("info", "info", "info", "info"), id="nothing"),
    pytest.param("error", {}, ("error", "error", "error", "error"), id="the-configured-one"),
    pytest.param("info", {EVERYBODY: a("warning")}, ("warning",) * 4, id="everybody"),
    pytest.param("info", {TEAM: a("debug")}, ("debug", "debug", "info", "info"), id="team"),
    pytest.param("info", {KEY: a("debug")}, ("debug", "info", "info", "info"), id="key"),
    pytest.param("info", {EVERYBODY: a("error"), TEAM: a("info"), KEY: a("debug")}, ("debug", "info", "error", "error"), id="all-three"),
    pytest.param("debug", {TEAM: a("error")}, ("error", "error", "debug", "debug"), id="less-than-configured"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "found", "expected"), NARROWEST)
def test_the_narrowest_counts(base: Level, found: dict[Whose, Setting], expected: tuple[str, ...]) -> None:
    levels = Levels(base)
    levels.take(found, now=0.0)
    assert tuple(map(levels.of, (CALLER, COLLEAGUE, STRANGER, None))) == expected
    assert levels.plain == (base == "info" and not found)


def test_a_level_ends_and_each_change_is_told_once() -> None:
    levels = Levels()
    found = {TEAM: a("debug", 100.0), EVERYBODY: a("error")}
    assert set(levels.take(found, 50.0)) == {Change(TEAM, a("debug", 100.0)), Change(EVERYBODY, a("error"))}
    assert levels.take(found, 60.0) == []
    assert levels.take({**found, TEAM: a("debug", 200.0)}, 60.0) == [Change(TEAM, a("debug", 200.0))]
    assert levels.end(199.0) == []
    assert levels.end(200.0) == [Change(TEAM, None)]
    assert levels.of(CALLER) == "error"
    assert levels.take({}, 201.0) == [Change(EVERYBODY, None)]
    assert levels.plain


def test_one_that_has_ended_before_it_is_read_never_counts() -> None:
    levels = Levels()
    assert levels.take({TEAM: a("debug", 100.0)}, 100.0) == []
    assert levels.plain


def ended(status: int, outcome: str) -> Exchange:
    made = Exchange("id-1", "chat")
    made.status, made.outcome = status, outcome
    return made


SHOWN = [
    # status outcome                warning error
    pytest.param(200, "ok", False, False, id="well"),
    pytest.param(429, "refused_tokens", True, False, id="refused"),
    pytest.param(401, "refused_key", True, False, id="nobody"),
    pytest.param(400, "upstream_refused", True, False, id="the-clients-own"),
    pytest.param(499, "client_disconnect", True, False, id="left-early"),
    pytest.param(200, "client_disconnect", True, False, id="left-in-the-middle"),
    pytest.param(502, "upstream_unreachable", True, True, id="no-upstream"),
    pytest.param(500, "internal_error", True, True, id="a-bug"),
    pytest.param(200, "upstream_error", True, True, id="a-stream-that-broke"),
    pytest.param(200, "drained", True, True, id="a-stream-that-was-ended"),
    pytest.param(0, "killed", True, True, id="killed"),
]


@pytest.mark.parametrize(("status", "outcome", "at_warning", "at_error"), SHOWN)
def test_what_is_shown(status: int, outcome: str, at_warning: bool, at_error: bool) -> None:
    one = ended(status, outcome)
    assert (shows("warning", one), shows("error", one)) == (at_warning, at_error)
    assert shows("info", one)
    assert shows("debug", one)


STORED = [
    pytest.param([("team:search", "debug 1500")], {TEAM: a("debug", 1.5)}, id="team"),
    pytest.param([("all:", "error 0")], {EVERYBODY: a("error")}, id="for-ever"),
    pytest.param([("key:key1", "info 7")], {KEY: a("info", 0.007)}, id="key"),
    pytest.param([("team:a:b", "info 0")], {Whose("team", "a:b"): a("info")}, id="colon"),
    pytest.param([("planet:mars", "debug 0"), ("all:", "loud 0"), ("all:", "debug soon"), ("all:", "")], {}, id="of-another-version"),
    pytest.param([("all:", "debug 99999999999999999999"), ("key:a", "debug " + "9" * 5000), ("key:b", "debug \u00b2")], {}, id="no-time"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), STORED)
def test_what_the_store_holds(fields: list[tuple[str, str]], expected: dict[Whose, Setting]) -> None:
    assert found_in(fields) == expected
    assert {field_of(whose) for whose in expected} <= {field for field, _ in fields}


def test_a_change_as_a_line() -> None:
    assert as_fields(Change(TEAM, a("debug", 1_800_000_000.0))) == {
        "of": "team",
        "team": "search",
        "now": "debug",
        "until": "2027-01-15T08:00:00Z",
    }
    assert as_fields(Change(KEY, None)) == {"of": "key", "key_id": "key1", "now": None}
    assert as_fields(Change(EVERYBODY, a("error"))) == {"of": "all", "now": "error", "until": None}


# -- the lines


def exchange(principal: Principal = CALLER) -> Exchange:
    made = Exchange("id-1", "chat", started=100.0)
    made.principal = principal
    made.model, made.status, made.streaming = "m", 200, True
    made.asked, made.admitted, made.queued = 100.001, 100.0025, 0.25
    made.sent, made.answered, made.first_byte, made.ended = 100.26, 100.36, 100.361, 101.5
    made.reserved_tokens, made.estimated_input = 300, 44
    made.attempts += [
        Attempt("http://a/v1", "m", 100.26, 100.3, "503", 503, request_bytes=812),
        Attempt("http://b/v1", "m", 100.31, 101.49, "ok", 200, request_bytes=812),
    ]
    return made


WINDOWS = [Window("key", "tokens", 1000, 700, 60, 18.0), Window("team", "concurrency", 9, 8, 0, 0.0, shadow=True)]


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    structlog.configure(wrapper_class=logger_class("warning"))  # which does not hide lines that a level lets through
    with structlog.testing.capture_logs() as lines:
        yield lines
    structlog.reset_defaults()


def lines_of(found: dict[Whose, Setting], *exchanges: Exchange) -> None:
    telemetry = Telemetry(Metrics())
    telemetry.levels.take(found, 0.0)
    for one in exchanges:
        telemetry.stand(one, WINDOWS)
        telemetry.record(one)


def test_debug_is_a_second_line_for_that_caller_alone(logged: list[Any]) -> None:
    lines_of({TEAM: a("debug")}, exchange(), exchange(STRANGER))
    assert [(line["event"], line["team"], line["log_level"]) for line in logged] == [
        ("request", "search", "info"),
        ("request_detail", "search", "debug"),
        ("request", "ads", "info"),
    ]


def test_the_details() -> None:
    one = exchange()
    one.windows = WINDOWS
    said = details(one)
    times = ("asked_ms", "admitted_ms", "queued_ms", "sent_ms", "answered_ms", "first_byte_ms", "ended_ms")
    assert [said[name] for name in times] == [1.0, 2.5, 250.0, 260.0, 360.0, 361.0, 1500.0]
    assert (said["reserved_tokens"], said["estimated_input_tokens"]) == (300, 44)
    assert said["limits"] == [
        {"limit": "key tokens", "of": 1000, "remaining": 700, "seconds": 60, "shadow": False},
        {"limit": "team concurrency", "of": 9, "remaining": 8, "seconds": 0, "shadow": True},
    ]
    assert [
        (tried["endpoint"], tried["result"], tried["began_ms"], tried["ended_ms"]) for tried in said["attempts"]
    ] == [
        ("http://a/v1", "503", 260.0, 300.0),
        ("http://b/v1", "ok", 310.0, 1490.0),
    ]
    assert {tried["request_bytes"] for tried in said["attempts"]} == {812}
    assert CALLER.digest not in json.dumps(said)


def test_the_details_of_one_that_came_to_nothing() -> None:
    said = details(Exchange("id-1", "chat", started=5.0, ended=5.5))
    assert (said["team"], said["asked_ms"], said["sent_ms"], said["ended_ms"]) == (None, None, None, 500.0)
    assert (said["limits"], said["attempts"]) == ([], [])


def test_limits_are_kept_only_where_they_are_wanted(logged: list[Any]) -> None:
    telemetry = Telemetry(Metrics())
    one, other = exchange(), exchange(STRANGER)
    telemetry.stand(one, WINDOWS)
    assert one.windows == ()
    telemetry.levels.take({TEAM: a("debug")}, 0.0)
    telemetry.stand(one, WINDOWS)
    telemetry.stand(other, WINDOWS)
    assert (one.windows, other.windows) == (WINDOWS, ())


def test_less_is_logged_and_as_much_is_counted(logged: list[Any]) -> None:
    well, broken = exchange(), exchange()
    broken.outcome = "upstream_error"
    telemetry = Telemetry(Metrics())
    telemetry.levels.take({EVERYBODY: a("error")}, 0.0)
    telemetry.record(well)
    telemetry.record(broken)
    assert [line["outcome"] for line in logged] == ["upstream_error"]
    counted = [s for m in telemetry.metrics.registry.collect() for s in m.samples if s.name == "weir_requests_total"]
    assert sum(sample.value for sample in counted) == 2


def test_a_change_is_a_line_whatever_the_level(logged: list[Any]) -> None:
    telemetry = Telemetry(Metrics())
    telemetry.level_changed(Change(TEAM, a("debug")))
    telemetry.level_changed(Change(TEAM, None))
    assert [(line["event"], line["team"]) for line in logged] == [
        ("log level set", "search"),
        ("log level ended", "search"),
    ]


# -- read again and again


class Store:
    """`Commands` that give what `holds` says at Redis' time `now`, or nothing at all."""

    def __init__(self) -> None:
        self.holds: dict[str, str] = {}
        self.odd: list[bytes] = []
        self.now = 1_000_000.0
        self.away = False

    def call(self, *words: Word) -> asyncio.Future[Any]:
        reply = asyncio.get_running_loop().create_future()
        if self.away:
            reply.set_exception(StoreUnavailable(reason="away"))
        else:
            pairs = [text.encode() for pair in self.holds.items() for text in pair]
            reply.set_result([str(int(self.now * 1000)).encode(), *pairs, *self.odd])
        return reply


def test_what_is_set_is_known_within_seconds_and_stays_known_until_its_end_while_redis_is_away() -> None:
    async def play() -> None:
        store, levels, said = Store(), Levels(), list[Change]()
        ours = asyncio.get_running_loop().time
        reader = LevelReader(LevelBook(store), levels, said.append, ours)
        task = asyncio.get_running_loop().create_task(reader.tend())

        async def later(seconds: float) -> None:
            await asyncio.sleep(seconds)
            store.now += seconds

        await later(READ_SECONDS / 2)
        end = int((store.now + 60) * 1000)
        store.holds = {"team:search": f"debug {end}", "all:": "error 0"}
        await later(READ_SECONDS)
        assert (levels.of(CALLER), levels.of(STRANGER)) == ("debug", "error")
        store.away = True
        await later(50)
        assert (levels.of(CALLER), levels.of(STRANGER)) == ("debug", "error")
        await later(10)
        assert (levels.of(CALLER), levels.of(STRANGER)) == ("error", "error")
        store.away, store.holds = False, {}
        await later(READ_SECONDS)
        assert levels.plain
        assert [(change.whose, change.now and change.now.level) for change in said] == [
            (TEAM, "debug"), (EVERYBODY, "error"), (TEAM, None), (EVERYBODY, None),
        ]  # fmt: skip
        task.cancel()

    clock.run(play)


def test_what_cannot_be_read_changes_nothing_and_ends_nothing() -> None:
    """Somebody else's field in the hash: the levels of all replicas would stay as they are until a restart."""

    async def play() -> None:
        store, levels = Store(), Levels()
        store.odd = [b"team:\xff\xfe", b"debug 0"]
        store.holds = {"all:": "debug 99999999999999999999", "team:search": "debug 0"}
        reader = LevelReader(LevelBook(store), levels, lambda change: void(as_fields(change)))
        await reader.look()
        assert (levels.of(CALLER), levels.of(STRANGER)) == ("debug", "info")

    asyncio.run(play())


def void(_: object) -> None: ...
