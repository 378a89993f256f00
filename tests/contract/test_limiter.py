"""The port `Limiter`, promise by promise, on everything that implements it.

Rates are slow and bursts are long, so that the seconds which a busy machine takes change no whole number: where time is
real, a retry may only be shorter by what has passed meanwhile (`World.about`).
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from tests.contract.world import LEASE, World, ask, real_time_world
from tests.fakes.redis_server import RedisServer
from weir.core.errors import (
    ConcurrencyExceeded,
    LimitExceeded,
    ModelNotFound,
    RequestsExceeded,
    RequestTooLargeForLimit,
    TokensExceeded,
    Unauthenticated,
)
from weir.core.types import Ask, Limits, Window

NONE = Limits()
TWO_REQUESTS = Limits(rpm=1, burst_seconds=120)  # one comes back every 60 seconds
HUNDRED_TOKENS = Limits(tpm=10, burst_seconds=600)  # one comes back every 6 seconds
TWO_PLACES = Limits(concurrency=2)
WIDE = Limits(rpm=1, tpm=10, concurrency=50, burst_seconds=6_000)  # 100 requests, 1000 tokens


def shadow(limits: Limits, *units: Any) -> Limits:
    return Limits(
        limits.rpm, limits.tpm, limits.concurrency, limits.burst_seconds, limits.models, frozenset(units or ("tokens",))
    )


# -- admission and refusal


class Refusal(NamedTuple):
    id: str
    key: Limits
    team: Limits
    before: Sequence[Ask]
    request: Ask
    error: type[LimitExceeded]
    which: str
    needed: int
    retry_after: float | None


REFUSALS = [
    Refusal("key-requests", TWO_REQUESTS, NONE, [ask()] * 2, ask(), RequestsExceeded, "key requests", 1, 60.0),
    Refusal("team-requests", NONE, TWO_REQUESTS, [ask()] * 2, ask(), RequestsExceeded, "team requests", 1, 60.0),
    Refusal("key-tokens", HUNDRED_TOKENS, NONE, [ask(30, 30)], ask(25, 25), TokensExceeded, "key tokens", 50, 60.0),
    Refusal("team-tokens", NONE, HUNDRED_TOKENS, [ask(30, 30)], ask(25, 25), TokensExceeded, "team tokens", 50, 60.0),
    Refusal("one-token-short", HUNDRED_TOKENS, NONE, [ask(50, 40)], ask(1, 10), TokensExceeded, "key tokens", 11, 6.0),
    Refusal("key-places", TWO_PLACES, NONE, [ask()] * 2, ask(), ConcurrencyExceeded, "key concurrency", 1, 1.0),
    Refusal("team-places", NONE, TWO_PLACES, [ask()] * 2, ask(), ConcurrencyExceeded, "team concurrency", 1, 1.0),
    Refusal("key-too-large", HUNDRED_TOKENS, NONE, [], ask(1, 100), RequestTooLargeForLimit, "key tokens", 101, None),
    Refusal("team-too-large", NONE, HUNDRED_TOKENS, [], ask(1, 100), RequestTooLargeForLimit, "team tokens", 101, None),
    Refusal(
        "choices-multiply-the-answer-not-the-prompt",
        HUNDRED_TOKENS,
        NONE,
        [],
        ask(10, 31, choices=3),
        RequestTooLargeForLimit,
        "key tokens",
        103,
        None,
    ),
    Refusal(
        "an-open-answer-needs-one-token-a-choice",
        HUNDRED_TOKENS,
        NONE,
        [],
        ask(100, None, choices=2),
        RequestTooLargeForLimit,
        "key tokens",
        102,
        None,
    ),
    Refusal(
        "the-longest-wait-is-told",
        TWO_REQUESTS,
        Limits(tpm=10, burst_seconds=600),
        [ask(30, 20), ask(30, 20)],
        ask(10, 20),
        TokensExceeded,
        "team tokens",
        30,
        180.0,
    ),
    Refusal(
        "the-longest-wait-is-told-wherever-it-is",
        HUNDRED_TOKENS,
        TWO_REQUESTS,
        [ask(30, 20), ask(30, 20)],
        ask(1, 1),
        RequestsExceeded,
        "team requests",
        1,
        60.0,
    ),
    Refusal(
        "never-is-longer-than-any-wait",
        Limits(rpm=1, concurrency=1, burst_seconds=60),
        HUNDRED_TOKENS,
        [ask()],
        ask(101, 1),
        RequestTooLargeForLimit,
        "team tokens",
        102,
        None,
    ),
    Refusal(
        "a-known-wait-is-told-before-a-place",
        Limits(rpm=1, concurrency=1, burst_seconds=60),
        NONE,
        [ask()],
        ask(),
        RequestsExceeded,
        "key requests",
        1,
        60.0,
    ),
    Refusal(
        "of-equals-the-key-is-told",
        TWO_REQUESTS,
        TWO_REQUESTS,
        [ask()] * 2,
        ask(),
        RequestsExceeded,
        "key requests",
        1,
        60.0,
    ),
    Refusal(
        "a-free-key-does-not-help-a-full-team",
        Limits(rpm=1, tpm=10, concurrency=10, burst_seconds=6_000),
        Limits(tpm=10, burst_seconds=600),
        [ask(90, 10)],
        ask(1, 1),
        TokensExceeded,
        "team tokens",
        2,
        12.0,
    ),
    Refusal(
        "a-free-team-does-not-help-a-full-key",
        HUNDRED_TOKENS,
        WIDE,
        [ask(90, 10)],
        ask(1, 1),
        TokensExceeded,
        "key tokens",
        2,
        12.0,
    ),
    Refusal(
        "a-shadow-does-not-hide-the-limit-beside-it",
        shadow(HUNDRED_TOKENS, "tokens"),
        TWO_PLACES,
        [ask(500, 0)] * 2,
        ask(500, 0),
        ConcurrencyExceeded,
        "team concurrency",
        1,
        1.0,
    ),
]


@pytest.mark.parametrize("row", REFUSALS, ids=lambda row: row.id)
async def test_a_refusal_says_which_limit_and_when_to_come_back_and_changes_nothing(world: World, row: Refusal) -> None:
    principal = await world.caller(row.key, row.team)
    for request in row.before:
        await world.limiter.take(principal, request)
    before = await world.snapshot(principal)

    refusal = await world.refused(principal, row.request)

    assert type(refusal) is row.error
    assert f"{refusal.window.scope} {refusal.window.unit}" == row.which
    assert refusal.needed == row.needed
    assert refusal.window in refusal.windows
    if row.retry_after is None:
        assert refusal.retry_after is None
    else:
        assert world.about(row.retry_after, refusal.retry_after), refusal.retry_after
    assert refusal.should_retry is (None if row.retry_after is not None and row.retry_after <= 60 else False)
    if not world.slack:
        assert list(refusal.windows) == list(await world.limiter.standing(principal))
        assert await world.snapshot(principal) == before
    else:
        assert _without_use(await world.snapshot(principal)) == _without_use(before)


def _without_use(snapshot: dict[bytes, Any]) -> dict[bytes, Any]:
    """`used` is written at most once a minute, and a real minute may pass; it is nobody's limit."""
    return {
        name: {field: v for field, v in value.items() if field != b"used"} if isinstance(value, dict) else value
        for name, value in snapshot.items()
    }


