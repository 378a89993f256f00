"""A model of the configuration as its requests find it: the very way from weir.yaml to a route."""

from typing import Any

from weir.backend.health import HealthChecks
from weir.configured import Configured
from weir.core.types import Route
from weir.settings import load
from weir.telemetry import Telemetry
from weir.telemetry.metrics import Metrics


class Nobody:
    """A directory that no model asks."""


def compiled(**model: Any) -> Route:
    """Raises BadSettings."""
    settings = load(None, {"models": [{"name": "m", **model}]})
    configured = Configured(settings, Nobody(), Telemetry(Metrics()), HealthChecks(lambda _, why: None))
    (route,) = configured.routes.routes()
    return route
