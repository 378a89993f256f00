"""Reads a request's body once, for the few fields that we decide on; the bytes themselves stay as they came."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from weir.core.errors import ClientGone, InvalidValue, MalformedBody
from weir.core.lifting import Lifted, lift
from weir.core.operations import CHAT, RESPONSES, TEXT, Operation
from weir.core.types import Route
from weir.gateway.splice import (
    DECIDED_ON_SET,
    refuse_duplicates,
    refuse_lookalikes,
    refuse_other_models,
    refuse_too_many,
    rename,
    replace,
)
from weir.gateway.upload import Upload, too_large
from weir.gateway.watch import Watches
from weir.gateway.wire import Wire

LARGE = 128 * 1024  # bytes of a body that is worth a thread, and a look for long data in it
DEPTH_MAX, ORJSON_DEPTH = 200, 254  # levels of a body; and of what orjson writes
CHOICES_MAX = 128  # OpenAI's own bound for `n`
OUTPUT_MAX = 2**31 - 1
# What overrules an operation's own names in llama.cpp, which reads one list of fields for all of OpenAI's operations
# (its server-schema.cpp): who reserved by those alone would let these pass unpaid. -1 is without a bound.
OWN_CAP, OWN_CHOICES, ENDLESS = "n_predict", "n_cmpl", -1
OTHER_CAPS, OTHER_CHOICES = ("max_completion_tokens", OWN_CAP), ("n", OWN_CHOICES)
EMBEDS = "prompt_embeds"  # vLLM's: prompts as vectors, beside those of `prompt`, or in their place
MEDIA_TOKENS = 1000  # reserved for an image or a sound; what it really was is settled
# Where none of these stands, there is nothing but text. A data URL begins with "data:", whatever holds it.
_MEDIA = (b"image_url", b"input_audio", b'"file_data"', b'"base64"', b'"data:', b'"url"', b'"image_generation_call"')
# Parts, blocks and items that are no text: OpenAI's, Anthropic's, vLLM's and Mistral's. Whatever else there is, calls
# of tools and their results, thoughts, what a search found, is text.
_KINDS_OF_MEDIA = frozenset(
    {"image", "image_url", "input_image", "image_embeds", "image_generation_call"}
    | {"audio", "audio_url", "input_audio", "audio_embeds", "video", "video_url", "input_video"}
    | {"file", "input_file", "document", "document_url", "computer_screenshot", "computer_call_output"}
)

# A request body is other people's JSON, of any shape: Any is its honest type.
Json = dict[str, Any]


@dataclass(slots=True)
class CompletionRequest:
    """What is decided on. `output_tokens` is the most per choice, None if the client names none; `caps` are those of
    its operation's names that it does, and `endless` says that one of llama.cpp's would overrule them. `text_bytes` is
    the body without base64, `media_tokens` stands for that. Of an `upload` the body is what is held of it. Of a large
    body long data is `lifted`, so that its text can be read and changed without it.
    """

    operation: Operation
    body: bytes
    model: str
    streaming: bool
    wants_usage: bool
    output_tokens: int | None
    choices: int
    text_bytes: int
    media_tokens: int
    present: frozenset[str]
    stream_options: Json | None
    caps: tuple[str, ...] = ()
    endless: bool = False
    upload: Upload | None = None
    lifted: Lifted | None = None

    @property
    def text(self) -> bytes:
        """The body, without what is lifted."""
        return self.body if self.lifted is None else self.lifted.text


async def read_body(wire: Wire, content_length: int | None, most: int, watches: Watches) -> bytes:
    """The whole body, at most `most` bytes; one that says that it is larger is refused unread.

    Raises BodyTooLarge, ClientGone, BodyTimeout.
    """
    if content_length is not None and content_length > most:
        raise too_large(most)
    body = wire.body()
    if body is None:
        with watches.body():
            body = await _received(wire, most)
    if len(body) > most:
        raise too_large(most)
    return body


async def _received(wire: Wire, most: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await wire.receive()
        if message["type"] != "http.request":
            raise ClientGone(reason="left while sending the body")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            raise too_large(most)
        more = message.get("more_body", False)
    # A large one in a thread: it lets others have the interpreter meanwhile, and new memory is slow (20 MB: 70 ms).
    return b"".join(parts) if size <= LARGE else await asyncio.to_thread(b"".join, parts)


async def read_aside(operation: Operation, body: bytes) -> CompletionRequest:
    """As `read_request`, which of a large body would hold up everybody else's request: in a thread."""
    return await asyncio.to_thread(read_request, operation, body)


