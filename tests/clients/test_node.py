"""The JavaScript clients: OpenAI's SDK, and Vercel's AI SDK with its providers for both languages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clients.__main__ import HERE, node
from tests.clients.ring import CITIES, beside_packages, left_and_freed, run, waited_as_told
from tests.system.harness import Key, Upstream, Weir

AI = ["ai.mjs openai", "ai.mjs anthropic"]
ALL = ["openai.mjs", *AI]
Play = Callable[..., Any]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs beside their packages: Node.js looks for those from where a program lies."""
    folder = tmp_path_factory.mktemp("node")
    beside_packages(HERE / "node", folder)
    return folder


@pytest.fixture
def play(programs: Path, root: str, key: Key) -> Play:
    """Plays a scene of a client, and gives what it printed."""

    def play(client: str, scene: str, model: str, whose: Key = key) -> Any:
        program, *more = client.split()
        return json.loads(run([str(node()), str(programs / program), scene, *more], root, whose, model))

    return play


SCENES = [
    # client             scene             model   what it sees
    *(
        pytest.param(client, "answer", "echo", {"text": "hello there", "tokens": 2}, id=f"{client}-answer")
        for client in ALL
    ),
    *(
        pytest.param(client, "object", "echo", {"name": "hello there", "people": 1}, id=f"{client}-object")
        for client in ALL
    ),
    *(
        pytest.param(
            client, "object_in_parts", "echo", {"name": "hello there", "people": 1}, id=f"{client}-object-in-parts"
        )
        for client in AI
    ),
    *(pytest.param(client, "loop", "echo", {"text": "it rains in Oslo"}, id=f"{client}-loop") for client in AI),
    pytest.param("openai.mjs", "responses_answer", "echo", {"text": "hello there", "tokens": 2}, id="responses-answer"),
    pytest.param("openai.mjs", "responses_object", "echo", {"name": "hello there", "people": 1}, id="responses-object"),
]


@pytest.mark.parametrize(("client", "scene", "model", "seen"), SCENES)
def test_sees(play: Play, client: str, scene: str, model: str, seen: Any) -> None:
    assert play(client, scene, model) == seen


LEAVING = [*((client, "leave") for client in ALL), ("openai.mjs", "responses_leave")]


@pytest.mark.parametrize(("client", "scene"), LEAVING)
def test_a_stream_comes_in_pieces_and_leaving_it_frees_the_place(
    play: Play, weir: Weir, upstream: Upstream, client: str, scene: str
) -> None:
    assert play(client, scene, "endless") == ["word0 ", "word1 ", "word2 "]
    left_and_freed(weir, upstream)


@pytest.mark.parametrize("model", CITIES)
@pytest.mark.parametrize(("client", "scene"), [*((one, "tools") for one in ALL), ("openai.mjs", "responses_tools")])
def test_calls_tools(play: Play, client: str, scene: str, model: str) -> None:
    assert play(client, scene, model) == [CITIES[model]] * 2


REFUSED = [
    # whose key, which model, status, the class of OpenAI's SDK, our words
    pytest.param("strange", "echo", 401, "AuthenticationError", "Incorrect API key provided", id="401"),
    pytest.param("ours", "nobody", 404, "NotFoundError", "does not exist", id="404"),
    pytest.param("ours", "bad_request", 400, "BadRequestError", "context_length_exceeded", id="400"),
]


@pytest.mark.parametrize(("whose", "model", "status", "error", "words"), REFUSED)
@pytest.mark.parametrize("client", ALL)
def test_refusals_are_its_own_errors(
    play: Play, key: Key, strange_key: Key, client: str, whose: str, model: str, status: int, error: str, words: str
) -> None:
    seen = play(client, "answer", model, key if whose == "ours" else strange_key)
    assert seen["status"] == status
    assert words in seen["message"]
    assert seen["error"].endswith(error if client == "openai.mjs" else "APICallError")


@pytest.mark.parametrize("client", AI)
def test_a_stream_that_fails_says_so(play: Play, client: str) -> None:
    assert play(client, "stream_error", "error_event")["message"]


@pytest.mark.parametrize("client", ALL)
def test_it_waits_as_told(play: Play, weir: Weir, tight_key: Key, client: str) -> None:
    assert play(client, "twice", "echo", tight_key) == ["hello there", "hello there"]
    waited_as_told(weir, tight_key)
