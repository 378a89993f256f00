"""From a header to a principal: what is asked of the store, what is remembered, and for how long."""

from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from tests.fakes.clock import ManualClock
from tests.fakes.ports import FakeKeyStore
from weir.auth.authenticator import GLOBS_SECONDS, KNOWN_MAX, UNKNOWN_MAX, UNKNOWN_SECONDS, Authenticator, bearer
from weir.auth.keys import digest, new_key, new_key_id
from weir.core.errors import KeyMissing, StoreUnavailable, Unauthenticated
from weir.core.types import Principal

T = TypeVar("T")
KEY = b"sk-foreign-0001"
OWNER = Principal("search", "key1", digest(KEY, None))


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("the fake store does not wait")


class Gate:
    """An authenticator, its store and its clock."""

    def __init__(self, *, pepper: bytes | None = None) -> None:
        self.store = FakeKeyStore({digest(KEY, pepper): OWNER})
        self.clock = ManualClock()
        self.auth = Authenticator(self.store, self.clock, pepper=pepper)

    def ask(self, key: bytes = KEY) -> Principal:
        return now(self.auth.authenticate(b"Bearer " + key))

    def refused(self, key: bytes) -> str | None:
        with pytest.raises(Unauthenticated) as refused:
            self.ask(key)
        return refused.value.reason


class TestKnown:
    def test_is_asked_for_once(self) -> None:
        gate = Gate()
        assert [gate.ask() for _ in range(5)] == [OWNER] * 5
        assert gate.store.asked == [OWNER.digest]

    def test_is_known_for_ever(self) -> None:
        gate = Gate()
        gate.ask()
        gate.clock.advance(10 * 365 * 86_400)
        gate.store.away = True
        assert gate.ask() is OWNER

    def test_is_asked_for_again_when_it_was_forgotten(self) -> None:
        gate = Gate()
        gate.ask()
        assert gate.auth.forget(OWNER)
        gate.ask()
        assert len(gate.store.asked) == 2

    def test_cannot_be_forgotten_twice(self) -> None:
        gate = Gate()
        gate.ask()
        gate.auth.forget(OWNER)
        assert not gate.auth.forget(OWNER)

    def test_one_forgotten_leaves_the_others(self) -> None:
        gate = Gate()
        other = Principal("ads", "key2", digest(b"sk-foreign-0002", None))
        gate.store.owners[other.digest] = other
        gate.ask()
        gate.ask(b"sk-foreign-0002")
        gate.auth.forget(OWNER)
        gate.ask(b"sk-foreign-0002")
        assert gate.store.asked.count(other.digest) == 1

    def test_its_table_is_bounded_and_drops_the_oldest(self) -> None:
        gate = Gate()
        keys = [b"k%07d" % number for number in range(KNOWN_MAX + 10)]
        for key in keys:
            fingerprint = digest(key, None)
            gate.store.owners[fingerprint] = Principal("t", "k", fingerprint)
            gate.ask(key)
        asked = len(gate.store.asked)
        gate.ask(keys[-1])
        gate.ask(keys[10])
        assert len(gate.store.asked) == asked, "the last KNOWN_MAX are remembered"
        gate.ask(keys[0])
        assert len(gate.store.asked) == asked + 1, "the first is not"

    def test_looks_with_its_pepper(self) -> None:
        gate = Gate(pepper=b"pepper")
        assert gate.ask() is OWNER
        assert gate.store.asked == [digest(KEY, b"pepper")]


