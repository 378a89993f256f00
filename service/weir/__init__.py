"""Weir: one internal endpoint for every LLM. Start at `gateway/completions.py`; `service/README.md` is the map."""

__version__ = "0.1.0"
