"""The sentence of a refusal: which limit, how much is left, when to come back."""

from collections.abc import Sequence

from weir.core.errors import (
    ConcurrencyExceeded,
    LimitExceeded,
    RequestsExceeded,
    RequestTooLargeForLimit,
    TokensExceeded,
)
from weir.core.types import Scope, Unit, Window

NEVER, UNKNOWN = -1, -2
PLACE_RETRY = 1.0  # seconds; nobody knows when a running request ends


def refusal(scope: Scope, unit: Unit, wait_us: int, needed: int, windows: Sequence[Window]) -> LimitExceeded:
    """`wait_us` in microseconds; NEVER where waiting cannot help, UNKNOWN where a place must become free."""
    window = next(w for w in windows if (w.scope, w.unit) == (scope, unit))
    whose = "your key" if scope == "key" else "your team"
    if unit == "concurrency":
        detail = (
            f"Concurrency limit of {whose} reached: {window.limit} requests at once, {window.limit - window.remaining} "
            f"are running, 0 left. Try again in {PLACE_RETRY:g} seconds, or when one of them has ended."
        )
        return ConcurrencyExceeded(window, windows, needed=1, retry_after=PLACE_RETRY, detail=detail)
    if unit == "requests":
        seconds = wait_us / 1e6
        detail = (
            f"Request limit of {whose} reached: {_rate(window)}, {max(window.remaining, 0)} left. "
            f"Try again in {_seconds(seconds)}."
        )
        return RequestsExceeded(window, windows, needed=1, retry_after=seconds, detail=detail)
    if wait_us == NEVER:
        detail = (
            f"This request needs {needed} tokens (the prompt and the most that may be answered), and the token limit "
            f"of {whose} can never hold more than {window.limit} at once. Lower max_tokens or shorten the prompt; "
            "waiting does not help."
        )
        return RequestTooLargeForLimit(window, windows, needed=needed, retry_after=None, detail=detail)
    seconds = wait_us / 1e6
    detail = (
        f"Token limit of {whose} reached: {_rate(window)}, {window.remaining} left, and this request needs {needed} "
        f"(the prompt and the most that may be answered). Try again in {_seconds(seconds)}."
    )
    return TokensExceeded(window, windows, needed=needed, retry_after=seconds, detail=detail)


def _rate(window: Window) -> str:
    return f"{window.limit} {window.unit} per {window.seconds} seconds"


def _seconds(seconds: float) -> str:
    return f"{max(seconds, 0.001):.3f}".rstrip("0").rstrip(".") + " seconds"
