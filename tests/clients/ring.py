"""What every client is tried against, and what is asked after each: the models' names are plays of the upstream."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.clients.__main__ import NODE_MODULES, ROOT, node
from tests.system.harness import Key, Upstream, Weir, clean_environment, eventually, model

EXAMPLES = ROOT / "deploy" / "examples" / "clients"

# Most frameworks have no field of their own for a script, so the model's name says what is played.
PLAYS = ("chat", "tools", "parallel_tools", "endless", "error_event", "bad_request")

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CITIES = {"tools": ["Paris"], "parallel_tools": ["Paris", "Oslo", "Lima"]}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # a red point
)


def models(upstream: Upstream) -> list[dict[str, Any]]:
    return [*(model(name, upstream.url) for name in PLAYS), {"name": "echo", "backend": "echo"}]


def left_and_freed(weir: Weir, upstream: Upstream) -> None:
    """The one request that came was left by its client: the upstream knows it, and its place is free."""
    record = eventually(lambda: [one for one in upstream.records() if one["outcome"] != "answering"])
    assert [one["outcome"] for one in record] == ["client_left"]
    eventually(lambda: weir.metric("weir_in_flight_requests") == 0, why="no request is under way")


def waited_as_told(weir: Weir, key: Key) -> None:
    """Of two requests on a key that has one a second, the second came too early, once, and then at the right time."""
    records = eventually(lambda: (found := weir.records_with(key_id=key.id)) and len(found) >= 3 and found)
    assert [one["status"] for one in records] == [200, 429, 200]


def run(command: list[str], root: str, key: Key, model: str, home: Path | None = None) -> str:
    """What a program prints that reads its Weir, key and model from the environment, as those of the examples do."""
    environment = clean_environment(WEIR_URL=root, WEIR_API_KEY=key.secret, WEIR_MODEL=model)
    environment["PATH"] = f"{node().parent}:{environment['PATH']}"  # some start themselves by `env node`
    if home is not None:
        environment["HOME"] = str(home)
    done = subprocess.run(
        command,
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def beside_packages(programs: Path, folder: Path) -> None:
    """The programs in this folder, with the packages: Node.js looks for those from where a program lies."""
    shutil.copytree(programs, folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(NODE_MODULES)


def run_example(folder: Path, root: str, key: Key, name: str, also: dict[str, str] | None = None) -> str:
    """What this example prints, in a folder with all of them, and with what a test puts beside them."""
    beside_packages(EXAMPLES, folder)
    for other, text in (also or {}).items():
        (folder / other).write_text(text)
    starter = {".py": [sys.executable], ".sh": []}.get(Path(name).suffix, [str(node())])
    return run([*starter, str(folder / name)], root, key, "echo")
