"""Tools of a Responses request as functions, the only tools that chat engines know, and back to what they were.

A `custom` tool takes free text: it becomes a function with one string, `input`. A tool in a `namespace` becomes a
function named for both. What the platform itself would run (a search, a shell, a computer) is refused by name.
"""

from typing import Any, NamedTuple

from weir.core.errors import InvalidValue
from weir.dialect.responses.fields import Fields, a_list, an_object, member, only, optional, refuse

INPUT = "input"  # the one argument of a custom tool's function
# Who may call it, when it is loaded and what it gives back: a chat engine offers every function to the model at once.
_HINTS = {"allowed_callers", "defer_loading", "output_schema"}
_FUNCTION = {"type", "name", "description", "parameters", "strict"} | _HINTS
_CUSTOM = {"type", "name", "description", "format"} | _HINTS
_NAMESPACE = {"type", "name", "description", "tools"}
_INSTEAD = {
    "web_search": ' In Codex CLI: web_search = "disabled" in config.toml.',
    "local_shell": " Offer a function that runs the command instead.",
    "shell": " Offer a function that runs the command instead.",
    "apply_patch": " Offer apply_patch as a custom tool or a function instead.",
    "mcp": " Connect to the MCP server from the client and offer its tools as functions.",
}


class Tool(NamedTuple):
    """What a function of the chat request was called in the Responses request."""

    name: str
    namespace: str | None = None
    custom: bool = False


def full_name(fields: Fields, where: str) -> str:
    """Of a call or a choice, as its function is named in chat."""
    name = member(fields, "name", where)
    return _joined(optional(fields, "namespace", where), name)


def _joined(namespace: str | None, name: str) -> str:
    return f"{namespace}__{name}" if namespace else name


class Toolbox:
    """The tools that a request offers; `functions` are those of the chat request."""

    def __init__(self) -> None:
        self.functions: list[Fields] = []
        self._tools: dict[str, Tool] = {}

    def offer(self, tools: object, where: str) -> None:
        for index, tool in enumerate(a_list(tools, where)):
            at = f"{where}[{index}]"
            fields = an_object(tool, at)
            if fields.get("type") == "namespace":
                self._offer_namespace(fields, at)
            else:
                self._offer_one(fields, None, at)

    def called(self, function: str) -> Tool:
        """A model may call what nobody offered; then it is a function of that name."""
        return self._tools.get(function) or Tool(function)

    def choose(self, choice: object) -> tuple[list[Fields], Any]:
        """The functions that the model may use, and chat's `tool_choice`."""
        if choice is None or choice in ("auto", "none", "required"):
            return self.functions, choice
        where = "tool_choice"
        fields = an_object(choice, where)
        if fields.get("type") != "allowed_tools":
            return self.functions, {"type": "function", "function": {"name": self._named(fields, where)}}
        # Engines know no `allowed_tools`: offering no others comes to the same.
        only({"type", "mode", "tools"}, fields, where)
        mode = member(fields, "mode", where)
        allowed = {
            self._named(an_object(tool, f"{where}.tools[{index}]"), f"{where}.tools[{index}]")
            for index, tool in enumerate(a_list(fields.get("tools"), f"{where}.tools"))
        }
        return [function for function in self.functions if function["function"]["name"] in allowed], mode

    def _named(self, choice: Fields, where: str) -> str:
        kind = choice.get("type")
        if kind not in ("function", "custom"):
            raise _not_run_here(kind, f"{where}.type")
        only({"type", "name", "namespace"}, choice, where)
        name = full_name(choice, where)
        if name not in self._tools:
            raise InvalidValue(f"{where}: no tool of the name '{name}' is offered in 'tools'.", param=where)
        return name

    def _offer_namespace(self, fields: Fields, where: str) -> None:
        only(_NAMESPACE, fields, where)
        name = member(fields, "name", where)
        first = len(self.functions)
        for index, tool in enumerate(a_list(fields.get("tools"), f"{where}.tools")):
            self._offer_one(an_object(tool, f"{where}.tools[{index}]"), name, f"{where}.tools[{index}]")
        about = optional(fields, "description", where)
        if about and len(self.functions) > first:
            # Chat has no groups: what is said of all of them is said once, with the first.
            function = self.functions[first]["function"]
            function["description"] = "\n\n".join(filter(None, [f"{name}: {about}", function.get("description")]))

    def _offer_one(self, fields: Fields, namespace: str | None, where: str) -> None:
        kind = fields.get("type")
        if kind == "function":
            only(_FUNCTION, fields, where)
            given = {
                name: fields[name] for name in ("description", "parameters", "strict") if fields.get(name) is not None
            }
        elif kind == "custom":
            only(_CUSTOM, fields, where)
            given = _takes_text(fields, where)
        else:
            raise _not_run_here(kind, f"{where}.type")
        name = member(fields, "name", where)
        function = _joined(namespace, name)
        if function in self._tools:
            raise refuse(f"a second tool of the name '{function}'. Each needs its own name.", where)
        self._tools[function] = Tool(name, namespace, kind == "custom")
        self.functions.append({"type": "function", "function": {"name": function, **given}})


def _takes_text(fields: Fields, where: str) -> Fields:
    form = an_object(fields.get("format") or {"type": "text"}, f"{where}.format")
    says = [about] if (about := optional(fields, "description", where)) else []
    text: Fields = {"type": "string", "description": "The tool's whole input, as plain text."}
    if form.get("type") == "grammar":
        # No engine holds a function's argument to a grammar, so the model is told.
        syntax, definition = member(form, "syntax", f"{where}.format"), member(form, "definition", f"{where}.format")
        text["description"] = "The tool's whole input, as plain text that follows the grammar."
        says.append(f"The input has to follow this {syntax} grammar:\n{definition}")
    elif form.get("type") != "text":
        raise refuse(f"the format '{form.get('type')}' is not understood. Use text or grammar.", f"{where}.format")
    parameters = {"type": "object", "properties": {INPUT: text}, "required": [INPUT], "additionalProperties": False}
    return {**({"description": "\n\n".join(says)} if says else {}), "parameters": parameters}


def _not_run_here(kind: object, where: str) -> InvalidValue:
    family = str(kind).removesuffix("_preview")
    return InvalidValue(
        f"{where}: '{kind}' is a tool of OpenAI's own platform, which the model behind this endpoint is not on. "
        f"Offer tools of the type function or custom.{_INSTEAD.get(family, '')}",
        param=where,
    )
