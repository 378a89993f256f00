"""What came of an attempt that came to nothing: does it count against the endpoint, and may another one be asked?

Another may where nobody can be working on the request: see decision 11.
"""

import asyncio
from typing import NamedTuple

from weir.core.asgi import Headers
from weir.core.errors import (
    GatewayError,
    UpstreamBroke,
    UpstreamFailed,
    UpstreamTimeout,
    UpstreamUnreachable,
)


class Trouble(NamedTuple):
    """One kind of it, in a `word`."""

    word: str
    counts: bool = False  # against the endpoint
    unreached: bool = False
    elsewhere: bool = False  # another endpoint may be asked
    again: bool = False  # and where there is only this one, this


UNREACHABLE = Trouble("unreachable", counts=True, unreached=True, elsewhere=True, again=True)
CONNECT_TIMEOUT = Trouble("connect timeout", counts=True, unreached=True, elsewhere=True, again=True)
BROKE = Trouble("broke", counts=True, elsewhere=True)
CLOSED_AS_IDLE = Trouble("broke", counts=True, elsewhere=True, again=True)
NO_ANSWER = Trouble("no answer", counts=True)
REFUSALS = {  # the server says that it did not do it
    429: Trouble("429", elsewhere=True),
    502: Trouble("502", counts=True, elsewhere=True),
    503: Trouble("503", counts=True, elsewhere=True, again=True),
    529: Trouble("529", counts=True, elsewhere=True, again=True),  # Anthropic's: overloaded
}


def trouble_of(error: BaseException, found: GatewayError | None) -> Trouble:
    """`found` is why the request is being ended, where that is what `error` comes from."""
    if isinstance(error, asyncio.CancelledError) and found is not None:
        error = found
    match error:
        case UpstreamUnreachable():
            return UNREACHABLE
        case UpstreamTimeout(phase="connect"):
            return CONNECT_TIMEOUT
        case UpstreamTimeout():
            # The total is the caller's patience with a model that goes on answering.
            return Trouble(f"{error.phase} timeout", counts=error.phase != "total")
        case UpstreamBroke():
            return CLOSED_AS_IDLE if error.reused else BROKE
        case UpstreamFailed():
            return NO_ANSWER
        case GatewayError():
            return Trouble(error.outcome)
        case _:
            return Trouble("killed" if isinstance(error, asyncio.CancelledError) else "internal_error")


def retry_after(headers: Headers) -> float | None:
    """How many seconds an upstream asks us to stay away; None where it gives none, or a date."""
    given = dict(headers)
    for name, unit in ((b"retry-after-ms", 1000.0), (b"retry-after", 1.0)):
        value = given.get(name, b"")
        if value.replace(b".", b"", 1).isdigit():
            return float(value) / unit
    return None