@pytest.mark.parametrize("row", [r for r in REFUSALS if r.retry_after and r.retry_after != 1.0], ids=lambda row: row.id)
async def test_it_is_refused_a_microsecond_before_the_told_time_and_admitted_then(
    timed_world: World, row: Refusal
) -> None:
    world = timed_world
    principal = await world.caller(row.key, row.team)
    for request in row.before:
        world.limiter.settle(
            await world.limiter.take(principal, request), request.prompt_tokens + request.output_tokens
        )
    await world.heard()
    refusal = await world.refused(principal, row.request)
    assert refusal.retry_after is not None

    world.clock.now += round(refusal.retry_after * 1e6) - 1
    again = await world.refused(principal, row.request)
    assert again.retry_after == pytest.approx(1e-6)
    world.clock.now += 1
    await world.limiter.take(principal, row.request)


ADMISSIONS = [
    # id                                key             team            before             the request
    ("no-limits-at-all", NONE, NONE, [], ask(10**6, 10**6)),
    ("to-the-last-token", HUNDRED_TOKENS, HUNDRED_TOKENS, [ask(30, 30)], ask(20, 20)),
    ("the-whole-bucket-at-once", HUNDRED_TOKENS, NONE, [], ask(0, 100)),
    ("choices-that-fit", HUNDRED_TOKENS, NONE, [], ask(10, 30, choices=3)),
    ("more-than-anybody-can-want", NONE, TWO_REQUESTS, [], ask(10**7, 2**31 - 1, choices=128)),
    ("the-last-request", TWO_REQUESTS, TWO_REQUESTS, [ask()], ask()),
    ("the-last-place", TWO_PLACES, TWO_PLACES, [ask()], ask()),
    ("nothing-to-pay-with-an-empty-bucket", HUNDRED_TOKENS, NONE, [ask(50, 50)], ask(0, 0)),
]


@pytest.mark.parametrize(
    ("key", "team", "before", "request_"), [r[1:] for r in ADMISSIONS], ids=[r[0] for r in ADMISSIONS]
)
async def test_what_fits_is_admitted(
    world: World, key: Limits, team: Limits, before: Sequence[Ask], request_: Ask
) -> None:
    principal = await world.caller(key, team)
    for one in before:
        await world.limiter.take(principal, one)
    grant = await world.limiter.take(principal, request_)
    assert grant.tokens == request_.prompt_tokens + (request_.output_tokens or 0) * request_.choices
    assert grant.output_tokens == request_.output_tokens
    assert grant.principal == principal
    assert grant.shadow_refusals == ()


async def test_every_grant_has_an_id_of_its_own(world: World) -> None:
    principal = await world.caller(WIDE, WIDE)
    ids = {(await world.limiter.take(principal, ask())).id for _ in range(20)}
    assert len(ids) == 20


async def test_key_and_team_both_count_and_colleagues_share_the_team_alone(world: World) -> None:
    principal = await world.caller(WIDE, WIDE)
    colleague = await world.colleague(principal, WIDE)
    stranger = await world.caller(WIDE, WIDE)

    await world.limiter.take(principal, ask(60, 40))
    await world.limiter.take(colleague, ask(10, 20, choices=2))

    for who, key_tokens, key_requests, key_places in ((principal, 900, 99, 49), (colleague, 950, 99, 49)):
        assert await world.left(who, "key tokens") == key_tokens
        assert await world.left(who, "key requests") == key_requests
        assert await world.left(who, "key concurrency") == key_places
        assert await world.left(who, "team tokens") == 850
        assert await world.left(who, "team requests") == 98
        assert await world.left(who, "team concurrency") == 48
    assert [w.remaining for w in await world.limiter.standing(stranger)] == [100, 1000, 50] * 2


