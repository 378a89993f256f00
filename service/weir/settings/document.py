"""weir.yaml as YAML: its values, and the line of each, so that what is wrong is said with its place."""

import re
from pathlib import Path
from typing import Any

import yaml

from weir.settings.problems import BadSettings, Path_, Problem, dotted

# What stands in a parser's sentence about signs, and is nothing of the file's own: '<block end>', ',' and the like.
YAMLS_OWN = frozenset(token.id for token in vars(yaml.tokens).values() if hasattr(token, "id"))


def read(path: Path) -> tuple[dict[str, Any], dict[Path_, int]]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings([Problem("", f"{path} cannot be read: {error}")]) from error
    try:
        document = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = _said(error)
        raise BadSettings([Problem("", f"not valid YAML: {what}", mark.line + 1 if mark else 0)]) from None
    except ValueError:  # of what looks like a date or a number, and is none
        raise BadSettings([Problem("", "not valid YAML: a date or number that there is not; quote it")]) from None
    except RecursionError:
        raise BadSettings([Problem("", "is nested too deeply to be a configuration")]) from None
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise BadSettings([Problem("", "the file must hold names and values, like 'server:' and 'models:'", 1)])
    lines: dict[Path_, int] = {}
    problems: list[Problem] = []
    try:
        _mark_lines(tree, (), lines, problems)
    except RecursionError:  # an anchor that holds itself
        raise BadSettings([Problem("", "holds itself, by an anchor")]) from None
    if problems:
        raise BadSettings(problems)
    return {str(name): value for name, value in document.items()}, lines


def _said(error: yaml.YAMLError) -> str:
    """A YAML parser's sentence without what it quotes: a secret that begins with * or ! is an alias or a tag to it."""
    problem = getattr(error, "problem", None) or "this is not YAML"
    begun = getattr(error, "context_mark", None)
    if "end of stream" in problem or "<stream end>" in problem:
        where = f" of line {begun.line + 1}" if begun else ""
        return f"the file ends before a [, a {{ or a quote{where} is closed"
    own = re.sub(r"'([^']*)'", lambda quoted: "" if quoted[1] in YAMLS_OWN else quoted[0], problem)
    shown = re.sub(r"(['\"]).{4,}\1", "...", own)
    if shown == own:
        return problem
    aside = "alias" in problem or "anchor" in problem or "tag" in problem
    return f"{shown}; put quotes around a text that begins with *, & or !" if aside else shown


def _mark_lines(node: yaml.Node | None, path: Path_, lines: dict[Path_, int], problems: list[Problem]) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for name, value in node.value:
            inner = (*path, str(name.value))
            lines[inner] = name.start_mark.line + 1
            if name.value in seen:
                problems.append(Problem(dotted(inner), "is given twice", lines[inner]))
            seen.add(name.value)
            _mark_lines(value, inner, lines, problems)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*path, number)] = value.start_mark.line + 1
            _mark_lines(value, (*path, number), lines, problems)
