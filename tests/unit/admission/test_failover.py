"""Redis goes away and comes back: who is served meanwhile, by what limits, and where each grant is settled."""

import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from tests.fakes.clock import ManualClock
from tests.unit.admission.told import ALIAS, COLLEAGUE, LISTED, LLAMA, WHO, numbers
from weir.admission.failover import KEPT_SECONDS, FailoverLimiter, OnOutage
from weir.admission.known import KNOWN_SECONDS, Known
from weir.admission.limiter import Grant
from weir.core.errors import (
    ConcurrencyExceeded,
    LimitExceeded,
    ModelNotFound,
    RequestsExceeded,
    RequestTooLargeForLimit,
    StoreUnavailable,
    TokensExceeded,
    Unauthenticated,
)
from weir.core.types import Ask, Limits, Principal, Window

T = TypeVar("T")
NONE = Limits()
MODES: tuple[OnOutage, ...] = ("degrade", "closed", "open")


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits for Redis")


class Shared:
    """See `Limiter`: admits everybody whom nothing `refuses`, and tells `known` as the one on Redis does."""

    def __init__(self, known: Known, key: Limits, team: Limits) -> None:
        self.known = known
        self.key, self.team = key, team
        self.away = False
        self.refuses: Unauthenticated | ModelNotFound | None = None
        self.settled: list[tuple[str, int | None]] = []
        self._count = 0

    async def take(self, principal: Principal, ask: Ask) -> Grant:
        if self.away:
            raise StoreUnavailable(reason="redis is away", retry_after=2.0, sent=True)
        if isinstance(self.refuses, ModelNotFound):
            self.known.forbid(principal, ask, "key")
            raise self.refuses
        if self.refuses is not None:
            self.known.forget(principal, revoked=True)
            raise self.refuses
        self.known.note(principal, ask, numbers(self.key, self.team))
        self._count += 1
        return Grant(f"shared-{self._count}", principal, 20, 10, bounded=True, held=True, windows=())

    def settle(self, grant: Grant, tokens: int | None) -> None:
        self.settled.append((grant.id, tokens))

    async def standing(self, principal: Principal) -> Sequence[Window]:
        if self.away:
            raise StoreUnavailable(reason="redis is away", retry_after=2.0)
        return (Window("key", "requests", 1, 1, 60, 0.0),)


class Gate:
    """A limiter that stands in for another, its clock, and how many replicas there are."""

    def __init__(
        self,
        mode: OnOutage = "degrade",
        key: Limits = NONE,
        team: Limits = NONE,
        replicas: int = 1,
    ) -> None:
        self.clock = ManualClock()
        self.known = Known(self.clock)
        self.shared = Shared(self.known, key, team)
        self.replicas = replicas
        self.limiter = FailoverLimiter(
            self.shared, self.known, on_outage=mode, replicas=lambda: self.replicas, clock=self.clock
        )

    def take(self, who: Principal = WHO, ask: Ask = LLAMA) -> Grant:
        return now(self.limiter.take(who, ask))

    def seen(self, who: Principal = WHO, ask: Ask = LLAMA) -> "Gate":
        """Admitted, settled, and then Redis goes."""
        self.shared.away = False
        self.limiter.settle(self.take(who, ask), 0)
        self.shared.away = True
        return self

    def left(self, who: Principal = WHO) -> dict[str, int]:
        return {f"{w.scope} {w.unit}": w.remaining for w in now(self.limiter.standing(who))}

    def unavailable(self, work: Any) -> StoreUnavailable:
        with pytest.raises(StoreUnavailable) as raised:
            now(work)
        return raised.value


# -- who is served


def known(gate: Gate) -> Ask:
    gate.seen()
    return LLAMA


def unknown(gate: Gate) -> Ask:
    gate.seen(COLLEAGUE)
    return LLAMA


def revoked(gate: Gate) -> Ask:
    gate.seen()
    gate.shared.away, gate.shared.refuses = False, Unauthenticated(reason="revoked")
    with pytest.raises(Unauthenticated):
        gate.take()
    gate.shared.away = True
    return LLAMA


def an_hour_ago(gate: Gate) -> Ask:
    gate.seen()
    gate.clock.advance(KNOWN_SECONDS)
    return LLAMA


def over_an_hour_ago(gate: Gate) -> Ask:
    gate.seen()
    gate.clock.advance(KNOWN_SECONDS + 0.001)
    return LLAMA


def model_never_asked_for(gate: Gate) -> Ask:
    gate.seen()
    return ALIAS


def model_never_asked_for_with_a_list(gate: Gate) -> Ask:
    gate.shared.key = LISTED
    gate.seen()
    return ALIAS


def model_asked_for_with_a_list(gate: Gate) -> Ask:
    gate.shared.key = LISTED
    gate.seen()
    return LLAMA


