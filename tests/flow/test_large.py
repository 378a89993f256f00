"""A large request is work for a thread: the loop, which serves everybody else, spends less on it than one parse takes."""

import asyncio
import time
import tracemalloc

import orjson
import pytest

from tests.flow.large import bodies, held

BODIES = bodies()


@pytest.mark.parametrize("name", [name for name in BODIES if "tools" not in name])
def test_the_loop_is_free_meanwhile(name: str) -> None:
    """In CPU time of the loop's own thread, best of three: other processes on the machine do not count."""
    path, body = BODIES[name]
    used = time.thread_time()
    orjson.loads(body)
    parse = time.thread_time() - used
    tries = [asyncio.run(held(path, body)) for _ in range(3)]
    assert {one.status for one in tries} == {200}
    assert min(one.cpu for one in tries) < max(parse, 0.005)


@pytest.mark.parametrize("name", ["an image of 20 MB", "the same, Messages", "1.5 M tokens"])
def test_memory_is_bounded(name: str) -> None:
    """The client's pieces are one copy, and the body another; what is sent is made of views of that. Of text orjson takes
    thirteen times its size while it parses.
    """
    path, body = BODIES[name]
    tracemalloc.start()
    try:
        assert asyncio.run(held(path, body)).status == 200
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < (16 if "tokens" in name else 3.5) * len(body)
