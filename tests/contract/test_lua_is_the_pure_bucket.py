"""The scripts in Redis and the pure bucket in Python give the same answer to everything, to the part of a token.

Hypothesis writes the story: takes, settlements, releases, time, changed limits. Both limiters live it on one clock. The
stories are the same in every run; `WEIR_STORIES=5000 pytest ...` tells as many new ones.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.contract.clocked import PRELUDE, Clock, scripts
from tests.contract.world import LEASE, LocalWorld, RedisWorld, World, ask, clocked_world, real_time_world
from tests.fakes.redis_server import RedisServer
from weir.admission import Grant
from weir.admission.limiter_redis import KEEP_MS
from weir.admission.token_bucket import PARTS, Bucket, Rate, refill
from weir.auth.records import check_limits
from weir.core import layout
from weir.core.errors import GatewayError, LimitExceeded, TokensExceeded
from weir.core.types import MAX_PER_MINUTE_TIMES_BURST, SCOPES, UNITS, Limits, Principal

WHOLE = re.compile(rb"-?[0-9]{1,19}")
DEBT_MAX = 1_000_000  # tokens above a reservation; level and debt together stay below 2**53 parts

BURSTS = st.sampled_from([1, 2, 7, 60, 60, 61, 3_600, 86_400])
MODELS = st.sampled_from([(), (), (), ("*",), ("m*",), ("m1", "alias")])  # m1 always passes
WAITS = st.one_of(
    st.integers(0, 50),  # microseconds
    st.integers(0, 3_000_000),
    st.sampled_from([1_000_000, 59_999_999, 60_000_000, 60_000_001]),
    st.integers(0, 200_000_000),
    st.integers(0, 200_000).map(lambda seconds: seconds * 1_000_000),
)


@st.composite
def rates(draw: st.DrawFn, burst: int) -> int | None:
    most = (MAX_PER_MINUTE_TIMES_BURST - DEBT_MAX * 60) // burst
    return draw(
        st.one_of(
            st.none(),
            st.integers(1, 10),
            st.integers(1, 10_000),
            st.integers(max(most - 1_000, 1), most),
        )
    )


@st.composite
def limits(draw: st.DrawFn, *, places: bool = True) -> Limits:
    burst = draw(BURSTS)
    shadow = draw(st.frozensets(st.sampled_from(UNITS))) if draw(st.integers(0, 3)) == 0 else frozenset()
    return check_limits(
        Limits(
            rpm=draw(rates(burst)),
            tpm=draw(rates(burst)),
            concurrency=draw(st.sampled_from([None, 1, 2, 4])) if places else None,
            burst_seconds=burst,
            models=draw(MODELS),
            shadow=shadow,
        )
    )


class Both(RuleBasedStateMachine):
    """Two keys of one team, twice: in Redis and in memory."""

    server: ClassVar[RedisServer]
    runner: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.local = LocalWorld(self.clock)
        self._stack = contextlib.AsyncExitStack()
        self.redis: RedisWorld = self.run(self._stack.enter_async_context(clocked_world(self.server.url, self.clock)))
        self.run(self.redis.redis.flushdb())
        self.granted: list[tuple[Grant, Grant, int]] = []  # in Redis, in memory, when
        self.settled: list[Grant] = []
        self.retry: float | None = None

    def run(self, work: Any) -> Any:
        return self.runner.get_loop().run_until_complete(work)

    @initialize(first=limits(), second=limits(), team=limits())
    def begin(self, first: Limits, second: Limits, team: Limits) -> None:
        first, second, team = (self.fit(one, one) for one in (first, second, team))
        self.callers = []
        for world in (self.redis, self.local):
            principal = self.run(world.caller(first, team))
            self.callers.append((principal, self.run(world.colleague(principal, second))))

    def both(self, what: Callable[[World, Principal], Any], who: int) -> tuple[Any, Any]:
        """What both answer, which must be the same."""
        ours, reference = (
            self.run(answer(what(world, callers[who])))
            for world, callers in zip((self.redis, self.local), self.callers, strict=True)
        )
        assert told(ours) == told(reference), f"\nin Redis  {told(ours)}\nin memory {told(reference)}"
        return ours, reference

    def fit(self, new: Limits, old: Limits) -> Limits:
        """Limits that this machine can live with, instead of `old` ones."""
        return new

    # -- what happens

    @rule(
        who=st.integers(0, 1),
        share=st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 1.0, 1.1]),
        extra=st.integers(-2, 2),
        open_=st.booleans(),
        choices=st.sampled_from([1, 1, 1, 2, 5]),
        model=st.sampled_from(["m1", "other"]),
        asked_as=st.sampled_from(["m1", "alias"]),
    )
    def take(self, who: int, share: float, extra: int, open_: bool, choices: int, model: str, asked_as: str) -> None:
        """A share of what one of the buckets can hold, give or take a token."""
        now = self.local._limits_of(self.callers[1][who])
        most = min((one.tpm * one.burst_seconds // 60 for one in now if one.tpm), default=100)
        prompt = max(int(most * share) + extra, 0)
        request = ask(
            prompt // 2 if not open_ else prompt,
            None if open_ else (prompt - prompt // 2) // choices,
            choices=choices,
            default=max(most // 3, 1),
            model=model,
            asked_as=asked_as,
        )
        ours, reference = self.both(lambda world, caller: world.limiter.take(caller, request), who)
        if isinstance(ours, Grant):
            self.granted.append((ours, reference, self.clock.now))
        elif isinstance(ours, LimitExceeded):
            self.retry = ours.retry_after

    @precondition(lambda self: self.granted)
    @rule(data=st.data(), used=st.sampled_from([None, 0.0, 0.3, 0.99, 1.0, 1.01, 2.0]))
    def settle(self, data: st.DataObject, used: float | None) -> None:
        at = data.draw(st.integers(0, len(self.granted) - 1), label="which")
        ours, reference, when = self.granted.pop(at)
        tokens = None if used is None else ours.tokens + min(int(ours.tokens * (used - 1)), DEBT_MAX)
        self.redis.limiter.settle(ours, tokens)
        if self.clock.now - when <= LEASE * 1e6 + KEEP_MS * 1_000:
            self.local.limiter.settle(reference, tokens)
        self.run(self.redis.heard())
        self.settled.append(ours)

    @precondition(lambda self: self.settled)
    @rule(data=st.data(), tokens=st.sampled_from([-1, 0, 1, 10**6]))
    def settle_again(self, data: st.DataObject, tokens: int) -> None:
        """As if the first delivery's reply had been lost."""
        grant = data.draw(st.sampled_from(self.settled), label="which")
        self.run(self.redis.expire(grant.principal))
        before = self.run(self.redis.snapshot(grant.principal))
        self.redis.limiter._deliver(grant, tokens, asyncio_time(self.runner))
        self.run(self.redis.heard())
        assert self.run(self.redis.snapshot(grant.principal)) == before

    @rule(microseconds=WAITS)
    def wait(self, microseconds: int) -> None:
        self.clock.now += microseconds

    @precondition(lambda self: self.retry)
    @rule(early=st.integers(0, 1))
    def wait_as_told(self, early: int) -> None:
        assert self.retry is not None
        self.clock.now += max(round(self.retry * 1e6) - early, 0)
        self.retry = None

    @rule(whose=st.sampled_from(["key 0", "key 1", "team"]), new=limits())
    def change(self, whose: str, new: Limits) -> None:
        who = int(whose == "key 1")
        key, team = self.local._limits_of(self.callers[1][who])
        if whose == "team":
            self._change(who, team=self.fit(new, team))
        else:
            self._change(who, key=self.fit(new, key))

    def _change(self, who: int, **new: Limits) -> None:
        """Right after a request that cost nothing, and seen at once.

        So no bucket is either full or forgotten, which is the same but for a limit that is raised, and no time has
        passed whose rate would be either the old or the new one.
        """
        for caller in (0, 1):
            ours, reference = self.both(lambda world, who: world.limiter.take(who, ask(0, 0, model="m1")), caller)
            if not isinstance(ours, Grant):
                return
            self.redis.limiter.settle(ours, None)
            self.local.limiter.settle(reference, None)
            self.run(self.redis.heard())
        for world, callers in zip((self.redis, self.local), self.callers, strict=True):
            self.run(world.change(callers[who], **new))
        for caller in (0, 1):
            self.look(caller)

    @rule(who=st.integers(0, 1))
    def look(self, who: int) -> None:
        self.both(lambda world, caller: world.limiter.standing(caller), who)
        # Windows round to units and seconds; the script's own numbers are parts.
        assert self.redis.scripts is not None
        numbers = self.redis.scripts.last.result()[6:]
        caller = self.callers[1][who]
        for scope, one, use, said in zip(
            SCOPES,
            self.local._limits_of(caller),
            self.local.limiter._uses_of(caller),
            (numbers[:8], numbers[8:]),
            strict=True,
        ):
            for per_minute, bucket, level in ((one.rpm, use.requests, said[2]), (one.tpm, use.tokens, said[4])):
                expected = (
                    refill(bucket, Rate(per_minute, one.burst_seconds), self.clock.now).level if per_minute else -1
                )
                assert level == expected, f"{scope}: {level} parts in Redis, {expected} in memory"

    @invariant()
    def all_that_is_stored_are_whole_numbers(self) -> None:
        """No exponents, no fractions: the next reader is HINCRBY."""
        if not hasattr(self, "callers"):
            return
        team, ids = self.callers[0][0].team, [caller.key_id for caller in self.callers[0]]
        records = (layout.team(team), *(layout.key(team, key_id) for key_id in ids))
        for values in self.run(self.redis.together(*(("HVALS", layout.use(record)) for record in records))):
            assert all(WHOLE.fullmatch(value) for value in values), values

    def teardown(self) -> None:
        try:
            if hasattr(self, "callers"):
                for who in (0, 1):
                    self.look(who)
                self._everything_settles()
        finally:
            self.run(self._stack.aclose())

    def _everything_settles(self) -> None:
        for ours, reference, when in self.granted:
            self.redis.limiter.settle(ours, 0)
            if self.clock.now - when <= LEASE * 1e6 + KEEP_MS * 1_000:
                self.local.limiter.settle(reference, 0)
        self.run(self.redis.heard())
        for who in (0, 1):
            self.look(who)
        left = self.run(self.redis.snapshot(self.callers[0][0]))
        assert not [name for name in left if b":res:" in name], "a reservation outlived its settlement"