async def test_a_team_limit_refuses_the_colleague_whose_own_key_is_untouched(world: World) -> None:
    principal = await world.caller(NONE, Limits(rpm=1, tpm=10, concurrency=1, burst_seconds=600))
    colleague = await world.colleague(principal, WIDE)
    grant = await world.limiter.take(principal, ask())
    refusal = await world.refused(colleague, ask())
    assert (refusal.window.scope, refusal.window.unit) == ("team", "concurrency")
    assert await world.left(colleague, "key tokens") == 1000
    world.limiter.settle(grant, 20)
    await world.heard()
    await world.limiter.take(colleague, ask())


async def test_windows_tell_every_limit_in_order_with_its_size_and_its_reset(timed_world: World) -> None:
    world = timed_world
    principal = await world.caller(Limits(rpm=60, concurrency=5, burst_seconds=30), Limits(tpm=600, burst_seconds=120))
    grant = await world.limiter.take(principal, ask(100, 200))
    expected = [
        Window("key", "requests", 30, 29, 30, 1.0),
        Window("key", "concurrency", 5, 4, 0, 0.0),
        Window("team", "tokens", 1200, 900, 120, 30.0),
    ]
    assert list(grant.windows) == expected
    assert list(await world.limiter.standing(principal)) == expected
    world.wait(0.5)
    assert (await world.limiter.standing(principal))[0] == Window("key", "requests", 30, 29, 30, 0.5)
    world.wait(0.5)
    assert (await world.limiter.standing(principal))[0] == Window("key", "requests", 30, 30, 30, 0.0)


async def test_looking_takes_nothing_and_leaves_no_trace(world: World) -> None:
    principal = await world.caller(WIDE, WIDE)
    await world.limiter.take(principal, ask())
    before = await world.snapshot(principal)
    for _ in range(5):
        await world.limiter.standing(principal)
    assert await world.snapshot(principal) == before


HELD = [
    ("no-limit", NONE, NONE, False),
    ("a-key-limit", TWO_REQUESTS, NONE, True),
    ("a-team-limit", NONE, HUNDRED_TOKENS, True),
    ("a-place", NONE, TWO_PLACES, True),
]


@pytest.mark.parametrize(("key", "team", "held"), [r[1:] for r in HELD], ids=[r[0] for r in HELD])
async def test_held_says_whether_there_is_anything_to_give_back(
    world: World, key: Limits, team: Limits, held: bool
) -> None:
    grant = await world.limiter.take(await world.caller(key, team), ask())
    assert grant.held is held
    world.limiter.settle(grant, 5)
    await world.heard()


# -- settlement

SETTLEMENTS = [
    # id              reserved  used    tokens left of 1000   requests left of 100
    ("less", 100, 30, 970, 99),
    ("one-less", 100, 99, 901, 99),
    ("just-that", 100, 100, 900, 99),
    ("one-more", 100, 101, 899, 99),
    ("more", 100, 150, 850, 99),
    ("nothing-but-the-request", 100, 0, 1000, 99),
    ("far-more-is-debt", 100, 1500, -500, 99),
    ("more-than-anybody-can-have-used", 100, 10**12, None, 99),  # an upstream that counts wrongly
    ("released", 100, None, 1000, 100),
]


@pytest.mark.parametrize(
    ("reserved", "used", "tokens", "requests"), [r[1:] for r in SETTLEMENTS], ids=[r[0] for r in SETTLEMENTS]
)
async def test_settlement_charges_what_was_used_in_key_and_team_and_only_once(
    world: World, reserved: int, used: int | None, tokens: int | None, requests: int
) -> None:
    principal = await world.caller(WIDE, WIDE)
    grant = await world.limiter.take(principal, ask(reserved - 10, 10))
    for scope in ("key", "team"):
        assert await world.left(principal, f"{scope} tokens") == 1000 - reserved
        assert await world.left(principal, f"{scope} concurrency") == 49

    async def check() -> None:
        for scope in ("key", "team"):
            left = await world.left(principal, f"{scope} tokens")
            assert left == tokens if tokens is not None else left < -1_000_000
            assert await world.left(principal, f"{scope} requests") == requests
            assert await world.left(principal, f"{scope} concurrency") == 50

    world.limiter.settle(grant, used)
    await world.heard()
    await check()
    for again in (used, 0, None, 77, 10**6):
        world.limiter.settle(grant, again)
    await world.heard()
    await check()


async def test_a_settlement_in_between_is_not_mistaken_for_another(world: World) -> None:
    """Out of order, and each with its own amount."""
    principal = await world.caller(WIDE, WIDE)
    grants = [await world.limiter.take(principal, ask(100, 0)) for _ in range(5)]
    for grant, used in zip(reversed(grants), (None, 10, 100, 130, 0), strict=True):
        world.limiter.settle(grant, used)
        world.limiter.settle(grant, None)
    await world.heard()
    for scope in ("key", "team"):
        assert await world.left(principal, f"{scope} tokens") == 1000 - 10 - 100 - 130
        assert await world.left(principal, f"{scope} requests") == 96
        assert await world.left(principal, f"{scope} concurrency") == 50


