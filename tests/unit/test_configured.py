"""From a model in weir.yaml to its route: which engine it is, what that serves, and how its endpoint is asked."""

from typing import Any

import pytest

from tests.unit.backend.engines.compiled import compiled
from weir.backend.engines import ENGINES

KEY = "of-the-upstream"
AZURE = "https://weir.openai.azure.com"
VERSION = "2024-10-21"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)


def model(url: str, **more: Any) -> dict[str, Any]:
    endpoint = {"url": url, "api_key_env": "UPSTREAM_KEY"}
    if "api_version" in more:
        endpoint["api_version"] = more.pop("api_version")
    return {"endpoints": [endpoint], **more}


ENGINE_OF = [
    # the model, the row of the table of engines, the header that bears its key
    pytest.param(model("http://vllm-0:8000/v1"), "generic", ("authorization", f"Bearer {KEY}"), id="nothing-known"),
    pytest.param(model("https://api.openai.com/v1"), "openai", ("authorization", f"Bearer {KEY}"), id="openai"),
    pytest.param(model("https://eu.api.openai.com/v1"), "openai", ("authorization", f"Bearer {KEY}"), id="openai-eu"),
    pytest.param(model(AZURE, api_version=VERSION), "azure", ("api-key", KEY), id="azure"),
    pytest.param(
        model("https://weir.cognitiveservices.azure.com", api_version=VERSION), "azure", ("api-key", KEY), id="foundry"
    ),
    pytest.param(model("https://openrouter.ai/api/v1"), "openrouter", ("authorization", f"Bearer {KEY}"), id="router"),
    pytest.param(model("https://ollama.com/v1"), "ollama", ("authorization", f"Bearer {KEY}"), id="ollama-cloud"),
    pytest.param(model("https://api.anthropic.com/v1"), "anthropic", ("x-api-key", KEY), id="anthropic"),
    pytest.param(
        model("http://relay:8080/v1", backend="anthropic"), "anthropic", ("x-api-key", KEY), id="anthropic-elsewhere"
    ),
    pytest.param(
        model("http://vllm-0:8000/v1", engine="vllm"), "vllm", ("authorization", f"Bearer {KEY}"), id="said-vllm"
    ),
    pytest.param(
        model("https://api.openai.com/v1", engine="tgi"), "tgi", ("authorization", f"Bearer {KEY}"), id="said-wins"
    ),
    pytest.param(model("http://apim:443/openai/v1", engine="azure"), "azure", ("api-key", KEY), id="said-azure"),
]


@pytest.mark.parametrize(("given", "engine", "header"), ENGINE_OF)
def test_engine(given: dict[str, Any], engine: str, header: tuple[str, str]) -> None:
    route = compiled(**given)
    (endpoint,) = route.endpoints
    assert route.serves is not None
    assert route.serves >= ENGINES[engine].serves
    assert route.max_tokens_field == ENGINES[engine].max_tokens_field
    assert endpoint.headers == (header,)
    assert KEY not in repr(endpoint)


PLACES = [
    # the model, what stands before the path that is asked, and the query behind it
    pytest.param(model("http://a/v1"), "", "", id="generic"),
    pytest.param(model(f"{AZURE}/openai/v1"), "", "", id="azure-v1"),
    pytest.param(
        model(AZURE, api_version=VERSION, upstream_model="gpt-4o"),
        "/openai/deployments/gpt-4o",
        "api-version=2024-10-21",
        id="azure",
    ),
    pytest.param(
        model(AZURE, api_version="2024-09-01-preview"),
        "/openai/deployments/m",
        "api-version=2024-09-01-preview",
        id="azure-by-our-name",
    ),
    pytest.param(
        model(AZURE, api_version=VERSION, upstream_model="Büro/4o mini?#%2e_x"),
        "/openai/deployments/B%C3%BCro%2F4o%20mini%3F%23%252e_x",
        "api-version=2024-10-21",
        id="azure-odd-characters",
    ),
]


@pytest.mark.parametrize(("given", "prefix", "query"), PLACES)
def test_place(given: dict[str, Any], prefix: str, query: str) -> None:
    (endpoint,) = compiled(**given).endpoints
    assert (endpoint.prefix, endpoint.query) == (prefix, query)


CAPS = [
    # engine, what the model says itself, the field
    pytest.param("generic", {}, "max_tokens", id="generic"),
    pytest.param("vllm", {}, "max_tokens", id="vllm"),
    pytest.param("tgi", {}, "max_tokens", id="tgi"),
    pytest.param("openai", {}, "max_completion_tokens", id="openai"),
    pytest.param("azure", {}, "max_completion_tokens", id="azure"),
    pytest.param("azure", {"max_tokens_field": "max_tokens"}, "max_tokens", id="an-older-azure"),
    pytest.param("vllm", {"max_tokens_field": "max_completion_tokens"}, "max_completion_tokens", id="said"),
]


@pytest.mark.parametrize(("engine", "said", "field"), CAPS)
def test_max_tokens_field(engine: str, said: dict[str, Any], field: str) -> None:
    assert compiled(**model("http://a/v1", engine=engine), **said).max_tokens_field == field


class TestServes:
    def test_wins_over_the_engine(self) -> None:
        route = compiled(**model("http://a/v1", engine="vllm", serves=["chat", "tokenize"]))
        assert route.serves == {"chat", "tokenize"}

    def test_nothing_is_not_everything(self) -> None:
        assert compiled(**model("http://a/v1", serves=[])).serves == frozenset()

    def test_an_embedded_model_has_what_the_echo_knows(self) -> None:
        route = compiled(backend="echo")
        assert route.serves == {"chat", "text_completion", "embeddings"}
        assert [endpoint.headers for endpoint in route.endpoints] == [()]


def test_no_key_is_no_header() -> None:
    (endpoint,) = compiled(endpoints=[{"url": "http://a/v1"}]).endpoints
    assert endpoint.headers == ()


def test_two_endpoints_of_one_engine_have_their_own_versions() -> None:
    route = compiled(
        endpoints=[
            {"url": "https://east.openai.azure.com", "api_version": "2024-10-21", "api_key_env": "UPSTREAM_KEY"},
            {"url": "https://west.openai.azure.com", "api_version": "2024-06-01"},
        ]
    )
    assert [(endpoint.query, endpoint.headers) for endpoint in route.endpoints] == [
        ("api-version=2024-10-21", (("api-key", KEY),)),
        ("api-version=2024-06-01", ()),
    ]
