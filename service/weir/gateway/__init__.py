"""The request path, in raw ASGI, and the only place where rooms meet. Start at `completions.py`."""
