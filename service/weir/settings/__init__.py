"""Everything that can be configured: one frozen tree, read once from weir.yaml and WEIR_*, refused where it is wrong.

Every value of the file is also an environment variable, WEIR_SECTION__NAME, which wins over the file. Lists and models
are JSON there. Unknown names are refused with the nearest known one, because a typo in a limit is a limit not set.
"""

from weir.settings.environment import OTHER_VARIABLES
from weir.settings.loading import load, remarks
from weir.settings.problems import BadSettings, Problem
from weir.settings.tree import EndpointSettings, EngineName, Model, Settings, Telemetry, TimeoutSettings

__all__ = [
    "OTHER_VARIABLES",
    "BadSettings",
    "EndpointSettings",
    "EngineName",
    "Model",
    "Problem",
    "Settings",
    "Telemetry",
    "TimeoutSettings",
    "load",
    "remarks",
]
