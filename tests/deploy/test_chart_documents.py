"""What is said about the chart, without Helm: made files are as made, sentences have tests, values are used."""

import re

import pytest
import yaml

from deploy.chart.documents import Undocumented, Value, made, values
from tests.deploy.helm import CHART, EXAMPLES
from tests.system.harness import ROOT
from weir import __version__

TEMPLATES = sorted(path for path in (CHART / "templates").rglob("*") if path.is_file())
TEXT = {path: path.read_text() for path in TEMPLATES}
TREE = values((CHART / "values.yaml").read_text())
SENTENCE = re.compile(r'append \$problems (?:\(printf )?"((?:[^"\\]|\\.)*)"')
USED = re.compile(r"\.Values((?:\.\w+)+)")


def every(tree: list[Value]) -> list[Value]:
    return [one for value in tree for one in (value, *every(value.inner))]


@pytest.mark.parametrize("path", made(), ids=lambda path: path.name)
def test_what_is_made_is_as_made(path: object) -> None:
    assert path.read_text() == made()[path], "`make chart` writes it anew"  # type: ignore[attr-defined]


def test_every_sentence_has_its_test() -> None:
    """Each as the user reads it, with values in its places."""
    suite = yaml.safe_load((CHART / "tests" / "validate_test.yaml").read_text())
    told = [
        re.sub(r"\\(.)", r"\1", check["failedTemplate"]["errorPattern"])
        for test in suite["tests"]
        for check in test["asserts"]
        if "failedTemplate" in check
    ]
    sentences = SENTENCE.findall(TEXT[CHART / "templates" / "validate.yaml"])
    assert len(sentences) == TEXT[CHART / "templates" / "validate.yaml"].count("append $problems")
    for sentence in sentences:
        text = sentence.replace('\\"', '"')
        pattern = re.escape(text).replace("%%", "\0")
        pattern = re.sub(r"%[sdv]", ".+", pattern).replace("\0", "%")
        assert any(re.fullmatch(pattern, one) for one in told), text
        assert text.endswith("."), "a sentence"


def test_every_value_is_used_and_every_use_is_a_value() -> None:
    names = {one.name for one in every(TREE)}
    leaves = {one.name for one in every(TREE) if not one.inner}
    used = {found.removeprefix(".") for text in TEXT.values() for found in USED.findall(text)}
    for use in used:
        parts = use.split(".")
        known = {".".join(parts[:n]) for n in range(1, len(parts) + 1)} & names
        # What stands below a leaf is Kubernetes' own; below `config`, Weir's.
        assert use in names or known & leaves or parts[0] == "config", f".Values.{use} is no value"
    text = "\n".join(TEXT.values())
    for one in every(TREE):
        if one.path[0] != "config":
            assert re.search(rf"\b{one.path[-1]}\b", text), f"{one.name} is used by no template"


def test_a_value_without_a_word_is_refused() -> None:
    with pytest.raises(Undocumented, match=r"b\.d has no comment"):
        values("# One.\na: 1\n# Two.\nb:\n  # Three.\n  c: 1\n  d: 2\n")
    with pytest.raises(Undocumented, match="a is null, and no @schema"):
        values("# One.\na: null\n")


def test_comments_are_sentences() -> None:
    for one in every(TREE):
        assert one.text[0].isupper() or one.text.startswith(("`", "/", "weir.yaml")), one.name
        assert one.text.endswith("."), one.name


def test_versions_are_those_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == __version__
    assert "dependencies" not in chart, "`helm lint` would need a network"


def test_the_namespace_is_written_in_one_place() -> None:
    """Where every object takes it from; dashboards may go to Grafana's, and notes and queries only name it."""
    found = {path.name for path, text in TEXT.items() if ".Release.Namespace" in text}
    assert found == {"_helpers.tpl", "dashboards.yaml", "scaledobject.yaml", "NOTES.txt"}


def test_no_template_is_longer_than_a_person_reads() -> None:
    assert {path.name: text.count("\n") for path, text in TEXT.items() if text.count("\n") > 230} == {}


def test_nothing_comes_from_where_images_have_gone() -> None:
    """Free images of that house ended in August 2025; what is left there is frozen and unpatched."""
    gone = "bit" + "nami"
    for folder in (ROOT / "helm", EXAMPLES):
        for path in folder.rglob("*"):
            if path.is_file():
                assert gone not in path.read_text().lower(), path
