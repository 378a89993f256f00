"""A model's server over HTTP: vLLM, Ollama, TGI, LM Studio, llama.cpp, OpenAI, Azure, Claude. Which dialect it speaks,
and which header bears its key, is decided before: see engines.py.
"""

from collections.abc import Sequence
from types import TracebackType
from urllib.parse import urlsplit

from weir.backend.backend import BackendResponse, Call, Sink, Upload
from weir.backend.http1 import Broken, Connection, Origin, Pool, origin_of
from weir.backend.http1_upload import UploadPool
from weir.core.asgi import Headers
from weir.core.errors import UpstreamBroke, UpstreamFailed, UpstreamTimeout, UpstreamUnreachable
from weir.core.types import Endpoint

# Shorter than any server keeps an idle connection (uvicorn, and so vLLM: 5 s), or a request may meet a closing one.
IDLE_SECONDS = 4.0
HEADS_MAX = 1000  # endpoints times paths: a configuration that is loaded anew leaves old ones behind
# What of an answer's head is the client's business, beside what only some servers send.
PASSED_ON = frozenset({b"retry-after", b"retry-after-ms", b"openai-processing-ms", b"openai-version", b"openai-model"})


class OpenAIBackend:
    """See `Backend`. Nothing is retried, redirected or decoded in here."""

    def __init__(self) -> None:
        self._pools: dict[Origin, Pool] = {}
        self._heads: dict[tuple[Endpoint, str], tuple[Pool, bytes]] = {}

    def send(self, endpoint: Endpoint, call: Call) -> "_Sending":
        known = self._heads.get((endpoint, call.path))
        if known is None:  # kept for each endpoint: two of one address may differ in their key
            if len(self._heads) >= HEADS_MAX:
                self._heads.clear()
            known = self._heads[endpoint, call.path] = self._head(endpoint, call.path, form=call.upload is not None)
        pool, head = known
        lines = [b"%b: %b\r\n" % header for header in call.headers]
        if call.upload is not None:
            start = b"%b%b%b" % (head, b"".join(lines), _framing(call.body, call.upload))
            return _Sending(UploadPool(pool, call.body, call.upload), start, call.timeouts.connect)
        message = b"%b%bcontent-length: %d\r\n\r\n%b" % (head, b"".join(lines), call.size, call.body)
        return _Sending(pool, message, call.timeouts.connect, call.data)

    async def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _head(self, endpoint: Endpoint, path: str, *, form: bool) -> tuple[Pool, bytes]:
        """The part of a request's head that never changes. The type of a `form` does: each has its own boundary."""
        url = urlsplit(endpoint.url)
        origin = origin_of(endpoint.url)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, idle_seconds=IDLE_SECONDS)
        query = f"?{endpoint.query}" if endpoint.query else ""
        fixed = {
            "host": url.netloc,
            **({} if form else {"content-type": "application/json"}),
            "accept-encoding": "identity",
            "user-agent": "weir",
            **dict(endpoint.headers),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fixed.items())
        base = f"{url.path.rstrip('/')}{endpoint.prefix}"
        place = path[1:] if path.startswith("//") else base + path
        return pool, f"POST {place}{query} HTTP/1.1\r\n{lines}".encode("latin-1")


def _framing(body: bytes, upload: Upload) -> bytes:
    """The end of the head of a request whose body still comes, in chunks where nobody knows how long it will be."""
    length = b"transfer-encoding: chunked" if upload.rest is None else b"content-length: %d" % (len(body) + upload.rest)
    return b"content-type: %b\r\n%b\r\n\r\n" % (upload.content_type, length)


class _Sending:
    """The block in which one request is under way."""

    __slots__ = ("_connect_seconds", "_connection", "_data", "_message", "_pool")

    def __init__(
        self,
        pool: Pool | UploadPool,
        message: bytes,
        connect_seconds: float,
        data: Sequence[bytes | memoryview] = (),
    ) -> None:
        self._pool = pool
        self._message = message
        self._data = data
        self._connect_seconds = connect_seconds
        self._connection: Connection | None = None

    async def __aenter__(self) -> BackendResponse:
        try:
            connection = self._connection = await self._pool.acquire(self._connect_seconds)
        except TimeoutError as error:
            raise UpstreamTimeout("connect", self._connect_seconds) from error
        except OSError as error:
            raise UpstreamUnreachable(reason=_short(error)) from error
        response: _Response | None = None
        try:
            await connection.request(self._message, self._data)
            self._message, self._data = b"", ()  # a stream may last for an hour, and a prompt be a megabyte
            response = _Response(connection)
        except Broken as error:
            if connection.begun:
                raise UpstreamFailed(reason=_short(error)) from error
            raise UpstreamBroke(reason=_short(error), reused=connection.reused) from error
        finally:
            if response is None:  # left while waiting, so that the model must not go on; or nothing to pass on
                connection.abort()
        return response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            self._pool.release(self._connection)


class _Response:
    """See `BackendResponse`."""

    __slots__ = ("_connection", "content_type", "headers", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.content_type = b""
        self.headers: Headers = []
        for header in connection.headers:
            name = header[0]
            if name == b"content-type":
                self.content_type = header[1].lower()
            elif name in PASSED_ON:
                self.headers.append(header)
            elif name == b"content-encoding" and header[1].lower() != b"identity":
                raise UpstreamFailed(reason=f"compressed, though nobody asked: {header[1][:20]!r}")

    async def read(self) -> bytes:
        try:
            return await self._connection.read()
        except Broken as error:
            raise _broke_off(error) from error

    async def pump(self, sink: Sink) -> None:
        try:
            await self._connection.pump(sink)
        except Broken as error:
            raise _broke_off(error) from error


def _broke_off(error: Broken) -> UpstreamFailed:
    return UpstreamFailed("The model's server broke off in the middle of its answer.", reason=_short(error))


def _short(error: Exception) -> str:
    """For the log: which kind, and the system's own word; addresses are in the configuration already."""
    return f"{type(error).__name__}: {error}"[:200]
