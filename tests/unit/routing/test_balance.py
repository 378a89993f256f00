"""Least loaded of two random ones: never the more loaded of the two, and in the long run as the weights say."""

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.core.types import Endpoint
from weir.routing import choose

LAW = settings(deadline=None)


def endpoints(*loads: tuple[float, int]) -> list[Endpoint]:
    """(weight, in flight) each."""
    return [Endpoint(f"http://{n}", weight, in_flight=load) for n, (weight, load) in enumerate(loads)]


def dice(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


ROWS = [
    # weights and loads, the two numbers drawn, who is chosen
    pytest.param([(1, 0), (1, 0)], (0.0, 0.0), 0, id="equal-and-first-drawn"),
    pytest.param([(1, 0), (1, 0)], (0.9, 0.0), 1, id="equal-and-second-drawn"),
    pytest.param([(1, 3), (1, 1)], (0.0, 0.0), 1, id="less-loaded"),
    pytest.param([(1, 3), (1, 1)], (0.9, 0.0), 1, id="less-loaded-though-drawn-first"),
    pytest.param([(1, 9), (1, 5), (1, 0)], (0.0, 0.1), 1, id="only-of-the-two-that-were-drawn"),
    pytest.param([(4, 3), (1, 1)], (0.0, 0.0), 0, id="load-is-by-weight"),
    pytest.param([(4, 9), (1, 1)], (0.0, 0.0), 1, id="but-not-for-ever"),
    pytest.param([(1, 0), (3, 0)], (0.24, 0.0), 1, id="equal-loads-go-to-the-heavier"),
    pytest.param([(1, 0), (1, 0), (1, 0)], (0.34, 0.99), 1, id="draws-by-thirds"),
    pytest.param([(1, 0), (1, 0)], (0.999999999999, 0.999999999999), 1, id="the-last-of-all-numbers"),
]


@pytest.mark.parametrize(("loads", "drawn", "chosen"), ROWS)
def test_choose(loads: list[tuple[float, int]], drawn: tuple[float, float], chosen: int) -> None:
    among = endpoints(*loads)
    assert choose(among, dice(*drawn)) is among[chosen]


def test_one_needs_no_choice() -> None:
    among = endpoints((1, 99))
    assert choose(among, dice()) is among[0]


def test_one_that_stands_there_twice_needs_none_either() -> None:
    (one,) = endpoints((1, 0))
    assert choose([one, one], dice(0.5)) is one


LOADS = st.lists(st.tuples(st.floats(0.1, 100), st.integers(0, 50)), min_size=2, max_size=6)
NUMBERS = st.floats(0, 1, exclude_max=True)


@LAW
@given(LOADS, NUMBERS, NUMBERS)
def test_never_the_most_loaded_of_all(loads: list[tuple[float, int]], one: float, two: float) -> None:
    """Two different ones are drawn, so whoever is alone with the highest load cannot win."""
    among = endpoints(*loads)
    chosen = choose(among, dice(one, two))
    load = {id(e): (e.in_flight + 1) / e.weight for e in among}
    assert any(load[id(other)] >= load[id(chosen)] for other in among if other is not chosen)


@LAW
@given(LOADS, NUMBERS, NUMBERS)
def test_choosing_changes_nothing(loads: list[tuple[float, int]], one: float, two: float) -> None:
    among = endpoints(*loads)
    choose(among, dice(one, two))
    assert [(e.weight, e.in_flight) for e in among] == loads


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 1.0, 1.0, 1.0), (3.0, 1.0), (5.0, 3.0, 2.0)])
def test_long_running_requests_spread_as_the_weights_say(weights: tuple[float, ...]) -> None:
    among = endpoints(*((weight, 0) for weight in weights))
    rand = Random(7).random
    for _ in range(2_000):
        choose(among, rand).in_flight += 1
    for endpoint in among:
        share = 2_000 * endpoint.weight / sum(weights)
        assert abs(endpoint.in_flight - share) <= 0.05 * 2_000


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 1.0, 1.0)])
def test_when_nothing_is_under_way_equal_ones_are_drawn_equally(weights: tuple[float, ...]) -> None:
    among = endpoints(*((weight, 0) for weight in weights))
    rand = Random(11).random
    counts = Counter(choose(among, rand).url for _ in range(6_000))
    assert len(counts) == len(weights)
    assert min(counts.values()) > 0.8 * 6_000 / len(weights)


def test_the_default_is_random() -> None:
    among = endpoints((1, 0), (1, 0))
    assert {choose(among).url for _ in range(200)} == {"http://0", "http://1"}
