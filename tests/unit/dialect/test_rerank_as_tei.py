"""Jina's and Cohere's rerank in TEI's words, and back."""

from typing import Any

import orjson
import pytest

from weir.core.errors import InvalidValue, MalformedBody, UpstreamFailed
from weir.dialect.rerank_as_tei import RerankAsTei

A, B, C = "a weir", "a dam", "a boat"
ASKED = {"model": "BAAI/bge-reranker-v2-m3", "query": "What holds a river?", "documents": [A, B, C]}
RANKS = b'[{"index":1,"score":0.9988543},{"index":0,"score":0.75},{"index":2,"score":0.0000016}]'


def asked(**fields: Any) -> bytes:
    return orjson.dumps(ASKED | fields)


REQUESTS = [
    # what the client adds or changes, what TEI gets beside the query
    pytest.param({}, {"texts": [A, B, C]}, id="texts"),
    pytest.param({"documents": [{"text": A}, B]}, {"texts": [A, B]}, id="objects-with-a-text"),
    pytest.param({"documents": [{"text": A}], "rank_fields": ["text"]}, {"texts": [A]}, id="the-only-field-is-ranked"),
    pytest.param({"top_n": 1, "return_documents": True}, {"texts": [A, B, C]}, id="what-we-do-ourselves"),
    pytest.param({"user": "u", "priority": 3}, {"texts": [A, B, C]}, id="hints"),
    pytest.param({"max_tokens_per_doc": None, "top_n": None}, {"texts": [A, B, C]}, id="null-asks-for-nothing"),
    pytest.param({"truncate": True}, {"texts": [A, B, C], "truncate": True}, id="tei-truncate"),
    pytest.param({"raw_scores": True}, {"texts": [A, B, C], "raw_scores": True}, id="tei-raw-scores"),
]


@pytest.mark.parametrize(("fields", "sent"), REQUESTS)
def test_request(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    translation = RerankAsTei(asked(**fields))
    assert translation.path == "//rerank"
    assert orjson.loads(translation.body) == {"query": "What holds a river?"} | sent


REFUSED = [
    pytest.param({"max_tokens_per_doc": 100}, "max_tokens_per_doc", id="a-bound-that-tei-has-not"),
    pytest.param({"max_chunks_per_doc": 2}, "max_chunks_per_doc", id="chunks"),
    pytest.param({"rank_fields": ["title"]}, "rank_fields", id="a-field-that-is-no-text"),
    pytest.param({"documents": [A, {"image": "x"}]}, "documents[1].image", id="an-image"),
    pytest.param({"documents": [{"text": A, "title": B}]}, "documents[0].title", id="a-field-more"),
    pytest.param({"documents": [A, 7]}, "documents[1]", id="a-number"),
    pytest.param({"documents": [{}]}, "documents[0].text", id="nothing-in-it"),
    pytest.param({"documents": A}, "documents", id="no-list"),
    pytest.param({"query": None}, "query", id="no-query"),
    pytest.param({"query": {"image": "x"}}, "query", id="an-image-asks"),
    pytest.param({"top_n": 0}, "top_n", id="none-of-them"),
    pytest.param({"top_n": "3"}, "top_n", id="a-text-for-a-number"),
    pytest.param({"top_n": True}, "top_n", id="a-boolean-for-a-number"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        RerankAsTei(asked(**fields))
    assert refused.value.param == param
    assert param in refused.value.text


def test_a_body_that_is_no_json() -> None:
    with pytest.raises(MalformedBody):
        RerankAsTei(b"{")


def ranked(index: int, score: float, text: str | None) -> dict[str, Any]:
    document = {} if text is None else {"document": {"text": text}}
    return {"index": index, "relevance_score": score, **document}


ANSWERS = [
    # what the client asks, what TEI says, the results
    pytest.param({}, RANKS, [ranked(1, 0.9988543, B), ranked(0, 0.75, A), ranked(2, 0.0000016, C)], id="all"),
    pytest.param({"top_n": 2}, RANKS, [ranked(1, 0.9988543, B), ranked(0, 0.75, A)], id="the-best-two"),
    pytest.param(
        {"top_n": 9, "return_documents": False},
        RANKS,
        [ranked(1, 0.9988543, None), ranked(0, 0.75, None), ranked(2, 0.0000016, None)],
        id="more-than-there-are-and-no-documents",
    ),
    pytest.param(
        {"top_n": 1},
        b'[{"index":0,"text":"a weir","score":-4.5},{"index":2,"text":"a boat","score":-1}]',
        [ranked(2, -1.0, C)],
        id="raw-scores-in-no-order",
    ),
]


@pytest.mark.parametrize(("fields", "said", "results"), ANSWERS)
def test_answer(fields: dict[str, Any], said: bytes, results: list[dict[str, Any]]) -> None:
    answer = orjson.loads(RerankAsTei(asked(**fields)).answer(said))
    assert answer == {"model": ASKED["model"], "object": "list", "results": results}


NO_RANKS = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"[", id="cut"),
    pytest.param(b'{"error":"Model is overloaded","error_type":"overloaded"}', id="an-error-with-200"),
    pytest.param(b'[{"index":3,"score":1.0}]', id="a-document-that-nobody-sent"),
    pytest.param(b'[{"index":-1,"score":1.0}]', id="counted-from-the-end"),
    pytest.param(b'[{"index":0}]', id="no-score"),
    pytest.param(b'[{"index":0,"score":"high"}]', id="a-score-in-words"),
    pytest.param(b"[1,2]", id="numbers-alone"),
    pytest.param(b"7", id="one-number"),
]


@pytest.mark.parametrize("said", NO_RANKS)
def test_an_answer_that_is_none(said: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        RerankAsTei(asked()).answer(said)


REFUSALS = [
    # TEI's status and error_type (its ErrorType), OpenAI's type
    pytest.param(413, "validation", "invalid_request_error", id="too-many-texts"),
    pytest.param(422, "tokenizer", "invalid_request_error", id="cannot-be-read"),
    pytest.param(424, "backend", "invalid_request_error", id="no-reranker"),
    pytest.param(429, "overloaded", "rate_limit_error", id="overloaded"),
]


@pytest.mark.parametrize(("status", "kind", "type_"), REFUSALS)
def test_a_refusal_keeps_the_servers_words(status: int, kind: str, type_: str) -> None:
    said = orjson.dumps({"error": "Of the server.", "error_type": kind})
    error = orjson.loads(RerankAsTei(asked()).refusal(status, said))["error"]
    assert error == {"message": "Of the server.", "type": type_, "param": None, "code": kind}


def test_ranks_are_no_stream() -> None:
    with pytest.raises(UpstreamFailed):
        RerankAsTei(asked()).events()
