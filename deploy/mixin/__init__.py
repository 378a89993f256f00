"""Dashboards, recording rules and alerts as Python. `python -m deploy.mixin` writes them into the chart."""
