"""Weir under load for as long as somebody likes: `python -m tests.soak --minutes 10`."""