async def test_debt_is_paid_before_anybody_passes(timed_world: World) -> None:
    world = timed_world
    principal = await world.caller(HUNDRED_TOKENS)
    world.limiter.settle(await world.limiter.take(principal, ask(50, 0)), 150)
    await world.heard()
    assert await world.left(principal, "key tokens") == -50

    refusal = await world.refused(principal, ask(10, 0))
    assert refusal.retry_after == pytest.approx((50 + 10) * 6.0)
    assert refusal.window.remaining == -50
    assert refusal.window.reset == pytest.approx((50 + 100) * 6.0)
    world.wait(60 * 6.0)
    await world.limiter.take(principal, ask(10, 0))
    assert await world.left(principal, "key tokens") == 0


async def test_debt_of_requests_cannot_be_made(world: World) -> None:
    principal = await world.caller(TWO_REQUESTS)
    grants = [await world.limiter.take(principal, ask()) for _ in range(2)]
    for grant in grants:
        world.limiter.settle(grant, 10**6)
    await world.heard()
    assert await world.left(principal, "key requests") == 0


@pytest.mark.parametrize("used", [None, 0, 5, 5_000], ids=["released", "nothing", "less", "more"])
async def test_a_caller_who_is_gone_meanwhile_can_neither_ask_nor_disturb(world: World, used: int | None) -> None:
    """Its last request ends like any other: settling raises nothing, and brings nothing back."""
    principal = await world.caller(WIDE, WIDE)
    grant = await world.limiter.take(principal, ask(20, 0))
    await world.dismiss(principal)
    world.limiter.settle(grant, used)
    await world.heard()
    with pytest.raises(Unauthenticated):
        await world.limiter.take(principal, ask())
    with pytest.raises(Unauthenticated):
        await world.limiter.standing(principal)


IDLE = [0.0, 1.0, 5.0, 6.5, 59.0, 61.0, 600.0, 3_600.0]


@pytest.mark.parametrize("idle", IDLE, ids=lambda seconds: f"after-{seconds:g}-s")
async def test_an_excess_is_charged_in_full_however_long_the_request_ran(timed_world: World, idle: float) -> None:
    """Nothing is forgiven: not by a bucket that was full long ago, and not by one that is forgotten when full.

    The key's requests come back slowly and so keep its record alive; the team's record is forgotten earlier.
    """
    world = timed_world
    principal = await world.caller(
        Limits(rpm=1, tpm=600, burst_seconds=3_600), Limits(tpm=600, burst_seconds=60)
    )  # 10 tokens come back a second
    grant = await world.limiter.take(principal, ask(100, 0))
    world.wait(idle)
    world.limiter.settle(grant, 100 + 550)
    await world.heard()
    for scope, full in (("key", 36_000), ("team", 600)):
        assert await world.left(principal, f"{scope} tokens") == min(full, full - 100 + int(idle * 10)) - 550


@pytest.mark.parametrize("idle", IDLE, ids=lambda seconds: f"after-{seconds:g}-s")
async def test_what_is_given_back_never_lifts_a_bucket_above_its_capacity(timed_world: World, idle: float) -> None:
    world = timed_world
    principal = await world.caller(Limits(rpm=1, tpm=600, burst_seconds=600), Limits(rpm=60, tpm=600))
    grants = [await world.limiter.take(principal, ask(100, 0)) for _ in range(3)]
    world.wait(idle)
    for grant in grants:
        world.limiter.settle(grant, None)
    await world.heard()
    for what, full in (("key requests", 10), ("key tokens", 6000), ("team requests", 60), ("team tokens", 600)):
        assert await world.left(principal, what) == full
    await world.limiter.take(principal, ask(600, 0))
    refusal = await world.refused(principal, ask(1, 0))
    assert refusal.window.scope == "team"


# -- concurrency


async def test_a_place_is_free_again_after_settlement(world: World) -> None:
    principal = await world.caller(TWO_PLACES, Limits(concurrency=3))
    first, second = [await world.limiter.take(principal, ask()) for _ in range(2)]
    assert await world.left(principal, "key concurrency") == 0
    assert type(await world.refused(principal, ask())) is ConcurrencyExceeded
    world.limiter.settle(first, 1)
    await world.heard()
    assert await world.left(principal, "key concurrency") == 1
    await world.limiter.take(principal, ask())
    assert type(await world.refused(principal, ask())) is ConcurrencyExceeded
    world.limiter.settle(first, 1)  # again: must not free somebody else's place
    await world.heard()
    assert type(await world.refused(principal, ask())) is ConcurrencyExceeded
    world.limiter.settle(second, None)
    await world.heard()
    await world.limiter.take(principal, ask())


async def test_a_lease_that_nobody_renews_ends_and_the_reservation_stands(timed_world: World) -> None:
    world = timed_world
    principal = await world.caller(
        Limits(tpm=1, concurrency=1, burst_seconds=60_000), Limits(tpm=1, concurrency=1, burst_seconds=60_000)
    )  # 1000 tokens, one a minute
    lost = await world.limiter.take(principal, ask(100, 0))
    world.clock.now += int(LEASE * 1e6) - 1
    assert type(await world.refused(principal, ask())) is ConcurrencyExceeded
    world.clock.now += 1
    assert await world.left(principal, "key concurrency") == 1
    second = await world.limiter.take(principal, ask(100, 0))
    assert await world.left(principal, "key tokens") == 801
    assert await world.left(principal, "team tokens") == 801

    # It was not dead, only slow: what it says now still counts, and frees nobody else's place.
    world.limiter.settle(lost, 10)
    await world.heard()
    assert await world.left(principal, "key tokens") == 891
    assert await world.left(principal, "team tokens") == 891
    assert await world.left(principal, "key concurrency") == 0
    world.limiter.settle(second, 100)
    await world.heard()
    assert await world.left(principal, "team concurrency") == 1


