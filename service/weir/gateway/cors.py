"""Answers for browsers (Fetch standard, "CORS protocol"): which pages may read what we say. Off unless configured."""

from collections.abc import Sequence

from weir.core.asgi import App, Headers, Receive, Scope, Send

ANY = "*"
REMEMBER_SECONDS = 7200  # the longest that Chromium takes
# What scripts may read beside the body: everything that an SDK looks for.
_READABLE = (
    b"x-request-id, retry-after, retry-after-ms, x-should-retry, ratelimit, ratelimit-policy, "
    b"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, "
    b"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, "
    b"x-weir-degraded, x-weir-tokens-from"
)


class Cors:
    """`origins` as a browser writes them, "https://chat.example.com"; "*" is all of them. Cookies are never allowed:
    who calls is known by a key.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = ANY in origins
        self._origins = frozenset(origin.encode() for origin in origins)

    def headers_of(self, scope: Scope) -> Headers:
        """What an answer bears so that the page that asked may read it."""
        origin = _header(scope, b"origin")
        if origin is None or not (self._any or origin in self._origins):
            return [] if self._any else [(b"vary", b"origin")]
        exposed = (b"access-control-expose-headers", _READABLE)
        if self._any:
            return [(b"access-control-allow-origin", b"*"), exposed]
        return [(b"access-control-allow-origin", origin), (b"vary", b"origin"), exposed]

    def preflight(self, app: App) -> App:
        """Around `app`: the question that a browser asks before the request itself."""

        async def asked(scope: Scope, receive: Receive, send: Send) -> None:
            if (
                scope["type"] != "http"
                or scope["method"] != "OPTIONS"
                or _header(scope, b"access-control-request-method") is None
            ):
                await app(scope, receive, send)
                return
            headers = self.headers_of(scope)
            if headers and headers[0][0] == b"access-control-allow-origin":
                headers += [
                    (b"access-control-allow-methods", b"GET, POST"),
                    # Those that it names: "*" would not cover Authorization.
                    (b"access-control-allow-headers", _header(scope, b"access-control-request-headers") or b"*"),
                    (b"access-control-max-age", b"%d" % REMEMBER_SECONDS),
                ]
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        return asked


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    return next((value for name, value in scope["headers"] if name == wanted), None)
