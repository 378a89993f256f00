"""Tasks that live as long as the process, held so that the garbage collector does not end them."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """The loop keeps only weak references to tasks; this keeps strong ones."""

    def __init__(self) -> None:
        self._held: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._held.add(task)
        task.add_done_callback(self._held.discard)
        return task

    async def stop(self) -> None:
        for task in self._held:
            task.cancel()
        await asyncio.gather(*self._held, return_exceptions=True)