async def test_leases_end_one_by_one(timed_world: World) -> None:
    world = timed_world
    principal = await world.caller(Limits(concurrency=3), Limits(concurrency=10))
    for _ in range(3):
        await world.limiter.take(principal, ask())
        world.wait(10.0)
    for left in (1, 2, 3):
        assert await world.left(principal, "key concurrency") == left - 1
        world.wait(LEASE - 30.0 if left == 1 else 10.0)
        assert await world.left(principal, "key concurrency") == left
        assert await world.left(principal, "team concurrency") == left + 7


async def test_a_place_whose_lease_has_ended_is_counted_nowhere(timed_world: World) -> None:
    world = timed_world
    principal = await world.caller(Limits(concurrency=10), Limits(tpm=10, concurrency=20, burst_seconds=600))
    for _ in range(3):
        await world.limiter.take(principal, ask(10, 0))
    world.wait(LEASE)
    grant = await world.limiter.take(principal, ask(50, 0))
    assert [world.one(grant.windows, f"{scope} concurrency").remaining for scope in ("key", "team")] == [9, 19]
    world.wait(LEASE)
    refusal = await world.refused(principal, ask(99, 0))
    assert [world.one(refusal.windows, f"{scope} concurrency").remaining for scope in ("key", "team")] == [10, 20]


# -- shadow mode

SHADOWS = [
    # id            key                                   team                       before            reports
    ("key-requests", shadow(TWO_REQUESTS, "requests"), WIDE, [ask()] * 2, ("key requests",)),
    ("team-requests", WIDE, shadow(TWO_REQUESTS, "requests"), [ask()] * 2, ("team requests",)),
    ("key-tokens", shadow(HUNDRED_TOKENS, "tokens"), WIDE, [ask(60, 35)], ("key tokens",)),
    ("team-tokens", WIDE, shadow(HUNDRED_TOKENS, "tokens"), [ask(60, 35)], ("team tokens",)),
    ("key-places", shadow(TWO_PLACES, "concurrency"), WIDE, [ask()] * 2, ("key concurrency",)),
    ("team-places", WIDE, shadow(TWO_PLACES, "concurrency"), [ask()] * 2, ("team concurrency",)),
    (
        "all-at-once",
        shadow(Limits(1, 10, 2, 120), "requests", "tokens", "concurrency"),
        shadow(Limits(1, 10, 2, 120), "requests", "tokens", "concurrency"),
        [ask(5, 5)] * 2,
        ("key requests", "key tokens", "key concurrency", "team requests", "team tokens", "team concurrency"),
    ),
]


@pytest.mark.parametrize(("key", "team", "before", "reports"), [r[1:] for r in SHADOWS], ids=[r[0] for r in SHADOWS])
@pytest.mark.parametrize("used", [7, 1000, None], ids=["less", "more", "released"])
async def test_a_shadow_limit_counts_and_reports_and_refuses_nothing(
    world: World, key: Limits, team: Limits, before: Sequence[Ask], reports: tuple[str, ...], used: int | None
) -> None:
    principal = await world.caller(key, team)
    for request in before:
        assert (await world.limiter.take(principal, request)).shadow_refusals == ()
    left = {f"{w.scope} {w.unit}": w.remaining for w in await world.limiter.standing(principal)}

    grant = await world.limiter.take(principal, ask(10, 10))

    assert grant.shadow_refusals == reports
    for window in grant.windows:
        name = f"{window.scope} {window.unit}"
        cost = 0 if name in reports else 20 if window.unit == "tokens" else 1
        assert window.remaining == left[name] - cost, f"{name}: what would have been refused is not charged"
        assert window.shadow is (window.unit in (key if window.scope == "key" else team).shadow)
    world.limiter.settle(grant, used)
    await world.heard()
    for window in await world.limiter.standing(principal):
        name = f"{window.scope} {window.unit}"
        if name in reports:
            expected = left[name]  # nothing was charged, so nothing comes back
        elif window.unit == "tokens":
            expected = left[name] - (used or 0)
        elif window.unit == "requests":
            expected = left[name] - (used is not None)
        else:
            expected = left[name]
        assert window.remaining == expected, name


async def test_a_shadow_limit_that_is_not_reached_counts_like_any_other(world: World) -> None:
    principal = await world.caller(shadow(WIDE, "requests", "tokens", "concurrency"))
    grant = await world.limiter.take(principal, ask(30, 20))
    assert [w.remaining for w in grant.windows] == [99, 950, 49]
    world.limiter.settle(grant, 20)
    await world.heard()
    assert [w.remaining for w in await world.limiter.standing(principal)] == [99, 980, 50]


async def test_a_request_that_a_shadow_limit_can_never_hold_passes_uncapped(world: World) -> None:
    principal = await world.caller(shadow(HUNDRED_TOKENS, "tokens"))
    grant = await world.limiter.take(principal, ask(10, None, default=4096))
    assert (grant.output_tokens, grant.tokens, grant.bounded) == (4096, 4106, False)
    assert grant.shadow_refusals == ("key tokens",)
    assert await world.left(principal, "key tokens") == 100


