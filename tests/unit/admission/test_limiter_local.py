"""The reference limiter: all or nothing, settled once, and what each limit does to the others."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tests.fakes.clock import ManualClock
from weir.admission.limiter_local import LocalLimiter
from weir.core.errors import (
    ConcurrencyExceeded,
    LimitExceeded,
    ModelNotFound,
    RequestsExceeded,
    RequestTooLargeForLimit,
    TokensExceeded,
)
from weir.core.types import Ask, Limits, Principal

T = TypeVar("T")
WHO = Principal("search", "key1", "d" * 64)
COLLEAGUE = Principal("search", "key2", "e" * 64)


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the reference limiter does not wait")


class Desk:
    """A limiter with one clock, and what stands in its windows."""

    def __init__(self, key: Limits, team: Limits = Limits(), *, lease: float = 60.0) -> None:  # noqa: B008 - frozen
        self.clock = ManualClock()
        self.limiter = LocalLimiter(lambda _: (key, team), self.clock.microseconds, lease_seconds=lease)

    def take(self, prompt: int = 10, output: int | None = 10, who: Principal = WHO, **fields: Any) -> Any:
        return now(self.limiter.take(who, Ask("m", "m", prompt, output, **fields)))

    def left(self, who: Principal = WHO) -> dict[str, int]:
        return {f"{w.scope} {w.unit}": w.remaining for w in now(self.limiter.standing(who))}


ALL_OR_NONE = [
    # key, team, the refusal
    pytest.param(Limits(rpm=1), Limits(rpm=5, tpm=500, concurrency=5), RequestsExceeded, id="key-requests"),
    pytest.param(Limits(rpm=5, tpm=500, concurrency=5), Limits(rpm=1), RequestsExceeded, id="team-requests"),
    pytest.param(Limits(rpm=5, tpm=30), Limits(rpm=5, tpm=500), TokensExceeded, id="key-tokens"),
    pytest.param(Limits(rpm=5, tpm=500), Limits(rpm=5, tpm=30), TokensExceeded, id="team-tokens"),
    pytest.param(Limits(rpm=5, tpm=500, concurrency=1), Limits(rpm=5), ConcurrencyExceeded, id="key-places"),
    pytest.param(Limits(rpm=5, tpm=500), Limits(rpm=5, concurrency=1), ConcurrencyExceeded, id="team-places"),
]


@pytest.mark.parametrize(("key", "team", "refused"), ALL_OR_NONE)
def test_a_refusal_takes_nothing_anywhere(key: Limits, team: Limits, refused: type[LimitExceeded]) -> None:
    desk = Desk(key, team)
    desk.take()
    before = desk.left()
    for _ in range(3):
        with pytest.raises(refused):
            desk.take()
    assert desk.left() == before


def test_what_can_never_pass_is_refused_at_once_and_before_what_only_has_to_wait() -> None:
    desk = Desk(Limits(rpm=1, tpm=100))
    desk.take()
    with pytest.raises(RequestTooLargeForLimit) as refused:
        desk.take(prompt=90, output=11)
    assert refused.value.retry_after is None


def test_the_longest_wait_is_said() -> None:
    desk = Desk(Limits(rpm=60, tpm=60), Limits(tpm=600))
    desk.take(prompt=1, output=59)
    with pytest.raises(TokensExceeded) as refused:
        desk.take(prompt=1, output=29)
    assert refused.value.retry_after == 30.0
    assert refused.value.window.scope == "key"


SETTLED = [
    # settled with, tokens that stay charged, requests that stay charged
    pytest.param(20, 20, 1, id="what-was-reserved"),
    pytest.param(5, 5, 1, id="less"),
    pytest.param(0, 0, 1, id="no-tokens"),
    pytest.param(150, 150, 1, id="more-so-that-it-is-debt"),
    pytest.param(None, 0, 0, id="nothing"),
]


@pytest.mark.parametrize(("settled", "tokens", "requests"), SETTLED)
def test_settlement(settled: int | None, tokens: int, requests: int) -> None:
    desk = Desk(Limits(rpm=10, tpm=100, concurrency=2), Limits(rpm=20, tpm=200, concurrency=4))
    full = desk.left()
    grant = desk.take()
    assert grant.tokens == 20
    assert desk.left()["key concurrency"] == 1
    for _ in range(2):  # delivered twice, it changes nothing
        desk.limiter.settle(grant, settled)
    after = desk.left()
    for scope in ("key", "team"):
        assert full[f"{scope} tokens"] - after[f"{scope} tokens"] == tokens
        assert full[f"{scope} requests"] - after[f"{scope} requests"] == requests
        assert full[f"{scope} concurrency"] == after[f"{scope} concurrency"]


def test_giving_back_never_fills_above_the_brim() -> None:
    desk = Desk(Limits(tpm=100))
    grant = desk.take(output=90)
    desk.clock.advance(3_600)
    desk.limiter.settle(grant, None)
    assert desk.left()["key tokens"] == 100


def test_keys_of_a_team_share_its_limits_and_not_each_others() -> None:
    desk = Desk(Limits(rpm=3), Limits(rpm=4))
    for _ in range(3):
        desk.take()
    with pytest.raises(RequestsExceeded):
        desk.take()
    desk.take(who=COLLEAGUE)
    with pytest.raises(RequestsExceeded) as refused:
        desk.take(who=COLLEAGUE)
    assert refused.value.window.scope == "team"


def test_a_place_that_nobody_settles_is_free_when_its_lease_ends_and_what_it_reserved_stays_charged() -> None:
    desk = Desk(Limits(tpm=100, concurrency=1, burst_seconds=60), lease=5)
    desk.take()
    desk.clock.advance(4.999999)
    with pytest.raises(ConcurrencyExceeded):
        desk.take()
    desk.clock.advance(0.000001)
    desk.take()
    assert desk.left()["key tokens"] == 100 - 2 * 20 + int(5 * 100 / 60)


OUTPUTS = [
    # limits of key and team, prompt, choices, tokens per choice
    pytest.param(Limits(), Limits(), 10, 1, 4096, id="the-default"),
    pytest.param(Limits(tpm=1_000), Limits(), 10, 1, 990, id="cut-to-the-bucket"),
    pytest.param(Limits(tpm=1_000), Limits(tpm=500), 10, 1, 490, id="cut-to-the-smaller"),
    pytest.param(Limits(tpm=1_000), Limits(), 10, 4, 247, id="shared-by-the-choices"),
    pytest.param(Limits(tpm=100, shadow=frozenset({"tokens"})), Limits(), 10, 1, 4096, id="shadow-cuts-nothing"),
]


@pytest.mark.parametrize(("key", "team", "prompt", "choices", "output"), OUTPUTS)
def test_an_open_request_is_bounded(*, key: Limits, team: Limits, prompt: int, choices: int, output: int) -> None:
    grant = Desk(key, team).take(prompt, None, choices=choices)
    assert grant.output_tokens == output
    assert grant.tokens == prompt + output * choices


class TestShadow:
    LIMITS = Limits(rpm=1, tpm=20, concurrency=1, shadow=frozenset({"requests", "tokens", "concurrency"}))

    def test_refuses_nothing_and_says_what_it_would_have(self) -> None:
        desk = Desk(self.LIMITS)
        assert desk.take().shadow_refusals == ()
        assert desk.take().shadow_refusals == ("key requests", "key tokens", "key concurrency")

    def test_does_not_charge_what_it_would_have_refused(self) -> None:
        desk = Desk(self.LIMITS)
        desk.take()
        for _ in range(5):
            desk.take()
        assert desk.left() == {"key requests": 0, "key tokens": 0, "key concurrency": 0}

    def test_beside_a_limit_that_binds_changes_nothing_of_it(self) -> None:
        desk = Desk(self.LIMITS, Limits(rpm=2))
        desk.take()
        desk.take()
        with pytest.raises(RequestsExceeded) as refused:
            desk.take()
        assert refused.value.window.scope == "team"


MODELS = [
    # of the key, of the team, model, asked as, allowed
    pytest.param((), (), "m", "m", True, id="no-patterns"),
    pytest.param(("llama-*",), (), "llama-3", "llama-3", True, id="pattern"),
    pytest.param(("llama-*",), (), "gpt", "gpt", False, id="other"),
    pytest.param(("gpt-*",), (), "llama-3", "gpt-4", True, id="by-its-alias"),
    pytest.param(("llama-*",), ("gpt-*",), "llama-3", "llama-3", False, id="both-must-allow"),
    pytest.param(("llama-*",), ("gpt-*",), "llama-3", "gpt-4", True, id="each-by-another-name"),
]


@pytest.mark.parametrize(("key", "team", "model", "asked", "allowed"), MODELS)
def test_models(*, key: tuple[str, ...], team: tuple[str, ...], model: str, asked: str, allowed: bool) -> None:
    desk = Desk(Limits(rpm=5, models=key), Limits(models=team))
    ask = Ask(model, asked, 1, 1)
    if allowed:
        now(desk.limiter.take(WHO, ask))
    else:
        with pytest.raises(ModelNotFound):
            now(desk.limiter.take(WHO, ask))
        assert desk.left() == {"key requests": 5}


def test_many_tasks_never_take_more_than_there_is() -> None:
    desk = Desk(Limits(rpm=50, tpm=5_000))

    async def ask() -> int:
        try:
            grant = await desk.limiter.take(WHO, Ask("m", "m", 10, 190))
        except LimitExceeded:
            return 0
        return int(grant.tokens)

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(ask() for _ in range(200))))

    with asyncio.Runner() as runner:
        assert runner.run(all_of_them()) == 5_000
