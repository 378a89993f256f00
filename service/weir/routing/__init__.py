"""Where a model's requests go. Pure: no I/O, no waiting. Raises `ModelNotFound` (404)."""

from weir.routing.balance import choose
from weir.routing.health import Health, Note, Trial, unheard
from weir.routing.retries import CAP, RetryBudget, backoff
from weir.routing.table import RouteTable

__all__ = ["CAP", "Health", "Note", "RetryBudget", "RouteTable", "Trial", "backoff", "choose", "unheard"]
