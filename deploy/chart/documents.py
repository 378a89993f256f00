"""The chart's values.yaml is its documentation: from its comments come values.schema.json and the tables of README.md.

`make chart` writes both. A comment belongs to the name below it; `@schema {...}` in it is JSON Schema that wins over
what the default says of its type. A mapping whose names have comments is closed; one whose names have none is
Kubernetes' own and open. What stands under `config` is weir.yaml, and its schema is that of `weir.settings`.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from weir.settings import Settings

CHART = Path(__file__).parents[2] / "helm" / "weir"
DRAFT = "http://json-schema.org/draft-07/schema#"  # the newest that every Helm 3 knows
TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
NOT_FOR_VALUES = ("default", "title", "description", "format", "writeOnly")
BEGIN, END = "<!-- {name}: made by `make chart` -->", "<!-- {name}: end -->"


class Undocumented(Exception):
    """A name without a comment, or a default that does not say its type."""


@dataclass(slots=True)
class Value:
    """A name of values.yaml."""

    path: tuple[str, ...]
    default: Any
    text: str
    schema: dict[str, Any]
    inner: list["Value"] = field(default_factory=list)

    @property
    def name(self) -> str:
        return ".".join(self.path)


def values(text: str) -> list[Value]:
    """All of values.yaml, as a tree.

    Raises:
        Undocumented: at the first name that says nothing.

    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return list(_values(root, text.splitlines(), (), yaml.safe_load(text)))


def _values(node: yaml.Node, lines: list[str], above: tuple[str, ...], defaults: dict[str, Any]) -> Iterator[Value]:
    for name, value in node.value:
        path = (*above, name.value)
        comment, schema = _comment(lines, name.start_mark)
        if not comment:
            raise Undocumented(f"{'.'.join(path)} has no comment")
        found = Value(path, defaults[name.value], comment, schema)
        documented = isinstance(value, yaml.MappingNode) and any(
            _comment(lines, inner.start_mark)[0] for inner, _ in value.value if not value.flow_style
        )
        if documented:
            found.inner = list(_values(value, lines, path, found.default))
        elif found.default is None and "type" not in schema:
            raise Undocumented(f"{found.name} is null, and no @schema says what else it may be")
        yield found


def _comment(lines: list[str], mark: yaml.Mark) -> tuple[str, dict[str, Any]]:
    """What stands directly above, at the same depth."""
    text: list[str] = []
    schema: dict[str, Any] = {}
    number = mark.line - 1
    while number >= 0 and (found := re.fullmatch(rf" {{{mark.column}}}# ?(.*)", lines[number])):
        if found[1].startswith("@schema "):
            schema = yaml.safe_load(found[1].removeprefix("@schema ")) | schema
        else:
            text.insert(0, found[1])
        number -= 1
    return " ".join(text), schema


# -- values.schema.json ----------------------------------------------------------------------------------------------


def schema(tree: list[Value]) -> dict[str, Any]:
    """What Helm refuses before any template sees it."""
    found = _closed(tree)
    # A chart that has this one below it may switch it by a condition, and then Helm hands the switch down.
    found["properties"]["enabled"] = {"type": "boolean", "description": "For the condition of a chart above."}
    return {"$schema": DRAFT, "title": "Values of the chart weir", **found, "definitions": _settings()}


def _closed(tree: list[Value]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.path[-1]: _schema(value) for value in tree},
    }


def _schema(value: Value) -> dict[str, Any]:
    described = {"description": value.text}
    extra = dict(value.schema)
    if model := extra.pop("settings", None):
        return described | {"$ref": f"#/definitions/{model}"}
    if value.inner:
        return described | _closed(value.inner) | extra
    if "type" not in extra and "enum" not in extra:
        described["type"] = TYPES[type(value.default)]
    return described | extra


def _settings() -> dict[str, Any]:
    """The schema of weir.yaml, without what only a validator can say, which `weir check` does."""
    whole = Settings.model_json_schema()
    definitions = whole.pop("$defs")
    definitions["Settings"] = whole
    # validate.yaml refuses what is no digest, in a sentence that does not print what may be a key.
    del definitions["KeySettings"]["properties"]["digest"]["pattern"]
    return {name: _bare(one) for name, one in sorted(definitions.items())}


def _bare(found: Any) -> Any:
    if isinstance(found, list):
        return [_bare(one) for one in found]
    if not isinstance(found, dict):
        return found
    bare = {}
    for name, one in found.items():
        if name == "properties":
            bare[name] = {key: _bare(value) for key, value in one.items()}
        elif name == "$ref":
            bare[name] = one.replace("#/$defs/", "#/definitions/")
        elif name not in NOT_FOR_VALUES:
            bare[name] = _bare(one)
    return bare


# -- README.md -------------------------------------------------------------------------------------------------------


def values_table(tree: list[Value]) -> str:
    return _table(
        ("value", "default", "what it is"),
        ((f"`{one.name}`", "" if one.inner else _code(one.default), one.text) for one in _all(tree)),
    )


def _all(tree: list[Value]) -> Iterator[Value]:
    for value in tree:
        yield value
        yield from _all(value.inner)


def settings_table() -> str:
    whole = Settings.model_json_schema()
    rows = _settings_rows(whole, whole["$defs"], "config")
    return _table(("name", "type", "default"), rows)


def _settings_rows(model: dict[str, Any], models: dict[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
    for name, one in model["properties"].items():
        path = f"{above}.{name}"
        inner, many = _model_below(one, models)
        if inner:
            yield from _settings_rows(inner, models, path + many)
            continue
        default = "" if name in model.get("required", ()) else _code(one.get("default"))
        yield f"`{path}`", _type(one), default or "required"


def _model_below(one: dict[str, Any], models: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
    places = [(one, ""), (one.get("items", {}), "[]"), *((part, "") for part in one.get("anyOf", ()))]
    for place, many in places:
        if "$ref" in place:
            return models[place["$ref"].rpartition("/")[2]], many
    return None, ""


def _type(one: dict[str, Any]) -> str:
    if "enum" in one:
        return ", ".join(f"`{choice}`" for choice in one["enum"])
    if "anyOf" in one:
        return " or ".join(_type(part) for part in one["anyOf"])
    bounds = [f"{sign} {one[name]:g}" for name, sign in (
        ("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="),
    ) if name in one]  # fmt: skip
    kind = one.get("type", "any")
    if kind == "array":
        kind = f"array of {_type(one['items'])}"
    return " ".join([kind, ", ".join(bounds)]).strip()


def _code(value: Any) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _filled(readme: str, name: str, table: str) -> str:
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, found, rest = readme.partition(begin)
    if not found or end not in rest:
        raise Undocumented(f"README.md has no place for {name}")
    return f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"


def made() -> dict[Path, str]:
    """Every file that is made, and what it should hold."""
    tree = values((CHART / "values.yaml").read_text())
    readme = (CHART / "README.md").read_text()
    for name, table in (("values", values_table(tree)), ("settings", settings_table())):
        readme = _filled(readme, name, table)
    return {
        CHART / "README.md": readme,
        CHART / "values.schema.json": json.dumps(schema(tree), indent=1, ensure_ascii=False) + "\n",
    }
