"""The text of a custom tool comes out of JSON arguments as a JSON parser would read it, at any cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weir.dialect.responses.free_text import FreeText

TEXT = st.text(max_size=40)


def read(*pieces: str) -> str:
    free = FreeText()
    return "".join([free.feed(piece) for piece in pieces]) + free.flush()


@given(text=TEXT, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_as_a_parser_reads_it(*, text: str, ascii_only: bool, indent: int | None) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=ascii_only, indent=indent)
    assert read(arguments) == text
    assert read(*arguments) == text
    assert all(read(arguments[:cut], arguments[cut:]) == text for cut in range(len(arguments)))


@given(arguments=st.text(alphabet='{}":\\ud83cDinputn /a\n', max_size=30))
def test_any_cut_of_anything(arguments: str) -> None:
    whole = read(arguments)
    whole.encode()
    assert read(*arguments) == whole


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("*** Begin Patch", "*** Begin Patch", id="no JSON"),
        pytest.param('{"patch": "a"}', '{"patch": "a"}', id="another argument"),
        pytest.param('{"input": ["a"]}', '{"input": ["a"]}', id="no string"),
        pytest.param('{"input": "a", "why": "b"}', "a", id="another argument besides"),
        pytest.param('{"input": "a\nb"}', "a\nb", id="a line end that JSON forbids"),
        pytest.param('{"input": "a\\q\\u12"}', "a\\q\\u12", id="escapes that are none"),
        pytest.param('{"input": "\\ud83d"}', "\N{REPLACEMENT CHARACTER}", id="half of a pair"),
        pytest.param('{"input": "\\ud83d', "\N{REPLACEMENT CHARACTER}", id="half of a pair, cut short"),
        pytest.param('{"input": "\\ud83d\\n"}', "\N{REPLACEMENT CHARACTER}\n", id="half of a pair and an escape"),
        pytest.param('{"input": "\\udE00a', "\N{REPLACEMENT CHARACTER}a", id="the other half"),
        pytest.param('{"inp', '{"inp', id="cut short before the text"),
        pytest.param('{"input": "', "", id="cut short at the text"),
    ],
)
def test_of_what_models_write(arguments: str, text: str) -> None:
    assert read(arguments) == text
    assert read(*arguments) == text


def test_what_is_known_goes_out_at_once() -> None:
    free = FreeText()
    assert [free.feed(piece) for piece in ('{"input": "a', "b\\", "nc", '"}')] == ["a", "b", "\nc", ""]
