"""What is remembered of keys for an outage: what they were told last, for an hour, and not one key too many."""

import gc

import pytest

from tests.fakes.clock import ManualClock
from tests.unit.admission.told import ALIAS, COLLEAGUE, LISTED, LLAMA, WHO, numbers
from weir.admission.known import KNOWN_MAX, KNOWN_SECONDS, MODELS_MAX, Known
from weir.admission.windows import key_limits, team_limits
from weir.core.types import Ask, Limits, Principal

NONE = Limits()


class Memory:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.known = Known(self.clock)

    def note(self, who: Principal = WHO, ask: Ask = LLAMA, key: Limits = NONE, team: Limits = NONE) -> None:
        self.known.note(who, ask, numbers(key, team))


EVERYTHING = Limits(rpm=600, tpm=200_000, concurrency=50, burst_seconds=30, shadow=frozenset({"tokens"}))
LIMITS = [
    pytest.param(Limits(), Limits(), id="none"),
    pytest.param(EVERYTHING, Limits(rpm=1), id="all-of-the-key"),
    pytest.param(Limits(tpm=5), EVERYTHING, id="all-of-the-team"),
    pytest.param(Limits(shadow=frozenset({"requests", "tokens", "concurrency"})), Limits(), id="all-in-shadow"),
]


@pytest.mark.parametrize(("key", "team"), LIMITS)
def test_limits_are_read_back_as_they_were_told(key: Limits, team: Limits) -> None:
    assert (key_limits(numbers(key, team)), team_limits(numbers(key, team))) == (key, team)
    memory = Memory()
    memory.note(key=key, team=team)
    assert memory.known.limits(WHO) == (key, team)


def test_what_was_told_last_counts() -> None:
    memory = Memory()
    memory.note(key=Limits(rpm=5), team=Limits(tpm=5))
    memory.note(key=Limits(rpm=7))
    assert memory.known.limits(WHO) == (Limits(rpm=7), Limits())


def test_all_keys_of_a_team_see_the_newest_limits_of_it() -> None:
    memory = Memory()
    memory.note(WHO, key=Limits(rpm=1), team=Limits(tpm=5))
    memory.note(COLLEAGUE, key=Limits(rpm=2), team=Limits(tpm=6))
    assert memory.known.limits(WHO) == (Limits(rpm=1), Limits(tpm=6))


def test_a_team_is_forgotten_with_its_last_key() -> None:
    memory = Memory()
    memory.note(WHO)
    memory.note(COLLEAGUE)
    for who in (WHO, COLLEAGUE):
        assert len(memory.known._teams) == 1
        memory.known.forget(who, revoked=True)
    gc.collect()
    assert len(memory.known._teams) == 0


STRANGERS = [
    pytest.param(Principal("search", "key9", "d" * 64), id="another-key"),
    pytest.param(Principal("search", "key1", "f" * 64), id="another-digest-of-it"),
    pytest.param(Principal("ads", "key1", "d" * 64), id="another-team"),
]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_who_was_not_seen_is_not_known(stranger: Principal) -> None:
    memory = Memory()
    memory.note()
    assert memory.known.limits(stranger) is None
    assert not memory.known.allows(stranger, LLAMA)


def test_for_an_hour() -> None:
    memory = Memory()
    memory.note(key=LISTED)
    memory.clock.advance(KNOWN_SECONDS)
    assert memory.known.limits(WHO) is not None
    assert memory.known.allows(WHO, LLAMA)
    memory.clock.advance(0.000001)
    assert memory.known.limits(WHO) is None
    assert not memory.known.allows(WHO, LLAMA)


