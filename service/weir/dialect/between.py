"""Which translation leads from what a client asked for to something that an upstream does."""

from collections.abc import Set as AbstractSet

from weir.core.errors import NotServed
from weir.core.operations import CHAT, COUNT_TOKENS, MESSAGES, RERANK, RESPONSES
from weir.dialect.chat.as_messages import ChatAsMessages
from weir.dialect.counting import TOKENIZE, CountAsTokenize
from weir.dialect.messages.as_chat import MessagesAsChat
from weir.dialect.rerank_as_tei import RERANK_TEXTS, RerankAsTei
from weir.dialect.responses.as_chat import ResponsesAsChat
from weir.dialect.translation import Events, Translation


def translate(
    operation: str,
    body: bytes,
    serves: AbstractSet[str],
    *,
    max_tokens_field: str = "max_tokens",
    default_max_tokens: int = 4096,
    thinks: bool = True,
) -> Translation:
    """`serves` are the operations that upstream knows, and `operation` is none of them. `thinks` False: its model knows
    no effort, and would refuse who asks for one.

    Raises NotServed where nothing leads there, InvalidValue where this request cannot be put into other words.
    """
    if operation == COUNT_TOKENS.name and TOKENIZE in serves:
        return CountAsTokenize(body)
    if operation == RERANK.name and RERANK_TEXTS in serves:
        return RerankAsTei(body)
    if CHAT.name in serves:
        if operation == MESSAGES.name:
            return MessagesAsChat(body, max_tokens_field=max_tokens_field, thinks=thinks)
        if operation == RESPONSES.name:
            return ResponsesAsChat(body, max_tokens_field=max_tokens_field)
    elif MESSAGES.name in serves:
        if operation == CHAT.name:
            return ChatAsMessages(body, default_max_tokens=default_max_tokens)
        if operation == RESPONSES.name:
            outer = ResponsesAsChat(body)
            return Chain(outer, ChatAsMessages(outer.body, default_max_tokens=default_max_tokens))
    raise NotServed


class Chain:
    """One translation behind another: see `Translation`. `outer` is the one next to the client."""

    def __init__(self, outer: Translation, inner: Translation) -> None:
        self._outer = outer
        self._inner = inner
        self.path = inner.path
        self.body = inner.body

    def answer(self, body: bytes) -> bytes:
        return self._outer.answer(self._inner.answer(body))

    def refusal(self, status: int, body: bytes) -> bytes:
        return self._outer.refusal(status, self._inner.refusal(status, body))

    def events(self) -> Events:
        return _ChainedEvents(self._outer.events(), self._inner.events())


class _ChainedEvents:
    def __init__(self, outer: Events, inner: Events) -> None:
        self._outer = outer
        self._inner = inner

    @property
    def prompt_tokens(self) -> int:
        return self._inner.prompt_tokens

    def feed(self, chunk: bytes) -> bytes:
        return self._outer.feed(self._inner.feed(chunk))

    def flush(self) -> bytes:
        return self._outer.feed(self._inner.flush()) + self._outer.flush()
