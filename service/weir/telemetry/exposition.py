"""What /metrics answers: Prometheus' text or OpenMetrics, of one process or, with several workers, of all of them."""

import os

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own name


def exposition(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The metrics and their content type."""
    if os.environ.get(MULTIPROCESS_DIR):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8"
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
