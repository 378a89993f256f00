"""Redis as the house sees it: a client from a URL, commands that travel together, a server of one's own on a laptop."""

from weir.store.batcher import Batcher
from weir.store.cluster import ClusterCommands
from weir.store.commands import Line, commands_for
from weir.store.connect import connect

__all__ = ["Batcher", "ClusterCommands", "Line", "commands_for", "connect"]
