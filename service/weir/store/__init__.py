"""Redis as the house sees it: a client from a URL, commands that travel together, a server of one's own on a laptop."""

from weir.store.batcher import Batcher
from weir.store.connect import connect

__all__ = ["Batcher", "connect"]
