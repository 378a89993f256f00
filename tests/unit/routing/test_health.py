"""Who is ejected, for how long, who may look again, and that never nobody is left."""

import pytest

from tests.fakes.clock import ManualClock
from weir.core.types import Endpoint
from weir.routing import Health, Trial
from weir.routing.health import DOUBLINGS, FAILURES, FORGET, LONGEST_PAUSE, UNREACHED, UNWELL


class Ward:
    """Endpoints, the rules over them, and what was said."""

    def __init__(self, beds: int = 2, *, jitter: float = 0.5, **fields: int) -> None:
        self.clock = ManualClock()
        self.said: list[tuple[str, object]] = []
        self.health = Health(self.clock, lambda kind, it: self.said.append((kind, it["endpoint"])), lambda: jitter)
        self.all = [Endpoint(f"http://{number}", **fields) for number in range(beds)]

    def fit(self, *tried: int, last_resort: bool = True) -> list[int]:
        found = self.health.fit(self.all, [self.all[number] for number in tried], last_resort=last_resort)
        return [self.all.index(endpoint) for endpoint in found]

    def fail(self, number: int, times: int = 1, *, unreached: bool = False) -> None:
        for _ in range(times):
            self.health.failed(self.all[number], "why", unreached=unreached)

    def eject(self, number: int, *, gone: bool = False) -> None:
        self.fail(number, FAILURES, unreached=gone)
        assert self.all[number].ejected

    def probe(self, number: int) -> Trial:
        assert self.fit() == [number]
        trial = self.health.begin(self.all[number])
        assert trial is Trial.PROBE
        return trial


def test_all_are_fit_at_first_and_nothing_is_copied() -> None:
    ward = Ward(3)
    assert ward.health.fit(ward.all) is ward.all


@pytest.mark.parametrize(
    ("failures", "unreached", "ejected"),
    [
        pytest.param(FAILURES - 1, False, False, id="nearly"),
        pytest.param(FAILURES, False, True, id="failures"),
        pytest.param(UNREACHED - 1, True, False, id="nearly-unreached"),
        pytest.param(UNREACHED, True, True, id="unreached"),
    ],
)
def test_failures_in_a_row_eject(*, failures: int, unreached: bool, ejected: bool) -> None:
    ward = Ward()
    ward.fail(0, failures, unreached=unreached)
    assert ward.all[0].ejected is ejected
    assert ward.fit() == ([1] if ejected else [0, 1])
    assert ward.said == ([("ejected", "http://0")] if ejected else [])


def test_failures_of_both_kinds_add_up() -> None:
    ward = Ward()
    for n in range(FAILURES):
        ward.fail(0, unreached=n % 2 == 0)
    assert ward.all[0].ejected


def test_unreached_ones_in_a_row_means_in_a_row() -> None:
    ward = Ward()
    for unreached in (True, True, False, True):
        ward.fail(0, unreached=unreached)
    assert not ward.all[0].ejected


def test_only_a_whole_answer_ends_a_row_of_failures() -> None:
    ward = Ward()
    ward.fail(0, FAILURES - 1)
    ward.health.answered(ward.all[0], None)
    ward.fail(0)
    assert ward.all[0].ejected, "one that always breaks off never looks well"
    other = Ward()
    other.fail(0, FAILURES - 1)
    other.health.completed(other.all[0])
    other.fail(0)
    assert not other.all[0].ejected


def test_any_answer_ends_a_row_of_unreached() -> None:
    ward = Ward()
    ward.fail(0, UNREACHED - 1, unreached=True)
    ward.health.answered(ward.all[0], None)
    ward.fail(0, unreached=True)
    assert not ward.all[0].ejected


def test_said_once_however_many_fail() -> None:
    ward = Ward()
    ward.fail(0, 50)
    assert ward.said == [("ejected", "http://0")]


def test_one_probe_after_the_pause_and_only_one() -> None:
    ward = Ward()
    ward.eject(0)
    ward.clock.advance(0.999)
    assert ward.fit() == [1]
    ward.clock.advance(0.001)
    ward.probe(0)
    assert ward.fit() == [1], "its probe is under way"


def test_a_good_probe_restores() -> None:
    ward = Ward()
    ward.eject(0)
    ward.clock.advance(1)
    ward.health.answered(ward.all[0], ward.probe(0))
    assert ward.fit() == [0, 1]
    assert ward.said == [("ejected", "http://0"), ("restored", "http://0")]
    ward.fail(0, FAILURES - 1)
    assert not ward.all[0].ejected, "it begins anew"


def test_a_probe_that_nobody_waited_for_lets_the_next_one() -> None:
    ward = Ward()
    ward.eject(0)
    ward.clock.advance(1)
    ward.health.undecided(ward.all[0], ward.probe(0))
    ward.probe(0)


