"""The table of engines holds together: with the settings that name it, and with the operations that it names."""

from typing import get_args

import pytest

from weir.backend.engines import ENGINES, engine_at
from weir.core.operations import OPERATIONS
from weir.dialect.counting import TOKENIZE
from weir.dialect.rerank_as_tei import RERANK_TEXTS
from weir.settings import EngineName

OURS = {operation.name for operation in OPERATIONS}
# What a server may know that no client of ours asks for: a translation leads there.
PSEUDO = {TOKENIZE, RERANK_TEXTS}


def test_the_settings_name_every_row_but_anthropic_which_is_a_backend() -> None:
    assert {*get_args(EngineName), "anthropic"} == set(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_a_row(name: str) -> None:
    engine = ENGINES[name]
    assert engine.serves | engine.unversioned <= OURS | PSEUDO
    assert engine.serves & {"chat", "messages", "embeddings"}, "nothing to be asked for"
    header, form = engine.key
    assert header == header.lower()
    assert form.format("KEY").endswith("KEY")
    assert form.format("{odd}").endswith("{odd}")


HOSTS = [
    # url, engine
    ("https://api.openai.com/v1", "openai"),
    ("https://API.OpenAI.com:443/v1", "openai"),
    ("https://eu.api.openai.com/v1", "openai"),
    ("https://api.openai.com.example.com/v1", "generic"),
    ("https://notapi.openai.com/v1", "generic"),
    ("http://proxy/api.openai.com/v1", "generic"),
    ("https://weir.openai.azure.com", "azure"),
    ("https://weir.openai.azure.com/openai/v1", "azure"),
    ("https://weir.services.ai.azure.com/openai/v1", "azure"),
    ("https://weir.cognitiveservices.azure.com", "azure"),
    ("https://weir.openai.azure.us", "azure"),
    ("https://openai.azure.com", "generic"),
    ("https://api.anthropic.com/v1", "anthropic"),
    ("https://openrouter.ai/api/v1", "openrouter"),
    ("https://ollama.com/v1", "ollama"),
    ("http://ollama:11434/v1", "generic"),
    ("http://localhost:8000/v1", "generic"),
    ("http://[::1]:8000/v1", "generic"),
]


@pytest.mark.parametrize(("url", "engine"), HOSTS)
def test_host(url: str, engine: str) -> None:
    assert engine_at(url) == engine


def test_azure_has_responses_where_no_version_is_asked_for() -> None:
    azure = ENGINES["azure"]
    assert "responses" not in azure.served(versioned=True)
    assert "responses" in azure.served(versioned=False)
    assert azure.served(versioned=True) < azure.served(versioned=False)


@pytest.mark.parametrize("name", sorted(set(ENGINES) - {"azure"}))
def test_to_all_others_a_version_is_nothing(name: str) -> None:
    engine = ENGINES[name]
    assert engine.served(versioned=True) == engine.served(versioned=False) == engine.serves
