"""The ring of real clients: `python -m tests.clients [what pytest takes]`.

Makes its environments under build/clients with the ordinary installers, from lock files with hashes, and runs these
tests with the Python of each. Weir itself stays outside: it is the command of the environment that starts this.
What cannot be installed ends the run with the installer's own words; nothing is skipped.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "clients"
NODE_MODULES = BUILD / "node" / "node_modules"


# The clients talk to Weir and to nobody else: no statistics, and no price list fetched at each import.
AT_HOME = {
    "CONTINUE_METRICS_ENABLED": "0",
    "DISABLE_AUTOUPDATER": "1",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
# What the clients warn about is theirs; everywhere else in this project a warning is an error.
WARNINGS = ("-W", "default")


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python with these clients, and the tests that it runs."""

    lock: str
    tests: tuple[str, ...]

    @property
    def home(self) -> Path:
        return BUILD / Path(self.lock).stem

    @property
    def python(self) -> Path:
        return self.home / "bin" / "python"


# Two, because not everybody's client accepts the newest SDK of OpenAI: so both are tried.
ENVIRONMENTS = (
    Environment(
        "requirements.lock",
        (
            "test_openai.py",
            "test_anthropic.py",
            "test_langchain.py",
            "test_haystack.py",
            "test_pydantic_ai.py",
            "test_node.py",
            "test_examples.py",
            "test_programs.py",
        ),
    ),
    Environment("requirements-openai2.lock", ("test_openai.py", "test_llama_index.py", "test_litellm.py")),
)


def install(what: str, lock: Path, home: Path, *commands: tuple[str | Path, ...]) -> None:
    """Once for each content of the lock; a half-made environment is never taken for a whole one."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    mark = home / ".installed"
    if mark.exists() and mark.read_text() == digest:
        return
    print(f"Installing {what} into {home.relative_to(ROOT)} (once for each {lock.name})", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for command in commands:
        done = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            words = " ".join(map(str, command))
            raise SystemExit(f"{what} cannot be installed: `{words}` ended with {done.returncode}\n{done.stderr}")
    mark.write_text(digest)


def install_python(environment: Environment) -> None:
    lock = HERE / environment.lock
    uv = Path(sys.executable).with_name("uv")
    install(
        "Python clients",
        lock,
        environment.home,
        (sys.executable, "-m", "venv", "--without-pip", environment.home),
        (uv, "pip", "install", "-q", "--python", environment.python, "--require-hashes", "-r", lock),
    )
    # The harness looks for `weir` beside its Python; there it is ours, with its own Python in its first line.
    weir = environment.python.with_name("weir")
    weir.unlink(missing_ok=True)
    weir.symlink_to(Path(sys.executable).with_name("weir"))


def install_node() -> None:
    if shutil.which("npm") is None:
        raise SystemExit("JavaScript clients cannot be installed: there is no `npm` on the PATH")
    copies = tuple(("cp", HERE / name, ".") for name in ("package.json", "package-lock.json"))
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
    install("JavaScript clients", HERE / "package-lock.json", NODE_MODULES.parent, *copies, ("npm", "ci", *quiet))


def node() -> Path:
    """The Node.js of the lock file; where it has none for this machine, the one on the PATH."""
    found = next(NODE_MODULES.glob("node-*/bin/node"), None) or shutil.which("node")
    if found is None:
        raise SystemExit("JavaScript clients cannot run: there is no `node` on the PATH")
    return Path(found)


def main(arguments: list[str]) -> int:
    for environment in ENVIRONMENTS:
        install_python(environment)
    install_node()
    worst = 0
    for environment in ENVIRONMENTS:
        print(f"== {environment.lock}", flush=True)
        tests = [HERE / name for name in environment.tests]
        command = (environment.python, "-m", "pytest", *WARNINGS, *tests, *arguments)
        worst = max(worst, subprocess.run(command, cwd=ROOT, env=os.environ | AT_HOME, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
