"""From a bearer key to a `Principal`, mostly without asking anybody."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from weir.auth.key_store import Globs, KeyStore
from weir.auth.keys import FOREIGN_MAX, digest, mistyped
from weir.core.errors import KeyMissing, StoreUnavailable, Unauthenticated
from weir.core.types import Principal

KNOWN_MAX = 50_000  # about 25 MB when full
UNKNOWN_MAX = 10_000
UNKNOWN_SECONDS = 5.0
GLOBS_SECONDS = 3_600.0  # as long as a key's limits are remembered without Redis


class Authenticator:
    """Knows whose a digest is, for ever, because a digest belongs to one team for ever.

    Whether the key is *still* good is not decided here but in admission's one atomic step, so that a revocation acts on
    the next request with no cache to invalidate. `forget` is for the caller that hears there of a key which is not.
    """

    def __init__(self, store: KeyStore, clock: Callable[[], float], *, pepper: bytes | None = None) -> None:
        self._store = store
        self._clock = clock
        self._pepper = pepper
        self._known: dict[str, Principal] = {}
        self._unknown: dict[str, float] = {}
        self._globs: dict[Principal, tuple[Globs, Globs, float]] = {}  # of key and team, and when they were read

    async def authenticate(self, authorization: bytes | None) -> Principal:
        """`authorization` is the header's value.

        Raises:
            Unauthenticated: there is no key in it, or none that exists.
            StoreUnavailable: it was never seen here and nobody can be asked.

        """
        key = bearer(authorization)
        fingerprint = digest(key, self._pepper)
        principal = self._known.get(fingerprint)
        return principal or await self._look_up(key, fingerprint)

    async def may_use(self, principal: Principal, names: Iterable[str]) -> set[str]:
        """Those of `names` that key and team allow both; while nobody can be asked, what was allowed within the hour.

        Raises:
            StoreUnavailable: nobody can be asked, and within the hour nobody was.

        """
        now = self._clock()
        try:
            key, team = await self._store.models(principal)
        except StoreUnavailable:
            key, team, at = self._globs.get(principal, ((), (), now - GLOBS_SECONDS - 1))
            if now - at > GLOBS_SECONDS:
                raise
        else:
            self._globs.pop(principal, None)  # whoever asks again is young again
            if len(self._globs) >= KNOWN_MAX:
                self._globs.pop(next(iter(self._globs)))
            self._globs[principal] = (key, team, now)
        return {name for name in names if _allows(key, name) and _allows(team, name)}

    def forget(self, principal: Principal) -> bool:
        """Admission knows no such key: ask again next time. False if it was not remembered, so asking is no use."""
        self._globs.pop(principal, None)
        return self._known.pop(principal.digest, None) is not None

    async def _look_up(self, key: bytes, fingerprint: str) -> Principal:
        if mistyped(key):
            raise Unauthenticated(reason="checksum")
        now = self._clock()
        if self._unknown.get(fingerprint, 0.0) > now:
            raise Unauthenticated(reason="unknown")
        principal = await self._store.find(fingerprint)
        if principal is None:
            if len(self._unknown) >= UNKNOWN_MAX:
                self._unknown.clear()
            self._unknown[fingerprint] = now + UNKNOWN_SECONDS
            raise Unauthenticated(reason="unknown")
        if len(self._known) >= KNOWN_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[fingerprint] = principal
        return principal


def _allows(globs: Sequence[str], name: str) -> bool:
    return not globs or any(fnmatchcase(name, glob) for glob in globs)


def bearer(authorization: bytes | None) -> bytes:
    """The key in an Authorization header (RFC 6750, the scheme's case does not matter)."""
    if not authorization:
        raise KeyMissing(reason="no key")
    scheme, _, key = authorization.partition(b" ")
    key = key.strip()
    if scheme.lower() != b"bearer" or not key:
        raise KeyMissing(reason="no bearer key")
    if len(key) > FOREIGN_MAX or b" " in key:
        raise Unauthenticated(reason="no key has this form")
    return key