def pauses(ward: Ward, count: int) -> list[float]:
    """How long each ejection lasts, when each probe fails."""
    found = []
    ward.eject(0)
    for _ in range(count):
        since = ward.clock()
        while ward.fit() != [0]:
            ward.clock.advance(0.01)
        found.append(round(ward.clock() - since, 2))
        ward.health.failed(ward.all[0], "still", ward.probe(0))
    assert ward.said == [("ejected", "http://0")], "no news is not told"
    return found


def test_pauses_double_up_to_the_longest() -> None:
    assert pauses(Ward(), 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(("jitter", "first"), [(0.0, 0.8), (0.999999, 1.2)])
def test_pauses_have_jitter(jitter: float, first: float) -> None:
    found = pauses(Ward(jitter=jitter), 8)
    assert found[0] == pytest.approx(first, abs=0.011)
    assert found[-1] == pytest.approx(first * LONGEST_PAUSE, abs=0.011)


def test_a_thousand_failed_probes_are_no_overflow() -> None:
    ward = Ward()
    ward.eject(0)
    for _ in range(2_000):
        ward.clock.advance(100)
        ward.health.failed(ward.all[0], "still", ward.probe(0))
    assert ward.all[0].standing.ejections == DOUBLINGS


@pytest.mark.parametrize(("well_for", "pause"), [(FORGET - 1, 2), (FORGET + 1, 1)], ids=["relapse", "forgotten"])
def test_a_relapse_goes_on_where_it_was(well_for: float, pause: float) -> None:
    ward = Ward()
    ward.eject(0)
    ward.clock.advance(1)
    ward.health.answered(ward.all[0], ward.probe(0))
    ward.clock.advance(well_for)
    ward.eject(0)
    ward.clock.advance(pause - 0.01)
    assert ward.fit() == [1]
    ward.clock.advance(0.01)
    ward.probe(0)


def test_an_answer_to_an_older_request_restores_nobody() -> None:
    ward = Ward()
    ward.eject(0)
    ward.health.answered(ward.all[0], None)
    ward.health.completed(ward.all[0])
    assert ward.all[0].ejected


def test_a_failure_of_an_older_request_prolongs_nothing() -> None:
    ward = Ward()
    ward.eject(0)
    ward.clock.advance(0.9)
    ward.fail(0, 20)
    ward.clock.advance(0.1)
    ward.probe(0)


class TestPanic:
    """All of them are ejected, and still somebody is asked."""

    def test_whoever_failed_longest_ago(self) -> None:
        ward = Ward(3)
        for number in (1, 0, 2):
            ward.eject(number)
            ward.clock.advance(0.1)
        assert ward.fit() == [1]
        assert ward.health.begin(ward.all[1]) is Trial.LAST_RESORT
        ward.health.failed(ward.all[1], "why", Trial.LAST_RESORT)
        assert ward.fit() == [0], "each in turn"

    def test_a_probe_comes_first(self) -> None:
        ward = Ward(2)
        ward.eject(0)
        ward.health.failed(ward.all[0], "why", Trial.PROBE)  # two seconds
        ward.clock.advance(0.5)
        ward.eject(1)
        assert ward.fit() == [0]
        ward.clock.advance(1)
        ward.probe(1)
        assert ward.fit() == [0], "the last resort, while the probe is under way"

    def test_success_restores(self) -> None:
        ward = Ward(1)
        ward.eject(0)
        ward.health.answered(ward.all[0], ward.health.begin(ward.all[0]))
        assert not ward.all[0].ejected

    def test_failure_of_the_last_resort_prolongs_nothing(self) -> None:
        ward = Ward(1)
        ward.eject(0)
        for _ in range(20):
            assert ward.fit() == [0]
            ward.health.failed(ward.all[0], "why", ward.health.begin(ward.all[0]))
        ward.clock.advance(1)
        ward.probe(0)

    @pytest.mark.parametrize(("gone", "found"), [(True, []), (False, [0])], ids=["nobody-there", "bad-answers"])
    def test_with_a_fallback_only_who_can_be_reached(self, *, gone: bool, found: list[int]) -> None:
        """A client can provoke bad answers, and must not move everybody to another model by it."""
        ward = Ward(1)
        ward.eject(0, gone=gone)
        assert ward.fit(last_resort=False) == found
        assert ward.fit(last_resort=True) == [0]

    def test_is_not_on_while_one_is_well_and_was_tried(self) -> None:
        ward = Ward(2)
        ward.eject(0)
        assert ward.fit(1) == []


class TestTried:
    def test_not_again(self) -> None:
        ward = Ward(3)
        assert ward.fit(0) == [1, 2]
        assert ward.fit(0, 2) == [1]
        assert ward.fit(0, 1, 2) == []

    def test_not_even_as_a_probe(self) -> None:
        ward = Ward(2)
        ward.eject(0)
        ward.clock.advance(1)
        assert ward.fit(0) == [1]


class TestRoom:
    @pytest.mark.parametrize(
        ("loads", "found"),
        [
            pytest.param((1, 1), [0, 1], id="room"),
            pytest.param((2, 1), [1], id="one-full"),
            pytest.param((3, 1), [1], id="one-too-full"),
            pytest.param((2, 2), [], id="all-full"),
        ],
    )
    def test_skips_the_full(self, loads: tuple[int, int], found: list[int]) -> None:
        ward = Ward(2, max_in_flight=2)
        for endpoint, load in zip(ward.all, loads, strict=True):
            endpoint.in_flight = load
        assert ward.fit() == found

    def test_one_that_is_full(self) -> None:
        ward = Ward(1, max_in_flight=1)
        ward.all[0].in_flight = 1
        assert ward.fit() == []

    def test_full_ones_do_not_spill_to_the_ejected(self) -> None:
        ward = Ward(2, max_in_flight=1)
        ward.eject(0)
        ward.all[1].in_flight = 1
        assert ward.fit() == []

    def test_the_last_resort_has_no_more_room_than_it_has(self) -> None:
        ward = Ward(1, max_in_flight=1)
        ward.eject(0)
        ward.all[0].in_flight = 1
        assert ward.fit() == []


class TestChecks:
    def test_two_in_a_row_eject_and_one_restores(self) -> None:
        ward = Ward()
        one = ward.all[0]
        for why in ("a", None, "b"):
            ward.health.checked(one, why)
        assert not one.ejected
        ward.health.checked(one, "c")
        assert (one.ejected, ward.fit()) == (True, [1])
        for _ in range(10):
            ward.health.checked(one, "d")
        ward.clock.advance(1e6)
        assert ward.fit() == [1], "no request has to try: the check will"
        ward.health.checked(one, None)
        assert ward.fit() == [0, 1]
        assert ward.said == [("ejected", "http://0"), ("restored", "http://0")]

    def test_again_and_again(self) -> None:
        ward = Ward()
        for _ in range(3):
            for _ in range(UNWELL):
                ward.health.checked(ward.all[0], "why")
            ward.clock.advance(1e6)
            assert ward.fit() == [1]
            ward.health.checked(ward.all[0], None)
            assert ward.fit() == [0, 1]
        assert [kind for kind, _ in ward.said] == ["ejected", "restored"] * 3

    def test_many_failed_ones_are_one_ejection(self) -> None:
        ward = Ward()
        for _ in range(50):
            ward.health.checked(ward.all[0], "why")
        assert ward.all[0].standing.ejections == 1

    def test_an_answer_of_the_last_resort_does_not_outvote_them(self) -> None:
        ward = Ward(1)
        for _ in range(UNWELL):
            ward.health.checked(ward.all[0], "why")
        assert ward.fit() == [0]
        ward.health.answered(ward.all[0], ward.health.begin(ward.all[0]))
        assert ward.all[0].ejected

    def test_they_bring_back_who_could_not_be_reached(self) -> None:
        ward = Ward()
        ward.eject(0, gone=True)
        ward.health.checked(ward.all[0], None)
        assert not ward.all[0].ejected

    def test_but_not_who_answers_badly(self) -> None:
        ward = Ward()
        ward.eject(0)
        ward.health.checked(ward.all[0], None)
        assert ward.all[0].ejected

    def test_a_probe_that_fails_after_a_check_has_restored(self) -> None:
        ward = Ward()
        ward.eject(0, gone=True)
        ward.clock.advance(1)
        trial = ward.probe(0)
        ward.health.checked(ward.all[0], None)
        ward.health.failed(ward.all[0], "why", trial)
        assert not ward.all[0].ejected
        assert not ward.all[0].standing.probing

    @pytest.mark.parametrize("well", [True, False])
    def test_one_that_a_probe_has_out_stays_out_for_the_checks(self, *, well: bool) -> None:
        ward = Ward()
        ward.eject(0, gone=True)
        ward.clock.advance(1)
        trial = ward.probe(0)
        for _ in range(UNWELL):
            ward.health.checked(ward.all[0], "why")
        if well:
            ward.health.answered(ward.all[0], trial)
        else:
            ward.health.failed(ward.all[0], "why", trial)
        ward.clock.advance(1e6)
        assert ward.fit() == [1]
        ward.health.checked(ward.all[0], None)
        assert not ward.all[0].ejected
        assert [kind for kind, _ in ward.said] == ["ejected", "restored"]
