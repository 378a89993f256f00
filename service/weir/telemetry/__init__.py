"""What operators see: one log line, a few metrics and the spans of a request, from one finished record. Never fails a
request, and never sees a key; or a prompt, unless content is wanted in spans.
"""

from weir.telemetry.telemetry import Telemetry

__all__ = ["Telemetry"]
