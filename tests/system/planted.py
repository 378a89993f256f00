"""`weir` with bugs planted in it, whose texts quote what they must not: `python -m tests.system.planted serve ...`."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from weir.cli import main, serve

MODEL = "a-bug"
_heard: list[bytes] = []


def plant() -> None:
    # Not before `weir serve` itself would: with several workers, prometheus_client must find its directory first.
    from weir.gateway import completions  # noqa: PLC0415
    from weir.routing import RouteTable  # noqa: PLC0415
    from weir.telemetry.metrics import Metrics  # noqa: PLC0415

    completions.read_request = _on_the_request_path(completions.read_request)
    RouteTable.names = _once_heard(RouteTable.names)  # type: ignore[method-assign]  # on the FastAPI side
    Metrics.show_limits = _once_heard(Metrics.show_limits)  # type: ignore[method-assign]  # in a task that lives on


def _on_the_request_path(read_request: Callable[..., Any]) -> Callable[..., Any]:
    """For one model: a bug there, one in a callback of the loop, one in a task that nobody awaits."""

    def read(operation: Any, body: bytes) -> Any:
        if f'"{MODEL}"'.encode() in body:
            asyncio.get_running_loop().call_soon(_fail, body)
            asyncio.get_running_loop().create_task(_fail_later(body))
            _heard.append(body)
            raise ValueError(f"cannot read {body!r}")
        return read_request(operation, body)

    return read


def _fail(body: bytes) -> None:
    raise KeyError(body)


async def _fail_later(body: bytes) -> None:
    raise RuntimeError(f"later, of {body!r}")


def _once_heard(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A bug from then on."""

    def fails(self: Any) -> Any:
        if _heard:
            raise LookupError(f"nothing for {_heard[-1]!r}")
        return method(self)

    return fails


def _after(share_metrics: Callable[[ExitStack], None]) -> Callable[[ExitStack], None]:
    def share(stack: ExitStack) -> None:
        share_metrics(stack)
        plant()

    return share


if __name__ == "__main__":
    if "--workers" in sys.argv and sys.argv[sys.argv.index("--workers") + 1] != "1":
        serve._share_metrics = _after(serve._share_metrics)
    else:
        plant()
    main()
