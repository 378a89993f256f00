"""Where a request is sent, and where after that; what is in flight is counted exactly, however it ends.

On virtual time. Jitter is half of what it may be, so that the first pause is 12.5 ms.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.fakes.backend import HANG, JSON, Die, Head, Pause, Silence, Step
from tests.fakes.clock import run
from tests.fakes.fleet import Fleet, Script, address, name_of
from weir.backend import Call
from weir.core.asgi import Headers
from weir.core.errors import (
    ClientGone,
    EndpointsFull,
    GatewayError,
    InvalidValue,
    NotServed,
    UpstreamBroke,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamTrouble,
    UpstreamUnreachable,
)
from weir.core.exchange import Attempt
from weir.core.types import Endpoint, Route, Timeouts
from weir.gateway.dispatch import DRAIN_SECONDS, Dispatch, Dispatched
from weir.gateway.trouble import retry_after
from weir.routing.health import FAILURES, UNREACHED

OK: Script = (Head(200, JSON), b"{}")
NOBODY: Script = (Die(UpstreamUnreachable(reason="refused")),)
CONNECT: Script = (Die(UpstreamTimeout("connect", 2)),)
BROKE: Script = (Die(UpstreamBroke(reason="reset")),)
STALE: Script = (Die(UpstreamBroke(reason="reset", reused=True)),)
GARBAGE: Script = (Die(UpstreamFailed(reason="not HTTP")),)


def says(status: int, *rest: Step, after: bytes | None = None) -> Script:
    headers = ((b"retry-after", after),) if after is not None else ()
    return (Head(status, JSON, headers), *(rest or (b"{}",)))


@dataclass
class Waits:
    """See `Patience`."""

    found: GatewayError | None = None
    began: list[Timeouts] = field(default_factory=list)

    def again(self, timeouts: Timeouts) -> None:
        self.began.append(timeouts)


class Scene:
    """One model `m` at the addresses that have a script, or at those of `at`."""

    def __init__(self, at: str = "", others: tuple[Route, ...] = (), model: Any = None, **scripts: Any) -> None:
        self.fleet = Fleet(**{name: given if isinstance(given, list) else [given] for name, given in scripts.items()})
        self.noted: list[tuple[str, dict[str, object]]] = []
        self.route = route("m", at or "".join(scripts), **(model or {}))
        table = {one.model: one for one in (self.route, *others)}
        self.all = [endpoint for one in table.values() for endpoint in one.endpoints]
        self.dispatch = Dispatch(
            {"fleet": self.fleet}, table.get, note=lambda *said: self.noted.append(said), rand=lambda: 0.5
        )
        self.waits = Waits()
        self.sent: list[str] = []
        self.calls: list[str] = []
        self.unsaid: dict[str, GatewayError] = {}  # by model: why this request cannot be put into its words

    def send(self) -> Dispatched:
        return self.dispatch.send(self.route, self.call_for, self.waits, self.goes, [])

    def goes(self, attempt: Attempt) -> Headers:
        self.sent.append(name_of(attempt.endpoint))
        return [(b"traceparent", b"%d" % len(self.sent))]

    def call_for(self, route: Route) -> Call:
        self.calls.append(route.model)
        if route.model in self.unsaid:
            raise self.unsaid[route.model]
        return Call("/chat/completions", route.upstream_model.encode(), [], route.timeouts)

    async def ask(self) -> "Outcome":
        """The status that is relayed, or the error that is raised; and all that the request left behind."""
        sending = self.send()
        try:
            async with sending as response:
                while await response.read():
                    pass
                end: int | str = response.status
        except UpstreamTrouble as error:
            end = type(error).__name__
        assert not any(endpoint.in_flight for endpoint in self.all)
        assert self.fleet.settled()
        return Outcome(end, sending)

    async def eject(self, name: str, *, gone: bool = False) -> None:
        endpoint = next(one for one in self.all if one.url == address(name))
        for _ in range(FAILURES):
            self.dispatch.health.failed(endpoint, "test", unreached=gone)
        self.noted.clear()


@dataclass
class Outcome:
    end: int | str
    sending: Dispatched

    @property
    def attempts(self) -> list[tuple[str, str]]:
        return [(name_of(one.endpoint), one.result) for one in self.sending.attempts]


def route(model: str, at: str, **fields: Any) -> Route:
    return Route(model, "fleet", model.upper(), [Endpoint(address(name), model=model) for name in at], **fields)


# -- what is tried again, and where ----------------------------------------------------------------------------------

TROUBLE = [
    # what the first says                  retried elsewhere? and at the same? what the client gets      the word
    pytest.param(NOBODY, True, True, "UpstreamUnreachable", "unreachable", id="unreachable"),
    pytest.param(CONNECT, True, True, "UpstreamTimeout", "connect timeout", id="connect-timeout"),
    pytest.param(BROKE, True, False, "UpstreamBroke", "broke", id="broke"),
    pytest.param(STALE, True, True, "UpstreamBroke", "broke", id="closed-as-idle"),
    pytest.param(says(429), True, False, 429, "429", id="429"),
    pytest.param(says(429, after=b"1"), True, False, 429, "429", id="429-soon"),
    pytest.param(says(502), True, False, 502, "502", id="502"),
    pytest.param(says(503), True, True, 503, "503", id="503"),
    pytest.param(says(529), True, True, 529, "529", id="529-of-anthropic"),
    pytest.param(says(503, after=b"1"), True, True, 503, "503", id="503-soon"),
    pytest.param(says(503, after=b"2"), True, False, 503, "503", id="503-later"),
    pytest.param(GARBAGE, False, False, "UpstreamFailed", "no answer", id="garbage"),
    pytest.param(says(500), False, False, 500, "500", id="500"),
    pytest.param(says(504), False, False, 504, "504", id="504"),
    pytest.param(says(400), False, False, 400, "400", id="400"),
    pytest.param(says(401), False, False, 401, "401", id="401"),
    pytest.param(says(404), False, False, 404, "404", id="404"),
    pytest.param(
        (Die(UpstreamTimeout("first byte", 2)),), False, False, "UpstreamTimeout", "first byte timeout", id="first-byte"
    ),
]
EACH = pytest.mark.parametrize(("says", "elsewhere", "again", "end", "word"), TROUBLE)


class TestEachTrouble:
    @EACH
    def test_with_one_endpoint(self, *, says: Script, elsewhere: bool, again: bool, end: int | str, word: str) -> None:
        async def scene() -> None:
            it = await Scene(a=[says, OK]).ask()
            assert it.attempts == ([("a", word), ("a", "ok")] if again else [("a", word)])
            assert it.end == (200 if again else end)

        run(scene)

    @EACH
    def test_with_two(self, *, says: Script, elsewhere: bool, again: bool, end: int | str, word: str) -> None:
        async def scene() -> None:
            this = Scene(a=says, b=OK)
            this.route.endpoints[1].in_flight = 9  # so that it is not the first
            sending = this.send()
            try:
                async with sending as response:
                    got: int | str = response.status
            except UpstreamTrouble as error:
                got = type(error).__name__
            assert Outcome(got, sending).attempts == ([("a", word), ("b", "ok")] if elsewhere else [("a", word)])
            assert got == (200 if elsewhere else end)
            assert [endpoint.in_flight for endpoint in this.all] == [0, 9]

        run(scene)

    @EACH
    def test_with_a_fallback(self, *, says: Script, elsewhere: bool, again: bool, end: int | str, word: str) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"retries": 0, "fallbacks": ("n",)}, a=says, b=OK)
            it = await this.ask()
            assert it.attempts == ([("a", word), ("b", "ok")] if elsewhere else [("a", word)])
            assert it.end == (200 if elsewhere else end)
            assert it.sending.route.model == ("n" if elsewhere else "m")

        run(scene)

    @EACH
    def test_everywhere(self, *, says: Script, elsewhere: bool, again: bool, end: int | str, word: str) -> None:
        """The client gets the last."""

        async def scene() -> None:
            it = await Scene(a=NOBODY, b=says).ask()
            assert it.attempts[-1][1] in {word, "unreachable"}
            if it.attempts[-1][0] == "b":
                assert it.end == end

        run(scene)


class TestAttempts:
    @pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (2, 3), (5, 4)])
    def test_as_many_as_retries_and_each_elsewhere(self, retries: int, attempts: int) -> None:
        async def scene() -> None:
            this = Scene(model={"retries": retries}, a=NOBODY, b=NOBODY, c=NOBODY, d=NOBODY)
            it = await this.ask()
            assert len(this.fleet.visited) == len(set(this.fleet.visited)) == attempts
            assert this.sent == this.fleet.visited
            assert it.end == "UpstreamUnreachable"
            assert it.sending.endpoint.url == address(this.fleet.visited[-1])

        run(scene)

    def test_one_endpoint_again_and_again(self) -> None:
        async def scene() -> None:
            this = Scene(model={"retries": 3}, a=[NOBODY, says(503), CONNECT, OK])
            assert (await this.ask()).end == 200
            assert this.calls == ["m"], "the request is built once"

        run(scene)

    def test_pauses_grow(self) -> None:
        async def scene() -> None:
            since = asyncio.get_running_loop().time()
            await Scene(model={"retries": 8}, a=[NOBODY]).ask()
            spent = asyncio.get_running_loop().time() - since
            assert spent == pytest.approx(sum(min(0.025 * 2**n, 1) for n in range(8)) / 2, abs=1e-6)

        run(scene)

    def test_retry_after_of_a_second_is_waited_for(self) -> None:
        async def scene() -> None:
            since = asyncio.get_running_loop().time()
            await Scene(a=[says(503, after=b"1"), OK]).ask()
            assert asyncio.get_running_loop().time() - since == pytest.approx(1, abs=1e-6)

        run(scene)

    def test_retry_after_is_no_matter_to_another(self) -> None:
        async def scene() -> None:
            since = asyncio.get_running_loop().time()
            this = Scene(a=says(503, after=b"1"), b=OK)
            this.route.endpoints[1].in_flight = 9
            async with this.send():
                assert asyncio.get_running_loop().time() - since == pytest.approx(0.0125, abs=1e-6)

        run(scene)

    def test_none_after_the_deadline(self) -> None:
        async def scene() -> None:
            slow: Script = (Silence(4.99), Die(UpstreamUnreachable()))
            this = Scene(model={"timeouts": Timeouts(total=5)}, a=[slow, OK])
            assert (await this.ask()).end == "UpstreamUnreachable"
            this = Scene(model={"timeouts": Timeouts(total=6)}, a=[slow, OK])
            assert (await this.ask()).end == 200

        run(scene)

    def test_the_first_byte_has_its_time_anew(self) -> None:
        async def scene() -> None:
            this = Scene(a=[NOBODY, OK])
            await this.ask()
            assert len(this.waits.began) == 2, "for the pause, and for the attempt"
            this = Scene(a=OK)
            await this.ask()
            assert this.waits.began == []

        run(scene)


class TestBudget:
    def test_no_storm(self) -> None:
        """A thousand requests at once, all of which fail: not three thousand."""

        async def scene() -> None:
            this = Scene(a=NOBODY)
            for _ in range(1_000):
                await this.ask()
            retries = len(this.fleet.visits) - 1_000
            assert 180 <= retries <= 10 + 200 + 5

        run(scene)

    def test_each_model_has_its_own(self) -> None:
        async def scene() -> None:
            this = Scene(a=NOBODY)
            while this.dispatch.budget(this.route).take(this.dispatch.clock()):
                pass
            assert len((await this.ask()).attempts) == 1
            assert this.dispatch.budget(route("n", "b")).take(this.dispatch.clock())

        run(scene)

    def test_a_fallback_needs_none(self) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"fallbacks": ("n",)}, a=NOBODY, b=OK)
            while this.dispatch.budget(this.route).take(this.dispatch.clock()):
                pass
            assert (await this.ask()).attempts == [("a", "unreachable"), ("b", "ok")]

        run(scene)


class TestFallbacks:
    def test_in_their_order_after_all_endpoints(self) -> None:
        async def scene() -> None:
            this = Scene(
                at="ab",
                others=(route("n", "c"), route("o", "d")),
                model={"retries": 1, "fallbacks": ("n", "o")},
                a=NOBODY,
                b=NOBODY,
                c=says(429),
                d=OK,
            )
            it = await this.ask()
            assert sorted(this.fleet.visited[:2]) == ["a", "b"]
            assert this.fleet.visited[2:] == ["c", "d"]
            assert (it.end, it.sending.route.model, it.sending.endpoint.url) == (200, "o", address("d"))
            assert this.calls == ["m", "n", "o"]
            assert [visit.call.body for visit in this.fleet.visits] == [b"M", b"M", b"N", b"O"]
            assert [kind for kind, _ in this.noted] == ["retry", "fallback", "fallback"]
            assert this.noted[1][1] == {"model": "m", "to": "n", "why": "unreachable"}

        run(scene)

    def test_with_its_own_retries_and_time_limits(self) -> None:
        async def scene() -> None:
            limits = Timeouts(connect=1, first_byte=7)
            other = route("n", "b", retries=2, timeouts=limits)
            this = Scene(
                at="a", others=(other,), model={"retries": 0, "fallbacks": ("n",)}, a=NOBODY, b=[NOBODY, NOBODY, OK]
            )
            assert (await this.ask()).end == 200
            assert this.fleet.visited == ["a", "b", "b", "b"]
            assert set(this.waits.began) == {limits}
            assert this.fleet.visits[-1].call.timeouts is limits

        run(scene)

    def test_with_as_many_retries_as_if_it_were_the_first(self) -> None:
        async def scene() -> None:
            this = Scene(
                at="a",
                others=(route("n", "b", retries=1),),
                model={"retries": 1, "fallbacks": ("n",)},
                a=NOBODY,
                b=[NOBODY, OK],
            )
            assert (await this.ask()).end == 200
            assert this.fleet.visited == ["a", "a", "b", "b"]

        run(scene)

    def test_each_once_and_none_of_theirs(self) -> None:
        async def scene() -> None:
            other = route("n", "b", retries=0, fallbacks=("m", "o"))
            this = Scene(
                at="a",
                others=(other, route("o", "c")),
                model={"retries": 0, "fallbacks": ("m", "n", "nobody", "n")},
                a=NOBODY,
                b=NOBODY,
                c=OK,
            )
            assert (await this.ask()).end == "UpstreamUnreachable"
            assert this.fleet.visited == ["a", "b"]

        run(scene)

    def test_at_once_where_nobody_is_there(self) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"fallbacks": ("n",)}, a=NOBODY, b=OK)
            await this.eject("a", gone=True)
            assert (await this.ask()).attempts == [("b", "ok")]
            assert this.noted == [("fallback", {"model": "m", "to": "n", "why": "ejected"})]
            assert this.waits.began, "with the fallback's time limits"

        run(scene)

    def test_not_for_bad_answers_to_others(self) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"fallbacks": ("n",)}, a=OK, b=OK)
            await this.eject("a")
            assert (await this.ask()).attempts == [("a", "ok")]

        run(scene)

    def test_back_to_ones_own_as_the_last_resort(self) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"fallbacks": ("n",)}, a=OK, b=OK)
            await this.eject("a", gone=True)
            this.all[1].max_in_flight = 0
            assert (await this.ask()).attempts == [("a", "ok")]
            assert ("passed_over", {"model": "m", "to": "n", "why": "no room"}) in this.noted

        run(scene)


@pytest.mark.parametrize("why", [NotServed(), InvalidValue()], ids=["not-served", "invalid-value"])
class TestRequestsThatAFallbackCannotBeTold:
    @pytest.mark.parametrize(
        ("says", "end"), [(NOBODY, "UpstreamUnreachable"), (says(503), 503)], ids=["unreachable", "503"]
    )
    def test_it_is_passed_over(self, says: Script, end: int | str, why: GatewayError) -> None:
        async def scene() -> None:
            model = {"retries": 0, "fallbacks": ("n", "o")}
            this = Scene(at="a", others=(route("n", "b"), route("o", "c")), model=model, a=says, b=OK, c=OK)
            this.unsaid = {"n": why}
            it = await this.ask()
            assert (it.end, it.sending.route.model, this.fleet.visited) == (200, "o", ["a", "c"])
            assert this.calls == ["m", "n", "o"], "each is made once"
            assert [said["to"] for kind, said in this.noted if kind == "fallback"] == ["o"]
            assert ("passed_over", {"model": "m", "to": "n", "why": why.text}) in this.noted
            this.unsaid["o"] = why
            it = await this.ask()
            assert (it.end, it.sending.route.model) == (end, "m"), "with none left: the model's own trouble"

        run(scene)

    def test_ejected_and_passed_over(self, why: GatewayError) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"fallbacks": ("n",)}, a=OK, b=OK)
            this.unsaid = {"n": why}
            await this.eject("a", gone=True)
            assert (await this.ask()).attempts == [("a", "ok")]
            assert this.calls == ["n", "m"]

        run(scene)

    def test_the_model_itself_is_the_clients_mistake(self, why: GatewayError) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"fallbacks": ("n",)}, a=OK, b=OK)
            this.unsaid = {"m": why}
            with pytest.raises(type(why)):
                await this.ask()
            assert not this.fleet.visits
            assert not any(endpoint.in_flight for endpoint in this.all)

        run(scene)


# -- who is left alone -----------------------------------------------------------------------------------------------

COUNTS = [
    # what it says again and again       how often until it is ejected; None: never
    pytest.param(NOBODY, UNREACHED, id="unreachable"),
    pytest.param(CONNECT, UNREACHED, id="connect-timeout"),
    pytest.param(BROKE, FAILURES, id="broke"),
    pytest.param(GARBAGE, FAILURES, id="garbage"),
    pytest.param(says(500), FAILURES, id="500"),
    pytest.param(says(502), FAILURES, id="502"),
    pytest.param(says(503), FAILURES, id="503"),
    pytest.param(says(504), FAILURES, id="504"),
    pytest.param((Head(), b"a", Die(UpstreamFailed(reason="reset"))), FAILURES, id="broke-in-the-middle"),
    pytest.param(says(429), None, id="429"),
    pytest.param(says(400), None, id="400"),
    pytest.param(says(401), None, id="401"),
    pytest.param(says(403), None, id="403"),
    pytest.param(OK, None, id="200"),
]


class TestEjection:
    @pytest.mark.parametrize(("says", "after"), COUNTS)
    def test_what_counts(self, says: Script, after: int | None) -> None:
        async def scene() -> None:
            this = Scene(model={"retries": 0}, a=says)
            for n in range(1, (after or 20) + 1):
                assert not this.all[0].ejected, n
                await this.ask()
            assert this.all[0].ejected is (after is not None)
            assert [kind for kind, _ in this.noted] == ([] if after is None else ["ejected"])

        run(scene)

    @pytest.mark.parametrize(
        ("found", "counts"),
        [
            pytest.param(UpstreamTimeout("first byte", 30), True, id="first-byte"),
            pytest.param(UpstreamTimeout("idle", 30), True, id="idle"),
            pytest.param(UpstreamTimeout("total", 30), False, id="total"),
            pytest.param(ClientGone(), False, id="client-left"),
            pytest.param(None, False, id="killed"),
        ],
    )
    @pytest.mark.parametrize("script", [(HANG,), (Head(), b"a", HANG)], ids=["before", "in-the-middle"])
    def test_what_counts_of_what_ends_the_waiting(
        self, *, script: Script, found: GatewayError | None, counts: bool
    ) -> None:
        async def scene() -> None:
            this = Scene(a=script)
            asking = asyncio.ensure_future(this.ask())
            await asyncio.sleep(1)
            assert this.all[0].in_flight == 1
            this.waits.found = found
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert this.all[0].standing.failures == counts
            assert this.all[0].in_flight == 0

        run(scene)

    def test_each_attempt_is_judged_for_itself(self) -> None:
        async def scene() -> None:
            breaks: Script = (Head(), b"a", Die(UpstreamFailed(reason="reset")))
            this = Scene(
                at="a", others=(route("n", "b"),), model={"retries": 0, "fallbacks": ("n",)}, a=says(503), b=breaks
            )
            it = await this.ask()
            assert it.attempts == [("a", "503"), ("b", "no answer")]
            assert [endpoint.standing.failures for endpoint in this.all] == [1, 1]

        run(scene)

    def test_a_probe_that_fails_in_its_own_way(self) -> None:
        async def scene() -> None:
            this = Scene(a=[says(500), OK], b=OK)
            await this.eject("a")
            await asyncio.sleep(1.3)
            assert (await this.ask()).attempts == [("a", "500")]
            await asyncio.sleep(1.3)
            assert (await this.ask()).attempts == [("b", "ok")], "two seconds this time"
            await asyncio.sleep(1.3)
            assert (await this.ask()).attempts == [("a", "ok")]

        run(scene)

    def test_a_bug_of_ours_does_not_count(self) -> None:
        async def scene() -> None:
            this = Scene(a=OK)
            with pytest.raises(ZeroDivisionError):
                async with this.send():
                    raise ZeroDivisionError
            assert (this.all[0].standing.failures, this.all[0].in_flight) == (0, 0)

        run(scene)

    def test_a_whole_answer_ends_the_row(self) -> None:
        async def scene() -> None:
            this = Scene(model={"retries": 0}, a=[*([says(500)] * 4 + [OK]) * 4, OK])
            for _ in range(20):
                await this.ask()
            assert not this.all[0].ejected

        run(scene)

    def test_the_others_get_it_all_and_then_one_looks(self) -> None:
        async def scene() -> None:
            this = Scene(a=OK, b=OK)
            await this.eject("a", gone=True)
            for _ in range(50):
                await this.ask()
            assert set(this.fleet.visited) == {"b"}
            await asyncio.sleep(1.1)
            assert (await this.ask()).attempts == [("a", "ok")]
            assert not this.all[0].ejected
            assert [kind for kind, _ in this.noted] == ["restored"]

        run(scene)

    def test_a_failed_probe_is_the_clients_only_for_a_moment(self) -> None:
        async def scene() -> None:
            this = Scene(a=NOBODY, b=OK)
            await this.eject("a")
            await asyncio.sleep(1.1)
            assert (await this.ask()).attempts == [("a", "unreachable"), ("b", "ok")]
            await asyncio.sleep(1.1)
            assert (await this.ask()).attempts == [("b", "ok")], "two seconds this time"

        run(scene)

    def test_a_probe_whose_client_leaves_is_made_again(self) -> None:
        async def scene() -> None:
            this = Scene(a=[(HANG,), OK], b=OK)
            await this.eject("a")
            await asyncio.sleep(1.1)
            asking = asyncio.ensure_future(this.ask())
            await asyncio.sleep(0.1)
            assert this.fleet.visited == ["a"]
            async with this.send() as _:
                assert this.fleet.visited == ["a", "b"], "one at a time"
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert (await this.ask()).attempts == [("a", "ok")]

        run(scene)

    def test_all_ejected_is_still_somebody(self) -> None:
        async def scene() -> None:
            this = Scene(a=OK, b=OK)
            await this.eject("a")
            await asyncio.sleep(0.1)
            await this.eject("b")
            assert (await this.ask()).attempts == [("a", "ok")]
            assert [endpoint.ejected for endpoint in this.all] == [False, True]

        run(scene)


# -- room ------------------------------------------------------------------------------------------------------------


class TestRoom:
    def test_all_full(self) -> None:
        async def scene() -> None:
            this = Scene(at="ab", others=(route("n", "c"),), model={"fallbacks": ("n",)}, a=OK, b=OK, c=OK)
            for endpoint in this.route.endpoints:
                endpoint.max_in_flight = endpoint.in_flight = 2
            with pytest.raises(EndpointsFull) as refused:
                async with this.send():
                    raise AssertionError("never entered")
            assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "overloaded", 1)
            assert [endpoint.in_flight for endpoint in this.all] == [2, 2, 0]
            assert this.fleet.visits == []

        run(scene)

    def test_never_more_than_may_be(self) -> None:
        async def scene() -> None:
            pause = Pause()
            this = Scene(a=(pause, *OK), b=(pause, *OK))
            for endpoint in this.all:
                endpoint.max_in_flight = 3

            async def one() -> int:
                async with this.send() as response:
                    return response.status

            asking = [asyncio.ensure_future(one()) for _ in range(10)]
            await pause.reached.wait()
            assert [endpoint.in_flight for endpoint in this.all] == [3, 3]
            pause.go()
            ends = await asyncio.gather(*asking, return_exceptions=True)
            assert sum(end == 200 for end in ends) == 6
            assert sum(isinstance(end, EndpointsFull) for end in ends) == 4
            assert [endpoint.in_flight for endpoint in this.all] == [0, 0]

        run(scene)

    def test_the_place_of_a_refused_request_is_its_own_again(self) -> None:
        async def scene() -> None:
            this = Scene(a=[says(503), OK])
            this.all[0].max_in_flight = 1
            assert (await this.ask()).attempts == [("a", "503"), ("a", "ok")]

        run(scene)

    def test_a_full_one_is_no_help(self) -> None:
        async def scene() -> None:
            this = Scene(a=says(503, after=b"7"), b=OK)
            this.all[1].max_in_flight = 0
            assert (await this.ask()).end == 503

        run(scene)

    def test_the_busier_of_two_gets_nothing(self) -> None:
        async def scene() -> None:
            this = Scene(a=OK, b=OK)
            this.all[0].in_flight = 5
            for _ in range(50):
                async with this.send() as _:
                    assert [endpoint.in_flight for endpoint in this.all] == [5, 1]
            assert set(this.fleet.visited) == {"b"}

        run(scene)


# -- counting, and leaving -------------------------------------------------------------------------------------------


class TestInFlight:
    def test_from_the_sending_to_the_last_byte(self) -> None:
        async def scene() -> None:
            this = Scene(a=(Head(), b"a"))
            sending = this.send()
            assert this.all[0].in_flight == 0
            async with sending as response:
                assert this.all[0].in_flight == 1
                assert await response.read() == b"a"
                assert this.all[0].in_flight == 1
            assert this.all[0].in_flight == 0
            assert this.fleet.visit.left

        run(scene)

    @pytest.mark.parametrize("where", ["call_for", "on_attempt", "backend"])
    @pytest.mark.parametrize("when", ["first", "second"])
    @pytest.mark.parametrize("trouble", [NOBODY, says(503)], ids=["nobody", "503"])
    def test_a_bug_before_the_sending(self, where: str, when: str, trouble: Script) -> None:
        async def scene() -> None:
            this = Scene(at="a", others=(route("n", "b"),), model={"retries": 0, "fallbacks": ("n",)}, a=trouble, b=OK)
            model = "m" if when == "first" else "n"

            def call_for(route: Route) -> Call:
                if where == "call_for" and route.model == model:
                    raise ZeroDivisionError
                return this.call_for(route)

            def on_attempt(attempt: Attempt) -> Headers:
                if where == "on_attempt" and attempt.model == model:
                    raise ZeroDivisionError
                return []

            if where == "backend":
                del this.fleet.scripts["a" if when == "first" else "b"]
            with pytest.raises((ZeroDivisionError, KeyError)):
                async with this.dispatch.send(this.route, call_for, this.waits, on_attempt, []):
                    raise AssertionError("never entered")
            assert [endpoint.in_flight for endpoint in this.all] == [0, 0]
            assert this.fleet.settled()

        run(scene)

    @pytest.mark.parametrize("trouble", [NOBODY, says(503), says(503, HANG)], ids=["nobody", "503", "endless-503"])
    @pytest.mark.parametrize("after", [0.0, 0.001, 0.01, 0.02, 0.03])
    def test_cancelled_between_two_attempts(self, trouble: Script, after: float) -> None:
        async def scene() -> None:
            this = Scene(a=trouble, b=trouble, c=trouble)
            asking = asyncio.ensure_future(this.ask())
            await asyncio.sleep(after)
            assert sum(endpoint.in_flight for endpoint in this.all) in (0, 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert [endpoint.in_flight for endpoint in this.all] == [0, 0, 0]
            assert this.fleet.settled()

        run(scene)

    def test_a_probe_cancelled_in_its_pause_is_made_again(self) -> None:
        async def scene() -> None:
            this = Scene(a=(Silence(0.5), *NOBODY), b=OK)
            await this.eject("b")
            await asyncio.sleep(0.7)
            asking = asyncio.ensure_future(this.ask())  # waits at a until b may be probed
            await asyncio.sleep(0.505)
            assert this.all[1].standing.probing
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not this.all[1].standing.probing
            assert this.all[1].in_flight == 0

        run(scene)


class TestRefusals:
    def test_read_to_their_end_so_that_the_connection_lives(self) -> None:
        async def scene() -> None:
            this = Scene(a=[says(503, b"x", Silence(0.01), b"y"), OK])
            await this.ask()
            assert [visit.ended for visit in this.fleet.visits] == [True, True]

        run(scene)

    @pytest.mark.parametrize(
        "rest",
        [(HANG,), (b"x", HANG), (b"x" * 10_000,) * 100, (Die(UpstreamFailed(reason="reset")),)],
        ids=["silent", "cut", "large", "reset"],
    )
    def test_but_not_for_ever(self, rest: tuple[Step, ...]) -> None:
        async def scene() -> None:
            since = asyncio.get_running_loop().time()
            this = Scene(a=[says(503, *rest), OK])
            assert (await this.ask()).end == 200
            assert asyncio.get_running_loop().time() - since <= DRAIN_SECONDS + 0.025
            assert this.fleet.visits[0].left
            assert this.fleet.visits[0].reads <= 8

        run(scene)

    def test_the_last_one_is_left_to_the_reader(self) -> None:
        async def scene() -> None:
            this = Scene(a=says(429, b"whole", b" body"))
            async with this.send() as response:
                assert (response.status, this.all[0].in_flight) == (429, 1)
                assert await response.read() + await response.read() == b"whole body"

        run(scene)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"3")], 3),
        ([(b"retry-after", b"0.5")], 0.5),
        ([(b"retry-after", b"3"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after", b"3"), (b"retry-after-ms", b"soon")], 3),
        ([(b"retry-after", b"Fri, 31 Dec 1999 23:59:59 GMT")], None),
        ([(b"retry-after", b"-1")], None),
        ([(b"retry-after", b".")], None),
        ([(b"retry-after", b"")], None),
        ([(b"retry-after", b"\xb2")], None),
    ],
)
def test_retry_after(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert retry_after(headers) == seconds