class BothWhileTimeJumpsBack(Both):
    """After a failover the new server's clock may be behind: time stands still until it has caught up.

    Without places: a lease that has ended by one server's clock and not by the other's has no right answer. And with
    the same buckets all the time: one that is new while another waits for the clock is not worth an answer.
    """

    def fit(self, new: Limits, old: Limits) -> Limits:
        rpm, tpm = (new.rpm or 1) if old.rpm else None, (new.tpm or 1) if old.tpm else None
        return Limits(rpm, tpm, None, new.burst_seconds, new.models, new.shadow - {"concurrency"})

    @rule(microseconds=st.one_of(st.integers(1, 10), st.integers(1, 100_000_000)))
    def fail_over(self, microseconds: int) -> None:
        self.clock.now -= microseconds


async def answer(work: Any) -> Any:
    try:
        return await work
    except GatewayError as error:
        return error


def told(what: Any) -> Any:
    """What a caller is told, without the names that differ."""
    match what:
        case Grant():
            return (
                (what.tokens, what.output_tokens, what.bounded, what.held),
                tuple(what.windows),
                what.shadow_refusals,
            )
        case LimitExceeded():
            return type(what), what.text, what.window, what.needed, what.retry_after, tuple(what.windows)
        case GatewayError():
            return type(what), what.text
    return tuple(what)