async def test_what_a_shadow_limit_spared_is_not_forgotten_by_what_another_limit_charged(timed_world: World) -> None:
    """The tokens are far below full when the requests are full again, and both lie in one record."""
    world = timed_world
    principal = await world.caller(shadow(Limits(rpm=60, tpm=60, burst_seconds=60), "tokens"))
    world.limiter.settle(await world.limiter.take(principal, ask(60, 0)), 60)
    await world.heard()
    assert (await world.limiter.take(principal, ask(50, 0))).shadow_refusals == ("key tokens",)
    world.wait(10.0)
    assert await world.left(principal, "key tokens") == 10


# -- an answer whose length nobody asked for

DEFAULTS = [
    # id                            key tpm  team tpm  prompt  choices  default   output  tokens  bounded
    ("no-token-limit", None, None, 100, 1, 4096, 4096, 4196, False),
    ("it-fits", 10_000, 20_000, 100, 1, 4096, 4096, 4196, True),
    ("it-just-fits", 4196, None, 100, 1, 4096, 4096, 4196, True),
    ("cut-by-one", 4195, None, 100, 1, 4096, 4095, 4195, True),
    ("cut-to-the-key", 1000, 2000, 100, 1, 4096, 900, 1000, True),
    ("cut-to-the-team", 5000, 1000, 100, 1, 4096, 900, 1000, True),
    ("cut-for-each-choice", 1000, None, 100, 4, 4096, 225, 1000, True),
    ("cut-down-to-whole-tokens", 1000, None, 101, 4, 4096, 224, 997, True),
    ("at-least-one", 100, None, 99, 1, 4096, 1, 100, True),
]


@pytest.mark.parametrize(
    ("key", "team", "prompt", "choices", "default", "output", "tokens", "bounded"),
    [r[1:] for r in DEFAULTS],
    ids=[r[0] for r in DEFAULTS],
)
async def test_an_open_answer_is_cut_to_what_the_smallest_bucket_can_hold(
    world: World,
    key: int | None,
    team: int | None,
    prompt: int,
    choices: int,
    default: int,
    output: int,
    tokens: int,
    bounded: bool,
) -> None:
    principal = await world.caller(Limits(tpm=key), Limits(tpm=team))
    grant = await world.limiter.take(principal, ask(prompt, None, choices=choices, default=default))
    assert (grant.output_tokens, grant.tokens, grant.bounded) == (output, tokens, bounded)


async def test_it_is_cut_to_the_capacity_and_not_to_what_is_left(world: World) -> None:
    """Else a burst would quietly shorten answers instead of saying when to come back."""
    principal = await world.caller(HUNDRED_TOKENS)
    await world.limiter.take(principal, ask(30, 30))
    refusal = await world.refused(principal, ask(10, None))
    assert type(refusal) is TokensExceeded
    assert refusal.needed == 100


async def test_a_shadow_limit_cuts_nothing_but_the_other_one_does(world: World) -> None:
    principal = await world.caller(shadow(Limits(tpm=50), "tokens"), Limits(tpm=1000))
    grant = await world.limiter.take(principal, ask(10, None))
    assert (grant.output_tokens, grant.bounded) == (990, True)


# -- models

ALLOWED = [
    # id                     key                team         model            asked as    passes
    ("no-patterns", (), (), "m", "m", True),
    ("star", ("*",), ("*",), "m", "m", True),
    ("exact", ("llama-3",), (), "llama-3", "llama-3", True),
    ("not-in-the-list", ("llama-3", "qwen"), (), "llama-4", "llama-4", False),
    ("prefix", ("llama-*",), (), "llama-4", "llama-4", True),
    ("suffix", ("*-mini",), (), "gpt-4o-mini", "gpt-4o-mini", True),
    ("middle", ("gpt-*-mini",), (), "gpt-4o-mini", "gpt-4o-mini", True),
    ("not-a-substring", ("llama",), (), "llama-4", "llama-4", False),
    ("not-the-beginning-alone", ("4o",), (), "gpt-4o", "gpt-4o", False),
    ("a-dot-is-a-dot", ("llama-3.3",), (), "llama-3x3", "llama-3x3", False),
    ("a-dash-is-a-dash", ("a-b",), (), "ab", "ab", False),
    ("a-plus-is-a-plus", ("c+*",), (), "c+x", "c+x", True),
    ("a-plus-is-no-repeat", ("c+",), (), "cc", "cc", False),
    ("one-letter", ("gpt-?",), (), "gpt-4", "gpt-4", True),
    ("one-letter-is-one", ("gpt-?",), (), "gpt-4o", "gpt-4o", False),
    ("path-and-tag", ("meta-llama/*:8b",), (), "meta-llama/Llama-3:8b", "meta-llama/Llama-3:8b", True),
    ("case-matters", ("Llama",), (), "llama", "llama", False),
    ("by-its-alias", ("gpt-4o*",), (), "llama-3", "gpt-4o-mini", True),
    ("by-its-name", ("llama-*",), (), "llama-3", "gpt-4o-mini", True),
    ("the-team-too", ("llama-*",), ("qwen*",), "llama-3", "llama-3", False),
    ("team-alone", (), ("qwen*",), "llama-3", "llama-3", False),
    ("both", ("llama-*",), ("*-3",), "llama-3", "llama-3", True),
    ("key-by-alias-team-by-name", ("gpt-*",), ("llama-*",), "llama-3", "gpt-4o", True),
    ("a-star-among-others", ("a", "*"), (), "b", "b", True),
]


