"""What Redis has said of keys within the last hour, for when it is away: which were good, their limits, their models.

Keeps what passes anyway, as it came, and reads it only when somebody asks. Pure but for its clock, and bounded.
"""

from collections import OrderedDict
from collections.abc import Callable
from weakref import WeakValueDictionary

from weir.admission.windows import ANY_MODEL, KEY_BITS, TEAM_BITS, Numbers, key_limits, team_limits
from weir.core.types import Ask, Limits, Principal, Scope

KNOWN_MAX = 50_000  # keys; about 1 KB each
KNOWN_SECONDS = 3_600.0
MODELS_MAX = 256  # pairs of names of one key; only names that are configured come here at all


class _Team:
    """One for all keys of a team, and gone with the last of them.

    Each key must see the same limits, the newest: two views of one bucket would take turns in emptying it.
    """

    __slots__ = ("__weakref__", "numbers")

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers


class _Key:
    """`digest` was good at `at`. `other` is the second digest of a key that rotates, and when that was good."""

    __slots__ = ("at", "digest", "models", "numbers", "other", "team", "team_name")

    def __init__(self, principal: Principal, team: _Team, numbers: Numbers, at: float) -> None:
        self.at = at
        self.digest = principal.digest
        self.models: dict[tuple[str, str], float] = {}
        self.numbers = numbers
        self.other: tuple[str, float] | None = None
        self.team = team
        self.team_name = principal.team


class Known:
    """Told by the limiter that asks Redis, asked by the one that stands in for it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds; from when does not matter."""
        self._clock = clock
        self._keys: OrderedDict[str, _Key] = OrderedDict()  # by key id; who was seen last stands last
        self._teams: WeakValueDictionary[str, _Team] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._keys)

    # -- what Redis has just said

    def note(self, principal: Principal, ask: Ask, numbers: Numbers) -> None:
        """The key is good, it may use the model, and so stand its limits. In the request path."""
        now, key_id = self._clock(), principal.key_id
        key = self._keys.get(key_id)
        # By identity: whoever authenticates gives the same principal again and again.
        if key is None or key.digest is not principal.digest:
            key = self._enter(principal, numbers, now)
        key.at = now
        key.numbers = key.team.numbers = numbers
        if not numbers[KEY_BITS] & numbers[TEAM_BITS] & ANY_MODEL:
            key.models[ask.model, ask.asked_as] = now
            if len(key.models) > MODELS_MAX:
                key.models.pop(next(iter(key.models)))
        self._keys.move_to_end(key_id)

    def forget(self, principal: Principal, *, revoked: bool) -> None:
        """The key is not good: as presented or, `revoked`, in whatever form."""
        key = self._keys.get(principal.key_id)
        if key is None:
            return
        if key.other is not None and key.other[0] == principal.digest:
            key.other = None
        elif key.digest == principal.digest and key.other is not None:
            (key.digest, key.at), key.other = key.other, None
        elif key.digest == principal.digest:
            revoked = True
        if revoked:
            del self._keys[principal.key_id]

    def forbid(self, principal: Principal, ask: Ask, by: Scope) -> None:
        """The key may not use this model: so whoever says so has a list of models now."""
        key = self._keys.get(principal.key_id)
        if key is None:
            return
        key.models.pop((ask.model, ask.asked_as), None)
        if by == "key":
            key.numbers = _with_a_list(key.numbers, KEY_BITS)
        else:
            key.team.numbers = _with_a_list(key.team.numbers, TEAM_BITS)

    # -- what is left of it

    def limits(self, principal: Principal) -> tuple[Limits, Limits] | None:
        """Of key and team, without their models; None if the key was not good within the hour."""
        key = self._good(principal)
        return None if key is None else (key_limits(key.numbers), team_limits(key.team.numbers))

    def allows(self, principal: Principal, ask: Ask) -> bool:
        """Whether the key is good, as far as anybody knows, and either all models are allowed to it or this one was."""
        key = self._good(principal)
        if key is None:
            return False
        if key.numbers[KEY_BITS] & key.team.numbers[TEAM_BITS] & ANY_MODEL:
            return True
        at = key.models.get((ask.model, ask.asked_as))
        return at is not None and self._fresh(at)

    # -- details

    def _good(self, principal: Principal) -> _Key | None:
        key = self._keys.get(principal.key_id)
        if key is None or key.team_name != principal.team:
            return None
        if key.digest == principal.digest:
            return key if self._fresh(key.at) else None
        if key.other is not None and key.other[0] == principal.digest:
            return key if self._fresh(key.other[1]) else None
        return None

    def _fresh(self, at: float) -> bool:
        return self._clock() - at <= KNOWN_SECONDS

    def _enter(self, principal: Principal, numbers: Numbers, now: float) -> _Key:
        """A key, or a digest of one, that was not the last to be seen."""
        key = self._keys.get(principal.key_id)
        if key is not None and key.team_name == principal.team:
            if key.digest != principal.digest:
                key.other = (key.digest, key.at)
            key.digest = principal.digest
            return key
        # Two may go for one that comes, so what is too old goes long before there is no room.
        for _ in range(2):
            oldest = next(iter(self._keys.values()), None)
            if oldest is None or (len(self._keys) < KNOWN_MAX and self._fresh(oldest.at)):
                break
            self._keys.popitem(last=False)
        team = self._teams.get(principal.team)
        if team is None:
            team = self._teams[principal.team] = _Team(numbers)
        key = self._keys[principal.key_id] = _Key(principal, team, numbers, now)
        return key


def _with_a_list(numbers: Numbers, place: int) -> Numbers:
    return (*numbers[:place], numbers[place] & ~ANY_MODEL, *numbers[place + 1 :])
