"""Changes in the bytes of a JSON object: exactly the members that were asked for, and not a byte beside them."""

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from weir.core.errors import InvalidValue
from weir.gateway.splice import (
    DECIDED_ON,
    NAMES_MAX,
    VALUES_MAX,
    members,
    refuse_duplicates,
    refuse_too_many,
    replace,
)

OTHERS = (
    "messages",
    "temperature",
    "modell",
    "Model",
    "xstream",
    "",
    "usage",
    "max_tokens_",
    'a"model',
    "\\",
    "{[:,]}",
)
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            '"model"',
            '"model":"x"',
            '\\"stream\\":',
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\\",
            '"',
            "model",
            '","n":5,"',
            "\\u006d",
        ]
    ),
)
SPACES = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n  ", "   "])
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), TEXTS, st.sampled_from([0.1, -1.5e300]))
# Values name the fields again, nested: only the top level is meant.
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(DECIDED_ON), TEXTS), inner, max_size=3),
    ),
    max_leaves=8,
)
LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def strings(draw: st.DrawFn, text: str) -> str:
    """The text as some encoder writes it: as it is, or with escapes that need not be."""
    whole = json.dumps(text, ensure_ascii=draw(st.booleans()))
    return whole.replace("/", "\\/") if draw(st.booleans()) else whole


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """A value with random spaces between its tokens."""
    gap = lambda: draw(SPACES)  # noqa: E731
    if isinstance(value, str):
        return draw(strings(value))
    if isinstance(value, list):
        return "[" + gap() + ",".join(gap() + draw(written(one)) + gap() for one in value) + "]"
    if isinstance(value, dict):
        pairs = (gap() + draw(strings(k)) + gap() + ":" + gap() + draw(written(v)) + gap() for k, v in value.items())
        return "{" + gap() + ",".join(pairs) + "}"
    return json.dumps(value)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """An object's bytes and what it says. Each decided field is in it once or not at all."""
    names = draw(st.lists(st.sampled_from((*DECIDED_ON, *OTHERS)), unique=True, max_size=8))
    said = {name: draw(VALUES) for name in names}
    text = draw(SPACES) + draw(written(said)) + draw(SPACES)
    body = text.encode("utf-8", "surrogatepass")
    try:
        assert orjson.loads(body) == said
    except orjson.JSONDecodeError:  # half a surrogate, which no request has either
        return b'{"model":"m"}', {"model": "m"}
    return body, said


CHANGES = st.dictionaries(
    st.sampled_from(DECIDED_ON),
    st.one_of(TEXTS.filter(lambda t: t.isprintable()), st.integers(0, 9999), st.just({"include_usage": True})),
    max_size=4,
)


@LAW
@given(bodies(), CHANGES)
def test_the_result_says_the_same_with_exactly_the_changes(
    case: tuple[bytes, dict[str, Any]], changes: dict[str, Any]
) -> None:
    body, said = case
    changed = replace(body, changes, frozenset(DECIDED_ON) & said.keys())
    assert orjson.loads(changed) == said | changes
    assert json.loads(changed) == said | changes, "another parser reads the same"


@LAW
@given(bodies(), st.data())
def test_every_byte_outside_a_replaced_value_is_as_it_was(
    case: tuple[bytes, dict[str, Any]], data: st.DataObject
) -> None:
    body, said = case
    there = sorted(frozenset(DECIDED_ON) & said.keys())
    if not there:
        return
    name = data.draw(st.sampled_from(there))
    value = data.draw(st.sampled_from(["other", 7, {"include_usage": True}]))
    changed = replace(body, {name: value}, frozenset(there))
    new = orjson.dumps(value)
    at = [m for m in members(body) if m.name == name]
    assert len(at) == 1
    assert changed == body[: at[0].start] + new + body[at[0].end :]
    assert orjson.loads(body[at[0].start : at[0].end]) == said[name], "and it was the value that stood there"


