"""What was used: read from passing bytes, or estimated where nobody says. Touches no network and raises nothing."""

from weir.usage.body_scanner import BodyScanner
from weir.usage.estimate import PromptEstimator, counted_output
from weir.usage.meter import Meter
from weir.usage.scanner import EventScanner, Scanner
from weir.usage.typed_scanner import StreamScanner, TypedEventScanner, scanner_for

__all__ = [
    "BodyScanner",
    "EventScanner",
    "Meter",
    "PromptEstimator",
    "Scanner",
    "StreamScanner",
    "TypedEventScanner",
    "counted_output",
    "scanner_for",
]
