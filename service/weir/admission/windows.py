"""The sixteen numbers in which admit.lua tells how the limits of key and team stand, read back. Pure.

For key, then team: rpm, burst seconds, level, tpm, level, concurrency, taken, bits. -1: there is no such limit.
"""

from collections.abc import Sequence

from weir.admission.token_bucket import PARTS
from weir.core.types import SCOPES, UNITS, Limits, Window

Numbers = Sequence[int]
KEY_BITS, TEAM_BITS = 7, 15  # where the bits stand
SHADOW = {1: UNITS[0], 2: UNITS[1], 4: UNITS[2]}  # the bit of each unit
ANY_MODEL = 8  # the bit that says: no model is forbidden


def windows_of(numbers: Numbers) -> tuple[Window, ...]:
    """How each limit stands; limits that are not there are left out."""
    found: list[Window] = []
    for scope, first in (("key", 0), ("team", 8)):
        rpm, burst, requests, tpm, tokens, places, taken, bits = numbers[first : first + 8]
        if rpm > 0:
            found.append(_rate(scope, "requests", rpm * burst * 1_000_000, rpm, requests, burst, bits & 1))
        if tpm > 0:
            found.append(_rate(scope, "tokens", tpm * burst * 1_000_000, tpm, tokens, burst, bits & 2))
        if places > 0:
            found.append(_window(Window, (scope, "concurrency", places, places - taken, 0, 0.0, bool(bits & 4))))
    return tuple(found)


def key_limits(numbers: Numbers) -> Limits:
    """What the key's limits are; its model patterns are not among the numbers."""
    return _limits(*numbers[:8])


def team_limits(numbers: Numbers) -> Limits:
    return _limits(*numbers[8:])


def shadow_names(bits: int) -> tuple[str, ...]:
    return tuple(
        f"{scope} {unit}" for i, (scope, unit) in enumerate((s, u) for s in SCOPES for u in UNITS) if bits >> i & 1
    )


def _limits(
    rpm: int, burst: int, _requests: int, tpm: int, _tokens: int, places: int, _taken: int, bits: int
) -> Limits:
    return Limits(
        rpm=rpm if rpm > 0 else None,
        tpm=tpm if tpm > 0 else None,
        concurrency=places if places > 0 else None,
        burst_seconds=burst,
        shadow=frozenset(unit for bit, unit in SHADOW.items() if bits & bit),
    )


_window = tuple.__new__  # a named tuple by its fields' names costs three times as much, six times a request


def _rate(scope: str, unit: str, full: int, speed: int, level: int, burst: int, shadow: int) -> Window:
    """`full` and `level` in parts, `speed` in units a minute, which is parts a microsecond."""
    full = max(full, PARTS)
    reset = (full - level) / speed / 1e6
    return _window(Window, (scope, unit, full // PARTS, level // PARTS, burst, reset if reset > 0 else 0.0, shadow > 0))
