"""Upstream trouble through the whole path: what the client sees, who was asked, what was charged, what stays behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fakes.backend import HANG, JSON, Die, Head, Pause, Silence
from tests.fakes.clock import run
from tests.fakes.fleet import Fleet, Script, address, name_of
from tests.fakes.streams import events_of
from tests.flow.house import House, chat, error_of, open_house, prompt_tokens, route
from weir.core.errors import UpstreamBroke, UpstreamFailed, UpstreamTimeout, UpstreamUnreachable
from weir.core.types import Endpoint, Limits, Route, Timeouts
from weir.routing.health import FAILURES, UNREACHED
from weir.usage import PromptEstimator

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
WHOLE = json.dumps({"id": "c1", "choices": [{"message": {"content": "aa"}}], "usage": USAGE}).encode()
REFUSED = b'{"error":{"message":"too busy","type":"server_error","param":null,"code":"busy"}}'
AA = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"aa"},"finish_reason":null}]}\n\n'
LAST = b'data: {"id":"c1","choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n"
DONE = b"data: [DONE]\n\n"

OK: Script = (Head(200, JSON), WHOLE)
STREAM: Script = (Head(), AA, LAST, DONE)
NOBODY: Script = (Die(UpstreamUnreachable(reason="refused")),)
NO_CONNECTION: Script = (Die(UpstreamTimeout("connect", 2)),)
BROKE: Script = (Die(UpstreamBroke(reason="reset")),)
GARBAGE: Script = (Die(UpstreamFailed(reason="not HTTP")),)
SILENT: Script = (HANG,)


def says(status: int, *, after: bytes | None = None) -> Script:
    return (Head(status, JSON, ((b"retry-after", after),) if after is not None else ()), REFUSED)


@asynccontextmanager
async def house_of(
    fleet: Fleet, *others: Route, at: str = "", room: int | None = None, key_limits: Limits | None = None, **fields: Any
) -> AsyncIterator[House]:
    """Model `m` at the addresses that have a script, or at those of `at`; and other models."""
    endpoints = [Endpoint(address(name), model="m", max_in_flight=room) for name in at or fleet.scripts]
    known: dict[str, Any] = {"backend": "fleet", "endpoints": endpoints, "retries": 2}
    limits = {} if key_limits is None else {"key_limits": key_limits}
    async with open_house(
        routes=[route("m", **(known | fields)), *others], backends={"fleet": fleet}, **limits
    ) as house:
        yield house
    assert fleet.settled(), "an answer was never left"


def another(name: str, at: str, **fields: Any) -> Route:
    endpoints = [Endpoint(address(one), model=name) for one in at]
    known: dict[str, Any] = {"backend": "fleet", "upstream_model": f"vendor/{name}", "endpoints": endpoints}
    return route(name, **(known | fields))


def kinds(house: House) -> list[str]:
    return [kind for kind, _ in house.noted]


# -- each trouble, at one endpoint, at two, and with a fallback ------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`elsewhere`: another may be asked. `again`: the same one too, where it is alone."""

    id: str
    says: Script
    elsewhere: bool
    again: bool
    status: int
    code: str


CASES = [
    Case("nobody-there", NOBODY, True, True, 502, "upstream_unreachable"),
    Case("connect-timeout", NO_CONNECTION, True, True, 504, "upstream_timeout"),
    Case("broke-before-a-byte", BROKE, True, False, 502, "upstream_error"),
    Case("429", says(429), True, False, 429, "busy"),
    Case("429-for-long", says(429, after=b"30"), True, False, 429, "busy"),
    Case("502", says(502), True, False, 502, "upstream_error"),
    Case("503", says(503), True, True, 503, "upstream_overloaded"),
    Case("503-for-long", says(503, after=b"30"), True, False, 503, "upstream_overloaded"),
    Case("not-http", GARBAGE, False, False, 502, "upstream_error"),
    Case("500", says(500), False, False, 502, "upstream_error"),
    Case("504", says(504), False, False, 502, "upstream_error"),
    Case("400", says(400), False, False, 400, "busy"),
    Case("401", says(401), False, False, 502, "upstream_error"),
    Case("404", says(404), False, False, 404, "busy"),
    Case("422", says(422), False, False, 422, "busy"),
    Case("first-byte-timeout", SILENT, False, False, 504, "upstream_timeout"),
    Case("cut-json", (Head(200, JSON), WHOLE[:9]), False, False, 502, "upstream_error"),
    Case("html", (Head(200, b"text/html"), b"<html>"), False, False, 502, "upstream_error"),
]
EACH = pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])