def asyncio_time(runner: asyncio.Runner) -> float:
    return runner.get_loop().time()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


STORIES = int(os.environ.get("WEIR_STORIES", "0"))


@pytest.mark.timeout(0 if STORIES else 120)
@pytest.mark.parametrize(
    ("machine", "stories", "steps"),
    [(Both, 80, 40), (BothWhileTimeJumpsBack, 40, 40)],
    ids=["time-goes-on", "time-jumps-back"],
)
def test_every_story_ends_the_same_in_redis_and_in_memory(
    redis_server: RedisServer, runner: asyncio.Runner, machine: type[Both], stories: int, steps: int
) -> None:
    live = type(machine.__name__, (machine,), {"server": redis_server, "runner": runner})
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        live,
        settings=settings(
            max_examples=STORIES or stories,
            stateful_step_count=steps,
            derandomize=not STORIES,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            # A whole story of forty steps is told at once; to have it shortened takes minutes.
            phases=[Phase.generate, Phase.shrink] if STORIES else [Phase.generate],
        ),
    )


# -- numbers at the ends of what is allowed

EXTREMES = [
    # id                            per minute                                burst
    ("the-largest-rate", MAX_PER_MINUTE_TIMES_BURST, 1),
    ("the-largest-by-the-minute", MAX_PER_MINUTE_TIMES_BURST // 60, 60),
    ("the-largest-by-the-hour", MAX_PER_MINUTE_TIMES_BURST // 3_600, 3_600),
    ("the-largest-by-the-day", MAX_PER_MINUTE_TIMES_BURST // 86_400, 86_400),
    ("a-power-of-ten", 5_000_000_000 // 50, 50),  # 5e15 parts: whole, and shorter with an exponent
    ("the-smallest", 1, 1),
    ("the-slowest", 1, 86_400),
    ("primes", 104_729, 61),
]


@pytest.mark.parametrize(("per_minute", "burst"), [r[1:] for r in EXTREMES], ids=[r[0] for r in EXTREMES])
async def test_not_a_part_is_lost_at_the_ends_of_what_is_allowed(
    every_redis: RedisServer, per_minute: int, burst: int
) -> None:
    """Empty a bucket, look at it after a microsecond, at its half, and a part short of full; each time to the part."""
    rate = Rate(per_minute, burst)
    capacity = rate.capacity // PARTS
    async with clocked_world(every_redis.url) as world:
        principal = await world.caller(check_limits(Limits(tpm=per_minute, burst_seconds=burst)))

        async def level() -> int:
            await world.limiter.standing(principal)
            assert world.scripts is not None
            return int(world.scripts.last.result()[6 + 4])

        assert await level() == rate.capacity
        whole = await world.limiter.take(principal, ask(capacity, 0))
        bucket = Bucket(rate.capacity - capacity * PARTS, world.clock.now)
        assert await level() == bucket.level
        full_after = -(-(rate.capacity - bucket.level) // per_minute)
        for microseconds in sorted({1, 2, 3, 999_983, full_after // 3, full_after // 2, full_after - 1, full_after}):
            world.clock.now = bucket.at + microseconds
            assert await level() == refill(bucket, rate, world.clock.now).level, microseconds
        world.limiter.settle(whole, None)
        await world.heard()
        assert await level() == rate.capacity

        # Odd amounts, back and forth, at odd moments.
        bucket = Bucket(rate.capacity, world.clock.now)
        for number, microseconds in enumerate((1, 7, 1_000_003, 59_999_999, 86_400_000_001), 1):
            world.clock.now += microseconds
            bucket = refill(bucket, rate, world.clock.now)
            cost = max(capacity * number // 13, 1)
            try:
                grant = await world.limiter.take(principal, ask(cost, 0))
            except LimitExceeded as refusal:
                parts = cost * PARTS - bucket.level
                assert refusal.retry_after == -(-parts // per_minute) / 1e6
                continue
            used = cost // 3 if number % 2 else cost + 1
            world.limiter.settle(grant, used)
            await world.heard()
            bucket = Bucket(bucket.level - used * PARTS, bucket.at)
            assert await level() == min(bucket.level, rate.capacity), number


async def test_a_debt_of_any_size_is_kept_to_the_part(every_redis: RedisServer) -> None:
    async with clocked_world(every_redis.url) as world:
        principal = await world.caller(Limits(tpm=7, burst_seconds=60), Limits(tpm=1_000_003))
        spent = (8, 1_000, 99_999, 12_345_678, 60_000_001)
        grants = [await world.limiter.take(principal, ask(1, 0)) for _ in spent]
        begun = world.clock.now
        for grant, used in zip(grants, spent, strict=True):
            world.limiter.settle(grant, used)
        await world.heard()
        for seconds in (0, 1, 3_333):
            world.wait(seconds)
            await world.limiter.standing(principal)
            assert world.scripts is not None
            numbers = world.scripts.last.result()[6:]
            passed = world.clock.now - begun
            assert numbers[4] == (7 - sum(spent)) * PARTS + passed * 7
            assert numbers[8 + 4] == min((1_000_003 - sum(spent)) * PARTS + passed * 1_000_003, 1_000_003 * PARTS)


# -- time

BACKWARDS = [1, 1_000_000, 60_000_000, 3_600_000_000]


@pytest.mark.parametrize("microseconds", BACKWARDS, ids=lambda us: f"{us / 1e6:g}-s")
async def test_nothing_comes_back_while_a_new_servers_clock_has_to_catch_up(
    every_redis: RedisServer, microseconds: int
) -> None:
    async with clocked_world(every_redis.url) as world:
        principal = await world.caller(Limits(rpm=60, tpm=60, concurrency=5), Limits(rpm=60, tpm=60, concurrency=5))
        grant = await world.limiter.take(principal, ask(60, 0))
        world.clock.now -= microseconds
        for _ in range(3):
            refusal = await world.refused(principal, ask(1, 0))
            assert type(refusal) is TokensExceeded
            assert (await world.limiter.take(principal, ask(0, 0))).windows[1].remaining == 0
        world.clock.now += microseconds
        assert [await world.left(principal, f"{s} {u}") for s in SCOPES for u in ("requests", "tokens")] == [56, 0] * 2
        world.clock.now += 1_000_000
        assert [await world.left(principal, f"{s} {u}") for s in SCOPES for u in ("requests", "tokens")] == [57, 1] * 2
        other = await world.limiter.take(principal, ask(1, 0))
        world.clock.now -= microseconds
        world.limiter.settle(other, 31)
        await world.heard()
        assert [await world.left(principal, f"{scope} tokens") for scope in SCOPES] == [-30] * 2
        world.limiter.settle(grant, None)
        await world.heard()
        assert [await world.left(principal, f"{scope} tokens") for scope in SCOPES] == [30] * 2
        world.clock.now += microseconds
        assert [await world.left(principal, f"{s} {u}") for s in SCOPES for u in ("requests", "tokens")] == [57, 30] * 2


class SkewedLoop(asyncio.SelectorEventLoop):
    """A worker whose clock is wrong, and runs at the wrong speed."""

    wrong = 0.0

    def time(self) -> float:
        return super().time() * 1.5 + self.wrong


def test_the_clocks_of_workers_do_not_matter(redis_server: RedisServer) -> None:
    """Two workers, an hour apart and each wrong in its own way, hold one limit together."""

    class Early(SkewedLoop):
        wrong = -1_800.0

    class Late(SkewedLoop):
        wrong = 1_800.0

    with asyncio.Runner(loop_factory=Early) as early, asyncio.Runner(loop_factory=Late) as late:
        stacks = [(runner, contextlib.AsyncExitStack()) for runner in (early, late)]
        first, second = (
            runner.run(stack.enter_async_context(real_time_world(redis_server.url))) for runner, stack in stacks
        )
        limits = Limits(rpm=1, tpm=1, concurrency=5, burst_seconds=6_000)  # 100 of both; one comes back a minute
        principal = early.run(first.caller(limits, limits))
        grants = [
            early.run(first.limiter.take(principal, ask(40, 0))),
            late.run(second.limiter.take(principal, ask(50, 0))),
        ]
        for runner, world in ((early, first), (late, second)):
            refusal = runner.run(world.refused(principal, ask(20, 0)))
            assert type(refusal) is TokensExceeded
            assert refusal.retry_after is not None
            assert 500 <= refusal.retry_after <= 600
            windows = runner.run(world.limiter.standing(principal))
            assert [w.remaining for w in windows] == [98, 10, 3] * 2
        first.limiter.settle(grants[0], 0)
        second.limiter.settle(grants[1], 0)
        early.run(first.heard())
        late.run(second.heard())
        for runner, world in ((early, first), (late, second)):
            windows = runner.run(world.limiter.standing(principal))
            assert [w.remaining for w in windows] == [98, 100, 5] * 2
        for runner, stack in stacks:
            runner.run(stack.aclose())


def test_the_prelude_stands_before_the_scripts_and_changes_nothing_in_them() -> None:
    """And time comes into a script by TIME alone."""
    assert "\n" not in PRELUDE, "line numbers in errors are the script's own"
    assert sorted(scripts()) == ["admit.lua", "renew.lua", "settle.lua"]
    for source in scripts().values():
        code = "\n".join(line.partition("--")[0] for line in source.splitlines())
        assert code.upper().count("TIME'") == len(re.findall(r"call\('TIME'\)", code))
        assert not re.search(r"\bos\.|KEYS\[#|ARGV\[#|#ARGV|pcall|redis\.(?!call\b)", code)