class TestModels:
    def test_any_is_allowed_where_none_is_forbidden(self) -> None:
        memory = Memory()
        memory.note()
        assert memory.known.allows(WHO, Ask("never-seen", "never-seen", 1, 1))

    @pytest.mark.parametrize(
        ("key", "team"), [(LISTED, Limits()), (Limits(), LISTED)], ids=["by-the-key", "by-the-team"]
    )
    def test_where_some_are_forbidden_those_that_were_admitted(self, key: Limits, team: Limits) -> None:
        memory = Memory()
        memory.note(key=key, team=team)
        assert memory.known.allows(WHO, LLAMA)
        assert not memory.known.allows(WHO, ALIAS), "who asks for it by another name is another matter"
        memory.note(ask=ALIAS, key=key, team=team)
        assert memory.known.allows(WHO, ALIAS)

    def test_each_for_an_hour_of_its_own(self) -> None:
        memory = Memory()
        memory.note(key=LISTED)
        memory.clock.advance(KNOWN_SECONDS)
        memory.note(ask=ALIAS, key=LISTED)
        memory.clock.advance(1)
        assert not memory.known.allows(WHO, LLAMA)
        assert memory.known.allows(WHO, ALIAS)

    def test_one_that_was_taken_away_is_forgotten(self) -> None:
        memory = Memory()
        memory.note(key=LISTED)
        memory.note(ask=ALIAS, key=LISTED)
        memory.known.forbid(WHO, LLAMA, "key")
        assert not memory.known.allows(WHO, LLAMA)
        assert memory.known.allows(WHO, ALIAS)

    def test_a_key_that_hears_its_first_no_is_free_no_longer_and_its_team_still_is(self) -> None:
        memory = Memory()
        memory.note(WHO)
        memory.note(COLLEAGUE)
        memory.known.forbid(WHO, LLAMA, "key")
        assert not memory.known.allows(WHO, ALIAS)
        assert memory.known.allows(COLLEAGUE, ALIAS)
        assert memory.known.limits(WHO) == (Limits(), Limits())

    def test_a_team_that_hears_it_is_free_no_longer_with_all_its_keys(self) -> None:
        memory = Memory()
        memory.note(WHO)
        memory.note(COLLEAGUE)
        memory.known.forbid(WHO, LLAMA, "team")
        assert not memory.known.allows(COLLEAGUE, ALIAS)

    def test_of_a_stranger_changes_nothing(self) -> None:
        memory = Memory()
        memory.known.forbid(WHO, LLAMA, "key")
        assert len(memory.known) == 0

    def test_their_table_is_bounded(self) -> None:
        memory = Memory()
        for number in range(MODELS_MAX + 10):
            memory.note(ask=Ask("m", f"m{number}", 1, 1), key=LISTED)
        assert not memory.known.allows(WHO, Ask("m", "m9", 1, 1))
        assert memory.known.allows(WHO, Ask("m", "m10", 1, 1))


class TestForgotten:
    @pytest.mark.parametrize("revoked", [True, False])
    def test_at_once(self, revoked: bool) -> None:
        memory = Memory()
        memory.note()
        memory.known.forget(WHO, revoked=revoked)
        assert memory.known.limits(WHO) is None
        assert len(memory.known) == 0

    def test_a_stranger_changes_nothing(self) -> None:
        memory = Memory()
        memory.note(COLLEAGUE)
        memory.known.forget(WHO, revoked=True)
        assert memory.known.limits(COLLEAGUE) is not None


class TestRotation:
    """Two keys, one key id: while both are good, both are known, each for its own hour."""

    OLD, NEW = WHO, Principal("search", "key1", "n" * 64)

    def rotating(self) -> Memory:
        memory = Memory()
        memory.note(self.OLD)
        memory.clock.advance(100)
        memory.note(self.NEW)
        return memory

    def known(self, memory: Memory) -> list[bool]:
        return [memory.known.limits(who) is not None for who in (self.OLD, self.NEW)]

    def test_both_are_known(self) -> None:
        memory = self.rotating()
        assert self.known(memory) == [True, True]
        assert len(memory.known) == 1

    def test_each_for_its_own_hour(self) -> None:
        memory = self.rotating()
        memory.clock.advance(KNOWN_SECONDS - 50)
        assert self.known(memory) == [False, True]

    @pytest.mark.parametrize("last", [OLD, NEW], ids=["old-was-last", "new-was-last"])
    def test_who_still_sends_the_old_one_after_its_end_does_not_cost_the_new_one(self, last: Principal) -> None:
        memory = self.rotating()
        memory.note(last)
        memory.known.forget(self.OLD, revoked=False)
        assert self.known(memory) == [False, True]

    @pytest.mark.parametrize("by", [OLD, NEW], ids=["old", "new"])
    def test_revoked_is_the_key_in_either_form(self, by: Principal) -> None:
        memory = self.rotating()
        memory.known.forget(by, revoked=True)
        assert self.known(memory) == [False, False]

    def test_a_third_takes_the_place_of_the_first(self) -> None:
        memory = self.rotating()
        third = Principal("search", "key1", "t" * 64)
        memory.note(third)
        assert self.known(memory) == [False, True]
        assert memory.known.limits(third) is not None

    def test_the_same_digest_in_another_object_is_the_same(self) -> None:
        memory = self.rotating()
        again = Principal("search", "key1", "".join(["n"] * 64))
        assert again.digest is not self.NEW.digest
        memory.note(again)
        assert self.known(memory) == [True, True]


def test_the_table_is_bounded_and_drops_who_was_not_seen_for_longest() -> None:
    memory = Memory()
    callers = [Principal(f"t{n % 9}", f"k{n}", f"d{n}") for n in range(KNOWN_MAX + 1)]
    for who in callers[:-1]:
        memory.note(who)
    memory.note(callers[0])
    assert len(memory.known) == KNOWN_MAX
    memory.note(callers[-1])
    assert len(memory.known) <= KNOWN_MAX
    assert memory.known.limits(callers[1]) is None
    for who in (callers[0], callers[3], callers[-1]):
        assert memory.known.limits(who) is not None


def test_what_is_too_old_makes_room_long_before() -> None:
    memory = Memory()
    for n in range(100):
        memory.note(Principal("t", f"old{n}", f"d{n}"))
    memory.clock.advance(KNOWN_SECONDS + 1)
    for n in range(100):
        memory.note(Principal("t", f"new{n}", f"e{n}"))
    assert len(memory.known) == 100
