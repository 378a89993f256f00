"""Long data out of a JSON text and back: nothing else changes, and nobody's words are taken for it."""

import base64
import os

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weir.core.lifting import LONG, Lifted, lift, lower

IMAGE = base64.b64encode(os.urandom(LONG)).decode()
URL = "data:image/png;base64," + IMAGE
PROSE = "the river flows and flows " * (LONG // 10)
QUOTED = 'she said "flow" and it did ' * (LONG // 10)
NUMBERS = list(range(LONG // 2))

TAKEN = [
    pytest.param({"data": IMAGE}, 1, id="base64"),
    pytest.param({"url": URL}, 1, id="data-url"),
    pytest.param({"a": [IMAGE, {"b": URL}], "c": IMAGE}, 3, id="several"),
    pytest.param({"a": IMAGE, "b": PROSE, "c": NUMBERS, "d": IMAGE}, 2, id="among-other-long-things"),
    pytest.param(IMAGE, 1, id="nothing-else"),
    pytest.param({IMAGE: 1}, 1, id="as-a-name"),
]
LEFT = [
    pytest.param({}, id="nothing"),
    pytest.param({"data": IMAGE[:1000]}, id="short"),
    pytest.param({"text": PROSE}, id="prose"),
    pytest.param({"text": QUOTED}, id="prose-with-quotes"),
    pytest.param({"input": NUMBERS}, id="numbers"),
    pytest.param({"a": "x" * 10, "input": NUMBERS, "b": "y" * 10}, id="numbers-between-texts"),
    pytest.param({"text": "\\" * LONG}, id="backslashes"),
    pytest.param({"text": "é" * LONG}, id="letters-beyond-ascii"),
]


# A translation may read these: Claude takes a text as a text, not in base64.
READ = [
    pytest.param("data:text/plain;base64,", id="text"),
    pytest.param("data:text/markdown;charset=utf-8;base64,", id="text-with-its-charset"),
    pytest.param("data:text\\/plain;base64,", id="text-with-an-escaped-slash"),
    pytest.param("data:application/json;base64,", id="json"),
    pytest.param("data:application/ld+json;base64,", id="json-of-a-kind"),
]


@pytest.mark.parametrize("head", READ)
def test_a_text_in_base64_is_left(head: str) -> None:
    text = f'{{"file_data":"{head}{IMAGE}"}}'.encode()
    assert lift(text).text is text


@pytest.mark.parametrize(("said", "count"), TAKEN)
def test_is_taken_out(said: object, count: int) -> None:
    text = orjson.dumps(said)
    lifted = lift(text)
    assert len(lifted.data) == count
    assert lifted.length(lifted.text.decode()) == len(text)
    assert orjson.loads(lifted.text)
    assert whole(lifted.text, lifted) == text


@pytest.mark.parametrize("said", LEFT)
def test_is_left(said: object) -> None:
    text = orjson.dumps(said)
    assert lift(text).text is text


def whole(text: bytes, lifted: Lifted) -> bytes:
    return b"".join(lower(text, lifted))


def test_the_head_of_a_data_url_stays() -> None:
    assert orjson.loads(lift(orjson.dumps({"url": URL})).text)["url"].startswith("data:image/png;base64,lifted-")


def test_comes_back_wherever_it_went() -> None:
    lifted = lift(orjson.dumps({"type": "image", "data": IMAGE}))
    moved = orjson.dumps({"url": f"data:image/png;base64,{orjson.loads(lifted.text)['data']}", "again": [IMAGE[:5]]})
    assert orjson.loads(whole(moved, lifted)) == {"url": URL, "again": [IMAGE[:5]]}


def test_of_what_is_no_json_is_whole_again_too() -> None:
    for text in (b'"' + b"A" * 3 * LONG, b"A" * 3 * LONG, b'{"a":"' + IMAGE.encode() + b'"', b'""' * LONG):
        lifted = lift(text)
        assert whole(lifted.text, lifted) == text


TEXTS = st.one_of(
    st.text(max_size=30),
    st.integers(0, 3).map(lambda n: IMAGE[: LONG + n * 1000]),
    st.sampled_from([PROSE, QUOTED, URL, '"', "\\", '\\"', "lifted-0-0."]),
)
JSON = st.recursive(
    TEXTS | st.integers(0, 2**60), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3)
)


@settings(max_examples=200)
@given(JSON)
def test_any_json_is_the_same_again(said: object) -> None:
    text = orjson.dumps(said)
    lifted = lift(text)
    orjson.loads(lifted.text)
    assert whole(lifted.text, lifted) == text