class TestUnknown:
    def test_is_not_asked_for_again_for_a_while(self) -> None:
        gate = Gate()
        for _ in range(5):
            assert gate.refused(b"sk-nobody") == "unknown"
        assert len(gate.store.asked) == 1

    def test_is_asked_for_again_after_it(self) -> None:
        gate = Gate()
        gate.refused(b"sk-nobody")
        gate.clock.advance(UNKNOWN_SECONDS - 0.001)
        gate.refused(b"sk-nobody")
        assert len(gate.store.asked) == 1
        gate.clock.advance(0.001)
        gate.refused(b"sk-nobody")
        assert len(gate.store.asked) == 2

    def test_while_it_is_small_a_new_key_works_within_it(self) -> None:
        gate = Gate()
        fresh = b"sk-fresh-key"
        gate.refused(fresh)
        owner = Principal("t", "k", digest(fresh, None))
        gate.store.owners[owner.digest] = owner
        gate.clock.advance(UNKNOWN_SECONDS)
        assert gate.ask(fresh) is owner
        assert UNKNOWN_SECONDS <= 5

    def test_its_table_is_bounded(self) -> None:
        """A flood of random keys costs no memory: what is remembered at any time is at most UNKNOWN_MAX."""
        gate = Gate()
        keys = [b"k%07d" % number for number in range(UNKNOWN_MAX + 100)]
        for key in keys:
            gate.refused(key)
        asked = len(gate.store.asked)
        for key in keys:
            gate.refused(key)
        remembered = len(keys) - (len(gate.store.asked) - asked)
        assert remembered <= UNKNOWN_MAX
        assert len(gate.store.asked) > asked

    def test_is_not_what_an_outage_makes_of_a_key(self) -> None:
        gate = Gate()
        gate.store.away = True
        with pytest.raises(StoreUnavailable):
            gate.ask()
        gate.store.away = False
        assert gate.ask() is OWNER


class TestMistyped:
    def test_never_asks_the_store(self) -> None:
        gate = Gate()
        good = new_key(new_key_id())
        for place in range(8, len(good)):
            wrong = good[:place] + ("0" if good[place] != "0" else "1") + good[place + 1 :]
            assert gate.refused(wrong.encode()) == "checksum"
        assert gate.store.asked == []

    def test_is_told_nothing_else_than_an_unknown_one(self) -> None:
        gate = Gate()
        texts = set()
        for key in (b"sk-weir-mistyped", b"sk-nobody", new_key(new_key_id()).encode()):
            with pytest.raises(Unauthenticated) as refused:
                gate.ask(key)
            texts.add((refused.value.text, refused.value.code, refused.value.param))
        assert len(texts) == 1

    def test_a_good_one_asks_it(self) -> None:
        gate = Gate()
        gate.refused(new_key(new_key_id()).encode())
        assert len(gate.store.asked) == 1


BEARERS = [
    pytest.param(b"Bearer abc", b"abc", id="usual"),
    pytest.param(b"bearer abc", b"abc", id="small-letters"),
    pytest.param(b"BEARER abc", b"abc", id="capitals"),
    pytest.param(b"Bearer   abc  ", b"abc", id="spaces-around"),
    pytest.param(b"Bearer " + b"k" * 512, b"k" * 512, id="longest"),
    pytest.param(b"Bearer \xfc", b"\xfc", id="not-ascii"),
]
NO_BEARERS = [
    pytest.param(None, KeyMissing, id="no-header"),
    pytest.param(b"", KeyMissing, id="empty"),
    pytest.param(b"Bearer", KeyMissing, id="scheme-alone"),
    pytest.param(b"Bearer ", KeyMissing, id="scheme-and-space"),
    pytest.param(b"Bearer  ", KeyMissing, id="scheme-and-spaces"),
    pytest.param(b"Basic abc", KeyMissing, id="basic"),
    pytest.param(b"abc", KeyMissing, id="key-alone"),
    pytest.param(b"Bearerabc", KeyMissing, id="no-space"),
    pytest.param(b"Bearer a b", Unauthenticated, id="two-words"),
    pytest.param(b"Bearer " + b"k" * 513, Unauthenticated, id="too-long"),
]


@pytest.mark.parametrize(("header", "key"), BEARERS)
def test_bearer(header: bytes, key: bytes) -> None:
    assert bearer(header) == key


