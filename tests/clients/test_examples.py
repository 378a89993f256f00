"""Every program of deploy/examples/clients runs as it is; every configuration file has only keys that its tool knows."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clients.ring import EXAMPLES, run_example
from tests.system.harness import Key

# What each prints, asked of the echo model. That of LlamaIndex runs in its own test, where LlamaIndex is installed.
PROGRAMS = {
    "with_openai.py": "Good morning!\nwords='Good evening!' friendly=True\nGood night!\n",
    "with_anthropic.py": "Good morning!\nget_weather {'city': 'Oslo'}\n",
    "with_langchain.py": "Good morning!\nIt rains in Oslo.\n",
    "with_haystack.py": "[ASSISTANT]\nGood morning!\n\nIt rains in Oslo.\n",
    "with_pydantic_ai.py": "It rains in Oslo.\nwords='Good evening!' friendly=True\n",
    "with_openai.mjs": "Good morning!\n",
    "with_ai_sdk.mjs": "Good morning!\nIt rains in Oslo.\n",
}
ELSEWHERE = {"with_llama_index.py", "curl.sh", "nextjs", "README.md"}


@pytest.mark.parametrize(("name", "printed"), PROGRAMS.items(), ids=PROGRAMS)
def test_the_program_runs(root: str, key: Key, tmp_path: Path, name: str, printed: str) -> None:
    assert run_example(tmp_path, root, key, name) == printed


def test_curl_lists_streams_and_asks_for_limits(root: str, key: Key, tmp_path: Path) -> None:
    models, *events, limits = run_example(tmp_path, root, key, "curl.sh").strip().split("\n")
    assert "echo" in [one["id"] for one in json.loads(models)["data"]]
    assert "data: [DONE]" in events
    assert json.loads(limits)


ASK_THE_ROUTE = """
import { POST } from './nextjs/app/api/chat/route.ts'
const messages = [{ id: '1', role: 'user', parts: [{ type: 'text', text: 'Good morning!' }] }]
const answer = await POST(new Request('http://localhost/api/chat', { method: 'POST', body: JSON.stringify({ messages }) }))
process.stdout.write(await answer.text())
"""


def test_the_route_of_next_streams_to_a_browser(root: str, key: Key, tmp_path: Path) -> None:
    answer = run_example(tmp_path, root, key, "ask.mts", also={"ask.mts": ASK_THE_ROUTE})
    parts = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    assert "".join(part["delta"] for part in parts if part["type"] == "text-delta") == "Good morning!"
    assert parts[-1]["type"] == "finish"


def dotenv(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def keys(tree: Any, above: str = "") -> set[str]:
    """Every path of a tree of settings, without the places in its lists."""
    if isinstance(tree, list):
        return set().union(*(keys(one, above) for one in tree))
    if not isinstance(tree, dict):
        return {above}
    return set().union(*(keys(one, f"{above}.{name}" if above else name) for name, one in tree.items()))


def under(prefix: str, *names: str) -> set[str]:
    return {f"{prefix}.{name}" for name in names}


Read = Callable[[str], Any]
CONFIGURATION: list[tuple[str, Read, set[str]]] = [
    # file, how it is read, which keys its documentation has (see README.md beside the files)
    (
        "open-webui.env",
        dotenv,
        {
            "ENABLE_OPENAI_API",
            "OPENAI_API_BASE_URL",
            "OPENAI_API_BASE_URLS",
            "OPENAI_API_KEY",
            "OPENAI_API_KEYS",
            "DEFAULT_MODELS",
            "ENABLE_OLLAMA_API",
            "ENABLE_PERSISTENT_CONFIG",
            "AIOHTTP_CLIENT_TIMEOUT",
        },
    ),
    (
        "claude-code.settings.json",
        json.loads,
        {"$schema", "apiKeyHelper", "model"}
        | under(
            "env",
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "ANTHROPIC_BASE_URL",
            "ANTHROPIC_CUSTOM_HEADERS",
            "ANTHROPIC_MODEL",
            "ANTHROPIC_DEFAULT_OPUS_MODEL",
            "ANTHROPIC_DEFAULT_SONNET_MODEL",
            "ANTHROPIC_DEFAULT_HAIKU_MODEL",
            "CLAUDE_CODE_API_KEY_HELPER_TTL_MS",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        ),
    ),
    (
        "codex.toml",
        tomllib.loads,
        {"model", "model_provider", "model_context_window", "model_reasoning_effort", "web_search"}
        | under(
            "model_providers.weir",
            "name",
            "base_url",
            "env_key",
            "wire_api",
            "http_headers",
            "env_http_headers",
            "query_params",
            "request_max_retries",
            "stream_max_retries",
            "stream_idle_timeout_ms",
        ),
    ),
    (
        "continue.yaml",
        yaml.safe_load,
        {"name", "version", "schema"}
        | under("models", "name", "provider", "model", "apiBase", "apiKey", "roles", "capabilities"),
    ),
    (
        "aider.conf.yml",
        yaml.safe_load,
        {"model", "weak-model", "editor-model", "openai-api-base", "openai-api-key", "show-model-warnings"},
    ),
]


@pytest.mark.parametrize(("name", "read", "known"), CONFIGURATION, ids=[name for name, _, _ in CONFIGURATION])
def test_the_configuration_has_only_keys_that_its_tool_knows(name: str, read: Read, known: set[str]) -> None:
    text = (EXAMPLES / name).read_text()
    written = keys(read(text))
    assert written
    assert written <= known
    assert "llm.example" in text


def test_every_file_is_tried() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {
        *PROGRAMS,
        *ELSEWHERE,
        *(name for name, _, _ in CONFIGURATION),
    }


def test_the_readme_names_every_file() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in EXAMPLES.iterdir() if path.name != "README.md" and path.name not in readme] == []