async def refused(house: House, case: Case) -> None:
    answer = await house.ask().over()
    assert (answer.status, answer.error["code"]) == (case.status, case.code)
    assert await house.untouched(), "who gets nothing pays nothing"


async def served(house: House, by: str) -> None:
    answer = await house.ask().over()
    assert (answer.status, answer.body) == (200, WHOLE)
    assert await house.charged() == (1, 14), "once, and what was reported"
    assert (house.record["outcome"], name_of(house.record["endpoint"])) == ("ok", by)


@EACH
def test_a_stream_that_was_refused_has_no_first_token(case: Case) -> None:
    """Or bad requests, which are refused at once, would make the time to a first token look well."""

    async def scene() -> None:
        async with house_of(Fleet(a=[case.says]), retries=0) as house:
            assert (await house.ask(chat(stream=True)).over()).status == case.status
            assert house.record["ttft_ms"] is None
            registry = house.registry
            assert not registry.get_sample_value("weir_time_to_first_token_seconds_count", {"model": "m"})

    run(scene)


class TestEachTrouble:
    @EACH
    def test_for_ever_at_the_only_endpoint(self, case: Case) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[case.says])
            async with house_of(fleet) as house:
                await refused(house, case)
                assert fleet.visited == ["a"] * (3 if case.again else 1)

        run(scene)

    @EACH
    def test_once_at_the_only_endpoint(self, case: Case) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[case.says, OK])
            async with house_of(fleet) as house:
                await (served(house, "a") if case.again else refused(house, case))
                assert kinds(house) == ["retry"] * case.again

        run(scene)

    @EACH
    def test_at_one_of_two(self, case: Case) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[case.says], b=[OK])
            async with house_of(fleet) as house:
                house.routes["m"].endpoints[1].in_flight = 9  # a is the first
                await (served(house, "b") if case.elsewhere else refused(house, case))
                assert fleet.visited == (["a", "b"] if case.elsewhere else ["a"])
                house.routes["m"].endpoints[1].in_flight -= 9

        run(scene)

    @EACH
    def test_at_all_of_two(self, case: Case) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[case.says], b=[case.says])
            async with house_of(fleet, retries=5) as house:
                await refused(house, case)
                assert sorted(fleet.visited) == ["a", "b"] or not case.elsewhere
                assert len(fleet.visited) == 1 + case.elsewhere

        run(scene)

    @EACH
    def test_with_a_fallback(self, case: Case) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[case.says], b=[OK])
            async with house_of(fleet, another("n", "b"), at="a", fallbacks=("n",)) as house:
                await (served(house, "b") if case.elsewhere else refused(house, case))
                assert fleet.visited == ["a"] * (3 if case.again else 1) + ["b"] * case.elsewhere
                assert house.record["model"] == "m", "the limits and the bill are those of the model that was asked for"

        run(scene)

    @EACH
    def test_with_a_fallback_in_the_same_trouble(self, case: Case) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[case.says], b=[case.says])
            async with house_of(fleet, another("n", "b"), at="a", fallbacks=("n",)) as house:
                await refused(house, case)
                assert fleet.visited[-1] == ("b" if case.elsewhere else "a")

        run(scene)

    @EACH
    def test_as_a_stream(self, case: Case) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[case.says], b=[STREAM])
            async with house_of(fleet, another("n", "b"), at="a", retries=0, fallbacks=("n",)) as house:
                answer = await house.ask(chat(stream=True)).over()
                if case.elsewhere:
                    assert (answer.status, answer.body) == (200, AA + DONE)
                    assert await house.charged() == (1, 14)
                else:
                    assert (answer.status, answer.error["code"]) == (case.status, case.code)
                    assert await house.untouched()

        run(scene)


# -- never after an answer began -------------------------------------------------------------------------------------

BEGUN: list[tuple[str, Script, dict[str, Any]]] = [
    ("stream-dies", (Head(), AA, Die(UpstreamFailed(reason="reset"))), {"stream": True}),
    ("stream-dies-at-once", (Head(), Die(UpstreamFailed(reason="reset"))), {"stream": True}),
    ("stream-is-silent", (Head(), AA, HANG), {"stream": True}),
    ("stream-has-no-end", (Head(), AA), {"stream": True}),
    ("whole-dies", (Head(200, JSON), WHOLE[:9], Die(UpstreamFailed(reason="reset"))), {}),
    ("whole-is-silent", (Head(200, JSON), WHOLE[:9], HANG), {}),
]