@LAW
@given(bodies(), st.sampled_from(DECIDED_ON))
def test_an_added_member_leaves_every_byte_there(case: tuple[bytes, dict[str, Any]], name: str) -> None:
    body, said = case
    if name in said:
        return
    changed = replace(body, {name: 5}, frozenset(DECIDED_ON) & said.keys())
    added = b'"' + name.encode() + b'":5' + (b"," if said else b"")
    assert added in changed
    assert changed.replace(added, b"", 1) == body


@LAW
@given(bodies())
def test_members_are_those_of_the_parser(case: tuple[bytes, dict[str, Any]]) -> None:
    body, said = case
    assert {m.name: orjson.loads(body[m.start : m.end]) for m in members(body)} == said


@LAW
@given(bodies())
def test_nothing_is_refused_that_is_there_once(case: tuple[bytes, dict[str, Any]]) -> None:
    body, said = case
    refuse_duplicates(body, said)


@LAW
@given(bodies(), st.sampled_from(DECIDED_ON), st.data())
def test_a_second_one_is_refused_however_it_is_spelled(
    case: tuple[bytes, dict[str, Any]], name: str, data: st.DataObject
) -> None:
    body, said = case
    if name not in said:
        return
    escaped = data.draw(st.sets(st.integers(0, len(name) - 1)))
    upper = data.draw(st.booleans())
    spelled = ""
    for place, letter in enumerate(name):
        code = f"{ord(letter):04x}"
        spelled += f"\\u{code.upper() if upper else code}" if place in escaped else letter
    start = body.index(b"{") + 1
    twice = body[:start] + f'"{spelled}" : 1,'.encode() + body[start:]
    assert json.loads(twice)[name] == said[name]
    with pytest.raises(InvalidValue) as refused:
        refuse_duplicates(twice, orjson.loads(twice))
    assert refused.value.param == name


LOOKALIKES = [
    pytest.param(b'{"model":"m","x":{"model":"n"}}', id="nested"),
    pytest.param(b'{"x":[{"model":"n"},{"model":"o"}],"model":"m"}', id="in-a-list"),
    pytest.param(rb'{"x":"\"model\":\"n\"","model":"m"}', id="in-a-text"),
    pytest.param(b'{"x":"model","model":"m"}', id="as-a-text"),
    pytest.param(b'{"model":"model"}', id="as-its-own-value"),
    pytest.param(rb'{"x\"model":"n","model":"m"}', id="at-the-end-of-a-name"),
    pytest.param(rb'{"x\\":"n","model":"m"}', id="after-a-backslash"),
    pytest.param(rb'{"x":"\\","model":"m"}', id="after-a-text-of-a-backslash"),
    pytest.param(b'{"x":"]}","model":"m"}', id="brackets-in-a-text"),
    pytest.param(rb'{"mod\u0065l":"m","x":"\"model\""}', id="escaped-itself"),
    pytest.param(rb'{"x":"mod\u0065l","model":"m"}', id="escaped-as-a-text"),
    pytest.param(rb'{"x":{"mod\u0065l":"n"},"model":"m"}', id="escaped-and-nested"),
    pytest.param(b'{"Model":"n","model":"m"}', id="capital"),
    pytest.param(b'{"model ":"n","model":"m"}', id="with-a-space"),
]


@pytest.mark.parametrize("body", LOOKALIKES)
def test_lookalike(body: bytes) -> None:
    said = orjson.loads(body)
    refuse_duplicates(body, said)
    changed = orjson.loads(replace(body, {"model": "new"}, frozenset({"model"})))
    assert changed == said | {"model": "new"}


