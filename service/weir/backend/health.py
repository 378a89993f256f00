"""Looks in on endpoints that want it, every few seconds, each time on a new connection, as a newcomer would.

What a look means is decided by whoever hears of it (`routing/health.py`).
"""

import asyncio
from collections.abc import Callable, Iterable
from random import random
from urllib.parse import urlsplit

from weir.backend.http1 import Broken, Origin, Pool, origin_of
from weir.core.tasks import Tasks
from weir.core.types import Endpoint, HealthCheck

# Why it is not well, or None.
Report = Callable[[Endpoint, str | None], None]


class HealthChecks:
    """One task for each endpoint that has a health check. Whatever a server does, here it is only a report."""

    def __init__(
        self, report: Report, rand: Callable[[], float] = random, pool: Callable[[Origin], Pool] | None = None
    ) -> None:
        self._report = report
        self._rand = rand
        self._pool = pool or (lambda origin: Pool(origin, idle_seconds=0))
        self._tasks = Tasks()

    async def watch(self, endpoints: Iterable[Endpoint]) -> None:
        """These, from now on, and no others."""
        await self._tasks.stop()
        for endpoint in endpoints:
            if endpoint.health is not None:
                self._tasks.start(self._look_in(endpoint, endpoint.health), f"weir health of {endpoint.url}")

    async def close(self) -> None:
        await self._tasks.stop()

    async def _look_in(self, endpoint: Endpoint, check: HealthCheck) -> None:
        # Not all at once, and not all replicas in step.
        await asyncio.sleep(check.interval * self._rand())
        pool = self._pool(origin_of(endpoint.url))  # kept for its TLS context, which takes 20 ms to make
        while True:
            self._report(endpoint, await why_not(endpoint, check, pool))
            await asyncio.sleep(check.interval * (0.9 + 0.2 * self._rand()))


async def why_not(endpoint: Endpoint, check: HealthCheck, pool: Pool) -> str | None:
    """One look: None if the endpoint is well."""
    headers = (("host", urlsplit(endpoint.url).netloc), *endpoint.headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    message = f"GET {check.path} HTTP/1.1\r\n{lines}user-agent: weir\r\nconnection: close\r\n\r\n"
    connection = None
    try:
        async with asyncio.timeout(check.timeout):
            connection = await pool.acquire(check.timeout)
            await connection.request(message.encode("latin-1"))
    except TimeoutError:
        return f"nothing within {check.timeout:g} s"
    except (OSError, Broken, ValueError) as error:  # ValueError: a host's name that none can have
        return f"{type(error).__name__}: {error}"[:200]
    finally:
        if connection is not None:
            connection.abort()
    return None if 200 <= connection.status < 300 else f"status {connection.status}"
