"""What is in .github, and what the pages beside it promise: pinned, with the least rights, bounded in time, and nothing
but what anybody can run. Most of it needs no tool; actionlint (`make tools`) and zizmor look at the same files.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.deploy.helm import tool
from tests.system.harness import ROOT, clean_environment

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").iterdir())
PAGES = [ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md"]
SHORT = 3  # lines of a step that is more than a target; longer ones are a file that can be run anywhere

# Whole lines that are no more than a target or a script of ours.
PLAIN = re.compile(r"(?:make|\.ci/[a-z-]+)(?: .*)?")
PINNED = re.compile(r"[\w.-]+(?:/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
OURS = re.compile(r"\./\.github/workflows/[a-z]+\.yaml")
# Contexts that nobody from outside can choose. All else reaches a shell through `env`.
HARMLESS = re.compile(r"\$\{\{ (?:matrix\.\w+) \}\}")


class Step(NamedTuple):
    workflow: str
    job: str
    step: dict[str, Any]

    @property
    def script(self) -> str:
        return str(self.step.get("run", ""))


@cache
def workflow(path: Path) -> dict[str, Any]:
    # In YAML 1.1 the word `on` is true.
    return {("on" if key is True else key): value for key, value in yaml.safe_load(path.read_text()).items()}


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(path)["jobs"]
    return found


def steps() -> Iterator[Step]:
    for path in WORKFLOWS:
        for name, job in jobs(path).items():
            for step in job.get("steps", ()):
                yield Step(path.name, name, step)


STEPS = list(steps())
JOBS = [pytest.param(job, id=f"{path.stem}-{name}") for path in WORKFLOWS for name, job in jobs(path).items()]
EACH = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


# Who may do what


@EACH
def test_actions_are_pinned_by_commit_and_say_their_version(path: Path) -> None:
    found = re.findall(r"^\s*(?:- )?uses: *(.*)$", path.read_text(), re.MULTILINE)
    assert found
    assert [uses for uses in found if not (PINNED.fullmatch(uses) or OURS.fullmatch(uses))] == []


def test_an_action_is_one_commit_everywhere() -> None:
    used = {step.step["uses"] for step in STEPS if "uses" in step.step}
    repositories = ["/".join(uses.partition("@")[0].split("/")[:2]) + "@" + uses.partition("@")[2] for uses in used]
    names = [one.partition("@")[0] for one in set(repositories)]
    assert sorted(names) == sorted(set(names))


@EACH
def test_a_workflow_may_nothing_and_its_jobs_what_they_name(path: Path) -> None:
    assert workflow(path)["permissions"] == {}
    for name, job in jobs(path).items():
        assert set(job["permissions"].values()) <= {"read", "write"}, name
        if "steps" in job and any("checkout" in step.get("uses", "") for step in job["steps"]):
            assert "contents" in job["permissions"], name


@EACH
def test_whoever_proposes_a_change_gets_no_right_to_write(path: Path) -> None:
    """Jobs that write say themselves when they run, and never for a pull request; CodeQL may report."""
    triggers = workflow(path)["on"]
    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)
    if "pull_request" not in triggers:
        return
    for name, job in jobs(path).items():
        writes = {right for right, degree in job["permissions"].items() if degree == "write"}
        if writes - {"security-events"}:
            assert "github.event_name == 'push'" in job.get("if", ""), name


def test_no_job_holds_a_secret_of_ours() -> None:
    """GitHub's own token is enough; only what pushes, or announces, sees it."""
    for path in WORKFLOWS:
        assert "secrets" not in re.sub(r"#.*", "", path.read_text()), path.name
    seeing = {(step.workflow, step.job) for step in STEPS if "github.token" in json.dumps(step.step)}
    assert seeing == {("image.yaml", "publish"), ("chart.yaml", "publish"), ("release.yaml", "github")}


def test_a_checkout_leaves_no_token_behind() -> None:
    found = [step for step in STEPS if step.step.get("uses", "").startswith("actions/checkout@")]
    assert len(found) > len(WORKFLOWS)
    assert [step[:2] for step in found if step.step.get("with", {}).get("persist-credentials") is not False] == []


