"""Images made of Debian packages, where no registry is: a base without a shell, one that can build, and a Redis.

Packages come from wherever this machine's own apt gets them, of its own release or of WEIR_DEBIAN_RELEASE. Made once a
week, in two minutes, and kept as archives in the user's cache.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NEEDED = ("debootstrap", "apt-get", "tar")
MISSING = "needs root and debootstrap, apt-get and tar to make a base image (Debian: apt-get install debootstrap)"
WEEK = 7 * 24 * 3600.0
MAKING = 600.0  # seconds for one step

# Each on top of the one before.
STEPS = {"base": "python3,ca-certificates", "builder": "python3-venv", "redis": "redis-server"}

# The base is what a distroless one is: a Python and its libraries. With no shell in it, nothing of ours can need one.
# As in Docker's own images of Python, there is no byte code.
NOT_IN_BASE = (
    *("sh", "bash", "rbash", "dash", "perl*", "apt*", "dpkg*", "deb*", "*grep", "find", "xargs", "tar", "gzip"),
    *("mount", "umount", "su", "passwd", "chsh", "chfn", "gpasswd", "newgrp", "login"),
)

# Redis' own image is built to let neighbours in; Debian's program has to be told.
REDIS = """#!/bin/sh
exec /usr/bin/redis-server --protected-mode no "$@"
"""


def possible() -> bool:
    return os.geteuid() == 0 and all(shutil.which(name) for name in NEEDED)


def root_file_systems() -> dict[str, Path]:
    """The archives, by the names of the steps."""
    mirror, release = _mirror()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir-image-test" / release
    archives = {name: cache / f"{name}.tar" for name in STEPS}
    oldest = min(archive.stat().st_mtime if archive.exists() else 0.0 for archive in archives.values())
    if oldest < time.time() - WEEK:  # noqa: TID251  files have dates
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="weir-debian-") as directory:
            _make(Path(directory) / "root", archives, mirror, release)
    return archives


def _make(root: Path, archives: dict[str, Path], mirror: str, release: str) -> None:
    for name, packages in STEPS.items():
        if name == "base":
            _do("debootstrap", "--variant=minbase", f"--include={packages}", release, root, mirror)
        else:
            _do("chroot", root, "apt-get", "install", "-qy", "--no-install-recommends", *packages.split(","))
        if name == "redis":
            server = root / "usr/local/bin/redis-server"
            server.write_text(REDIS)
            server.chmod(0o755)
        without = [f"--exclude=./usr/bin/{pattern}" for pattern in NOT_IN_BASE] if name == "base" else []
        without += ["--exclude=*.pyc"]
        new = archives[name].with_suffix(".new")
        rubbish = (
            "./var/cache/apt/*",
            "./var/lib/apt/lists/*",
            "./var/log/*",
            "./usr/share/doc/*",
            "./usr/share/man/*",
        )
        _do("tar", "-C", root, *(f"--exclude={path}" for path in rubbish), *without, "-cf", new, ".")
        new.rename(archives[name])


def _mirror() -> tuple[str, str]:
    """The first archive that apt itself knows, and the release to take from it."""
    said = _do("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages")
    assert said, "apt knows no package list: apt-get update"
    address, release = said.splitlines()[0].split()
    return address, os.environ.get("WEIR_DEBIAN_RELEASE") or release


def _do(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=MAKING,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout
