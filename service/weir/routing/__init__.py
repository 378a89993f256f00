"""Where a model's requests go. Pure: no I/O, no waiting. Raises `ModelNotFound` (404)."""

from weir.routing.balance import choose
from weir.routing.table import RouteTable

__all__ = ["RouteTable", "choose"]
