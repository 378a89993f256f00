"""A form on its way from the client to the model's server: held until its model is known, then passed on as it comes.

The next piece is taken from the client when the server has taken the last one, so that an upload costs what a few
pieces cost, however long its file is.
"""

from weir.core.asgi import Headers, Scope
from weir.core.errors import BodyTooLarge, ClientGone
from weir.core.exchange import Exchange
from weir.gateway.form import MODEL, STREAM, FormReader, boundary_of, content_type_of
from weir.gateway.head import content_type
from weir.gateway.replies import LAST
from weir.gateway.watch import BODY, FIRST_BYTE, Watch, Watches
from weir.gateway.wire import Wire


def too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body is larger than the {most} bytes that this endpoint accepts.")


class Upload:
    """See `weir.backend.Upload`. `held` is what came until the model was known, `complete` says that this is all.

    `most` bounds the whole in bytes. `answer_headers` are those of whatever is answered: before the body's end has
    come, an answer is the connection's last.
    """

    __slots__ = (
        "_answer_headers",
        "_exchange",
        "_most",
        "_size",
        "_watch",
        "_wire",
        "begun",
        "complete",
        "content_type",
        "form",
        "held",
        "rest",
    )

    def __init__(self, wire: Wire, boundary: bytes, length: int | None, most: int) -> None:
        self.content_type = content_type_of(boundary)
        self.form = FormReader(boundary)
        self.held = b""
        self.rest = length
        self.begun = False
        self.complete = False
        self._wire = wire
        self._most = most
        self._size = 0
        self._answer_headers: Headers = []
        self._watch: Watch | None = None
        self._exchange: Exchange | None = None

    @property
    def model(self) -> str | None:
        """As the client calls it."""
        return self.form.values[MODEL].text if MODEL in self.form.values else None

    def renamed(self, model: str) -> bytes:
        """What is held, with another model's name in it."""
        value = self.form.values[MODEL]
        return b"".join((self.held[: value.start], model.encode(), self.held[value.end :]))

    async def hold(self, watch: Watch, answer_headers: Headers) -> None:
        """Read on until the model is known. Raises as `read` does."""
        pieces = []
        while MODEL not in self.form.values and not self.complete:
            watch.turn(BODY)
            pieces.append(await self._take())
        self.held = b"".join(pieces)
        if self.rest is not None:
            self.rest -= len(self.held)
        if not self.complete and LAST not in answer_headers:
            answer_headers.append(LAST)
            self._answer_headers = answer_headers

    def accompany(self, watch: Watch, exchange: Exchange) -> None:
        """From now on it is `watch` that looks after it, and `exchange` that keeps its books."""
        self._watch, self._exchange = watch, exchange
        self._note_end()

    async def read(self) -> bytes:
        """See `weir.backend.Upload`. Raises BodyTooLarge, ClientGone, MalformedBody, InvalidValue."""
        watch, exchange = self._watch, self._exchange
        assert watch is not None and exchange is not None  # noqa: S101, PT018 - `accompany` comes first; for mypy
        while not self.complete:
            watch.turn(BODY)
            piece = await self._take()
            watch.turn(FIRST_BYTE)  # the server's turn, to take this
            if piece:
                self.begun = True
                exchange.attempts[-1].request_bytes += len(piece)
                return piece
        watch.turn(FIRST_BYTE)  # and to answer, once it has taken the last one
        return b""

    async def _take(self) -> bytes:
        message = await self._wire.receive()
        if message["type"] != "http.request":
            raise ClientGone(reason="left while sending the body")
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        if self._size > self._most:
            raise too_large(self._most)
        self.form.feed(piece)
        if not message.get("more_body", False):
            self.form.end()
            self.complete = True
            self._note_end()
        return piece

    def _note_end(self) -> None:
        stream = self.form.values.get(STREAM)
        if self._exchange is not None and stream is not None:
            self._exchange.streaming = stream.text.strip().lower() in ("true", "1")
        if self.complete and LAST in self._answer_headers:
            self._answer_headers.remove(LAST)


async def begin_upload(
    scope: Scope, wire: Wire, length: int | None, most: int, watches: Watches, answer_headers: Headers
) -> Upload:
    """The beginning of a form, as far as the field that names its model.

    Raises BadRequest, BodyTooLarge, BodyTimeout, ClientGone, MalformedBody, InvalidValue.
    """
    upload = Upload(wire, boundary_of(content_type(scope)), length, most)
    if length is not None and length > most:
        raise too_large(most)
    with watches.body() as watch:
        await upload.hold(watch, answer_headers)
    return upload
