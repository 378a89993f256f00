"""`weir serve`: settings from everywhere, a Redis where there is none, a first key, then the server."""

import asyncio
import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from weir.auth.directory_redis import AlreadyThere, Directory, NoSuchTeam
from weir.auth.records import Invalid
from weir.backend.transformers_model import BadModel, check
from weir.cli.options import fail
from weir.cli.sockets import CannotListen, listen
from weir.cli.where import DEFAULT_URL, readable_or_exit, settings_or_exit, unusable
from weir.core.types import Limits
from weir.reload import Fingerprint, Source, fingerprint
from weir.settings import Settings, load
from weir.store.connect import connect
from weir.store.embedded import EmbeddedRedis, NoServer

DEMO_TEAM = "demo"
GIVEN = "the key that was given"
MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"  # as in telemetry/exposition.py, which may not be imported yet
QUICK_DRAIN = {"announce_seconds": 0.0}  # there is no load balancer to tell


@dataclass(frozen=True, slots=True)
class Start:
    """The flags of `weir serve`, as given."""

    config: Path | None
    host: str | None
    port: int | None
    ops_port: int | None
    redis_url: str | None
    workers: int | None
    backend: str | None
    model: str | None
    upstream: str | None
    target: str | None
    api_key: str | None
    ephemeral: bool


def start(flags: Start) -> None:
    """Runs until it is stopped; every mistake ends in a sentence and exit code 1."""
    quick = flags.config is None
    sys.path.insert(0, str(Path.cwd()))  # where whoever names a module expects it
    if not quick and (flags.backend or flags.model or flags.upstream or flags.target):
        raise fail(
            "--backend, --model, --upstream and --target are for starting without a file; "
            "put them into 'models:' of it."
        )
    seen = fingerprint(flags.config) if flags.config else None
    overrides = _overrides(flags, quick=quick)
    settings = settings_or_exit(flags.config, overrides, to_serve=True)
    with ExitStack() as stack:
        several = settings.server.workers > 1
        if several:
            _share_metrics(stack)
        else:
            os.environ.pop(MULTIPROCESS_DIR, None)  # somebody else's: what a killed process left there counts for ever
        from weir.telemetry.logs import configure

        configure(settings.telemetry.log_level)
        url = _redis_url(flags, settings, stack, quick=quick)
        readable_or_exit(url)
        try:
            host = settings.server.host
            sockets = [
                stack.enter_context(listen(host, port)) for port in (settings.server.port, settings.server.ops_port)
            ]
        except CannotListen as error:
            raise fail(str(error)) from None
        greeting = asyncio.run(_first_key(flags, settings, url)) if quick or flags.api_key else None
        if several:
            from weir.cli.workers import serve_many as serve
        else:
            from weir.cli.server import serve_one as serve
        serve(settings, url, sockets, _greeter(greeting), _source(flags.config, overrides, seen))


def _source(config: Path | None, overrides: dict[str, Any], seen: Fingerprint) -> Source | None:
    """What can change while it runs, read again as it was read now."""
    if config is None:
        return None

    return Source(config, lambda: load(config, overrides, to_serve=True), seen)


def _share_metrics(stack: ExitStack) -> None:
    """A directory where workers add up their metrics; prometheus_client reads its name when it is first imported."""
    os.environ[MULTIPROCESS_DIR] = stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-metrics-"))


def _overrides(flags: Start, *, quick: bool) -> dict[str, Any]:
    server = {
        name: value
        for name, value in (
            ("host", flags.host),
            ("port", flags.port),
            ("ops_port", flags.ops_port),
            ("workers", flags.workers),
        )
        if value is not None
    }
    overrides: dict[str, Any] = {"server": server} if server else {}
    if quick:
        overrides["drain"] = QUICK_DRAIN
        configured = settings_or_exit(None).models
        if flags.backend or flags.model or flags.upstream or flags.target or not configured:
            overrides["models"] = [_quick_model(flags)]
    return overrides