DUPLICATES = [
    pytest.param(b'{"model":"a","model":"b"}', "model", id="plain"),
    pytest.param(b'{"model":"a","x":1,"model":"a"}', "model", id="the-same-value"),
    pytest.param(rb'{"model":"a","\u006dodel":"b"}', "model", id="escaped"),
    pytest.param(rb'{"model":"a","\u006Dodel":"b"}', "model", id="escaped-with-capitals"),
    pytest.param(rb'{"\u006dodel":"a","m\u006fdel":"b"}', "model", id="both-escaped"),
    pytest.param(rb'{"n":1,"\u006e":9}', "n", id="one-letter"),
    pytest.param(rb'{"max_tokens":1,"max\u005ftokens":9}', "max_tokens", id="escaped-underscore"),
    pytest.param(b'{"stream_options":{},"stream_options":{"include_usage":false}}', "stream_options", id="objects"),
]


@pytest.mark.parametrize(("body", "name"), DUPLICATES)
def test_duplicate(body: bytes, name: str) -> None:
    with pytest.raises(InvalidValue, match=re.escape(f"'{name}' is given twice")) as refused:
        refuse_duplicates(body, orjson.loads(body))
    assert refused.value.param == name


def test_a_duplicate_that_we_do_not_decide_on_is_the_upstreams() -> None:
    body = b'{"model":"m","temperature":1,"temperature":2}'
    refuse_duplicates(body, orjson.loads(body))
    assert replace(body, {"model": "n"}, frozenset({"model"})) == body.replace(b'"m"', b'"n"')


EXAMPLES = [
    pytest.param(b"{}", {"n": 1}, b'{"n":1}', id="into-nothing"),
    pytest.param(b" { } ", {"n": 1}, b' {"n":1 } ', id="into-nothing-with-spaces"),
    pytest.param(b'{"x":1}', {"n": 1}, b'{"n":1,"x":1}', id="before-others"),
    pytest.param(b'{\n  "x": 1\n}', {"n": 1}, b'{"n":1,\n  "x": 1\n}', id="before-others-with-spaces"),
    pytest.param(b'{"n": 2 , "x":1}', {"n": 1}, b'{"n": 1 , "x":1}', id="replaced"),
    pytest.param(b'{"model" : "a\\"b" }', {"model": "c"}, b'{"model" : "c" }', id="replaced-text"),
    pytest.param(b'{"model":"a"}', {"model": 'q"\\'}, b'{"model":"q\\"\\\\"}', id="replaced-with-escapes"),
    pytest.param(b'{"n":2,"x":1}', {"n": 1, "model": "m"}, b'{"model":"m","n":1,"x":1}', id="both"),
    pytest.param(b'{"stream_options":null}', {"stream_options": {"a": 1}}, b'{"stream_options":{"a":1}}', id="null"),
]


@pytest.mark.parametrize(("body", "changes", "result"), EXAMPLES)
def test_example(*, body: bytes, changes: dict[str, Any], result: bytes) -> None:
    assert replace(body, changes, frozenset(orjson.loads(body))) == result


MANY = [
    pytest.param(b'{"x":[' + b"1," * (VALUES_MAX + 1) + b"1]}", True, id="values-too-many"),
    pytest.param(b'{"x":[' + b"1," * (VALUES_MAX - 10) + b"1]}", False, id="values"),
    pytest.param(b'{"x":[' + b"[]," * NAMES_MAX + b"1]}", True, id="lists-too-many"),
    pytest.param(b'{"x":[' + b"{}," * NAMES_MAX + b"1]}", True, id="objects-too-many"),
    pytest.param(b'{"x":{' + b'"":1,' * NAMES_MAX + b'"":1}}', True, id="names-too-many"),
    pytest.param(b'{"x":[' + b"[]," * (NAMES_MAX - 10) + b"1]}", False, id="lists"),
    pytest.param(b'{"x":"' + rb"{[:,\"" * VALUES_MAX + b'"}', False, id="marks-in-a-text"),
]


@pytest.mark.parametrize(("body", "too_many"), MANY)
def test_of_a_body_no_more_is_parsed_than_anybody_sends(body: bytes, too_many: bool) -> None:
    """An empty list is 56 bytes of memory for three of body, and the interpreter makes them without a pause."""
    if not too_many:
        refuse_too_many(body)
        return
    with pytest.raises(InvalidValue, match="several requests"):
        refuse_too_many(body)
