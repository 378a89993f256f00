"""The watched file: what is taken, what is refused, and when. Real files, and looks that the test asks for."""

import asyncio
from pathlib import Path

import pytest

from weir.reload import Reload, Source, fingerprint
from weir.settings import Settings, load

GOOD = "models: [{name: a, backend: echo}]\n"
BETTER = "models: [{name: a, backend: echo}, {name: b, backend: echo}]\n"
BAD = "modles: []\n"


class Watched:
    """A file under watch, and what came of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.taken: list[list[str]] = []
        self.refused: list[list[str]] = []
        self.reload = Reload(Source(path, lambda: load(path), fingerprint(path)), self._apply, self.refused.append)

    async def _apply(self, settings: Settings) -> None:
        self.taken.append([model.name for model in settings.models])

    def look(self, times: int = 2) -> None:
        async def looks() -> None:
            for _ in range(times):
                await self.reload.look()

        asyncio.run(looks())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    path = tmp_path / "weir.yaml"
    path.write_text(GOOD)
    return Watched(path)


def test_what_has_not_changed_is_not_read(watched: Watched) -> None:
    watched.look(5)
    assert (watched.taken, watched.refused) == ([], [])


def test_a_change_is_taken_once(watched: Watched) -> None:
    watched.path.write_text(BETTER)
    watched.look(5)
    assert watched.taken == [["a", "b"]]


def test_a_change_is_taken_when_it_has_come_to_rest(watched: Watched) -> None:
    watched.path.write_text(BETTER[:20])
    watched.look(1)
    watched.path.write_text(BETTER)
    watched.look(1)
    assert (watched.taken, watched.refused) == ([], [])
    watched.look(1)
    assert watched.taken == [["a", "b"]]


def test_a_bad_file_is_refused_once_with_all_that_is_wrong(watched: Watched) -> None:
    watched.path.write_text(BAD)
    watched.look(5)
    assert watched.taken == []
    ((problem,),) = watched.refused
    assert "line 1" in problem
    assert "did you mean 'models'" in problem


def test_after_a_bad_one_a_good_one_is_taken(watched: Watched) -> None:
    watched.path.write_text(BAD)
    watched.look()
    watched.path.write_text(BETTER)
    watched.look()
    assert watched.taken == [["a", "b"]]


def test_a_swapped_symlink_is_a_change(tmp_path: Path) -> None:
    """As a ConfigMap is updated: weir.yaml -> ..data/weir.yaml, and ..data is swapped."""
    for name, text in (("one", GOOD), ("two", BETTER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weir.yaml").write_text(text)
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "weir.yaml").symlink_to("..data/weir.yaml")
    watched = Watched(tmp_path / "weir.yaml")
    (tmp_path / "..data_tmp").symlink_to("two")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    watched.look()
    assert watched.taken == [["a", "b"]]


def test_a_file_that_is_gone_is_waited_for(watched: Watched) -> None:
    watched.path.rename(watched.path.with_suffix(".old"))
    watched.look(1)
    watched.path.write_text(BETTER)
    watched.look()
    assert watched.taken == [["a", "b"]]


@pytest.mark.parametrize(
    "text", ["[" * 3000, "a: &a [*a]", "models: [{name: a, endpoints: [{url: 'http://h:99999'}]}]"]
)
def test_nothing_that_a_file_may_hold_ends_the_watch(watched: Watched, text: str) -> None:
    watched.path.write_text(text)
    watched.look()
    assert len(watched.refused) == 1
    watched.path.write_text(BETTER)
    watched.look()
    assert watched.taken == [["a", "b"]]


def test_a_bug_is_told_by_its_kind_and_place(tmp_path: Path) -> None:
    """Its text may quote the file, and that a secret."""
    path = tmp_path / "weir.yaml"
    path.write_text(GOOD)
    refused: list[list[str]] = []

    def reads() -> Settings:
        raise ZeroDivisionError("canary-of-a-secret")

    async def never(_: Settings) -> None:
        raise AssertionError

    reload = Reload(Source(path, reads, fingerprint(path)), never, refused.append)
    path.write_text(BETTER)
    asyncio.run(reload.look())
    asyncio.run(reload.look())
    ((said,),) = refused
    assert "ZeroDivisionError" in said
    assert "test_reload.py" in said
    assert "canary" not in said