def model_taken_away(gate: Gate) -> Ask:
    gate.seen()
    gate.shared.away, gate.shared.refuses = False, ModelNotFound()
    with pytest.raises(ModelNotFound):
        gate.take()
    gate.shared.away = True
    return LLAMA


WHO_IS_SERVED = [
    (known, True),
    (unknown, False),
    (revoked, False),
    (an_hour_ago, True),
    (over_an_hour_ago, False),
    (model_never_asked_for, True),
    (model_never_asked_for_with_a_list, False),
    (model_asked_for_with_a_list, True),
    (model_taken_away, False),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("story", "served"), WHO_IS_SERVED, ids=[row[0].__name__ for row in WHO_IS_SERVED])
def test_who_is_served(mode: OnOutage, story: Any, served: bool) -> None:
    gate = Gate(mode)
    ask = story(gate)
    if served and mode != "closed":
        grant = gate.take(ask=ask)
        assert (grant.degraded, grant.principal, grant.tokens, grant.output_tokens) == (True, WHO, 20, 10)
        assert gate.limiter.standing_in
    else:
        assert gate.unavailable(gate.limiter.take(WHO, ask)).retry_after == 2.0
        assert not gate.limiter.standing_in


@pytest.mark.parametrize("mode", MODES)
def test_while_redis_answers_nothing_is_different(mode: OnOutage) -> None:
    gate = Gate(mode, Limits(rpm=1))
    grants = [gate.take() for _ in range(5)]
    assert not any(grant.degraded for grant in grants)
    gate.limiter.settle(grants[0], 7)
    assert gate.shared.settled == [(grants[0].id, 7)]
    assert gate.left() == {"key requests": 1}


def test_in_an_outage_nobody_becomes_good_for_longer() -> None:
    gate = Gate().seen()
    for _ in range(4):
        gate.take()
        gate.clock.advance(KNOWN_SECONDS / 4)
    gate.take()
    gate.clock.advance(1)
    gate.unavailable(gate.limiter.take(WHO, LLAMA))


# -- without limits


def test_open_knows_no_limits() -> None:
    gate = Gate("open", Limits(rpm=1, tpm=100, concurrency=1)).seen()
    grants = [gate.take(ask=Ask("llama", "llama", 10, None, 3, 4096)) for _ in range(5)]
    assert len({grant.id for grant in grants}) == 5
    for grant in grants:
        assert (grant.tokens, grant.output_tokens) == (10 + 3 * 4096, 4096)
        assert (grant.held, grant.bounded, tuple(grant.windows)) == (False, False, ())
        gate.limiter.settle(grant, 10**6)
    assert gate.shared.settled[1:] == []
    assert gate.left() == {}


# -- with a share of each limit

KEY = Limits(rpm=9, tpm=900, concurrency=7)
SHARES = [
    # id                       limits of key           replicas   requests  tokens  places
    pytest.param(KEY, 1, 9, 900, 7, id="alone-all-of-it"),
    pytest.param(KEY, 2, 4, 450, 3, id="rounded-down"),
    pytest.param(KEY, 9, 1, 100, 1, id="at-least-one"),
    pytest.param(KEY, 1000, 1, 1, 1, id="at-least-one-of-each"),
    pytest.param(Limits(9, 900, 7, 20), 2, 1, 150, 3, id="the-burst-stays"),
]


@pytest.mark.parametrize(("key", "replicas", "requests", "tokens", "places"), SHARES)
def test_a_share_of_the_limit_is_the_limit(key: Limits, replicas: int, requests: int, tokens: int, places: int) -> None:
    gate = Gate(key=key, team=key, replicas=replicas).seen()
    expected = {"requests": requests, "tokens": tokens, "concurrency": places}
    assert gate.left() == {f"{scope} {unit}": left for scope in ("key", "team") for unit, left in expected.items()}
    assert all(w.seconds in (0, key.burst_seconds) for w in now(gate.limiter.standing(WHO)))


ENFORCED = [
    # id               key                    replicas   how many pass   then
    pytest.param(Limits(rpm=10), 2, 5, RequestsExceeded, id="requests"),
    pytest.param(Limits(tpm=400), 2, 10, TokensExceeded, id="tokens"),
    pytest.param(Limits(concurrency=7), 2, 3, ConcurrencyExceeded, id="places"),
    pytest.param(Limits(rpm=1), 5, 1, RequestsExceeded, id="one"),
]


@pytest.mark.parametrize(("limits", "replicas", "passing", "refusal"), ENFORCED)
@pytest.mark.parametrize("scope", ["key", "team"])
def test_it_is_enforced(scope: str, limits: Limits, replicas: int, passing: int, refusal: type[LimitExceeded]) -> None:
    gate = Gate(replicas=replicas, **{scope: limits}).seen().seen(COLLEAGUE)
    for number in range(passing):
        gate.take(COLLEAGUE if scope == "team" and number % 2 else WHO)
    with pytest.raises(refusal) as refused:
        gate.take()
    assert refused.value.window.scope == scope


