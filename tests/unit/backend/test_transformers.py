"""A local model as far as no model is needed: what a request asks for, what an answer looks like, what is not there."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.streams import events_of
from weir.backend.results_refused import Refused
from weir.backend.transformers import BadModel, TransformersBackend, check
from weir.backend.transformers_answer import CHAT, TEXT, Totals, Writer
from weir.backend.transformers_model import PACKAGES
from weir.backend.transformers_request import Asked, Sampling, read

CHAT_PATH, TEXT_PATH = "/chat/completions", "/completions"
HELLO = [{"role": "user", "content": "hello"}]


def asked(**fields: Any) -> Asked:
    return read(CHAT_PATH, json.dumps({"messages": HELLO, **fields}).encode())


def prompted(prompt: Any, **fields: Any) -> Asked:
    return read(TEXT_PATH, json.dumps({"prompt": prompt, **fields}).encode())


READ = [
    ({}, "max_tokens", None),
    ({"max_tokens": 5}, "max_tokens", 5),
    ({"max_tokens": 5, "max_completion_tokens": 3}, "max_tokens", 3),
    ({"stop": "a"}, "stop", ("a",)),
    ({"stop": ["a", "b"]}, "stop", ("a", "b")),
    ({"stop": None}, "stop", ()),
    ({"stream": True}, "stream", True),
    ({"stream_options": {"include_usage": True}}, "with_usage", True),
    ({"stream_options": None}, "with_usage", False),
    ({"tools": [{"type": "function"}]}, "tools", [{"type": "function"}]),
    ({"tools": [{"type": "function"}], "tool_choice": "none"}, "tools", None),
    ({"tools": []}, "tools", None),
    (
        {"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "seed": -1},
        "sampling",
        Sampling(0, 0.5, 3, 0.1, 1.1, -1),
    ),
    ({"n": 1, "logprobs": False, "presence_penalty": 0.0, "logit_bias": {}}, "sampling", Sampling()),
]


@pytest.mark.parametrize(("fields", "name", "value"), READ, ids=lambda value: json.dumps(value, default=str)[:50])
def test_what_a_chat_asks_for(fields: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(asked(**fields), name) == value


PROMPTS = [("a", "a"), (["a"], "a"), ([1, 2], [1, 2]), ([[1, 2]], [1, 2]), ("", "")]


@pytest.mark.parametrize(("prompt", "read_as"), PROMPTS, ids=map(repr, range(len(PROMPTS))))
def test_what_a_completion_asks_for(prompt: Any, read_as: Any) -> None:
    request = prompted(prompt)
    assert (request.messages, request.prompt, request.max_tokens) == (None, read_as, 16)


MESSAGES = [
    ({"role": "developer", "content": "be kind"}, {"role": "system", "content": "be kind"}),
    ({"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}, {"role": "user", "content": "ab"}),
    (
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    ),
    (
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}, 1]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}, 1]},
    ),
]


@pytest.mark.parametrize(("given", "templated"), MESSAGES, ids=["developer", "parts", "call", "no_json"])
def test_messages_are_what_templates_read(given: dict[str, Any], templated: dict[str, Any]) -> None:
    assert asked(messages=[given]).messages == [templated]


REFUSED = [
    ({"n": 2}, "n"),
    ({"n": True}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logit_bias": {"1": 2}}, "logit_bias"),
    ({"presence_penalty": 1}, "presence_penalty"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_k": 1.5}, "top_k"),
    ({"seed": 2**63}, "seed"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"stop": ""}, "stop"),
    ({"stop": [1]}, "stop"),
    ({"stop": {"a": 1}}, "stop"),
    ({"tools": "f"}, "tools"),
    ({"messages": []}, "messages"),
    ({"messages": ["hello"]}, "messages"),
    ({"messages": [{"content": "hello"}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=lambda value: json.dumps(value)[:50])
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        asked(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


REFUSED_PROMPTS = [
    (["a", "b"], {}, "prompt"),
    ([[1], [2]], {}, "prompt"),
    ([], {"suffix": "b"}, "suffix"),
    (None, {}, "prompt"),
    ([1, "a"], {}, "prompt"),
    ([-1], {}, "prompt"),
    ([True], {}, "prompt"),
    ("a", {"logprobs": 0}, "logprobs"),
    ("a", {"echo": True}, "echo"),
    ("a", {"best_of": 2}, "best_of"),
]


@pytest.mark.parametrize(("prompt", "fields", "param"), REFUSED_PROMPTS, ids=lambda value: json.dumps(value)[:50])
def test_what_cannot_be_completed_is_refused_by_name(prompt: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        prompted(prompt, **fields)
    assert (refused.value.status, refused.value.param) == (400, param)


NO_REQUEST = [
    (CHAT_PATH, b"{", "malformed_body"),
    (CHAT_PATH, b"[]", "malformed_body"),
    ("/embeddings", b"{}", "not_found"),
]


@pytest.mark.parametrize(("path", "body", "code"), NO_REQUEST, ids=["no_json", "no_object", "elsewhere"])
def test_what_is_no_request(path: str, body: bytes, code: str) -> None:
    with pytest.raises(Refused) as refused:
        read(path, body)
    assert refused.value.code == code


def test_what_is_asked_comes_before_the_model_s_own() -> None:
    own = Sampling(temperature=0.7, top_p=0.8)
    assert Sampling(temperature=0, seed=1).over(own) == Sampling(temperature=0, top_p=0.8, seed=1)


# -- what an answer looks like

TOTALS = Totals(3, 2, "length")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def streamed(writer: Writer, *pieces: str, with_usage: bool = False) -> list[dict[str, Any]]:
    body = b"".join(map(writer.piece, pieces)) + writer.end(TOTALS, with_usage=with_usage)
    *events, done = events_of(body)
    assert done == b"[DONE]"
    chunks = [json.loads(event) for event in events]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {(chunk["created"], chunk["model"]) for chunk in chunks} == {(9, "m")}
    return chunks


def test_a_chat_as_a_stream_and_whole() -> None:
    chunks = streamed(Writer(CHAT, "m", 9), "a", "b", with_usage=True)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas == [{"role": "assistant", "content": "a"}, {"content": "b"}, {}]
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, None, "length"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], USAGE)
    whole = json.loads(Writer(CHAT, "m", 9).whole("ab", TOTALS))
    assert (whole["object"], whole["usage"]) == ("chat.completion", USAGE)
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "ab", "refusal": None}


def test_a_completion_as_a_stream_and_whole() -> None:
    chunks = streamed(Writer(TEXT, "m", 9), "a", "b")
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["a", "b", ""]
    assert not any("usage" in chunk for chunk in chunks)
    whole = json.loads(Writer(TEXT, "m", 9).whole("ab", TOTALS))
    assert (whole["object"], whole["choices"][0]["text"]) == ("text_completion", "ab")


def test_an_answer_of_no_text_has_a_role_all_the_same() -> None:
    assert [chunk["choices"][0]["delta"] for chunk in streamed(Writer(CHAT, "m", 9))] == [
        {"role": "assistant", "content": ""}
    ]


# -- what is not there


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of those names can be found; nothing here imports them."""
    for package in PACKAGES:
        if package not in sys.modules:
            (tmp_path / f"{package}.py").write_text("raise ImportError('only to be found')")
    monkeypatch.syspath_prepend(str(tmp_path))


NOWHERE = [("./nowhere", "There is no folder ./nowhere"), ("a/b/c", "There is no folder a/b/c")]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("model", "sentence"), NOWHERE, ids=["folder", "no_hub_name"])
def test_a_model_that_cannot_be_is_a_sentence(model: str, sentence: str) -> None:
    with pytest.raises(BadModel, match=sentence):
        TransformersBackend(model)


@pytest.mark.usefixtures("installed")
def test_a_folder_must_hold_a_model_and_a_name_may_be_one(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="holds no model"):
        check(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    check(str(tmp_path))
    check("org/model-1.5B")


def test_a_missing_package_is_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(BadModel, match=r"needs torch and transformers; run: pip install 'weir-gateway\[local\]'"):
        check("org/model")
