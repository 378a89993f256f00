"""A client that speaks OpenAI's Responses to an engine that speaks chat completions (vLLM, Ollama, TGI, llama.cpp).

Stateless: nothing is stored, so each request carries its whole conversation. Written after OpenAI's API description
and what Codex CLI and the official SDK send and read.
"""

import orjson

from weir.core.errors import MalformedBody, UpstreamFailed
from weir.dialect.fields import read_json, write_json
from weir.dialect.openai_errors import openai_error, told
from weir.dialect.responses.answer import Answer
from weir.dialect.responses.events import ResponseEvents
from weir.dialect.responses.fields import an_object
from weir.dialect.responses.request import chat_request

_LARGE = ("instructions", "metadata", "text", "tools")  # in three events of a stream: written once


class ResponsesAsChat:
    """See `Translation`. `max_tokens_field` is what the engine calls chat's limit of an answer."""

    path = "/chat/completions"

    def __init__(self, body: bytes, *, max_tokens_field: str = "max_tokens") -> None:
        """Raises InvalidValue for a request that chat completions have no words for."""
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise MalformedBody from error
        # Only what the way back needs is kept: the conversation stands in `body` and need not be held twice.
        chat, self._way_back = chat_request(an_object(request, "body"), max_tokens_field)
        self.body = orjson.dumps(chat)

    def answer(self, body: bytes) -> bytes:
        try:
            chat = read_json(body)
        except ValueError as error:
            raise UpstreamFailed(reason="an answer that is no JSON") from error
        if not isinstance(chat, dict) or not isinstance(chat.get("choices"), list) or not chat["choices"]:
            raise UpstreamFailed(reason="an answer without a choice")
        answer = Answer(self._way_back)
        for events in (answer.begin(chat), answer.read(chat, "message"), answer.end()):
            for _ in events:
                pass  # the steps of a stream, whose events nobody wants here
        return write_json(answer.shown)

    def refusal(self, status: int, body: bytes) -> bytes:
        """OpenAI's error object passes with all its members; what other servers say is put into one."""
        try:
            error = orjson.loads(body)["error"]
        except (orjson.JSONDecodeError, LookupError, TypeError):
            error = None
        return body if isinstance(error, dict) else write_json(openai_error(status, told(body)))

    def events(self) -> ResponseEvents:
        return ResponseEvents(self._way_back, _LARGE)
