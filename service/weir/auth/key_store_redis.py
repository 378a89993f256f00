"""Keys in Redis: one lookup by digest."""

from weir.auth.key_store import Globs
from weir.core import layout
from weir.core.commands import CommandRefused, Commands
from weir.core.errors import StoreUnavailable
from weir.core.types import Principal


class RedisKeyStore:
    """See `KeyStore`."""

    __slots__ = ("_commands",)

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def find(self, digest: str) -> Principal | None:
        owner = await self._ask("GET", layout.index(digest))
        if owner is None:
            return None
        team, _, key_id = owner.decode().partition(" ")
        return Principal(team, key_id, digest)

    async def models(self, principal: Principal) -> tuple[Globs, Globs]:
        key = await self._ask("HGET", layout.key(principal.team, principal.key_id), "models")
        team = await self._ask("HGET", layout.team(principal.team), "models")
        return _globs(key), _globs(team)

    async def _ask(self, *words: str) -> bytes | None:
        try:
            answer: bytes | None = await self._commands.call(*words)
        except CommandRefused as error:
            raise StoreUnavailable(reason=str(error), retry_after=1.0) from error
        return answer


def _globs(field: bytes | None) -> Globs:
    return tuple(filter(None, (field or b"").decode().split(",")))
