"""Which endpoint: the less loaded of two random ones.

"The power of two choices" (Mitzenmacher, 2001): nearly as even as looking at all of them, and replicas that decide
apart do not all run to the same one. Who may be drawn at all is said by `health.py`.
"""

from collections.abc import Callable, Sequence
from random import random

from weir.core.types import Endpoint


def choose(endpoints: Sequence[Endpoint], rand: Callable[[], float] = random) -> Endpoint:
    """`rand` gives numbers in [0, 1). Weights count twice: in who is drawn, and in how loaded one is."""
    if len(endpoints) == 1:
        return endpoints[0]
    first = _draw(endpoints, rand())
    others = [endpoint for endpoint in endpoints if endpoint is not first]
    if not others:  # one that stands there twice
        return first
    second = _draw(others, rand())
    return first if _load(first) <= _load(second) else second


def _draw(endpoints: Sequence[Endpoint], at: float) -> Endpoint:
    point = at * sum(endpoint.weight for endpoint in endpoints)
    for endpoint in endpoints:
        point -= endpoint.weight
        if point < 0:
            return endpoint
    return endpoints[-1]


def _load(endpoint: Endpoint) -> float:
    return (endpoint.in_flight + 1) / endpoint.weight
