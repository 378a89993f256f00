"""The arithmetic of a token bucket: pure, exact, the reference that the Lua scripts are tested against.

Levels are whole numbers of *parts*: a unit is 60,000,000 parts, so a bucket of N units a minute gains exactly N parts
each microsecond. No rounding, no drift, and the same numbers in Lua's doubles up to 2**53.
"""

from typing import NamedTuple

PARTS = 60_000_000


class Rate(NamedTuple):
    """`per_minute` units refill continuously; `burst_seconds` of them may be saved up, but always one unit."""

    per_minute: int
    burst_seconds: int

    @property
    def capacity(self) -> int:
        """Parts."""
        return max(self.per_minute * self.burst_seconds * 1_000_000, PARTS)


class Bucket(NamedTuple):
    """`level` parts at `at` microseconds. A negative level is debt: somebody used more than was reserved."""

    level: int
    at: int


def refill(bucket: Bucket | None, rate: Rate, now: int) -> Bucket:
    """The bucket as it is at `now` microseconds. None is a bucket nobody has touched: full."""
    if bucket is None:
        return Bucket(rate.capacity, now)
    # A failover may show an older clock: time never runs backwards here.
    now = max(now, bucket.at)
    return Bucket(min(rate.capacity, bucket.level + (now - bucket.at) * rate.per_minute), now)


def wait(bucket: Bucket, rate: Rate, cost: int) -> int | None:
    """Microseconds until `cost` units are there: 0 if they are, None if they never will be."""
    parts = cost * PARTS
    if parts > rate.capacity:
        return None
    return max(-((bucket.level - parts) // rate.per_minute), 0)


def take(bucket: Bucket, cost: int) -> Bucket:
    return Bucket(bucket.level - cost * PARTS, bucket.at)


def left(bucket: Bucket) -> int:
    """Whole units; below 0 is debt."""
    return bucket.level // PARTS


def until_full(bucket: Bucket, rate: Rate) -> float:
    """Seconds."""
    return max(rate.capacity - bucket.level, 0) / rate.per_minute / 1_000_000
