"""Programs that only need configuration, started with the files of deploy/examples/clients as those tell them to be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.__main__ import NODE_MODULES
from tests.clients.ring import EXAMPLES, run
from tests.system.harness import Admin, Key, Upstream, Weir, eventually


def configured(home: Path, name: str, place: str, root: str, model: str) -> Path:
    """The example of this name where its program looks for it, with our address and one of our models."""
    text = (EXAMPLES / name).read_text()
    file = home / place
    file.parent.mkdir(parents=True)
    file.write_text(text.replace("https://llm.example", root).replace("llama-3.3-70b", model))
    return file


def claude_code(home: Path, root: str, model: str) -> list[str]:
    configured(home, "claude-code.settings.json", ".claude/settings.json", root, model)
    # The program itself: what npm starts is put in place by an install script, and none of those runs here.
    (program,) = NODE_MODULES.glob("@anthropic-ai/claude-code-*/claude")
    return [str(program), "--print"]


def codex(home: Path, root: str, model: str) -> list[str]:
    configured(home, "codex.toml", ".codex/config.toml", root, model)
    quiet = ("-c", "analytics.enabled=false", "-c", "check_for_update_on_startup=false")
    return [str(NODE_MODULES / ".bin" / "codex"), "exec", "--skip-git-repo-check", *quiet]


def continues(home: Path, root: str, model: str) -> list[str]:
    file = configured(home, "continue.yaml", ".continue/config.yaml", root, model)
    return [str(NODE_MODULES / ".bin" / "cn"), "--config", str(file), "--print"]


Configure = Callable[[Path, str, str], list[str]]
PROGRAMS = [
    # program, and how it asks
    pytest.param(claude_code, "messages", id="claude-code"),
    pytest.param(codex, "responses", id="codex"),
    pytest.param(continues, "chat", id="continue"),
]


@pytest.mark.parametrize(("program", "operation"), PROGRAMS)
def test_it_answers(
    root: str,
    weir: Weir,
    upstream: Upstream,
    admin: Admin,
    tmp_path: Path,
    program: Configure,
    operation: str,
) -> None:
    key = admin.key()
    said = run([*program(tmp_path, root, "chat"), "hello there"], root, key, "chat", home=tmp_path)
    assert said.strip() == "word0 word1 word2"
    assert "hello there" in str([record["json"]["messages"] for record in upstream.records()])
    assert all(record["json"]["tools"] for record in upstream.records())
    assert {record["operation"] for record in all_well(weir, key)} == {operation}


@pytest.mark.parametrize("program", [claude_code, codex, continues])
def test_it_calls_its_tools_and_tells_their_answers(
    root: str, weir: Weir, admin: Admin, tmp_path: Path, program: Configure
) -> None:
    """The echo model calls whatever tool it is offered, with our words as arguments: they fail, and it is told so."""
    key = admin.key()
    run([*program(tmp_path, root, "echo"), "hello there"], root, key, "echo", home=tmp_path)
    first, *_ = all_well(weir, key, at_least=2)
    assert first["finish_reason"] in {"tool_calls", "tool_use", "completed"}  # Responses has no word of its own for it


def all_well(weir: Weir, key: Key, at_least: int = 1) -> list[dict[str, object]]:
    records = eventually(lambda: (found := weir.records_with(key_id=key.id)) and len(found) >= at_least and found)
    assert [record["status"] for record in records] == [200] * len(records)
    return records
