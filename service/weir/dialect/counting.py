"""Messages' count_tokens by an engine's own tokenizer. Implements `Translation`.

vLLM's POST /tokenize, beside its /v1: {"model", "messages", "tools"} of chat, answered by {"count", "max_model_len",
"tokens"} (docs.vllm.ai, "Tokenizer API").
"""

import orjson

from weir.core.errors import UpstreamFailed
from weir.dialect.messages.as_chat import MessagesAsChat
from weir.dialect.translation import Events

TOKENIZE = "tokenize"  # the operation's name among those that a server may know; no client of ours asks for it
_ASKED = ("model", "messages", "tools")


class CountAsTokenize:
    """A path that begins with // is counted from the server's root."""

    path = "//tokenize"

    def __init__(self, body: bytes) -> None:
        """Raises InvalidValue, as the conversation itself would."""
        self._chat = MessagesAsChat(body)
        fields = orjson.loads(self._chat.body)
        self.body = orjson.dumps({name: fields[name] for name in _ASKED if name in fields})

    def answer(self, body: bytes) -> bytes:
        try:
            count = orjson.loads(body)["count"]
        except (orjson.JSONDecodeError, LookupError, TypeError) as error:
            raise UpstreamFailed(reason="no count of tokens") from error
        if not isinstance(count, int):
            raise UpstreamFailed(reason="a count of tokens that is no number")
        return orjson.dumps({"input_tokens": count})

    def refusal(self, status: int, body: bytes) -> bytes:
        return self._chat.refusal(status, body)

    def events(self) -> Events:
        raise UpstreamFailed(reason="a stream where a count was asked for")
