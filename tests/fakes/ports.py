"""Fakes of the small ports: plain dictionaries that remember what they were asked."""

from collections.abc import Mapping

from weir.core.errors import StoreUnavailable
from weir.core.types import Principal

Globs = tuple[str, ...]


class FakeKeyStore:
    """See `weir.auth.KeyStore`. `asked` are the digests in the order of the questions; `away` is an outage."""

    def __init__(self, owners: Mapping[str, Principal] | None = None) -> None:
        self.owners = dict(owners or {})
        self.globs: dict[str, tuple[Globs, Globs]] = {}  # by key id: of the key, of its team
        self.asked: list[str] = []
        self.away = False

    async def find(self, digest: str) -> Principal | None:
        self.asked.append(digest)
        self._fail_if_away()
        return self.owners.get(digest)

    async def models(self, principal: Principal) -> tuple[Globs, Globs]:
        self._fail_if_away()
        return self.globs.get(principal.key_id, ((), ()))

    def _fail_if_away(self) -> None:
        if self.away:
            raise StoreUnavailable(retry_after=1.0)