def test_what_has_pypis_trust_runs_nothing_else() -> None:
    """Neither a checkout nor a build nor a shell: nobody's code is in the process that publishes."""
    job = jobs(GITHUB / "workflows" / "release.yaml")["pypi"]
    assert job["permissions"] == {"id-token": "write"}
    assert job["environment"]["name"] == "pypi"
    assert [step["uses"].partition("@")[0] for step in job["steps"]] == [
        "actions/download-artifact", "pypa/gh-action-pypi-publish",
    ]  # fmt: skip


def test_nothing_goes_out_before_it_is_proven() -> None:
    release = jobs(GITHUB / "workflows" / "release.yaml")

    def before(name: str) -> set[str]:
        needs = release[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(before, direct))

    assert before("pypi") == {"ready", "check", "image", "chart", "dist"}
    assert before("github") == {"pypi", *before("pypi")}
    for name in ("image", "chart"):
        assert "check" in before(name)
        needs = jobs(GITHUB / "workflows" / f"{name}.yaml")["publish"]["needs"]
        proofs = set(jobs(GITHUB / "workflows" / f"{name}.yaml")) - {"publish"}
        assert ({needs} if isinstance(needs, str) else set(needs)) == proofs


def test_no_run_uses_what_another_left_behind() -> None:
    """A cache that a proposed change may write, and a release reads, is a way in."""
    for step in STEPS:
        name, given = step.step.get("uses", "").partition("@")[0], step.step.get("with", {})
        assert "cache" not in name, step[:2]
        if name == "actions/setup-go":
            assert given.get("cache") is False, step[:2]
        elif name == "docker/setup-buildx-action":
            assert given.get("cache-binary") is False, step[:2]
        else:
            assert not [key for key in given if "cache" in key], step[:2]


# How long, and how often at once


@pytest.mark.parametrize("job", JOBS)
def test_a_job_ends(job: dict[str, Any]) -> None:
    """One that calls a workflow has that one's times."""
    if "uses" not in job:
        assert 0 < job["timeout-minutes"] <= 90


@EACH
def test_of_one_kind_one_runs_at_a_time(path: Path) -> None:
    """By its own name: `github.workflow` is the caller's in a workflow that is called, which would wait for itself."""
    group = workflow(path)["concurrency"]["group"]
    assert re.fullmatch(rf"{path.stem}(-\$\{{\{{ github\.ref \}}\}})?", group)


# What runs


def test_nothing_from_outside_stands_in_a_script() -> None:
    assert [step for step in STEPS if "${{" in HARMLESS.sub("", step.script)] == []


def test_a_script_is_a_target_or_short() -> None:
    long = []
    for step in STEPS:
        lines = [line for line in step.script.splitlines() if line.strip()]
        if not all(PLAIN.fullmatch(line) for line in lines) and len(lines) > SHORT:
            long.append((step.workflow, step.job, lines))
    assert long == []


def test_every_target_and_file_that_is_called_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = {target for step in STEPS for target in called_in(step.script)}
    assert {"tools", "test", "image", "image-test", "kind", "dist", "soak", "speed"} <= called
    assert called <= targets
    files = {name for step in STEPS for name in re.findall(r"(?<!\S)\.ci/[\w-]+", step.script)}
    assert {".ci/run", ".ci/publish-image", ".ci/publish-chart", ".ci/release-notes"} == files
    assert [name for name in files if not os.access(ROOT / name, os.X_OK)] == []


def called_in(script: str) -> Iterator[str]:
    for words in re.findall(r"(?:^|\s)(?:make|\.ci/run)((?: [a-z-]+(?![^\s]))*)", script, re.MULTILINE):
        yield from words.split()


def test_every_python_that_we_promise_is_checked() -> None:
    pythons = jobs(GITHUB / "workflows" / "check.yaml")["check"]["strategy"]["matrix"]["python"]
    least = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert least
    assert pythons[0] == least[1]
    assert pythons == [f"3.{minor}" for minor in range(11, 11 + len(pythons))]


# What other programs say of it