def read_request(operation: Operation, body: bytes) -> CompletionRequest:
    """Raises MalformedBody, InvalidValue, each naming the field."""
    lifted = lift(body) if len(body) > LARGE else None
    text = body if lifted is None else lifted.text
    if len(text) > LARGE:
        refuse_too_many(text)
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The request body is not valid JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise MalformedBody("The request body must be a JSON object.")
    model = fields.get("model")
    if not isinstance(model, str) or not model:
        raise _without_model()
    _check_prompt(operation, fields)
    streaming = _boolean(fields, "stream") and operation.streams
    refuse_duplicates(text, fields)
    refuse_lookalikes(fields)
    refuse_other_models(fields)
    if text.count(b"{") + text.count(b"[") > DEPTH_MAX:
        _refuse_depth(fields)
    if operation is RESPONSES and fields.get("background"):
        raise InvalidValue(
            "'background' is not served here: nobody could fetch the answer, or bound it. Leave it out.",
            param="background",
        )
    media = _media(text, fields, lifted)
    return CompletionRequest(
        operation=operation,
        body=body,
        model=model,
        streaming=streaming,
        wants_usage=streaming and (not operation.opt_in_usage or _wants_usage(fields)),
        output_tokens=_output_tokens(operation, fields) if operation.generates else 0,
        choices=_choices(operation, fields) if operation.generates else 1,
        text_bytes=len(body) - media[0],
        media_tokens=media[1],
        present=DECIDED_ON_SET & fields.keys(),
        stream_options=fields.get("stream_options"),
        caps=tuple(name for name in operation.caps if fields.get(name) is not None),
        endless=operation.generates and operation.dialect == "openai" and fields.get(OWN_CAP) == ENDLESS,
        lifted=lifted if lifted is not None and lifted.data else None,
    )


def _refuse_depth(fields: Json) -> None:
    """What orjson reads may be four times as deep as what it writes, and a translation wraps that a few times more."""
    wrapped: Any = fields
    for _ in range(ORJSON_DEPTH - DEPTH_MAX):
        wrapped = [wrapped]
    try:
        orjson.dumps(wrapped)
    except TypeError as error:
        raise InvalidValue(f"The request body is nested more than {DEPTH_MAX} levels deep.") from error


def read_form(operation: Operation, upload: Upload) -> CompletionRequest:
    """Raises InvalidValue, naming the field."""
    model = upload.model
    if not model:
        raise _without_model()
    return CompletionRequest(
        operation=operation,
        body=upload.held,
        model=model,
        # Whatever `stream` says: a server may ignore it (whisper-1 does), so no stream may be begun before it does.
        streaming=False,
        wants_usage=True,
        output_tokens=0,
        choices=1,
        text_bytes=upload.form.text_bytes,
        media_tokens=MEDIA_TOKENS,
        present=DECIDED_ON_SET,
        stream_options=None,
        upload=upload,
    )


def outgoing(request: CompletionRequest, route: Route, cap: int | None) -> bytes:
    """The text that goes upstream: the client's bytes, without what is lifted, and with our few changes spliced in.

    `cap` is the output tokens per choice that were reserved, if no server may give more; else None.
    """
    changes: dict[str, Any] = {}
    if route.upstream_model != request.model:
        changes["model"] = route.upstream_model
    if request.streaming and not request.wants_usage:
        # A client cannot switch accounting off; the chunk it did not ask for is taken out again.
        changes["stream_options"] = {**(request.stream_options or {}), "include_usage": True}
    text = request.text
    if cap is not None and request.operation.generates:
        known = route.max_tokens_field if request.operation is CHAT else request.operation.caps[0]
        if known == "max_tokens" and request.caps == ("max_completion_tokens",) and known not in request.present:
            text = rename(text, "max_completion_tokens", known)  # which Ollama, for one, does not know
        elif not request.caps or (known == "max_tokens" and known not in request.caps):
            changes[known] = cap
        if request.endless:
            changes[OWN_CAP] = cap
    if not changes:
        return text
    if request.upload is not None:
        return request.upload.renamed(changes["model"])
    return replace(text, changes, request.present)


def _without_model() -> InvalidValue:
    return InvalidValue("'model' must be the name of a model; GET /v1/models lists them.", param="model")


