"""Outline: the upper floors of a document, whatever stands below and wherever it is cut."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.usage.outline import OUTLINE_MAX, Outline

USED = {"input_tokens": 3, "input_tokens_details": {"cached_tokens": 1}}
ODD = 'a"}{[]\\'  # what would confuse whoever does not skip strings


def outlined(*pieces: bytes) -> dict[str, Any]:
    outline = Outline()
    for piece in pieces:
        outline.feed(piece)
    return outline.read()


OUTLINES = [
    # a document, and what is kept of it
    pytest.param({"usage": USED, "id": "r"}, {"usage": USED, "id": "r"}, id="usage"),
    pytest.param({"tools": [{"usage": USED}], "usage": USED}, {"tools": [], "usage": USED}, id="behind-tools"),
    pytest.param({"usage": USED, "metadata": {"usage": USED}}, {"usage": USED, "metadata": {}}, id="before-metadata"),
    pytest.param({"x": "usage", "y": {"usage": USED}}, {"x": "usage", "y": {}}, id="a-value-is-no-name"),
    pytest.param({"usage": {"a": {"b": {"usage": USED}}}}, {"usage": {"a": {"b": {}}}}, id="deep-in-usage"),
    pytest.param(
        {"choices": [{"finish_reason": "stop", "message": {"a": [1]}}, {}]},
        {"choices": [{"finish_reason": "stop", "message": {}}, {}]},
        id="choices",
    ),
    pytest.param({"x": [[[1], [2]], [{}]], "object": "list"}, {"x": [], "object": "list"}, id="numbers"),
    pytest.param(
        {"type": "t", "response": {"usage": USED, "tools": [{"usage": 1}]}, "tools": {"response": {"usage": 1}}},
        {"type": "t", "response": {"usage": USED, "tools": []}, "tools": {}},
        id="envelope",
    ),
    pytest.param({"response": None, "usage": USED}, {"response": None, "usage": USED}, id="empty-envelope"),
    pytest.param({"id": "w" * 99, "b": {ODD: ODD}, "usage": USED}, {"id": "", "b": {}, "usage": USED}, id="strings"),
    pytest.param({"tools": {ODD: ODD, "x" * 9000: [{"y" * 9000: ODD}]}, "a": 1}, {"tools": {}, "a": 1}, id="windows"),
]


@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "indented"])
@pytest.mark.parametrize(("document", "kept"), OUTLINES)
def test_outline_cut_anywhere(document, kept, indent):
    body = json.dumps(document, indent=indent).encode()
    assert outlined(body) == kept
    assert outlined(*(body[at : at + 1] for at in range(len(body)))) == kept
    for at in range(min(len(body), 600)):
        assert outlined(body[:at], body[at:]) == kept, f"cut at {at}"


ANYTHING: Any = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('"\\{}[]:,u\u00fc')),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["usage", "response", ODD]), inner),
)


@settings(max_examples=200, deadline=None)
@given(ANYTHING, st.integers(1, 40))
def test_whatever_a_caller_repeats_only_usage_is_usage(repeated, size):
    body = json.dumps({"tools": repeated, "usage": USED, "metadata": repeated}).encode()
    said = outlined(*(body[at : at + size] for at in range(0, len(body), size)))
    assert said["usage"] == USED
    assert said["metadata"] in ([], {}, repeated) or isinstance(repeated, str)


NOTHING = [
    pytest.param(b"", id="empty"),
    pytest.param(b'{"usage":{"input_tokens":1}', id="unfinished"),
    pytest.param(b'[{"usage":{"input_tokens":1}}]', id="list"),
    pytest.param(b'{"usage":{}}}}}', id="brackets-too-many"),
    pytest.param(b'{"choices":[%b{}],"usage":{}}' % (b"{}," * OUTLINE_MAX), id="too-wide"),
]


@pytest.mark.parametrize("body", NOTHING)
def test_what_says_nothing(body):
    assert outlined(body) == {}


def test_keeps_little():
    outline = Outline()
    tracemalloc.start()
    try:
        for _ in range(1000):
            outline.feed(b'{"choices":[{"text":"weir' + b"w" * 16_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