@pytest.mark.parametrize(("name", "script", "asks"), BEGUN, ids=[row[0] for row in BEGUN])
def test_an_answer_that_began_is_never_asked_for_again(name: str, script: Script, asks: dict[str, Any]) -> None:
    async def scene() -> None:
        fleet = Fleet(a=[script], b=[script], c=[STREAM if asks else OK])
        async with house_of(fleet, another("n", "c"), at="ab", fallbacks=("n",)) as house:
            answer = await house.ask(chat(**asks)).over()
            assert len(fleet.visits) == 1
            assert kinds(house) == []
            if answer.status == 200:
                assert error_of(events_of(answer.body)[-1])["type"] == "upstream_error"
            assert sum(endpoint.standing.failures for endpoint in house.routes["m"].endpoints) == 1

    run(scene)


# -- what the client gets at last ------------------------------------------------------------------------------------


class TestTheLastWord:
    def test_a_429_with_its_body_and_headers(self) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[NOBODY], b=[says(429, after=b"17")])
            async with house_of(fleet, another("n", "b"), at="a", retries=0, fallbacks=("n",)) as house:
                answer = await house.ask().over()
                assert (answer.status, answer.body, answer.header("retry-after")) == (429, REFUSED, "17")
                assert house.record["outcome"] == "upstream_refused"

        run(scene)

    def test_a_503_with_its_retry_after(self) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[NOBODY], b=[says(503, after=b"17")])
            async with house_of(fleet, another("n", "b"), at="a", retries=0, fallbacks=("n",)) as house:
                answer = await house.ask().over()
                assert (answer.status, answer.header("retry-after")) == (503, "17")

        run(scene)

    def test_a_connect_timeout_names_its_phase(self) -> None:
        async def scene() -> None:
            async with house_of(Fleet(a=[NO_CONNECTION])) as house:
                answer = await house.ask().over()
                assert answer.status == 504
                assert "connect" in answer.error["message"]

        run(scene)

    def test_everywhere_full(self) -> None:
        async def scene() -> None:
            pause = Pause()
            fleet = Fleet(a=[(pause, *OK)])
            async with house_of(fleet, room=1) as house:
                first = house.ask()
                await pause.reached.wait()
                answer = await house.ask().over()
                assert (answer.status, answer.error["code"]) == (503, "overloaded")
                assert answer.header("retry-after") == "1"
                pause.go()
                assert (await first.over()).status == 200
                assert await house.charged() == (1, 14)
                assert len(fleet.visits) == 1

        run(scene)


# -- the request that a fallback gets --------------------------------------------------------------------------------


def test_a_fallback_gets_a_request_of_its_own() -> None:
    async def scene() -> None:
        fleet = Fleet(a=[NOBODY], b=[OK])
        other = another("n", "b", max_tokens_field="max_completion_tokens", always_cap=True)
        body = chat(max_tokens=None, seed=7)
        async with house_of(fleet, other, at="a", retries=0, fallbacks=("n",), upstream_model="vendor/m") as house:
            assert (await house.ask(body).over()).status == 200
        first, second = (json.loads(visit.call.body) for visit in fleet.visits)
        assert (first["model"], second["model"]) == ("vendor/m", "vendor/n")
        assert "max_completion_tokens" in second
        assert "max_tokens" not in second
        assert first["seed"] == second["seed"] == 7
        assert first["messages"] == second["messages"]
        assert fleet.visits[1].call.timeouts is other.timeouts

    run(scene)


UNSAID = [
    # what n, which knows chat only, cannot be told
    pytest.param("/v1/embeddings", {"input": "hello", "messages": None}, id="not-served"),
    pytest.param(
        "/v1/responses", {"input": "hello", "previous_response_id": "r", "messages": None}, id="no-words-for-it"
    ),
]


@pytest.mark.parametrize(("path", "fields"), UNSAID)
def test_an_outage_is_not_the_clients_mistake_where_a_fallback_speaks_another_dialect(
    path: str, fields: dict[str, Any]
) -> None:
    async def scene() -> None:
        fleet = Fleet(a=[NOBODY], b=[OK])
        n = another("n", "b", serves=frozenset({"chat"}))
        async with house_of(fleet, n, at="a", retries=0, fallbacks=("n",)) as house:
            answer = await house.ask(chat(max_tokens=None, **fields), path=path).over()
            assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
            assert await house.untouched()
            answer = await house.ask(chat(max_tokens=None, **fields, model="n"), path=path).over()
            assert answer.status == 400, "whoever asks for n itself is told so"
        assert fleet.visited == ["a"]

    run(scene)


