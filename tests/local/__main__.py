"""The ring of models in this process, and of an engine that others wrote: `python -m tests.local [what pytest takes]`.

Makes its environment under build/local with the ordinary installer, from lock files with hashes: everything that Weir's
tests need, torch and transformers, and Weir itself. That is five gigabytes, once, so this ring is run on purpose. Where
torch cannot be had the run ends with the installer's own words; nothing is skipped.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
HOME = ROOT / "build" / "local"
PYTHON = HOME / "bin" / "python"

# Models are made here; nothing is looked for at the hub.
AT_HOME = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
# What torch and transformers warn about is theirs; everywhere else in this project a warning is an error.
WARNINGS = ("-W", "default")


def install() -> None:
    """What is there already stays; the installer sees what is missing."""
    if not PYTHON.exists():
        print(f"Making {HOME.relative_to(ROOT)}: torch is large, this takes minutes, once", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", "--without-pip", HOME)
    uv = Path(sys.executable).with_name("uv")
    into = (uv, "pip", "install", "-q", "--python", PYTHON)
    locks = (ROOT / "requirements-dev.lock", HERE / "requirements.lock")
    _run(*into, "--require-hashes", *(part for lock in locks for part in ("-r", lock)))
    _run(*into, "--no-deps", "--no-build-isolation", "-e", ROOT)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise SystemExit(
            "torch and transformers cannot be had here, so no local model was tested: "
            f"`{words}` ended with {done.returncode}\n{done.stderr}"
        )


def main(arguments: list[str]) -> int:
    install()
    command = (PYTHON, "-m", "pytest", *WARNINGS, HERE, *arguments)
    return subprocess.run(command, cwd=ROOT, env=os.environ | AT_HOME, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
