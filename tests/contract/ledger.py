"""Reads the log of a limiter's scripts and says what is wrong with it. Pure; knows limits and no scripts.

What a request costs is taken from the words that the script was called with, and what it gave back from the words of its
settlement: from what callers said, not from what a script wrote down. All amounts are parts of a unit (PARTS to one).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.contract.monitor import Call

PARTS = 60_000_000


class Broken(AssertionError):
    """The limiter did not keep its promise."""


@dataclass(slots=True)
class Held:
    """A reservation: when, whose, how many tokens."""

    at: int
    records: tuple[str, str]
    tokens: int


@dataclass(slots=True)
class Account:
    """One bucket: `per_minute` units refill, `capacity` parts at most. `level` None is full, and never touched."""

    name: str
    per_minute: int
    capacity: int
    level: int | None = None
    at: int = 0
    charged: int = 0
    given_back: int = 0
    owed: int = 0
    _balance: int = 0
    _lowest: int | None = None

    def admit(self, now: int, parts: int) -> None:
        """Over any interval: what was admitted, less what was given back, is at most capacity + rate * time.

        Let S be that sum over an interval. Just before its first admission the bucket held at most its capacity, since
        a level is cut before it is read. After its last one it held at least nothing, or it would have been refused.
        In between it gained at most rate * time. So

            0 <= capacity + rate * time - S.

        Every interval is bounded by the one from its first to its last admission. With f(t) = S(0, t) - rate * t this
        says that f after an admission is at most the capacity above f before any earlier one: a running minimum sees
        all pairs in one pass.

        Use above the reservation counts in S when it is settled. It can make the level negative, which is debt, and an
        interval that ended with that settlement could be over; but nobody is admitted until the debt is paid, and
        intervals end with admissions.
        """
        now = max(now, self.at)
        before = self._balance - self.per_minute * now
        self._lowest = before if self._lowest is None else min(self._lowest, before)
        self._balance += parts
        over = self._balance - self.per_minute * now - self._lowest - self.capacity
        if over > 0:
            raise Broken(f"{self.name}: {over / PARTS:.6f} more than capacity + rate * time were admitted")
        self.level = self.level_at(now) - parts
        if self.level < 0:
            raise Broken(f"{self.name}: admitted at {self.level / PARTS:.6f}")
        self.at = now
        self.charged += parts

    def settle(self, now: int, parts: int) -> None:
        """Gives back; negative `parts` were used above the reservation."""
        self._balance -= parts
        if self.level is None:
            raise Broken(f"{self.name}: settled before anything was admitted")
        if parts >= 0:
            self.given_back += parts
            self.level += parts
        else:
            self.owed -= parts
            # What the bucket could not hold meanwhile pays for nothing.
            self.level, self.at = self.level_at(now) + parts, max(now, self.at)

    def level_at(self, now: int) -> int:
        if self.level is None:
            return self.capacity
        return min(self.capacity, self.level + max(now - self.at, 0) * self.per_minute)


@dataclass(slots=True)
class Places:
    name: str
    limit: int
    leases: dict[str, int] = field(default_factory=dict)
    most: int = 0

    def in_use(self, now: int) -> int:
        return sum(end > now for end in self.leases.values())

    def admitted(self, now: int) -> None:
        in_use = self.in_use(now)
        self.most = max(self.most, in_use)
        if in_use > self.limit:
            raise Broken(f"{self.name}: {in_use} places of {self.limit} are taken")


@dataclass(slots=True)
class Ledger:
    """`buckets` and `places` by the name of their record; there may be records without."""

    admit_sha: bytes
    settle_sha: bytes
    buckets: dict[str, dict[str, Account]]
    places: dict[str, Places]
    admitted: dict[str, Held] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    settled_again: int = 0

    def read(self, calls: Iterable[Call]) -> None:
        for call in calls:
            self._note_places(call)
            if call.sha == self.admit_sha:
                self._admission(call)
            elif call.sha == self.settle_sha:
                self._settlement(call)

    def held(self) -> dict[str, Held]:
        """What nobody has settled."""
        return {name: one for name, one in self.admitted.items() if name not in self.settled}

    def _admission(self, call: Call) -> None:
        prompt, output, choices, default, lease_ms = (int(word) for word in call.words[3:8])
        name = call.words[9]
        if not name:
            return
        if not any(effect[0] == "SET" and effect[1] == call.keys[6] for effect in call.effects):
            self.refused += 1
            changes = [effect for effect in call.effects if not self._housekeeping(effect)]
            if changes:
                raise Broken(f"{name} was refused and changed something: {changes}")
            return
        if name in self.admitted:
            raise Broken(f"{name} was admitted twice")
        # The moment by the script's own clock: its lease tells.
        ends = {int(effect[2]) for effect in call.effects if effect[0] == "ZADD" and effect[3] == name}
        if len(ends) != 1:
            raise Broken(f"{name} was admitted without one lease: {call.effects}")
        now = ends.pop() - lease_ms * 1_000
        records = (call.keys[0], call.keys[1])
        tokens = prompt + (output if output >= 0 else default) * choices
        self.admitted[name] = Held(now, records, tokens)
        for record in records:
            accounts = self.buckets[record]
            if "requests" in accounts:
                accounts["requests"].admit(now, PARTS)
            if "tokens" in accounts:
                accounts["tokens"].admit(now, tokens * PARTS)
            if record in self.places:
                self.places[record].admitted(now)

    def _settlement(self, call: Call) -> None:
        name, used = call.words[0], int(call.words[1])
        if not any(effect[0] in {"GETDEL", "DEL"} and effect[1] == call.keys[6] for effect in call.effects):
            if call.effects:
                raise Broken(f"{name} was not taken away and yet something changed: {call.effects}")
            return  # there was nothing to take away, or Redis did not know the script
        held = self.admitted.get(name)
        if held is None or name in self.settled:
            self.settled_again += held is not None
            changes = [effect for effect in call.effects if effect[0] not in {"GETDEL", "DEL", "ZREM"}]
            if changes:
                raise Broken(f"{name} had nothing to settle and changed something: {changes}")
            return
        self.settled[name] = used
        for record in held.records:
            accounts = self.buckets[record]
            if "tokens" in accounts:
                accounts["tokens"].settle(_moment(call, record), (held.tokens - max(used, 0)) * PARTS)
            if used < 0 and "requests" in accounts:
                accounts["requests"].settle(call.at, PARTS)

    def _housekeeping(self, effect: tuple[str, ...]) -> bool:
        """Leases that have ended are taken out of a set, levels of limits that are gone out of a bucket."""
        gone = effect[0] in {"DEL", "HDEL"} and not self.buckets.get(effect[1].removesuffix(":use"))
        return gone or effect[0] == "ZREMRANGEBYSCORE"

    def _note_places(self, call: Call) -> None:
        for effect in call.effects:
            record = effect[1].removesuffix(":live") if len(effect) > 1 else ""
            if record not in self.places:
                continue
            leases = self.places[record].leases
            if effect[0] == "ZADD":
                leases[effect[3]] = int(effect[2])
            elif effect[0] == "ZREM":
                leases.pop(effect[2], None)


def _moment(call: Call, record: str) -> int:
    """When a bucket was brought up to, if it was; else the log's own time, a few microseconds before the script's."""
    for effect in reversed(call.effects):
        if effect[0] == "HSET" and effect[1] == f"{record}:use" and "at" in effect[2::2]:
            return int(effect[effect.index("at") + 1])
    return call.at
