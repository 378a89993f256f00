"""How many live, as long as Redis says so, and as it said last when it does not."""

import asyncio
import itertools
from typing import Any

import pytest

from tests.fakes import clock
from weir.admission.replicas import BEAT_SECONDS, BEATS_MISSED, Replicas
from weir.core import layout
from weir.core.commands import CommandRefused, Word
from weir.core.errors import StoreUnavailable

AWAY = StoreUnavailable(reason="redis is away")


class Scripted:
    """`Commands` whose replies are given beforehand, the last for ever."""

    def __init__(self, *replies: Any) -> None:
        self._replies = itertools.chain(replies, itertools.repeat(replies[-1]))
        self.asked: list[tuple[Word, ...]] = []

    def call(self, *words: Word) -> asyncio.Future[Any]:
        self.asked.append(words)
        reply = asyncio.get_running_loop().create_future()
        said = next(self._replies)
        if isinstance(said, Exception):
            reply.set_exception(said)
        else:
            reply.set_result(said)
        return reply


COUNTS = [
    # id                                       what Redis says                  count after each beat
    pytest.param([1, 1], [1, 1], id="alone"),
    pytest.param([3], [3], id="at-once"),
    pytest.param([3, 4], [3, 4], id="one-more-counts-at-once"),
    pytest.param([3, 2, 2, 2], [3, 3, 3, 2], id="one-less-when-it-is-sure"),
    pytest.param([AWAY, AWAY], [1, 1], id="never-there"),
    pytest.param([3, AWAY, AWAY, AWAY, AWAY, AWAY], [3] * 6, id="kept-through-an-outage"),
    pytest.param([3, CommandRefused("LOADING"), 3], [3, 3, 3], id="kept-while-it-loads"),
    pytest.param([3, 3, 3, AWAY, 1, 2, 3], [3] * 7, id="who-is-back-first-is-not-alone"),
]


@pytest.mark.parametrize(("says", "counts"), COUNTS)
def test_count(says: list[Any], counts: list[int]) -> None:
    async def play() -> None:
        replicas = Replicas(Scripted(*says))
        assert replicas.count == 1
        task = asyncio.get_running_loop().create_task(replicas.tend())
        await asyncio.sleep(BEAT_SECONDS / 2)
        seen = []
        for _ in counts:
            seen.append(replicas.count)
            await asyncio.sleep(BEAT_SECONDS)
        assert seen == counts
        task.cancel()

    clock.run(play)


def test_who_left_beats_no_more() -> None:
    async def play() -> None:
        commands = Scripted(1)
        replicas = Replicas(commands)
        task = asyncio.get_running_loop().create_task(replicas.tend())
        await asyncio.sleep(BEAT_SECONDS * 1.5)
        await replicas.leave()
        await asyncio.sleep(BEAT_SECONDS * 10)
        assert task.done()
        assert [words[0] for words in commands.asked] == ["EVAL", "EVAL", "ZREM"]
        (name,) = {words[4] for words in commands.asked[:2]}
        assert commands.asked[2] == ("ZREM", layout.REPLICAS, name)
        assert commands.asked[0][2:] == (1, layout.REPLICAS, name, int(BEAT_SECONDS * BEATS_MISSED * 1000))

    clock.run(play)


def test_leaving_an_absent_redis_is_no_trouble() -> None:
    clock.run(lambda: Replicas(Scripted(AWAY)).leave())


def test_each_process_has_a_name_of_its_own() -> None:
    commands = Scripted(1)
    assert Replicas(commands)._name != Replicas(commands)._name
