"""The arithmetic as a table of numbers, and as laws."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weir.admission.token_bucket import PARTS, Bucket, Rate, left, refill, take, until_full, wait

LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
SECOND = 1_000_000
MINUTELY = Rate(60, 60)  # one a second, sixty at most

REFILLS = [
    # level before, microseconds later, rate, level after
    pytest.param(0, 0, MINUTELY, 0, id="no-time-no-refill"),
    pytest.param(0, 1, MINUTELY, 60, id="a-microsecond"),
    pytest.param(0, SECOND, MINUTELY, PARTS, id="a-second-a-unit"),
    pytest.param(0, 90 * SECOND, MINUTELY, 60 * PARTS, id="never-above-capacity"),
    pytest.param(-5 * PARTS, 3 * SECOND, MINUTELY, -2 * PARTS, id="debt-is-paid-back-first"),
    pytest.param(0, 60 * SECOND, Rate(7, 60), 7 * PARTS, id="odd-rates-lose-nothing"),
    pytest.param(0, SECOND, Rate(1, 1), SECOND, id="slow-bucket-holds-one-unit"),
    pytest.param(0, 90 * SECOND, Rate(1, 1), PARTS, id="slow-bucket-holds-one-unit-at-most"),
]


@pytest.mark.parametrize(("before", "later", "rate", "after"), REFILLS)
def test_refill(*, before: int, later: int, rate: Rate, after: int) -> None:
    assert refill(Bucket(before, 1_000), rate, 1_000 + later) == Bucket(after, 1_000 + later)


WAITS = [
    # level, rate, cost, microseconds (None: never)
    pytest.param(60 * PARTS, MINUTELY, 1, 0, id="there"),
    pytest.param(PARTS, MINUTELY, 1, 0, id="just-there"),
    pytest.param(PARTS - 1, MINUTELY, 1, 1, id="a-part-short"),
    pytest.param(0, MINUTELY, 1, SECOND, id="one"),
    pytest.param(0, MINUTELY, 60, 60 * SECOND, id="all-of-it"),
    pytest.param(0, MINUTELY, 61, None, id="more-than-it-holds"),
    pytest.param(60 * PARTS, MINUTELY, 61, None, id="more-than-it-holds-when-full"),
    pytest.param(-PARTS, MINUTELY, 1, 2 * SECOND, id="in-debt"),
    pytest.param(0, Rate(7, 60), 1, 8_571_429, id="rounded-up"),
    pytest.param(0, MINUTELY, 0, 0, id="nothing-wanted"),
    pytest.param(-PARTS, MINUTELY, 0, SECOND, id="nothing-wanted-in-debt"),
]


@pytest.mark.parametrize(("level", "rate", "cost", "expected"), WAITS)
def test_wait(*, level: int, rate: Rate, cost: int, expected: int | None) -> None:
    assert wait(Bucket(level, 0), rate, cost) == expected


@pytest.mark.parametrize(
    ("rate", "units"),
    [
        pytest.param(Rate(60, 60), 60, id="a-minute-of-it"),
        pytest.param(Rate(600, 1), 10, id="a-second-of-it"),
        pytest.param(Rate(100, 7), 11, id="fractions-are-kept-as-parts"),
        pytest.param(Rate(1, 1), 1, id="one-at-least"),
        pytest.param(Rate(10, 86_400), 14_400, id="a-day-of-it"),
    ],
)
def test_capacity(*, rate: Rate, units: int) -> None:
    assert rate.capacity // PARTS == units


def test_nobody_has_touched_it_so_it_is_full() -> None:
    assert refill(None, MINUTELY, 5) == Bucket(60 * PARTS, 5)


def test_time_never_runs_backwards() -> None:
    assert refill(Bucket(PARTS, 1_000), MINUTELY, 10) == Bucket(PARTS, 1_000)


def test_take_leaves_the_time_alone_and_may_go_into_debt() -> None:
    assert take(Bucket(PARTS, 7), 3) == Bucket(-2 * PARTS, 7)


@pytest.mark.parametrize(("level", "units"), [(0, 0), (PARTS - 1, 0), (PARTS, 1), (-1, -1), (-PARTS, -1)])
def test_left_counts_whole_units_downwards(level: int, units: int) -> None:
    assert left(Bucket(level, 0)) == units


@pytest.mark.parametrize(("level", "seconds"), [(0, 60.0), (60 * PARTS, 0.0), (59 * PARTS, 1.0), (-60 * PARTS, 120.0)])
def test_until_full(level: int, seconds: float) -> None:
    assert until_full(Bucket(level, 0), MINUTELY) == seconds


RATES = st.builds(Rate, st.integers(1, 10_000_000), st.integers(1, 3_600))
TIMES = st.integers(0, 10**16)
SPANS = st.integers(0, 10**11)


@st.composite
def buckets(draw: st.DrawFn) -> tuple[Bucket, Rate]:
    rate = draw(RATES)
    return Bucket(draw(st.integers(-(10**15), rate.capacity)), draw(TIMES)), rate


@LAW
@given(buckets(), SPANS)
def test_never_above_capacity_and_never_less_than_before(case: tuple[Bucket, Rate], span: int) -> None:
    bucket, rate = case
    after = refill(bucket, rate, bucket.at + span)
    assert bucket.level <= after.level <= rate.capacity


@LAW
@given(buckets(), SPANS, SPANS)
def test_looking_in_between_changes_nothing(case: tuple[Bucket, Rate], one: int, two: int) -> None:
    bucket, rate = case
    at_once = refill(bucket, rate, bucket.at + one + two)
    looked = refill(refill(bucket, rate, bucket.at + one), rate, bucket.at + one + two)
    assert at_once == looked


@LAW
@given(buckets(), st.data())
def test_wait_is_exact_to_the_microsecond(case: tuple[Bucket, Rate], data: st.DataObject) -> None:
    bucket, rate = case
    cost = data.draw(st.integers(0, rate.capacity // PARTS))
    waiting = wait(bucket, rate, cost)
    assert waiting is not None
    assert wait(refill(bucket, rate, bucket.at + waiting), rate, cost) == 0
    assert refill(bucket, rate, bucket.at + waiting).level >= cost * PARTS
    if waiting:
        early = refill(bucket, rate, bucket.at + waiting - 1)
        assert early.level < cost * PARTS
        assert wait(early, rate, cost) == 1


@LAW
@given(RATES, st.lists(st.tuples(SPANS, st.integers(0, 1_000)), max_size=30))
def test_over_any_time_no_more_passes_than_capacity_and_refill(rate: Rate, asks: list[tuple[int, int]]) -> None:
    bucket, admitted = refill(None, rate, 0), 0
    for span, cost in asks:
        bucket = refill(bucket, rate, bucket.at + span)
        if wait(bucket, rate, cost) == 0:
            bucket = take(bucket, cost)
            admitted += cost
    assert admitted * PARTS <= rate.capacity + bucket.at * rate.per_minute


@LAW
@given(buckets(), st.integers(0, 10**6))
def test_what_is_given_back_was_never_taken(case: tuple[Bucket, Rate], cost: int) -> None:
    bucket, _ = case
    assert take(take(bucket, cost), -cost) == bucket