def test_what_a_fallback_counts_says_nothing_of_the_model_that_was_asked() -> None:
    """Two models have two tokenizers: estimates of one are not measured, and not corrected, by the other."""

    async def scene() -> None:
        fleet = Fleet(a=[says(503), OK], b=[OK])
        async with house_of(fleet, another("n", "b"), at="a", retries=0, fallbacks=("n",)) as house:
            much = 1_000_000
            untaught = PromptEstimator().estimate("m", much)
            await served(house, "b")
            assert house.rooms.estimator.estimate("m", much) == untaught
            assert not house.registry.get_sample_value("weir_prompt_estimate_ratio_count", {"model": "m"})
            assert (await house.ask().over()).status == 200
            assert house.rooms.estimator.estimate("m", much) != untaught
            assert house.registry.get_sample_value("weir_prompt_estimate_ratio_count", {"model": "m"}) == 1

    run(scene)


def test_a_fallback_is_open_to_who_may_use_the_model() -> None:
    """The platform team says what stands in for a model; the key need not name it."""

    async def scene() -> None:
        fleet = Fleet(a=[NOBODY], b=[OK])
        async with house_of(
            fleet, another("n", "b"), at="a", fallbacks=("n",), key_limits=Limits(rpm=60, models=("m",))
        ) as house:
            assert (await house.ask().over()).status == 200
            assert (await house.ask(chat(model="n")).over()).status == 404

    run(scene)


# -- time ------------------------------------------------------------------------------------------------------------


class TestTime:
    """First byte 30 s, total 100 s, unless a model has its own."""

    def test_the_first_byte_has_its_time_anew(self) -> None:
        async def scene() -> None:
            slow = (Silence(29), Die(UpstreamBroke(reason="reset", reused=True)))
            fleet = Fleet(a=[slow, slow, (Silence(29), *OK)])
            async with house_of(fleet) as house:
                assert (await house.ask().over()).status == 200

        run(scene)

    def test_the_total_does_not(self) -> None:
        async def scene() -> None:
            slow = (Silence(29), Die(UpstreamBroke(reason="reset", reused=True)))
            async with house_of(Fleet(a=[slow]), retries=9) as house:
                since = asyncio.get_running_loop().time()
                answer = await house.ask().over()
                assert answer.status == 504
                assert "total" in answer.error["message"]
                assert asyncio.get_running_loop().time() - since == pytest.approx(100, abs=0.5)

        run(scene)

    @pytest.mark.parametrize(("waits", "status"), [(49, 200), (51, 504)])
    def test_a_fallback_has_its_own_limits(self, waits: float, status: int) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[NOBODY], b=[(Silence(waits), *OK)])
            other = another("n", "b", timeouts=Timeouts(first_byte=50))
            async with house_of(fleet, other, at="a", retries=0, fallbacks=("n",)) as house:
                assert (await house.ask().over()).status == status

        run(scene)

    def test_trouble_is_not_our_overhead(self) -> None:
        async def scene() -> None:
            async with house_of(Fleet(a=[says(503, after=b"1"), OK])) as house:
                assert (await house.ask().over()).status == 200
                assert house.record["overhead_ms"] < 500  # on a clock that does not leap

        run(scene)


# -- the client leaves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves_after", [0.01, 0.3, 0.9])
def test_the_client_leaves_between_two_attempts(leaves_after: float) -> None:
    async def scene() -> None:
        fleet = Fleet(a=[says(503, after=b"1"), OK])
        async with house_of(fleet) as house:
            asking = house.ask()
            await asyncio.sleep(leaves_after)
            assert kinds(house) == ["retry"]
            asking.leave()
            await asking.over()
            assert len(fleet.visits) == 1
            assert house.record["outcome"] == "client_disconnect"
            assert not any(endpoint.in_flight for endpoint in house.routes["m"].endpoints)
            assert await house.charged() == (1, prompt_tokens(chat()))

    run(scene)


def test_the_client_leaves_the_second_attempt() -> None:
    async def scene() -> None:
        fleet = Fleet(a=[NOBODY, SILENT])
        async with house_of(fleet) as house:
            asking = house.ask()
            await asyncio.sleep(5)
            asking.leave()
            await asking.over()
            assert fleet.visits[1].aborted
            assert not any(endpoint.standing.failures > 1 for endpoint in house.routes["m"].endpoints)

    run(scene)


