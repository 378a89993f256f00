"""Names and aliases to routes."""

import pytest

from weir.core.errors import ModelNotFound
from weir.core.types import Endpoint, Principal, Route
from weir.routing import RouteTable

WHO = Principal("search", "key1", "d" * 64)


def route(name: str, *aliases: str) -> Route:
    return Route(name, "openai", name, [Endpoint("http://a/v1")], aliases=aliases)


LLAMA, QWEN = route("llama-3", "gpt-4o-mini", "small"), route("qwen/qwen-32b")
TABLE = RouteTable([LLAMA, QWEN])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("llama-3", LLAMA, id="name"),
        pytest.param("gpt-4o-mini", LLAMA, id="alias"),
        pytest.param("small", LLAMA, id="second-alias"),
        pytest.param("qwen/qwen-32b", QWEN, id="slash"),
    ],
)
def test_match(name: str, found: Route) -> None:
    assert TABLE.match(name, WHO) is found


@pytest.mark.parametrize("name", ["", "llama", "llama-3 ", "Llama-3", "llama-*", "*", "x" * 100_000])
def test_no_match(name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        TABLE.match(name, WHO)
    assert (refused.value.status, refused.value.code, refused.value.param) == (404, "model_not_found", "model")
    assert name not in refused.value.text or not name


def test_find_knows_the_same_names_whoever_asks() -> None:
    assert TABLE.find("llama-3") is TABLE.find("small") is LLAMA
    assert TABLE.find("nobody") is None


def test_a_name_counts_more_than_anothers_alias() -> None:
    table = RouteTable([route("a", "b"), b := route("b")])
    assert table.match("b", WHO) is b


def test_names_are_all_that_can_be_asked_for() -> None:
    assert dict(TABLE.names()) == {"llama-3": LLAMA, "gpt-4o-mini": LLAMA, "small": LLAMA, "qwen/qwen-32b": QWEN}


def test_routes_are_each_once() -> None:
    assert list(TABLE.routes()) == [LLAMA, QWEN]


def test_an_empty_table_knows_nothing() -> None:
    with pytest.raises(ModelNotFound):
        RouteTable([]).match("m", WHO)
