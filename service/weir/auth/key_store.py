"""The port to the keys, as the request path needs it; the people who hand out keys use `directory`."""

from collections.abc import Awaitable
from typing import Protocol

from weir.core.types import Principal

Globs = tuple[str, ...]


class KeyStore(Protocol):
    """Whose is a digest?"""

    def find(self, digest: str) -> Awaitable[Principal | None]:
        """The owner of a digest; None when no key has it. Says nothing on revoked or expired: admission does.

        Raises:
            StoreUnavailable: nobody can say.

        """
        ...

    def models(self, principal: Principal) -> Awaitable[tuple[Globs, Globs]]:
        """The model patterns of the key and of its team; no patterns are all models.

        Raises:
            StoreUnavailable: nobody can say.

        """
        ...
