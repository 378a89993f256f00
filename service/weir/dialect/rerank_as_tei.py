"""The client reranks in the words of Jina and Cohere (POST /v1/rerank), the server is Hugging Face's TEI.

TEI's POST /rerank: {"query", "texts", "truncate", "raw_scores", "return_text"}, answered by a list of {"index",
"score"}, best first (huggingface.github.io/text-embeddings-inference). It serves one model, has no `top_n`, and counts
tokens in a header only, so the answer has no usage. Implements `Translation`.
"""

from typing import Any

import orjson

from weir.core.errors import InvalidValue, UpstreamFailed
from weir.dialect.fields import Fields, Json, a_list, a_string, an_object, no_counterpart, parsed, write_json
from weir.dialect.openai_errors import openai_error, told
from weir.dialect.translation import Events

RERANK_TEXTS = "rerank_texts"  # the operation's name among those that a server may know; no client of ours asks for it
_TEI = "the rerank API of text-embeddings-inference"
_OWN = frozenset({"truncate", "truncation_direction", "raw_scores"})  # TEI's own words, for who knows what is there
FIELDS = Fields(
    other=_TEI,
    carried=frozenset({"model", "query", "documents", "top_n", "return_documents", *_OWN}),
    hints=frozenset({"user", "priority"}),  # who asks, and how soon it is to be done
    # Cohere's documents may have fields of their own; of those that we can carry there is one.
    neutral={"rank_fields": (["text"],)},
)


class RerankAsTei:
    """A path that begins with // is counted from the server's root."""

    path = "//rerank"

    def __init__(self, body: bytes) -> None:
        """Raises InvalidValue for what has no counterpart, by name."""
        asked = parsed(body)
        FIELDS.refuse_others(asked)
        self._model = asked.get("model")
        documents = a_list(asked.get("documents"), "documents")
        self._texts = [_text(document, f"documents[{n}]") for n, document in enumerate(documents)]
        self._top_n = _top_n(asked.get("top_n"))
        # Jina gives documents back unless told otherwise, Cohere never; a client that wants none does not look at them.
        self._gives_documents = asked.get("return_documents") is not False
        out: Json = {name: asked[name] for name in _OWN if asked.get(name) is not None}
        self.body = orjson.dumps({"query": a_string(asked.get("query"), "query"), "texts": self._texts, **out})

    def answer(self, body: bytes) -> bytes:
        try:
            ranks = [(int(rank["index"]), float(rank["score"])) for rank in orjson.loads(body)]
            ranks.sort(key=lambda rank: -rank[1])
            results = [self._result(*rank) for rank in ranks[: self._top_n]]
        except (ValueError, LookupError, TypeError) as error:
            raise UpstreamFailed(reason=f"no ranks: {type(error).__name__}") from error
        return orjson.dumps({"model": self._model, "object": "list", "results": results})

    def refusal(self, status: int, body: bytes) -> bytes:
        return write_json(openai_error(status, told(body)))

    def events(self) -> Events:
        raise UpstreamFailed(reason="a stream where ranks were asked for")

    def _result(self, index: int, score: float) -> Json:
        if index < 0:
            raise IndexError(index)
        text = self._texts[index]
        document = {"document": {"text": text}} if self._gives_documents else {}
        return {"index": index, "relevance_score": score, **document}


def _text(document: Any, at: str) -> str:
    """A document is a text, or an object that holds one and nothing more."""
    if isinstance(document, str):
        return document
    fields = an_object(document, at)
    for name in fields.keys() - {"text"}:
        raise no_counterpart(f"{at}.{name}", _TEI, f"{at}.{name}")
    return a_string(fields.get("text"), f"{at}.text")


def _top_n(asked: Any) -> int | None:
    if asked is None:
        return None
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise InvalidValue("'top_n' must be a whole number from 1.", param="top_n")
    return asked