@pytest.mark.parametrize(
    ("key", "team", "model", "asked_as", "passes"), [r[1:] for r in ALLOWED], ids=[r[0] for r in ALLOWED]
)
async def test_a_model_must_be_allowed_to_key_and_team(
    world: World, key: tuple[str, ...], team: tuple[str, ...], model: str, asked_as: str, passes: bool
) -> None:
    principal = await world.caller(Limits(tpm=1000, models=key), Limits(rpm=10, models=team))
    request = ask(model=model, asked_as=asked_as)
    if passes:
        await world.limiter.take(principal, request)
    else:
        before = await world.snapshot(principal)
        with pytest.raises(ModelNotFound):
            await world.limiter.take(principal, request)
        assert await world.snapshot(principal) == before
        # Looking asks for no model.
        assert len(await world.limiter.standing(principal)) == 2


@pytest.mark.parametrize("glob", ["*" * 7 + "b", "*a*a*a*a*a*a*a*b", "*" + "?" * 40 + "*b"])
async def test_a_pattern_of_many_stars_does_not_hold_up_redis(own_redis: RedisServer, glob: str) -> None:
    """Whoever may write a pattern must not be able to stop everybody: with backtracking the first takes a second."""
    async with real_time_world(own_redis.url) as world:
        principal = await world.caller(Limits(models=(glob,)))
        with pytest.raises(ModelNotFound):
            await world.limiter.take(principal, ask(model="a" * 100))
        stats = await world.redis.info("commandstats")
        spent = sum(stats[f"cmdstat_{name}"]["usec"] for name in ("eval", "evalsha") if f"cmdstat_{name}" in stats)
        assert spent < 200_000, f"{spent} microseconds for one admission"


# -- limits change while requests run


async def test_a_lowered_limit_holds_from_the_next_request_on(world: World) -> None:
    principal = await world.caller(WIDE)
    await world.limiter.take(principal, ask(100, 0))
    await world.change(principal, key=Limits(tpm=1, burst_seconds=6_000))  # 100 tokens
    assert [w.remaining for w in await world.limiter.standing(principal)] == [100]
    assert type(await world.refused(principal, ask(101, 0))) is RequestTooLargeForLimit
    await world.limiter.take(principal, ask(100, 0))
    assert type(await world.refused(principal, ask(1, 0))) is TokensExceeded


async def test_a_raised_limit_gives_its_rate_and_not_a_full_bucket(timed_world: World) -> None:
    world = timed_world
    principal = await world.caller(NONE, Limits(tpm=60))
    await world.limiter.take(principal, ask(60, 0))
    await world.change(principal, team=Limits(tpm=600))
    assert await world.left(principal, "team tokens") == 0
    world.wait(3.0)
    assert await world.left(principal, "team tokens") == 30
    await world.limiter.take(principal, ask(30, 0))


async def test_a_longer_burst_gives_time_to_save_and_not_the_savings(timed_world: World) -> None:
    """Also when the bucket would have been full, and forgotten, under the limits that were."""
    world = timed_world
    principal = await world.caller(Limits(tpm=60, burst_seconds=60))
    await world.limiter.take(principal, ask(60, 0))
    await world.change(principal, key=Limits(tpm=60, burst_seconds=6_000))
    world.wait(1_200.0)
    assert await world.left(principal, "key tokens") == 1_200


async def test_debt_does_not_pass_faster_than_the_limits_of_now_say(timed_world: World) -> None:
    world = timed_world
    principal = await world.caller(NONE, Limits(tpm=6_000))
    world.limiter.settle(await world.limiter.take(principal, ask(6_000, 0)), 12_000)
    await world.heard()
    await world.change(principal, team=Limits(tpm=60))
    world.wait(1_000.0)  # more than enough at the rate that was
    assert await world.left(principal, "team tokens") == -6_000 + 1_000


async def test_a_look_between_two_changes_takes_nothing_away(world: World) -> None:
    """Limits lowered by mistake and put right again: only what was used is gone, whoever looked or was refused."""
    principal = await world.caller(WIDE, WIDE)
    await world.limiter.take(principal, ask(100, 0))
    await world.change(principal, key=Limits(tpm=1, burst_seconds=600), team=Limits(tpm=1, burst_seconds=600))
    await world.limiter.standing(principal)
    await world.refused(principal, ask(100, 0))
    await world.change(principal, key=WIDE, team=WIDE)
    assert await world.left(principal, "key tokens") == 900
    assert await world.left(principal, "team tokens") == 900


async def test_fewer_places_than_are_taken_let_nobody_in_until_enough_are_free(world: World) -> None:
    principal = await world.caller(Limits(concurrency=3))
    grants = [await world.limiter.take(principal, ask()) for _ in range(3)]
    await world.change(principal, key=Limits(concurrency=1))
    assert await world.left(principal, "key concurrency") == -2
    for grant in grants[:2]:
        world.limiter.settle(grant, 1)
        await world.heard()
        assert type(await world.refused(principal, ask())) is ConcurrencyExceeded
    world.limiter.settle(grants[2], 1)
    await world.heard()
    await world.limiter.take(principal, ask())


