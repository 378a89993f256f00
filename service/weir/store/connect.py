"""A redis-py client from the settings' URL: redis://, rediss:// (TLS) and unix://, with ACL user and password."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_SECONDS = 0.25
COMMAND_SECONDS = 0.1


def connect(url: str, *, command_seconds: float | None = 5.0) -> "Redis":
    """A client that retries nothing by itself: whoever calls knows better how long there is to wait.

    `command_seconds` None leaves deadlines to the caller altogether, as the batcher has it.

    Raises ValueError for a URL that redis-py cannot read.
    """
    return Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=command_seconds,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="weir",
    )


def printable(url: str) -> str:
    """The URL without its user and password, for logs and messages."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