def _check_prompt(operation: Operation, fields: Json) -> None:
    name = operation.prompt
    if fields.get(name) is None:
        if operation is TEXT and fields.get(EMBEDS):
            return
        raise InvalidValue(f"'{name}' is missing.", param=name)
    value = fields[name]
    if name == "messages":
        if not isinstance(value, list) or not value:
            raise InvalidValue("'messages' must be a list with at least one message.", param=name)
    elif not isinstance(value, str | list) or value == []:
        raise InvalidValue(f"'{name}' must be a text or a list that is not empty.", param=name)


def _boolean(fields: Json, name: str) -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidValue(f"'{name}' must be true or false.", param=name)


def _wants_usage(fields: Json) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidValue("'stream_options' must be an object.", param="stream_options")
    refuse_lookalikes(options, ("include_usage",))
    return _boolean(options, "include_usage")


def _output_tokens(operation: Operation, fields: Json) -> int | None:
    """The largest of all names: reserving a smaller one would let the others pass unpaid."""
    most = 0
    for name in operation.caps:
        least = 0 if operation is TEXT else 1  # OpenAI's: of 0 the prompt's own tokens are scored
        most = max(most, _whole(fields, name, least, OUTPUT_MAX) or 0)
    if operation.dialect == "anthropic":
        if not most:  # there it is no option
            raise InvalidValue("'max_tokens' is missing: how many tokens the answer may have.", param="max_tokens")
        return most
    for name in OTHER_CAPS:
        if name in fields:
            most = max(most, _whole(fields, name, ENDLESS if name == OWN_CAP else 1, OUTPUT_MAX) or 0)
    return most or None


def _choices(operation: Operation, fields: Json) -> int:
    if operation.dialect == "anthropic":
        return 1
    most = 1
    for name in OTHER_CHOICES:
        if name in fields:
            most = max(most, _whole(fields, name, 1, CHOICES_MAX) or 1)
    if not operation.opt_in_usage:
        return most
    most = max(most, _whole(fields, "best_of", 1, CHOICES_MAX) or 1)
    return most * _prompts(fields) if operation is TEXT else most


def _prompts(fields: Json) -> int:
    """How many are answered. A list of texts, or of lists of tokens, is as many; a list of numbers is one."""
    prompt, embeds = fields.get("prompt"), fields.get(EMBEDS)
    texts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else int(prompt is not None)
    return texts + (len(embeds) if isinstance(embeds, list) else 1 if embeds else 0)


def _whole(fields: Json, name: str, least: int, most: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidValue(f"'{name}' must be a whole number from {least} to {most}.", param=name)
    return value


def _media(text: bytes, fields: Json, lifted: Lifted | None) -> tuple[int, int]:
    """Bytes of the body that are no text, and the tokens that stand for them."""
    for mark in _MEDIA:
        if mark in text:
            break
    else:
        return 0, 0
    size = count = 0
    for said in (fields.get("messages"), fields.get("input")):
        for part in _parts(said):
            size, count = size + _data_in(part, lifted), count + 1
    return size if lifted is not None else min(size, len(text)), count * MEDIA_TOKENS


def _parts(said: Any, depth: int = 3) -> Iterator[Json]:
    """Whatever is no text among a conversation's parts: of its messages, and of the results of tools in them."""
    if not depth or not isinstance(said, list):
        return
    for one in said:
        if not isinstance(one, dict):
            continue
        inner = one.get("content", one.get("output"))
        if isinstance(inner, list):
            yield from _parts(inner, depth - 1)
        elif "role" not in one and _kind(one) in _KINDS_OF_MEDIA:
            yield one


def _kind(part: Json) -> str:
    """What it says that it is, or else what it holds: vLLM takes parts without a type."""
    said = part.get("type")
    return said if isinstance(said, str) else next((name for name in part if name in _KINDS_OF_MEDIA), "")


def _data_in(part: Json, lifted: Lifted | None) -> int:
    """Bytes of data, and neither of an address nor of a name: those are short; nor of a document that is text."""
    inner = part.get(_kind(part), part.get("source", part.get("output")))
    values = inner.values() if isinstance(inner, dict) else part.values()
    if isinstance(inner, dict) and inner.get("type") == "text":
        return 0
    texts = [value for value in values if isinstance(value, str)]
    lengths = map(len, texts) if lifted is None else map(lifted.length, texts)
    return sum(length for length in lengths if length > 256)
