"""What tasks of one turn write: at once where they are few, together and in order where they are many."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from weir.core.outbox import HELD_MAX, MANY, Outbox, outbox_of

LARGE = b"x" * HELD_MAX


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run(scene: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(scene)

    return run


class Transport(asyncio.WriteTransport):
    """Notes what is written to it in a log that all share."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name, self.log = name, log
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written to behind its end"
        self.log.append(f"{self.name} gets {'a large one' if len(data) >= HELD_MAX else bytes(data).decode()}")

    def is_closing(self) -> bool:
        return self.closed


class Scene:
    """An outbox, and a log of who ran and what was written."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.outbox = outbox_of(asyncio.get_running_loop())
        self.tasks: list[asyncio.Task[None]] = []

    def transport(self, name: str) -> Transport:
        return Transport(name, self.log)

    def wake(self, name: str, *writes: tuple[Transport, bytes]) -> None:
        """A task that writes, put into the loop's queue as a protocol does."""

        async def work() -> None:
            self.log.append(name)
            for transport, data in writes:
                self.outbox.write(transport, data)

        self.tasks.append(asyncio.get_running_loop().create_task(work()))
        self.outbox.woken()

    async def done(self) -> list[str]:
        await asyncio.gather(*self.tasks)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.log


def test_few_write_at_once(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scene() -> None:
        it = Scene()
        for number in range(MANY - 1):
            it.wake(f"{number}", (it.transport("t"), b"a"))
        assert await it.done() == [said for number in range(MANY - 1) for said in (f"{number}", "t gets a")]

    run(scene())


def test_many_write_when_all_have_run_each_transport_in_its_order(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scene() -> None:
        it = Scene()
        a, b = it.transport("a"), it.transport("b")
        for number in range(MANY + 3):
            it.wake(f"{number}", (a, b"%d" % number), (b, b"%d" % number))
        log = await it.done()
        assert log[: MANY + 3] == [f"{number}" for number in range(MANY + 3)]
        for name in "ab":
            assert [said for said in log if said.startswith(name)] == [f"{name} gets {n}" for n in range(MANY + 3)]
        it.wake("later", (a, b"at once"))
        assert (await it.done())[-2:] == ["later", "a gets at once"], "the next turn is a new one"

    run(scene())


def test_a_large_one_waits_for_nobody_and_overtakes_nothing(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scene() -> None:
        it = Scene()
        a = it.transport("a")
        it.wake("first", (a, b"small"), (a, LARGE), (a, b"behind"))
        for number in range(MANY):
            it.wake(f"{number}")
        log = await it.done()
        assert log[:3] == ["first", "a gets small", "a gets a large one"]
        assert log[-1] == "a gets behind"

    run(scene())


def test_what_is_held_goes_out_before_an_end_and_never_behind_it(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def scene() -> None:
        it = Scene()
        a, b = it.transport("a"), it.transport("b")
        it.wake("both", (a, b"last words"), (b, b"too late"))

        async def ends() -> None:
            b.closed = True
            it.outbox.flush()
            a.closed = True

        it.tasks.append(asyncio.get_running_loop().create_task(ends()))
        for number in range(MANY):
            it.wake(f"{number}")
        log = await it.done()
        assert [said for said in log if "gets" in said] == ["a gets last words"]

    run(scene())


@pytest.mark.parametrize("many", [0, 1, 2, MANY * 2])
def test_a_callback_runs_behind_the_tasks_that_asked_for_it(
    run: Callable[[Coroutine[Any, Any, None]], None], many: int
) -> None:
    async def scene() -> None:
        it = Scene()
        told: list[int] = []
        for number in range(many):
            it.wake(f"{number}")
        it.outbox.at_end(lambda: told.append(len(it.log)))
        await it.done()
        await asyncio.sleep(0)
        assert told == [many]

    run(scene())


def test_a_callback_that_fails_keeps_nothing_back(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scene() -> None:
        told: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: told.append(str(what.get("exception"))))
        it = Scene()
        a = it.transport("a")
        for number in range(MANY):
            it.wake(f"{number}", (a, b"%d" % number))
        it.outbox.at_end(dict[str, None]().popitem)
        log = await it.done()
        await asyncio.sleep(0)
        assert log[-MANY:] == [f"a gets {number}" for number in range(MANY)]
        assert told == ["'popitem(): dictionary is empty'"]

    run(scene())


def test_a_loop_has_one_and_another_loop_another() -> None:
    async def mine() -> Outbox:
        loop = asyncio.get_running_loop()
        assert outbox_of(loop) is outbox_of(loop)
        return outbox_of(loop)

    assert asyncio.run(mine()) is not asyncio.run(mine())
