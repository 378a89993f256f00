"""The log's own pipe: whoever reads it may stop, and nobody who asks a model may notice."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import FileIO
from typing import BinaryIO

import pytest

from weir.telemetry.lines import FLUSH_SECONDS, HELD_MAX, PATIENCE, Lines

LINE = b'{"event":"request"}' + b" " * 1000


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, FileIO]]:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb", buffering=0) as writer:
        yield reader, writer
        threading.Thread(target=reader.read, daemon=True).start()  # so that closing need not wait for us


def test_lines_come_in_order_and_whole(pipe: tuple[BinaryIO, FileIO]) -> None:
    reader, writer = pipe
    lines = Lines(writer)

    async def scene() -> None:
        for number in range(5):
            lines.msg(b"%d" % number)
            await asyncio.sleep(FLUSH_SECONDS * (number % 2))
        lines.flush()

    lines.msg(b"before")
    asyncio.run(scene())
    lines.msg(b"after")
    assert [reader.readline() for _ in range(7)] == [b"before\n", b"0\n", b"1\n", b"2\n", b"3\n", b"4\n", b"after\n"]


def test_a_line_of_a_loop_that_ended_keeps_no_other_back(pipe: tuple[BinaryIO, FileIO]) -> None:
    """`weir serve` runs a short loop for its first key before the long one."""
    reader, writer = pipe
    lines = Lines(writer)

    async def short() -> None:
        lines.msg(b"first")

    async def long() -> None:
        lines.msg(b"second")
        await asyncio.sleep(FLUSH_SECONDS * 5)
        os.set_blocking(reader.fileno(), False)
        assert reader.read() == b"first\nsecond\n"

    asyncio.run(short())
    asyncio.run(long())


def test_a_full_pipe_that_does_not_block_costs_nothing() -> None:
    """Whoever gave us our standard output may have made it so, and then a write says at once that there is no room."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb", buffering=0) as writer:
        lines = Lines(writer)

        async def scene() -> float:
            for _ in range(200):
                lines.msg(LINE)
            await asyncio.sleep(FLUSH_SECONDS * 3)
            began = time.process_time()
            await asyncio.sleep(0.5)
            return time.process_time() - began

        assert asyncio.run(scene()) < 0.1
        for _ in range(200):
            assert reader.readline() == LINE + b"\n"


def test_a_reader_that_stops_holds_nobody_up(pipe: tuple[BinaryIO, FileIO]) -> None:
    reader, writer = pipe
    dropped: list[int] = []
    lines = Lines(writer, dropped.append)
    batches, each = 60, 1000  # 60 MB

    async def scene() -> float:
        worst = 0.0
        for _ in range(batches):
            began = time.perf_counter()
            for _ in range(each):
                lines.msg(LINE)
            await asyncio.sleep(FLUSH_SECONDS * 1.5)
            worst = max(worst, time.perf_counter() - began)
        return worst

    assert asyncio.run(scene()) < 5, "a full pipe would be waited for without an end"
    assert dropped
    assert (batches * each - sum(dropped)) * len(LINE) < HELD_MAX * 1.5, "what is held is bounded"
    taken = 0
    while taken < batches * each - sum(dropped):
        assert reader.readline() == LINE + b"\n"
        taken += 1


def test_the_end_waits_for_a_slow_reader_and_not_for_one_that_is_gone(pipe: tuple[BinaryIO, FileIO]) -> None:
    _, writer = pipe
    lines = Lines(writer)

    async def scene() -> None:
        for _ in range(1000):
            lines.msg(LINE)
        await asyncio.sleep(FLUSH_SECONDS * 3)

    asyncio.run(scene())
    began = time.perf_counter()
    lines.flush()
    assert PATIENCE <= time.perf_counter() - began < PATIENCE + 3


def test_a_process_with_a_stuck_reader_still_ends() -> None:
    """With a lock of the buffered standard output held by the thread, the interpreter would abort instead."""
    program = (
        "import asyncio, sys\n"
        "from weir.telemetry.lines import Lines\n"
        "lines = Lines(getattr(sys.stdout.buffer, 'raw', sys.stdout.buffer))\n"
        "async def scene():\n"
        "    for _ in range(1000): lines.msg(b'x' * 1000)\n"
        "    await asyncio.sleep(0.1)\n"
        "asyncio.run(scene())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.wait(30) == 0


def test_a_closed_pipe_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    dropped: list[int] = []
    with os.fdopen(write, "wb", buffering=0) as writer:
        lines = Lines(writer, dropped.append)
        lines.msg(LINE)
    assert dropped == [1]


def test_a_forked_copy_writes_nothing_of_its_parents(pipe: tuple[BinaryIO, FileIO]) -> None:
    reader, writer = pipe
    lines = Lines(writer)

    async def scene() -> None:
        lines.msg(b"once")
        sys.stdout.flush()
        child = os.fork()
        if not child:
            lines.flush()
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        lines.flush()

    asyncio.run(scene())
    writer.close()
    assert reader.read() == b"once\n"
