"""What Redis has not heard: kept, told again once, and counted where it is lost."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import clock
from tests.unit.admission.told import LLAMA, WHO, numbers
from weir.admission import limiter_redis
from weir.admission.limiter import Grant
from weir.admission.limiter_redis import DELIVERED_AT_ONCE, KEEP_MS, RETRY_SECONDS, UNSETTLED_MAX, RedisLimiter
from weir.core.commands import CommandRefused, Word
from weir.core.errors import StoreUnavailable
from weir.core.types import Principal


class Redis:
    """`Commands`: admits, settles and hears everything, or is away; `silent` takes it and never answers."""

    def __init__(self) -> None:
        self.away = self.silent = False
        self.refuses: str | None = None
        self.team_away = ""  # in a part of a cluster
        self.heard: list[str] = []  # reservations, as they were settled
        self.calls = 0

    def call(self, *words: Word) -> asyncio.Future[Any]:
        self.calls += 1
        reply = asyncio.get_running_loop().create_future()
        if self.silent:
            return reply
        if self.away or (self.team_away and self.team_away in str(words[3])):
            reply.set_exception(StoreUnavailable(reason="redis is away"))
        elif self.refuses:
            reply.set_exception(CommandRefused(self.refuses))
        elif len(words) > 13:
            reply.set_result([0, 20, 10, 1, 1, 0, *numbers()])
        else:
            self.heard.append(str(words[-2]))
            reply.set_result(1)
        return reply


class Play:
    """A limiter on that Redis, and its tending."""

    def __init__(self) -> None:
        self.redis = Redis()
        self.limiter = RedisLimiter(self.redis)

    async def owe(self, many: int, who: Principal = WHO) -> list[Grant]:
        """So many settlements that Redis did not hear."""
        self.redis.away = False
        grants = [await self.limiter.take(who, LLAMA) for _ in range(many)]
        self.redis.away = True
        for grant in grants:
            self.limiter.settle(grant, 5)
        await asyncio.sleep(0)
        return grants

    async def tend(self, seconds: float) -> None:
        task = asyncio.get_running_loop().create_task(self.limiter.tend())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.limiter.unsettled, self.limiter.replayed, self.limiter.dropped


def playing(play: Callable[[Play], Any]) -> None:
    async def played() -> None:
        await play(Play())

    clock.run(played)


def test_each_is_told_once_when_redis_is_back() -> None:
    async def play(it: Play) -> None:
        grants = await it.owe(50)
        assert it.counts == (50, 0, 0)
        it.redis.away = False
        await it.tend(RETRY_SECONDS * 5)
        assert sorted(it.redis.heard) == sorted(grant.id for grant in grants)
        assert it.counts == (0, 50, 0)

    playing(play)


def test_what_is_heard_at_once_is_not_told_again() -> None:
    async def play(it: Play) -> None:
        it.limiter.settle(await it.limiter.take(WHO, LLAMA), 5)
        await it.tend(RETRY_SECONDS * 5)
        assert len(it.redis.heard) == 1
        assert it.counts == (0, 0, 0)

    playing(play)


def test_while_redis_is_away_one_is_tried_for_all() -> None:
    async def play(it: Play) -> None:
        await it.owe(5_000)
        asked = it.redis.calls
        await it.tend(RETRY_SECONDS * 10.5)
        assert it.redis.calls - asked == 10
        assert it.counts == (5_000, 0, 0)

    playing(play)


def test_one_that_is_never_answered_keeps_nobody_waiting() -> None:
    async def play(it: Play) -> None:
        await it.owe(3)
        it.redis.silent = True
        await it.tend(RETRY_SECONDS * 6.5)
        assert it.redis.calls > 6 + 2, "tried again, and again"
        assert await it.limiter.flush(1.0) == 3

    playing(play)


def test_one_that_redis_refuses_keeps_the_others_from_nothing() -> None:
    async def play(it: Play) -> None:
        await it.owe(3)
        it.redis.away, it.redis.refuses = False, "WRONGTYPE of one key"
        await it.tend(RETRY_SECONDS * 1.5)
        assert it.redis.calls == 6 + 3
        it.redis.refuses = None
        await it.tend(RETRY_SECONDS * 1.5)
        assert it.counts == (0, 3, 0)

    playing(play)


def test_a_part_of_a_cluster_that_is_away_keeps_the_others_from_nothing() -> None:
    async def play(it: Play) -> None:
        await it.owe(DELIVERED_AT_ONCE * 2)
        await it.owe(50, Principal("ads", "key9", "a" * 64))
        it.redis.away, it.redis.team_away = False, WHO.team
        asked = it.redis.calls
        await it.tend(RETRY_SECONDS * 3.5)
        assert it.counts == (DELIVERED_AT_ONCE * 2, 50, 0)
        assert it.redis.calls - asked <= 50 + 3
        it.redis.team_away = ""
        await it.tend(RETRY_SECONDS * 2.5)
        assert it.counts == (0, DELIVERED_AT_ONCE * 2 + 50, 0)
        assert len(set(it.redis.heard)) == len(it.redis.heard) == DELIVERED_AT_ONCE * 2 + 50

    playing(play)


def test_many_are_told_some_at_a_time() -> None:
    async def play(it: Play) -> None:
        await it.owe(DELIVERED_AT_ONCE * 2)
        it.redis.away = False
        await it.tend(RETRY_SECONDS * 1.5)
        assert it.counts == (DELIVERED_AT_ONCE, DELIVERED_AT_ONCE, 0)
        await it.tend(RETRY_SECONDS * 1.5)
        assert it.counts == (0, DELIVERED_AT_ONCE * 2, 0)

    playing(play)


def test_all_are_told_before_the_end() -> None:
    async def play(it: Play) -> None:
        await it.owe(DELIVERED_AT_ONCE * 3)
        it.redis.away = False
        assert await it.limiter.flush(5.0) == 0
        assert it.counts == (0, DELIVERED_AT_ONCE * 3, 0)

    playing(play)


def test_at_the_end_an_absent_redis_is_not_waited_for_longer_than_said() -> None:
    async def play(it: Play) -> None:
        await it.owe(DELIVERED_AT_ONCE * 3)
        began, asked = asyncio.get_running_loop().time(), it.redis.calls
        assert await it.limiter.flush(2.0) == DELIVERED_AT_ONCE * 3
        assert asyncio.get_running_loop().time() - began <= 2.1
        assert it.redis.calls - asked <= 50

    playing(play)


def test_the_queue_is_bounded_and_what_falls_out_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert UNSETTLED_MAX == 100_000
    monkeypatch.setattr(limiter_redis, "UNSETTLED_MAX", 100)  # 100,000 take seconds

    async def play(it: Play) -> None:
        grants = await it.owe(130)
        assert it.counts == (100, 0, 30)
        it.redis.away = False
        await it.tend(RETRY_SECONDS * 2)
        assert sorted(it.redis.heard) == sorted(grant.id for grant in grants[30:]), "the oldest fell out"
        assert it.counts == (0, 100, 30)

    playing(play)


def test_what_redis_has_forgotten_meanwhile_is_counted_as_lost() -> None:
    async def play(it: Play) -> None:
        await it.owe(3)
        await asyncio.sleep(KEEP_MS / 1000 + 1)
        it.redis.away = False
        await it.tend(RETRY_SECONDS * 2)
        assert it.redis.heard == []
        assert it.counts == (0, 0, 3)

    playing(play)


@pytest.mark.parametrize(("sent", "given_back"), [(True, 1), (False, 0)], ids=["sent", "not-sent"])
def test_what_may_have_been_charged_unheard_is_given_back(sent: bool, given_back: int) -> None:
    class Late(Redis):
        def call(self, *words: Word) -> asyncio.Future[Any]:
            reply = super().call(*words)
            if self.away and len(words) > 13:
                reply.exception()
                reply = asyncio.get_running_loop().create_future()
                reply.set_exception(StoreUnavailable(sent=sent))
            return reply

    async def play(it: Play) -> None:
        it.redis = Late()
        it.limiter = RedisLimiter(it.redis)
        it.redis.away = True
        with pytest.raises(StoreUnavailable):
            await it.limiter.take(WHO, LLAMA)
        it.redis.away = False
        await it.tend(RETRY_SECONDS * 2)
        assert len(it.redis.heard) == given_back

    playing(play)