# -- many requests ---------------------------------------------------------------------------------------------------


async def many(house: House, count: int) -> list[int]:
    return [(await house.ask().over()).status for _ in range(count)]


class TestMany:
    def test_no_storm(self) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[says(503)])
            async with house_of(fleet, key_limits=Limits()) as house:
                assert set(await many(house, 300)) == {503}
                assert len(fleet.visits) <= 300 + 10 + 60 + 5
                assert kinds(house).count("retry") == len(fleet.visits) - 300

        run(scene)

    def test_a_dead_one_of_two_costs_no_request(self) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[NOBODY], b=[OK])
            async with house_of(fleet) as house:
                assert set(await many(house, 60)) == {200}
                assert await house.charged() == (60, 60 * 14)
                assert fleet.visited.count("a") <= UNREACHED + 2
                assert kinds(house).count("ejected") == 1

        run(scene)

    def test_it_is_probed_and_comes_back(self) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[NOBODY] * UNREACHED + [NOBODY, OK], b=[OK])
            async with house_of(fleet) as house:
                await many(house, 30)
                assert fleet.visited.count("a") == UNREACHED
                await asyncio.sleep(1.3)
                await many(house, 5)
                assert fleet.visited.count("a") == UNREACHED + 1, "one probe, which failed"
                await asyncio.sleep(2.6)
                assert set(await many(house, 60)) == {200}
                assert fleet.visited.count("a") > UNREACHED + 10
                assert [kind for kind in kinds(house) if kind != "retry"] == ["ejected", "restored"]

        run(scene)

    def test_one_bad_client_takes_nothing_down(self) -> None:
        """Its requests make the server fail; everybody else's do not, and go on."""

        async def scene() -> None:
            fleet = Fleet(a=[says(500)] * (FAILURES + 2) + [OK], b=[OK])
            async with house_of(fleet, another("n", "b"), at="a", fallbacks=("n",)) as house:
                assert set(await many(house, FAILURES + 2)) == {502}
                assert house.routes["m"].endpoints[0].ejected
                assert set(await many(house, 20)) == {200}
                assert "b" not in fleet.visited, "and nobody gets another model for it"

        run(scene)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 429])
    def test_refusals_of_one_kind_or_another_eject_nobody(self, status: int) -> None:
        """401 and 403 are our own key's: more of it elsewhere would not help, and it is told as 502."""

        async def scene() -> None:
            async with house_of(Fleet(a=[says(status)])) as house:
                await many(house, 20)
                assert not house.routes["m"].endpoints[0].ejected
                assert await house.untouched()

        run(scene)

    def test_silence_ejects_too(self) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[SILENT], b=[OK])
            async with house_of(fleet) as house:
                house.routes["m"].endpoints[1].in_flight = 99
                assert await many(house, FAILURES) == [504] * FAILURES
                house.routes["m"].endpoints[1].in_flight -= 99
                assert house.routes["m"].endpoints[0].ejected
                assert await many(house, 1) == [200]

        run(scene)

    def test_a_fallback_serves_at_once_while_nobody_is_there(self) -> None:
        async def scene() -> None:
            fleet = Fleet(a=[NO_CONNECTION], b=[OK])
            async with house_of(fleet, another("n", "b"), at="a", fallbacks=("n",)) as house:
                assert set(await many(house, 20)) == {200}
                assert fleet.visited.count("a") == UNREACHED
                assert fleet.visited.count("b") == 20

        run(scene)


def said(house: House) -> Sequence[dict[str, object]]:
    return [fields for _, fields in house.noted]


def test_what_is_told() -> None:
    async def scene() -> None:
        fleet = Fleet(a=[NOBODY], b=[OK])
        async with house_of(fleet, another("n", "b"), at="a", retries=1, fallbacks=("n",)) as house:
            await many(house, 2)
            assert kinds(house) == ["retry", "fallback", "ejected", "fallback"]
            assert list(said(house)) == [
                {"model": "m", "endpoint": address("a"), "to": address("a"), "why": "unreachable"},
                {"model": "m", "to": "n", "why": "unreachable"},
                {"model": "m", "endpoint": address("a"), "why": "unreachable"},
                {"model": "m", "to": "n", "why": "unreachable"},
            ]

    run(scene)
