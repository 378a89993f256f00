"""POST /v1/messages/count_tokens where no server counts: an estimate, which says so."""

import orjson

from weir.core.operations import COUNT_TOKENS
from weir.core.types import Route
from weir.dialect.counting import TOKENIZE
from weir.gateway.replies import JSON, Reply
from weir.gateway.wire import Rest

ESTIMATED = (b"x-weir-tokens-from", b"estimated")


def counted_upstream(route: Route) -> bool:
    """Its server counts tokens, in one way or another."""
    return route.serves is None or not route.serves.isdisjoint((COUNT_TOKENS.name, TOKENIZE))


def tell_estimate(tokens: int, reply: Reply) -> Rest:
    """`tokens` are what a prompt of so many bytes has been for this model."""
    return reply.answer(200, JSON[1], [ESTIMATED], orjson.dumps({"input_tokens": tokens}))
