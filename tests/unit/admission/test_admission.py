"""A reservation settles exactly once, whatever became of the block."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.clock import run
from weir.admission import Admission, Grant
from weir.core.errors import ClientGone, StoreUnavailable
from weir.core.types import Ask, Principal, Window

WHO = Principal("search", "key1", "d" * 64)
ASK = Ask("m", "m", 10, 20)


class CountingLimiter:
    """See `Limiter`: grants all, and remembers what was settled."""

    def __init__(self) -> None:
        self.settled: list[tuple[str, int | None]] = []
        self.away = False

    async def take(self, principal: Principal, ask: Ask) -> Grant:
        if self.away:
            raise StoreUnavailable
        return Grant("g1", principal, 30, 20, bounded=True, held=True, windows=())

    def settle(self, grant: Grant, tokens: int | None) -> None:
        self.settled.append((grant.id, tokens))

    async def standing(self, principal: Principal) -> tuple[Window, ...]:
        return ()


Charge = Callable[[BaseException | None], int | None]


def play(charge: Charge, ending: Callable[[], Any], limiter: CountingLimiter | None = None) -> CountingLimiter:
    used = limiter or CountingLimiter()

    async def scene() -> None:
        async with Admission(used).reserve(WHO, ASK, charge) as grant:
            assert used.settled == []
            assert grant.tokens == 30
            ending()

    run(scene)
    return used


def fails(error: BaseException) -> Callable[[], Any]:
    def ending() -> None:
        raise error

    return ending


@pytest.mark.parametrize("tokens", [0, 7, 300, None])
def test_what_the_ending_costs_is_settled_once(tokens: int | None) -> None:
    asked: list[BaseException | None] = []

    def charge(ending: BaseException | None) -> int | None:
        asked.append(ending)
        return tokens

    assert play(charge, lambda: None).settled == [("g1", tokens)]
    assert asked == [None]


@pytest.mark.parametrize("error", [ClientGone(), RuntimeError(), asyncio.CancelledError()], ids=["gone", "bug", "cut"])
def test_the_ending_is_told_and_comes_through(error: BaseException) -> None:
    limiter = CountingLimiter()
    asked: list[BaseException | None] = []
    with pytest.raises(type(error)):
        play(lambda ending: asked.append(ending) or 5, fails(error), limiter)  # type: ignore[func-returns-value]
    assert asked == [error]
    assert limiter.settled == [("g1", 5)]


def test_a_charge_that_breaks_leaves_all_of_it_charged() -> None:
    limiter = CountingLimiter()

    def charge(ending: BaseException | None) -> int | None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        play(charge, lambda: None, limiter)
    assert limiter.settled == [("g1", 30)], "leaving without a word is never free"


def test_what_was_never_taken_is_never_settled() -> None:
    limiter = CountingLimiter()
    limiter.away = True
    with pytest.raises(StoreUnavailable):
        play(lambda _: 5, lambda: None, limiter)
    assert limiter.settled == []