def _quick_model(flags: Start) -> dict[str, Any]:
    backend = flags.backend or ("openai" if flags.upstream else "python" if flags.target else "echo")
    if backend == "openai":
        if not flags.upstream:
            raise fail("--backend openai needs --upstream, the server's address with its /v1.")
        if not flags.model:
            raise fail("--upstream needs --model, the name of the model that is served there.")
        return {"name": flags.model, "backend": "openai", "endpoints": [{"url": flags.upstream}]}
    if backend == "python":
        if not flags.target:
            raise fail('--backend python needs --target, the function as "module:callable".')
        name = flags.model or flags.target.rpartition(":")[2]
        return {"name": name, "backend": "python", "target": flags.target}
    if backend == "transformers":
        if not flags.model:
            raise fail("--backend transformers needs --model, a folder or a name at the Hugging Face hub.")
        try:
            check(flags.model)
        except BadModel as error:
            raise fail(str(error)) from None
        folder = Path(flags.model).expanduser()
        name = folder.resolve().name if folder.is_dir() else flags.model
        return {"name": name, "backend": "transformers", "upstream_model": flags.model}
    if backend != "echo":
        raise fail(f"there is no backend '{backend}' to start with; there are openai, python, transformers and echo.")
    return {"name": flags.model or "echo", "backend": "echo"}


def _redis_url(flags: Start, settings: Settings, stack: ExitStack, *, quick: bool) -> str:
    if flags.redis_url:
        return flags.redis_url
    if settings.redis.url:
        return settings.redis.url.get_secret_value()
    if not quick and not flags.ephemeral:
        return DEFAULT_URL
    try:
        return stack.enter_context(EmbeddedRedis(ephemeral=flags.ephemeral)).url
    except NoServer as error:
        raise fail(str(error)) from None


async def _first_key(flags: Start, settings: Settings, url: str) -> str | None:
    """Whatever makes the first request possible; returns what to tell the person."""
    pepper = settings.keys.pepper.get_secret_value().encode() if settings.keys.pepper else None
    redis = connect(url)
    directory = Directory(redis, pepper=pepper)
    try:
        if flags.api_key:
            await _ensure_demo_team(directory)
            with contextlib.suppress(AlreadyThere):  # given again, as with every start
                await directory.import_key(DEMO_TEAM, "given", Limits(), secret=flags.api_key)
            return _greeting(settings, GIVEN, new=False)
        if await directory.empty():
            await _ensure_demo_team(directory)
            new = await directory.create_key(DEMO_TEAM, "first", Limits())
            return _greeting(settings, new.secret, new=True)
    except Invalid as error:
        raise fail(f"--api-key: {error}") from None
    except (RedisError, OSError, TimeoutError) as error:
        raise fail(unusable(url, str(error) or type(error).__name__)) from None
    finally:
        await redis.aclose()
    return _greeting(settings, None, new=False)


async def _ensure_demo_team(directory: Directory) -> None:
    try:
        await directory.team(DEMO_TEAM)
    except NoSuchTeam:
        await directory.create_team(DEMO_TEAM, Limits())


def _greeting(settings: Settings, key: str | None, *, new: bool) -> str:
    host = settings.server.host if settings.server.host not in ("::", "0.0.0.0") else "localhost"
    base = f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}/v1"
    model = settings.models[0].name
    lines = ["", f"Weir serves {', '.join(m.name for m in settings.models)} at {base}", ""]
    if key is None:
        lines += [
            "There are keys already; a secret is shown only once. For another one:",
            f"  weir keys create --team {DEMO_TEAM}",
        ]
    else:
        if new:
            lines += [f"A key for you, shown this once (team {DEMO_TEAM}):", f"  {key}", ""]
        body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello, river!"}}]}}'
        # Theirs is not repeated: what is printed here may be somebody's log.
        bearer = '"Authorization: Bearer $KEY"' if key == GIVEN else shlex.quote(f"Authorization: Bearer {key}")
        headers = f"-H {bearer} -H 'Content-Type: application/json'"
        lines += ["Try it:", f"  curl -N {base}/chat/completions {headers} -d {shlex.quote(body)}"]
    return "\n".join([*lines, ""])


def _greeter(greeting: str | None) -> Callable[[], None]:
    def greet() -> None:
        if greeting:
            print(greeting, file=sys.stderr, flush=True)

    return greet
