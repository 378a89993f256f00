"""How often and when to try again. A model in trouble needs less work, not three times as much."""

from collections.abc import Callable
from random import random

# Of gRPC's and Finagle's kind: every fifth request may be tried again, and once a second whoever is alone.
PER_REQUEST = 0.2
PER_SECOND = 1.0
MOST = 10.0

BASE, CAP = 0.025, 1.0  # seconds


class RetryBudget:
    """What a model may still spend on retries. `requests` is counted up by whoever sends one."""

    __slots__ = ("_at", "_counted", "_saved", "requests")

    def __init__(self, now: float) -> None:
        self.requests = 0
        self._counted = 0
        self._saved = MOST
        self._at = now

    def take(self, now: float) -> bool:
        """One retry, if it can be afforded."""
        earned = PER_REQUEST * (self.requests - self._counted) + PER_SECOND * max(0.0, now - self._at)
        self._counted, self._at = self.requests, now
        self._saved = min(MOST, self._saved + earned)
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


def backoff(attempt: int, rand: Callable[[], float] = random) -> float:
    """Seconds before retry `attempt` (from 0): exponential, with full jitter, so that who failed together parts."""
    return rand() * min(CAP, BASE * 2.0 ** min(attempt, 16))