@pytest.mark.parametrize(("header", "error"), NO_BEARERS)
def test_no_bearer(header: bytes | None, error: type[Unauthenticated]) -> None:
    with pytest.raises(error) as refused:
        bearer(header)
    assert type(refused.value) is error
    assert refused.value.text.startswith("Incorrect API key provided")
    assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")


def test_a_header_without_a_key_asks_nobody() -> None:
    gate = Gate()
    with pytest.raises(KeyMissing):
        now(gate.auth.authenticate(None))
    assert gate.store.asked == []


@pytest.mark.parametrize(
    ("key", "team", "allowed"),
    [
        pytest.param((), (), {"llama-3", "gpt-4"}, id="no-patterns"),
        pytest.param(("llama-*",), (), {"llama-3"}, id="key"),
        pytest.param((), ("gpt-?",), {"gpt-4"}, id="team"),
        pytest.param(("llama-*",), ("gpt-*",), set(), id="both"),
        pytest.param(("LLAMA-*",), (), set(), id="case-matters"),
    ],
)
def test_may_use(*, key: tuple[str, ...], team: tuple[str, ...], allowed: set[str]) -> None:
    gate = Gate()
    gate.store.globs[OWNER.key_id] = (key, team)
    assert now(gate.auth.may_use(OWNER, ["llama-3", "gpt-4"])) == allowed


class TestMayUseInAnOutage:
    """What was allowed when somebody asked last, for an hour."""

    def asked(self, gate: Gate) -> set[str]:
        return now(gate.auth.may_use(OWNER, ["llama-3", "gpt-4"]))

    def gate(self) -> Gate:
        gate = Gate()
        gate.store.globs[OWNER.key_id] = (("llama-*",), ())
        return gate

    def test_is_what_it_was(self) -> None:
        gate = self.gate()
        self.asked(gate)
        gate.store.away = True
        gate.clock.advance(GLOBS_SECONDS)
        assert self.asked(gate) == {"llama-3"}
        assert now(gate.auth.may_use(OWNER, ["llama-4", "gpt-5"])) == {"llama-4"}

    def test_is_unknown_after_an_hour_however_often_it_was_told(self) -> None:
        gate = self.gate()
        self.asked(gate)
        gate.store.away = True
        gate.clock.advance(GLOBS_SECONDS)
        self.asked(gate)
        gate.clock.advance(0.001)
        with pytest.raises(StoreUnavailable):
            self.asked(gate)

    def test_is_unknown_of_who_never_asked(self) -> None:
        gate = self.gate()
        gate.store.away = True
        with pytest.raises(StoreUnavailable):
            self.asked(gate)

    def test_is_unknown_of_a_key_that_was_forgotten(self) -> None:
        gate = self.gate()
        self.asked(gate)
        gate.auth.forget(OWNER)
        gate.store.away = True
        with pytest.raises(StoreUnavailable):
            self.asked(gate)

    def test_is_asked_again_when_there_is_somebody_to_ask(self) -> None:
        gate = self.gate()
        self.asked(gate)
        gate.store.globs[OWNER.key_id] = (("gpt-*",), ())
        assert self.asked(gate) == {"gpt-4"}
        gate.store.away = True
        assert self.asked(gate) == {"gpt-4"}

    def test_its_table_is_bounded_and_drops_who_asked_longest_ago(self) -> None:
        gate = self.gate()
        callers = [Principal("t", f"k{number}", f"d{number}") for number in range(KNOWN_MAX)]
        for who in [OWNER, *callers[:-1], OWNER, callers[-1]]:
            now(gate.auth.may_use(who, ["m"]))
        gate.store.away = True
        assert self.asked(gate) == {"llama-3"}
        assert now(gate.auth.may_use(callers[1], ["m"])) == {"m"}
        with pytest.raises(StoreUnavailable):
            now(gate.auth.may_use(callers[0], ["m"]))