def test_a_limit_in_shadow_stays_in_shadow() -> None:
    gate = Gate(key=Limits(rpm=1, shadow=frozenset({"requests"}))).seen()
    assert gate.take().shadow_refusals == ()
    assert gate.take().shadow_refusals == ("key requests",)


def test_settling_gives_back_here() -> None:
    gate = Gate(key=Limits(rpm=10, tpm=1_000, concurrency=5)).seen()
    grant = gate.take()
    assert gate.left() == {"key requests": 9, "key tokens": 980, "key concurrency": 4}
    for _ in range(2):
        gate.limiter.settle(grant, 5)
    assert gate.left() == {"key requests": 9, "key tokens": 995, "key concurrency": 5}
    assert len(gate.shared.settled) == 1, "that before the outage"


def test_a_long_request_keeps_its_place() -> None:
    gate = Gate(key=Limits(concurrency=1)).seen()
    gate.take()
    gate.clock.advance(KNOWN_SECONDS - 1)
    with pytest.raises(ConcurrencyExceeded):
        gate.take()


def test_what_only_the_share_is_too_small_for_is_told_to_come_back() -> None:
    gate = Gate(key=Limits(tpm=1_000), replicas=4).seen()
    assert gate.take(ask=Ask("llama", "llama", 50, 200)).tokens == 250
    assert gate.unavailable(gate.limiter.take(WHO, Ask("llama", "llama", 50, 201))).retry_after == 2.0
    with pytest.raises(RequestTooLargeForLimit):
        gate.take(ask=Ask("llama", "llama", 50, 951))


def test_an_open_request_is_cut_to_the_share() -> None:
    gate = Gate(key=Limits(tpm=1_000), replicas=4).seen()
    grant = gate.take(ask=Ask("llama", "llama", 50, None))
    assert (grant.tokens, grant.output_tokens, grant.bounded) == (250, 200, True)


# -- what it says of the limits

STANDING = [
    pytest.param("degrade", {"key requests": 4}, id="degrade"),
    pytest.param("open", {}, id="open"),
    pytest.param("closed", None, id="closed"),
]


@pytest.mark.parametrize(("mode", "told"), STANDING)
def test_standing(mode: OnOutage, told: dict[str, int] | None) -> None:
    gate = Gate(mode, Limits(rpm=8), replicas=2).seen()
    if told is None:
        gate.unavailable(gate.limiter.standing(WHO))
    else:
        assert gate.left() == told
    assert gate.unavailable(gate.limiter.standing(COLLEAGUE)).retry_after == 2.0


# -- Redis comes back


def test_a_grant_of_before_the_outage_is_settled_where_it_came_from() -> None:
    gate = Gate()
    grant = gate.take()
    gate.shared.away = True
    gate.limiter.settle(grant, 5)
    assert gate.shared.settled == [(grant.id, 5)]


def test_when_redis_is_back_it_decides_and_the_next_outage_begins_with_full_buckets() -> None:
    gate = Gate(key=Limits(tpm=1, burst_seconds=86_400)).seen()
    full = gate.left()["key tokens"]
    held = gate.take()
    assert gate.limiter.standing_in
    gate.shared.away = False
    assert not gate.take().degraded
    assert not gate.limiter.standing_in
    gate.clock.advance(KEPT_SECONDS + 1)
    gate.take()
    gate.shared.away = True
    assert gate.left()["key tokens"] == full
    gate.limiter.settle(held, None)
    assert gate.left()["key tokens"] == full, "what was taken in another outage"


def test_who_stumbles_gives_nobody_a_second_bucket() -> None:
    """Every second command comes too late: those pass by the share, and not each by a new one."""
    gate = Gate(key=Limits(rpm=5, burst_seconds=60)).seen()
    passed = 0
    for _ in range(50):
        gate.shared.away = True
        with contextlib.suppress(RequestsExceeded):
            passed += gate.take().degraded
        gate.shared.away = False
        gate.take()
    assert passed == 5


def test_a_grant_of_the_last_outage_is_not_mistaken_for_one_of_this() -> None:
    gate = Gate(key=Limits(rpm=60, concurrency=2)).seen()
    old = gate.take()
    gate.clock.advance(KEPT_SECONDS + 1)
    gate.seen()
    new = gate.take()
    assert old.id != new.id
    gate.limiter.settle(old, None)
    assert gate.left()["key concurrency"] == 1
    gate.limiter.settle(new, None)
    assert gate.left()["key concurrency"] == 2


def test_who_is_refused_by_redis_is_forgotten_however_it_was_asked() -> None:
    gate = Gate().seen()
    gate.take()
    revoked(gate)
    gate.unavailable(gate.limiter.standing(WHO))