def said_by(*command: str | Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT, env=clean_environment(NO_COLOR="1"), capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else f"{done.returncode}: {done.stdout}{done.stderr}"


def zizmor() -> str:
    found = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    if not found:
        pytest.skip("needs zizmor: a newer environment has it")
    return found


def test_actionlint_finds_nothing() -> None:
    assert said_by(tool("actionlint"), "-no-color", "-shellcheck=", "-pyflakes=", *WORKFLOWS) == ""


def test_zizmor_finds_nothing() -> None:
    assert (
        said_by(zizmor(), "--offline", "--no-progress", "--persona=auditor", "--config", GITHUB / "zizmor.yml", GITHUB)
        == ""
    )


# Shell of ours, and what it does


@pytest.mark.parametrize(
    "script",
    [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / ".ci").iterdir())]
    + ["deploy/tools.sh", "deploy/kind/run.sh"],
)
def test_a_script_can_be_read_and_stops_at_what_fails(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert said_by("bash", "-n", path) == ""
    assert re.search(r"^set -e?uo pipefail$", path.read_text(), re.MULTILINE)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What the scripts read, as it is at a release."""
    for name in ("pyproject.toml", "service/weir/__init__.py", "helm/weir/Chart.yaml", "Dockerfile", "Makefile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    shutil.copy(ROOT / "requirements-dev.lock", tmp_path)
    for name in ("pyproject.toml", "service/weir/__init__.py", "helm/weir/Chart.yaml"):
        path = tmp_path / name
        path.write_text(
            re.sub(r'(?m)^((?:version|appVersion|__version__)[ =:]+"?)[\d.]+', r"\g<1>3.2.1", path.read_text())
        )
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## 3.2.1 (2027-01-02)\n\n* New.\n\n## 3.2.0 (2026-12-01)\n\n* Old.\n"
    )
    return tmp_path


def run(checkout: Path, script: str, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join([*([str(path)] if path else []), os.environ["PATH"]])
    return subprocess.run(
        [checkout / ".ci" / script, *arguments],
        env=clean_environment(PATH=search), capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_release_notes_are_the_changelogs_words(checkout: Path) -> None:
    done = run(checkout, "release-notes", "3.2.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "* New.\n\n"


@pytest.mark.parametrize(
    ("file", "was", "now", "sentence"),
    [
        ("CHANGELOG.md", "(2027-01-02)", "(unreleased)", "has no date"),
        ("CHANGELOG.md", "## 3.2.1", "## 3x2.1", "does not know it"),
        ("pyproject.toml", '"3.2.1"', '"3.2.2"', "version of pyproject.toml"),
        ("service/weir/__init__.py", "3.2.1", "3.2.2", "__version__ of service"),
        ("helm/weir/Chart.yaml", "\nversion: 3.2.1", "\nversion: 3.2.2", "version of helm"),
        ("helm/weir/Chart.yaml", "appVersion: 3.2.1", "appVersion: 3.2.2", "appVersion of helm"),
    ],
)
def test_a_release_that_is_not_ready_is_refused(checkout: Path, file: str, was: str, now: str, sentence: str) -> None:
    path = checkout / file
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, now, 1))
    done = run(checkout, "release-notes", "3.2.1")
    assert done.returncode == 1
    assert sentence in done.stderr


DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate(("base", "image", "chart"), start=10)}


@pytest.fixture
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docker, helm and cosign that write down how they were called, and answer as the real ones would."""
    folder = tmp_path_factory.mktemp("programs")
    for name, answer in {
        "docker": f"""case "$*" in
            *inspect*) echo '{{"digest": "{DIGESTS["base"]}"}}' ;;
            *--metadata-file*) echo '{{"containerimage.digest": "{DIGESTS["image"]}"}}' >build/image.json ;;
            esac""",
        "helm": f"""[ "$1" != push ] || printf 'Pushed: there\\nDigest: {DIGESTS["chart"]}\\n' >&2""",
        "cosign": "true",
    }.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>"{folder}/calls"\n{answer}\n')
        program.chmod(0o755)
    return folder


def calls(played: Path) -> list[str]:
    return (played / "calls").read_text().splitlines()


def test_an_image_is_built_on_a_digest_and_signed_by_its_own(checkout: Path, played: Path) -> None:
    done = run(checkout, "publish-image", "registry.example/weir-gateway/weir:3.2.1", path=played)
    assert done.returncode == 0, done.stderr
    inspected, built, signed = calls(played)
    base = re.search(r"^ARG BASE=([^@\s]+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    assert base[1] in inspected
    for part in (
        f"--build-arg BASE={base[1]}@{DIGESTS['base']}", "-t registry.example/weir-gateway/weir:3.2.1", "--build-arg VERSION=3.2.1",
        "--platform linux/amd64,linux/arm64", "--sbom=true", "--provenance=mode=max", "--push",
    ):  # fmt: skip
        assert part in built
    assert signed == f"cosign sign --yes registry.example/weir-gateway/weir@{DIGESTS['image']}"


def test_an_image_without_a_digest_is_not_signed(checkout: Path, played: Path) -> None:
    (played / "docker").write_text("#!/bin/sh\necho '{}'\n")
    assert run(checkout, "publish-image", "registry.example/weir-gateway/weir:3.2.1", path=played).returncode != 0
    assert not (played / "calls").exists()


def test_a_chart_is_signed_by_its_digest(checkout: Path, played: Path) -> None:
    done = run(checkout, "publish-chart", "registry.example/weir-gateway/charts", path=played)
    assert done.returncode == 0, done.stderr
    assert calls(played) == [
        "helm package helm/weir --destination build",
        "helm push build/weir-3.2.1.tgz oci://registry.example/weir-gateway/charts",
        f"cosign sign --yes registry.example/weir-gateway/charts/weir@{DIGESTS['chart']}",
    ]


def test_a_chart_that_was_not_taken_is_not_signed(checkout: Path, played: Path) -> None:
    (played / "helm").write_text('#!/bin/sh\n[ "$1" != push ] || { echo denied >&2; exit 1; }\n')
    done = run(checkout, "publish-chart", "registry.example/weir-gateway/charts", path=played)
    assert done.returncode == 1
    assert "denied" in done.stderr
    assert not (played / "calls").exists()


# What the pages say


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_whatever_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
    paths = {
        word
        for word in re.findall(r"`([^`\s]+)`", text)
        if re.fullmatch(r"\.?[\w.-]+/[\w./-]*[\w/]|[\w-]+\.(?:toml|md|yaml)", word)
    }
    named = {name for name in links | paths if name != "weir.yaml"}
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_target_that_a_page_names_is_there(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def test_every_risk_has_its_row() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| **")]
    assert [row[0].split("**")[1] for row in rows] == [
        *(f"API{number}" for number in range(1, 11)), *(f"LLM{number:02}" for number in range(1, 11)),
    ]  # fmt: skip
    for row in rows:
        assert len(row) == 4, row[0]
        assert row[1].startswith("nothing here") or row[2], f"{row[0]}: where?"
        assert not row[1].startswith("nothing here") or row[3], f"{row[0]}: whose is it then?"


def test_signatures_are_of_the_workflows_that_sign() -> None:
    """What `cosign verify` is told to expect, and who calls cosign, on what tags."""
    text = (ROOT / "SECURITY.md").read_text()
    expected = set(re.findall(r"--certificate-identity (\S+)", text))
    signing = {step.workflow for step in STEPS if "publish-" in step.script}
    prefix = "https://github.com/weir-gateway/weir/.github/workflows/"
    assert expected == {f"{prefix}{name}@refs/tags/v$VERSION" for name in signing}
    assert workflow(GITHUB / "workflows" / "release.yaml")["on"] == {"push": {"tags": ["v[0-9]+.[0-9]+.[0-9]+"]}}
    called = {job["uses"] for job in jobs(GITHUB / "workflows" / "release.yaml").values() if "uses" in job}
    assert {f"./.github/workflows/{name}" for name in signing} < called


@pytest.mark.parametrize("name", ["bug", "question"])
def test_whoever_asks_is_asked_for_version_and_check(name: str) -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    fields = {field["id"]: field["attributes"] for field in form["body"] if "id" in field}
    assert "weir --version" in fields["version"]["description"]
    assert "weir check" in fields["check"]["label"]


def test_owners_own_what_there_is() -> None:
    lines = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0][0] == "*"
    for pattern, *owners in lines:
        assert owners
        assert [*ROOT.glob(pattern.strip("/"))], pattern


def test_renovate_waits_and_makes_the_locks_anew() -> None:
    text = (GITHUB / "renovate.json5").read_text()
    assert 'minimumReleaseAge: "7 days"' in text
    assert 'commands: ["make lock"]' in text
    pattern = re.search(r'matchStrings: \["(.*)"\]', text)
    assert pattern
    found = re.compile(pattern[1].replace("\\\\", "\\").replace("(?<", "(?P<")).findall(
        (ROOT / "deploy/tools.sh").read_text()
    )
    assert len(found) == len(re.findall(r"^[A-Z_]+=v", (ROOT / "deploy/tools.sh").read_text(), re.MULTILINE)) > 0


def test_licence_and_changelog_are_there() -> None:
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
    assert (ROOT / "CHANGELOG.md").read_text().startswith("# Changelog\n")