async def test_a_limit_taken_away_refuses_nobody_and_an_old_reservation_still_settles(world: World) -> None:
    principal = await world.caller(HUNDRED_TOKENS, TWO_PLACES)
    grants = [await world.limiter.take(principal, ask(50, 0)) for _ in range(2)]
    await world.change(principal, key=NONE, team=NONE)
    assert list(await world.limiter.standing(principal)) == []
    await world.limiter.take(principal, ask(500, 0))
    for grant in grants:
        world.limiter.settle(grant, 20)
    await world.heard()


GONE = [
    # id                          with it                        without it                    what
    ("tokens-beside-requests", WIDE, Limits(rpm=1, burst_seconds=6_000), "key tokens"),
    ("requests-beside-tokens", WIDE, Limits(tpm=10, burst_seconds=6_000), "key requests"),
    ("tokens-alone", HUNDRED_TOKENS, NONE, "key tokens"),
    ("both", WIDE, Limits(concurrency=50), "key tokens"),
]


@pytest.mark.parametrize(("with_it", "without_it", "what"), [r[1:] for r in GONE], ids=[r[0] for r in GONE])
async def test_a_limit_that_is_gone_takes_its_level_with_it(
    world: World, with_it: Limits, without_it: Limits, what: str
) -> None:
    """Given again, it begins anew: it does not matter what else is limited, or how long ago it was."""
    principal = await world.caller(with_it, TWO_PLACES)
    full = await world.left(principal, what)
    world.limiter.settle(await world.limiter.take(principal, ask(50, 0)), 50)
    await world.heard()
    assert await world.left(principal, what) < full
    await world.change(principal, key=without_it)
    world.limiter.settle(await world.limiter.take(principal, ask(50, 0)), 50)
    await world.heard()
    await world.change(principal, key=with_it)
    assert await world.left(principal, what) == full


async def test_what_was_reserved_without_a_limit_is_not_settled_against_a_new_one(world: World) -> None:
    principal = await world.caller(NONE, Limits(rpm=1, burst_seconds=600))
    grants = [await world.limiter.take(principal, ask(50, 0)) for _ in range(3)]
    await world.change(principal, key=HUNDRED_TOKENS)
    assert await world.left(principal, "key tokens") == 100
    for grant, used in zip(grants, (0, 500, None), strict=True):
        world.limiter.settle(grant, used)
    await world.heard()
    assert await world.left(principal, "key tokens") == 100
    assert await world.left(principal, "team requests") == 8


# -- how much may be saved up

BURSTS = [
    # id                     rpm  tpm   burst   requests  tokens
    ("a-minute-by-default", 60, 600, 60, 60, 600),
    ("a-second", 60, 600, 1, 1, 10),
    ("half-a-minute", 60, 600, 30, 30, 300),
    ("an-hour", 60, 600, 3600, 3600, 36_000),
    ("never-less-than-one", 1, 1, 1, 1, 1),
    ("whole-units-are-told", 90, 90, 1, 1, 1),
]


@pytest.mark.parametrize(
    ("rpm", "tpm", "burst", "requests", "tokens"), [r[1:] for r in BURSTS], ids=[r[0] for r in BURSTS]
)
async def test_burst_seconds_say_how_much_may_be_saved_up(
    timed_world: World, rpm: int, tpm: int, burst: int, requests: int, tokens: int
) -> None:
    world = timed_world
    principal = await world.caller(Limits(rpm=rpm, burst_seconds=burst), Limits(tpm=tpm, burst_seconds=burst))
    assert [(w.limit, w.remaining, w.seconds) for w in await world.limiter.standing(principal)] == [
        (requests, requests, burst),
        (tokens, tokens, burst),
    ]
    assert type(await world.refused(principal, ask(tokens + 1, 0))) is RequestTooLargeForLimit
    grant = await world.limiter.take(principal, ask(tokens, 0))
    assert [w.remaining for w in grant.windows] == [requests - 1, 0]
    world.wait(10 * burst + 120)
    assert [w.remaining for w in await world.limiter.standing(principal)] == [requests, tokens]


async def test_a_part_of_a_request_is_saved_too(timed_world: World) -> None:
    """90 a minute with a burst of one second: one and a half."""
    world = timed_world
    principal = await world.caller(Limits(rpm=90, burst_seconds=1))
    await world.limiter.take(principal, ask())
    refusal = await world.refused(principal, ask())
    assert refusal.retry_after == pytest.approx(1 / 3, abs=1e-6)
    world.wait(1 / 3 + 1e-6)
    await world.limiter.take(principal, ask())


async def test_a_bucket_fills_by_the_clock_of_redis(every_redis: RedisServer) -> None:
    """With nothing in between: what came back lies between what Redis' clock said before and after each look."""
    async with real_time_world(every_redis.url) as world:
        per_second = 1_000
        principal = await world.caller(Limits(tpm=per_second * 60, burst_seconds=60))

        async def looked() -> tuple[float, int, float]:
            before = await world.redis.time()
            left = await world.left(principal, "key tokens")
            after = await world.redis.time()
            return before[0] + before[1] / 1e6, left, after[0] + after[1] / 1e6

        await world.limiter.take(principal, ask(60_000, 0))
        early, first, at_most = await looked()
        await asyncio.sleep(0.2)
        at_least, second, late = await looked()
        assert (at_least - at_most) * per_second - 1 <= second - first <= (late - early) * per_second + 1
