"""Writes what the chart ships: `make dashboards`."""

from pathlib import Path

from deploy.mixin.output import files

CHART = Path(__file__).parents[2] / "helm" / "weir"

for path, text in files().items():
    (CHART / path).parent.mkdir(parents=True, exist_ok=True)
    (CHART / path).write_text(text)
