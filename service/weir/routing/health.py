"""Which endpoints are well. One that fails again and again is left alone for a pause that grows, then probed once.

What is known comes from the requests themselves and, where configured, from health checks. Never are all endpoints of
a model given up: with none left, the one whose last failure is longest ago is used anyway.
"""

from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from math import inf
from random import random

from weir.core.types import Endpoint

FAILURES = 5  # in a row
UNREACHED = 3  # in a row: nobody listens there
UNWELL = 2  # failed health checks in a row
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds; each is twice the one before
DOUBLINGS = 6  # until the longest is reached
FORGET = 60.0  # seconds of being well, after which an ejection begins with the first pause again

# Hears of what happens upstream, in a word and its details; must not raise.
Note = Callable[[str, dict[str, object]], None]


class Trial(IntEnum):
    """Why an ejected endpoint was asked all the same; what comes of it is judged by that."""

    LAST_RESORT = 1
    PROBE = 2


def unheard(kind: str, fields: dict[str, object]) -> None:
    """For who has nobody to tell."""


class Health:
    """The rules. What is known of an endpoint stands in its `Standing`. `clock` gives seconds, `rand` jitter."""

    __slots__ = ("_clock", "_note", "_rand")

    def __init__(self, clock: Callable[[], float], note: Note = unheard, rand: Callable[[], float] = random) -> None:
        self._clock = clock
        self._note = note
        self._rand = rand

    def fit(
        self, endpoints: Sequence[Endpoint], tried: Collection[Endpoint] = (), *, last_resort: bool = True
    ) -> Sequence[Endpoint]:
        """Those that a request may go to now: well, with room, and not `tried`. Empty if there are none.

        An endpoint whose pause is over comes alone, once: that request is its probe. Where all are ejected and it is
        the `last_resort`, one of them; else only one that at least can be reached.
        """
        for endpoint in endpoints:
            if (
                endpoint.ejected
                or tried
                or (endpoint.max_in_flight is not None and endpoint.in_flight >= endpoint.max_in_flight)
            ):
                break
        else:
            return endpoints  # as nearly always
        left = [endpoint for endpoint in endpoints if endpoint not in tried and _has_room(endpoint)]
        now = self._clock()
        for endpoint in left:
            standing = endpoint.standing
            if endpoint.ejected and now >= standing.out_until and not standing.probing:
                return (endpoint,)
        if not all(endpoint.ejected for endpoint in endpoints):
            return [endpoint for endpoint in left if not endpoint.ejected]
        reachable = [endpoint for endpoint in left if last_resort or not endpoint.standing.gone]
        return sorted(reachable, key=lambda endpoint: endpoint.standing.out_since)[:1]

    def begin(self, endpoint: Endpoint) -> Trial:
        """An ejected endpoint is asked. Each trial ends with one of `answered`, `failed` and `undecided`."""
        standing = endpoint.standing
        if standing.probing or self._clock() < standing.out_until:
            return Trial.LAST_RESORT
        standing.probing = True
        return Trial.PROBE

    def answered(self, endpoint: Endpoint, trial: Trial | None) -> None:
        """Somebody is there, and answers for itself; be it with a refusal."""
        standing = endpoint.standing
        standing.unreached = 0
        if trial is Trial.PROBE:
            standing.probing = False
        if trial and endpoint.ejected and standing.out_until != inf:
            self._restore(endpoint)

    def completed(self, endpoint: Endpoint) -> None:
        """An answer came to its end. Only this ends a row of failures, or who always breaks off would look well."""
        endpoint.standing.failures = 0

    def undecided(self, endpoint: Endpoint, trial: Trial | None) -> None:
        """Nothing was learned: the client left."""
        if trial is Trial.PROBE:
            endpoint.standing.probing = False

    def failed(self, endpoint: Endpoint, why: str, trial: Trial | None = None, *, unreached: bool = False) -> None:
        """No answer, a broken one, or one of the server's own failing."""
        standing = endpoint.standing
        if trial is Trial.PROBE:
            standing.probing = False
        if endpoint.ejected:
            if trial is Trial.PROBE and standing.out_until != inf:
                self._eject(endpoint, why, gone=unreached)
            standing.out_since = self._clock()  # the last resort is whoever has failed longest ago
            return
        standing.failures += 1
        standing.unreached = standing.unreached + 1 if unreached else 0
        if standing.unreached >= UNREACHED or standing.failures >= FAILURES:
            self._eject(endpoint, why, gone=standing.unreached >= UNREACHED)

    def checked(self, endpoint: Endpoint, why_not: str | None) -> None:
        """A health check: None if it succeeded. One that is out because of its answers has to answer better."""
        standing = endpoint.standing
        if why_not is None:
            standing.unwell = 0
            if endpoint.ejected and standing.gone:
                self._restore(endpoint)
            return
        standing.unwell += 1
        if standing.unwell >= UNWELL and standing.out_until != inf:
            self._eject(endpoint, f"health check: {why_not}", gone=True, until_checked=True)

    # -- details

    def _eject(self, endpoint: Endpoint, why: str, *, gone: bool, until_checked: bool = False) -> None:
        standing, now = endpoint.standing, self._clock()
        if not endpoint.ejected and now - standing.back_since > FORGET:
            standing.ejections = 0
        pause = min(FIRST_PAUSE * 2**standing.ejections, LONGEST_PAUSE) * (0.8 + 0.4 * self._rand())
        standing.ejections = min(standing.ejections + 1, DOUBLINGS)
        standing.out_until = inf if until_checked else now + pause
        standing.gone = gone
        if endpoint.ejected:
            return
        endpoint.ejected = True
        standing.out_since = now
        self._note("ejected", {"model": endpoint.model, "endpoint": endpoint.url, "why": why})

    def _restore(self, endpoint: Endpoint) -> None:
        standing = endpoint.standing
        standing.back_since = self._clock()
        standing.failures = standing.unreached = 0
        standing.out_until = 0.0
        endpoint.ejected = False
        self._note("restored", {"model": endpoint.model, "endpoint": endpoint.url})


def _has_room(endpoint: Endpoint) -> bool:
    return endpoint.max_in_flight is None or endpoint.in_flight < endpoint.max_in_flight
