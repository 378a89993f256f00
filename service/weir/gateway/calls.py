"""A client's request as it goes upstream, in the words of whichever server gets it; and its answer in the client's."""

import asyncio
from collections.abc import Callable

from weir.backend import BackendResponse, Call, Sink
from weir.core.asgi import Headers
from weir.core.errors import UpstreamFailed
from weir.core.lifting import Lifted, lower
from weir.core.operations import MESSAGES
from weir.core.sse import TooLong
from weir.core.types import Route
from weir.dialect.anthropic_errors import with_request_id
from weir.dialect.between import translate
from weir.dialect.translation import Translation
from weir.gateway.replies import EVENTS
from weir.gateway.request import LARGE, CompletionRequest, outgoing
from weir.gateway.wire import Rest
from weir.usage import EventScanner

ANSWER_MAX = 64 << 20  # bytes of a single answer that is put into other words, so held whole
DONE = b"data: [DONE]\n\n"
VERSION = (b"anthropic-version", b"2023-06-01")
_EVENTS, _JSON, _ANYTHING = ((b"accept", kind) for kind in (EVENTS, b"application/json", b"*/*"))


class Calls:
    """Call it with a route, which may be a fallback's: the request for that, built and never copied.

    `cap` is the output tokens per choice that were reserved, and `bounded` says that the client's limits depend on it.
    `versions` are Anthropic's headers as the client sent them.
    """

    __slots__ = ("_bounded", "_cap", "_headers", "_made", "_request", "_request_id", "_translations", "_versions")

    def __init__(
        self, request: CompletionRequest, cap: int, request_id: str, versions: Headers, *, bounded: bool
    ) -> None:
        self._request = request
        self._cap = cap
        self._bounded = bounded
        self._versions = versions
        self._request_id = request_id
        self._made: tuple[Route, Call] | None = None
        accept = _EVENTS if request.streaming else _ANYTHING if request.operation.opaque else _JSON
        self._headers: Headers = [accept, (b"x-request-id", request_id.encode())]
        self._translations: dict[str, Translation] = {}

    @property
    def takes_long(self) -> bool:
        """To put this into other words would hold up everybody else's request."""
        return len(self._request.text) > LARGE

    def prepare(self, route: Route) -> None:
        """What the call for this route will give, made now: in another thread, if that takes long."""
        self._made = (route, self._make(route))

    def __call__(self, route: Route) -> Call:
        """Raises NotServed, InvalidValue."""
        made, self._made = self._made, None
        return made[1] if made is not None and made[0] is route else self._make(route)

    def _make(self, route: Route) -> Call:
        request = self._request
        operation = request.operation
        text = outgoing(request, route, self._cap if self._bounded or route.always_cap else None)
        path = operation.path
        if route.serves is not None and operation.name not in route.serves:
            translation = self._translations[route.model] = translate(
                operation.name,
                text,
                route.serves,
                max_tokens_field=route.max_tokens_field,
                default_max_tokens=route.default_max_tokens,
                thinks=route.thinks,
            )
            path, text = translation.path, translation.body
        headers = self._headers
        if path.startswith(MESSAGES.path):
            headers = [*headers, *(self._versions or [VERSION])]
        body, *data = (text,) if request.lifted is None else lower(text, request.lifted)
        return Call(path, bytes(body), headers, route.timeouts, request.upload, data)

    def heard(self, response: BackendResponse, route: Route, told_prompt: Callable[[int], None]) -> BackendResponse:
        """The answer of this route's server in the client's own dialect. `told_prompt` hears how many tokens the server
        says that it read, where a stream's beginning says so and the client's dialect has no word for it there.
        """
        if not route.says_done and response.content_type.startswith(EVENTS):
            response = _WithDone(response)
        translation = self._translations.get(route.model)
        if translation is None:
            return response
        told_id = self._request_id if self._request.operation.dialect == "anthropic" else None
        return _Translated(response, translation, told_id, self._request.lifted, told_prompt)


class _WithDone:
    """An event stream of chat whose server ends it without [DONE], with that at its end.

    The end is proper if a finish reason was said; a stream that breaks off stays one that breaks off.
    """

    __slots__ = ("_response", "content_type", "headers", "status")

    def __init__(self, response: BackendResponse) -> None:
        self._response = response
        self.status, self.content_type, self.headers = response.status, response.content_type, response.headers

    async def read(self) -> bytes:
        return await self._response.read()

    async def pump(self, sink: Sink) -> None:
        seen = EventScanner()

        def look(chunk: bytes, framed: bytes | None = None) -> Rest:
            seen.feed(chunk)
            return sink(chunk, framed)

        await self._response.pump(look)
        seen.flush()
        if seen.finish_reason and not seen.complete and (rest := sink(DONE)) is not None:
            await rest


class _Translated:
    """See `BackendResponse`. Events are passed on as they come, a single answer when it is whole."""

    __slots__ = (
        "_done",
        "_lifted",
        "_request_id",
        "_response",
        "_told_prompt",
        "_translation",
        "content_type",
        "headers",
        "status",
    )

    def __init__(
        self,
        response: BackendResponse,
        translation: Translation,
        request_id: str | None,
        lifted: Lifted | None,
        told_prompt: Callable[[int], None],
    ) -> None:
        self._response = response
        self._translation = translation
        self._request_id = request_id
        self._lifted = lifted
        self._told_prompt = told_prompt
        self._done = False
        self.status, self.content_type, self.headers = response.status, response.content_type, response.headers

    async def read(self) -> bytes:
        if self._done or b"json" not in self.content_type:
            return await self._response.read()
        whole = bytearray()
        while chunk := await self._response.read():
            whole += chunk
            if len(whole) > ANSWER_MAX:
                raise UpstreamFailed(reason=f"an answer above {ANSWER_MAX} bytes")
        self._done = True
        if self.status == 200:
            if len(whole) > LARGE:  # 50 ms for a thousand tokens with the twenty likeliest others of each
                return await asyncio.to_thread(self._answer, bytes(whole))
            return self._answer(bytes(whole))
        refusal = self._translation.refusal(self.status, bytes(whole))
        return refusal if self._request_id is None else with_request_id(refusal, self._request_id)

    def _answer(self, whole: bytes) -> bytes:
        return self._restored(self._translation.answer(whole))

    async def pump(self, sink: Sink) -> None:
        events = self._translation.events()
        heard = 0

        def translated(chunk: bytes, _framed: bytes | None = None) -> Rest:
            nonlocal heard
            out = events.feed(chunk)
            if events.prompt_tokens > heard:
                heard = events.prompt_tokens
                self._told_prompt(heard)  # before the sink, in which a client may be found to have left
            return sink(self._restored(out))  # also where nothing came of it: a watch must hear that upstream lives

        try:
            await self._response.pump(translated)
            if (end := events.flush()) and (rest := sink(self._restored(end))) is not None:
                await rest
        except TooLong as error:
            raise UpstreamFailed(reason="an event without an end") from error

    def _restored(self, out: bytes) -> bytes:
        """What an answer repeats of the request, with the long data in it. Only whole events come: no mark is cut."""
        return out if self._lifted is None else b"".join(lower(out, self._lifted))
