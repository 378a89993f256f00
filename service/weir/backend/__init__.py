"""What answers: the port to an inference server, and its kinds. Raises the `Upstream*` errors (502, 503, 504)."""

from weir.backend.backend import Backend, BackendResponse, Call, Sink

__all__ = ["Backend", "BackendResponse", "Call", "Sink"]
