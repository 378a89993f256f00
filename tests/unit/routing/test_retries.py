"""No storms: what may be spent on retries, and how they part in time."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.routing import CAP, RetryBudget, backoff
from weir.routing.retries import MOST, PER_REQUEST, PER_SECOND


def spend(budget: RetryBudget, now: float) -> int:
    """All that there is."""
    spent = 0
    while budget.take(now):
        spent += 1
    return spent


def test_begins_with_what_can_be_saved() -> None:
    assert spend(RetryBudget(100.0), 100.0) == MOST


@pytest.mark.parametrize(
    ("requests", "seconds", "retries"),
    [
        pytest.param(0, 0, 0, id="nothing"),
        pytest.param(4, 0, 0, id="nearly"),
        pytest.param(5, 0, 1, id="every-fifth-request"),
        pytest.param(0, 1, 1, id="one-a-second"),
        pytest.param(0, 0.99, 0, id="not-before"),
        pytest.param(5, 1, 2, id="both"),
        pytest.param(1_000_000, 0, 10, id="requests-no-more-than-can-be-saved"),
        pytest.param(0, 1_000_000, 10, id="seconds-no-more-than-can-be-saved"),
    ],
)
def test_earned_since_the_last(requests: int, seconds: float, retries: int) -> None:
    budget = RetryBudget(0.0)
    spend(budget, 0.0)
    budget.requests += requests
    assert spend(budget, seconds) == retries


def test_small_traffic_can_retry() -> None:
    """A request every ten seconds, each of which fails twice."""
    budget = RetryBudget(0.0)
    for n in range(1_000):
        budget.requests += 1
        assert budget.take(n * 10.0)
        assert budget.take(n * 10.0)


def test_a_clock_that_goes_backwards_earns_nothing() -> None:
    budget = RetryBudget(100.0)
    spend(budget, 100.0)
    assert spend(budget, 0.0) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 5), st.integers(0, 50)), max_size=40))
def test_never_more_than_was_earned(steps: list[tuple[int, float, int]]) -> None:
    budget, now, taken = RetryBudget(0.0), 0.0, 0
    for requests, seconds, wanted in steps:
        budget.requests += requests
        now += seconds
        taken += sum(budget.take(now) for _ in range(wanted))
        assert taken <= MOST + PER_REQUEST * budget.requests + PER_SECOND * now + 1e-6


@pytest.mark.parametrize(
    ("attempt", "longest"), [(0, 0.025), (1, 0.05), (2, 0.1), (5, 0.8), (6, 1.0), (10, 1.0), (1_000, 1.0)]
)
def test_backoff_is_anywhere_up_to_its_bound(attempt: int, longest: float) -> None:
    assert backoff(attempt, lambda: 0.0) == 0
    assert backoff(attempt, lambda: 0.5) == longest / 2
    drawn = [backoff(attempt, Random(3).random) for _ in range(100)]
    assert all(0 <= pause < longest <= CAP for pause in drawn)
