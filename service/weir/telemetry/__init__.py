"""What operators see: one log line and a few metrics a request, from one finished record. Never fails a request and
never sees a prompt or a key.
"""

from weir.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]
