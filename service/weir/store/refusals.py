"""What Redis' error replies mean, and to whom; and redis-py's exceptions, which are made of them."""

import re

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

# Kinds of error replies that are not about the command: this server serves nobody now, or not us.
FORBIDDEN = frozenset({"NOPERM", "NOAUTH", "WRONGPASS"})
CANNOT_SERVE = FORBIDDEN | {
    *("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "UNBLOCKED", "BUSY"),
}
NOT_SERVED = "Hash slot not served"
_IN_A_SCRIPT = re.compile(r"@user_script: ?\d+: -?([A-Z]+) ")


def user_of(client: Redis) -> str:
    return client.connection_pool.connection_kwargs.get("username") or "default"


def reason_of(error: Exception, user: str) -> str:
    """What redis-py says, and about whom."""
    who = f"redis refuses user '{user}': " if isinstance(error, (AuthenticationError, NoPermissionError)) else ""
    return who + (str(error) or type(error).__name__)


def kind_of(text: str) -> str:
    """The first word of an error reply; before Redis 7 a script's errors come wrapped in words of its own."""
    kind = text.partition(" ")[0]
    if kind == "ERR" and "The user executing the script can't" in text:
        return "NOPERM"  # so says Redis before 7.2 inside of a script
    if kind == "ERR" and (inside := _IN_A_SCRIPT.search(text)):
        return inside[1]
    return kind
