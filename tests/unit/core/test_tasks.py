"""Tasks are held while they run, and none outlives the stop."""

import asyncio
import gc

from tests.fakes.clock import run
from weir.core.tasks import Tasks


def test_are_held_while_they_run() -> None:
    async def scene() -> None:
        tasks, done = Tasks(), asyncio.Event()

        async def work() -> None:
            await asyncio.sleep(5)
            done.set()

        tasks.start(work(), "work")
        gc.collect()
        await done.wait()

    run(scene)


def test_have_their_names() -> None:
    async def scene() -> None:
        tasks = Tasks()
        task = tasks.start(asyncio.sleep(1), "weir leases")
        assert task.get_name() == "weir leases"
        await tasks.stop()

    run(scene)


def test_stop_ends_all_and_waits_for_their_last_words() -> None:
    async def scene() -> None:
        tasks, said = Tasks(), list[str]()

        async def work(name: str) -> None:
            try:
                await asyncio.sleep(1_000)
            finally:
                await asyncio.sleep(1)
                said.append(name)

        running = [tasks.start(work(name), name) for name in ("a", "b")]
        await asyncio.sleep(1)
        await tasks.stop()
        assert sorted(said) == ["a", "b"]
        assert all(task.cancelled() for task in running)

    run(scene)


def test_stop_of_nothing_is_nothing() -> None:
    async def scene() -> None:
        tasks = Tasks()
        await tasks.start(asyncio.sleep(1), "short")
        await tasks.stop()

    run(scene)
