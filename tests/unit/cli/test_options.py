"""Listings: what the next command wants is whole on its line, in a pipe and at a narrow terminal."""

import contextlib
import io

import pytest

from weir.cli.keys import COLUMNS
from weir.cli.options import show_rows

ID = "AbCdEfGhIjKl"
ROW = {
    "id": ID,
    "team": "search-and-recommendations",
    "name": "the nightly indexer of everything",
    "hint": "sk-weir-AbCd...wxyz",
    "state": "active",
    "rpm": 600,
    "tpm": 200_000,
    "concurrency": 50,
    "models": ["llama-*", "gpt-*"],
    "expires": "2026-11-23 10:00 UTC",
    "last_used": "2026-11-22 10:00 UTC",
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def listed(out: io.StringIO) -> list[str]:
    with contextlib.redirect_stdout(out):
        show_rows([ROW], COLUMNS, as_json=False, as_csv=False, empty="", whole="id")
    return out.getvalue().splitlines()


@pytest.mark.parametrize("columns", ["60", "80"])
def test_at_a_narrow_terminal_the_id_is_whole(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("NO_COLOR", "1")
    lines = listed(Terminal())
    assert len([line for line in lines if ID in line]) == 1
    assert len(lines) > 2, "the rest is folded"


def test_in_a_pipe_a_row_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, row = listed(io.StringIO())
    for whole in (ID, ROW["team"], ROW["name"], ROW["expires"], "llama-*, gpt-*"):
        assert str(whole) in row
