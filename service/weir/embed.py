"""All of Weir as one ASGI application, for whoever has a program already and wants the endpoint in it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from weir.app import Application, application
from weir.core.asgi import App, Receive, Scope, Send
from weir.settings import BadSettings, Problem, Settings, load
from weir.store.embedded import EmbeddedRedis
from weir.telemetry.logs import configure


def create_app(settings: Settings | Mapping[str, Any] | Path | str | None = None) -> "EmbeddedApp":
    """`settings` as a tree, as what stands in weir.yaml, or as that file's path; without any, the environment's.

    Served by itself (`uvicorn module:app`) its lifespan starts and ends it. Mounted in another application, which
    does not run the lifespans of what is mounted, it is started by that one's: `async with app.running(): yield`.
    What `weir serve` does beside it, several processes and draining at SIGTERM, is left to whoever serves it.

    Raises:
        BadSettings: with all that is wrong.

    """
    if isinstance(settings, str | Path):
        settings = load(Path(settings))
    elif not isinstance(settings, Settings):
        settings = load(None, settings)
    if not settings.models:
        raise BadSettings([Problem("models", "there is nothing to serve; add a model")])
    return EmbeddedApp(settings)


class EmbeddedApp:
    """`public` is what clients ask, and the application itself; `ops` has health and metrics, for a place inside."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._weir: Application | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Application]:
        """From the first connection to the last settlement. Without a Redis in its settings it starts its own."""
        settings = self._settings
        configure(settings.telemetry.log_level)
        with ExitStack() as stack:
            given = settings.redis.url
            url = given.get_secret_value() if given else stack.enter_context(EmbeddedRedis(ephemeral=False)).url
            async with application(settings, url) as weir:
                self._weir = weir
                try:
                    yield weir
                finally:
                    await weir.drain.run()
                    self._weir = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        await self._begun.public(_below(scope), receive, send)

    @property
    def ops(self) -> App:
        """Health and metrics as an application of their own."""

        async def ops(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                await self._begun.ops(_below(scope), receive, send)

        return ops

    @property
    def _begun(self) -> Application:
        if self._weir is None:
            raise RuntimeError("Weir is not running: put 'async with app.running():' into your application's lifespan")
        return self._weir

    async def _live(self, receive: Receive, send: Send) -> None:
        """ASGI's lifespan (asgiref, "Lifespan Protocol")."""
        await receive()
        try:
            running = self.running()
            await running.__aenter__()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await running.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})


def _below(scope: Scope) -> Scope:
    """Where a router has mounted us, paths begin with its own part."""
    root = scope.get("root_path", "")
    if not root or not scope["path"].startswith(root):
        return scope
    return {**scope, "path": scope["path"][len(root) :] or "/", "root_path": ""}
