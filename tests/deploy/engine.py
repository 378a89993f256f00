"""A container engine for tests: one that answers already, else a dockerd of our own that leaves nothing behind.

Ours has its socket, its data and its containers in a temporary directory, its mounts and processes in namespaces of its
own, and one bridge of the network for itself. Ending its first process ends all of it.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.harness import Process, container_engine_answers, eventually

START_SECONDS = 60.0
BUILDKIT_INSIDE = 23  # clients older than this one build with BuildKit by themselves, later ones with the buildx plugin
CONTROL_GROUPS = Path("/sys/fs/cgroup")
TRUST_KEY = Path("/etc/docker/key.json")  # older engines write it at their first start, wherever their data is


class NoEngineError(Exception):
    """There is none and none can be started; the sentence says what is missing."""


@dataclass(frozen=True, slots=True)
class Engine:
    """`host` is a DOCKER_HOST, or empty for the usual place; `docker` a client that can build with BuildKit."""

    host: str
    docker: str
    ours: bool

    @property
    def environment(self) -> dict[str, str]:
        """What clients of every kind need to find it."""
        found = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        if self.host:
            found["DOCKER_HOST"] = self.host
        if self.ours:  # it has no image of the reaper; everything in it goes when it ends
            found["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        return found

    def run(self, *arguments: str | Path, ok: bool = True, within: float = 120.0) -> subprocess.CompletedProcess[str]:
        """The command line. With `ok`, anything but success fails the test."""
        done = subprocess.run(
            [self.docker, *map(str, arguments)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == 0 or not ok, f"docker {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
        return done

    def inspect(self, what: str) -> dict[str, Any]:
        (found,) = json.loads(self.run("inspect", what).stdout)
        return dict(found)


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Raises NoEngineError."""
    docker = _client()
    if container_engine_answers():
        yield Engine(os.environ.get("DOCKER_HOST", ""), docker, ours=False)
        return
    dockerd, unshare, setpriv, ip = (shutil.which(name) for name in ("dockerd", "unshare", "setpriv", "ip"))
    if os.geteuid() != 0 or not (dockerd and unshare and setpriv and ip):
        raise NoEngineError(
            "no container engine answers, and for one of our own it needs root, dockerd, unshare, setpriv and ip "
            "(Debian: apt-get install docker.io util-linux iproute2)"
        )
    with tempfile.TemporaryDirectory(prefix="weir-engine-") as directory, _bridge(ip) as bridge:
        started = Engine(f"unix://{directory}/docker.sock", docker, ours=True)
        keyless = not TRUST_KEY.exists()
        options = {
            "host": started.host,
            "data-root": f"{directory}/data",
            "exec-root": f"{directory}/exec",
            "pidfile": f"{directory}/pid",
            "bridge": bridge,
            # Published ports come through dockerd's own proxy and builds use the host's network, so that neither the
            # machine's packet filter nor its routing is touched.
            "iptables": "false",
            "ip6tables": "false",
            "ip-masq": "false",
            "ip-forward": "false",
            "exec-opt": "native.cgroupdriver=cgroupfs",
            "cgroup-parent": f"/{bridge}",
        }
        # dockerd is the first process of its namespace and dies with `unshare`, and that one with us: whatever it has
        # started dies with it.
        process = Process(
            *(setpriv, "--pdeathsig=KILL", unshare, "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *(dockerd, *(f"--{name}={value}" for name, value in options.items())),
        )
        try:
            end = time.monotonic() + START_SECONDS
            while started.run("version", ok=False).returncode != 0:
                if not process.running or time.monotonic() > end:
                    process.kill()
                    raise NoEngineError(f"dockerd does not start here: {' '.join(process.err[-3:])}")
                time.sleep(0.1)
            yield started
            # One by one first: a control group stays in the machine's tree until its container is removed.
            if left := started.run("ps", "-aq").stdout.split():
                started.run("rm", "-f", *left)
        finally:
            process.kill()
            groups = [*CONTROL_GROUPS.glob(f"{bridge}/**/"), *CONTROL_GROUPS.glob(f"*/{bridge}/**/")]
            for group in sorted(groups, reverse=True):  # the inner ones first
                with contextlib.suppress(OSError):  # still in use, where the removal above was not reached
                    group.rmdir()
            if keyless:
                TRUST_KEY.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # somebody's, if it is not empty
                    TRUST_KEY.parent.rmdir()
            # Its last mounts go with its last process, a moment after its first.
            eventually(lambda: _emptied(Path(directory)), why=f"{directory} can be removed")


def _client() -> str:
    """The first docker on the PATH that builds with BuildKit: the Dockerfile mounts secrets."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if not (docker := shutil.which("docker", path=folder)):
            continue
        said = subprocess.run([docker, "--version"], capture_output=True, text=True, check=False).stdout
        version = re.search(r"version (\d+)", said)
        buildx = subprocess.run([docker, "buildx", "version"], capture_output=True, check=False)
        if buildx.returncode == 0 or (version and int(version[1]) < BUILDKIT_INSIDE):
            return docker
    raise NoEngineError("no docker client on the PATH that builds with BuildKit (Debian: docker.io, or buildx)")


@contextlib.contextmanager
def _bridge(ip: str) -> Iterator[str]:
    """A bridge of our own, with an address of the block that RFC 2544 keeps for tests of networks."""
    token = uuid.uuid4()
    name, address = f"weir{token.hex[:8]}", f"198.18.{token.int % 256}.1/24"
    subprocess.run([ip, "link", "add", name, "type", "bridge"], check=True)
    try:
        subprocess.run([ip, "address", "add", address, "dev", name], check=True)
        subprocess.run([ip, "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run([ip, "link", "delete", name], check=True)


def _emptied(directory: Path) -> bool:
    for child in directory.iterdir():
        shutil.rmtree(child, ignore_errors=True) if child.is_dir() else child.unlink()
    return not any(directory.iterdir())
