"""Turns what pydantic says about a document into faults that a person without Python can mend.

What a field may hold is read from the JSON Schema of the model, so that a fault and the published schema cannot
disagree. Pure functions; the schema is made only when there is a fault.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from riskmill.checks import Fault, shown

type _Node = Mapping[str, Any]
type _Loc = Sequence[str | int]

#: A fault prints no more of an enumeration than this.
_MAX_CHOICES = 12

#: How a fault names the types of JSON Schema.
_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


def faults_of(error: ValidationError, file: str, model: type[BaseModel]) -> Iterator[Fault]:
    """Yield pydantic's errors about a `model` as faults, each with its place such as `deals[3].layers[0].layer_id`.

    A fault quotes the value and says what is allowed. An error that was made with a `ctx["allowed"]` of its own, and
    JSON that cannot be parsed, keep their wording.
    """
    schema = model.model_json_schema()
    for item in error.errors(include_url=False):
        loc = item["loc"]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")
        problem, allowed = _words(item["type"], item["msg"], loc, item["input"], item.get("ctx", {}), schema)
        yield Fault(file, None, place or None, problem, allowed)


def _words(
    kind: str, message: str, loc: _Loc, value: object, context: Mapping[str, Any], schema: _Node
) -> tuple[str, str | None]:
    """Return the problem and what is allowed."""
    if "allowed" in context:
        return message, str(context["allowed"])
    if kind == "json_invalid":
        return message, None
    if kind == "extra_forbidden":
        parent = _node(schema, loc[:-1])
        names = [*(parent or {}).get("properties", {})]
        near = difflib.get_close_matches(str(loc[-1]).strip().lower(), names, n=1, cutoff=0.6)
        return "is not a known field" + (f" (did you mean {near[0]}?)" if near else ""), ", ".join(names) or None
    node = _node(schema, loc)
    if node is None:
        return f"{_quoted(value)}: {message}", None
    if kind == "missing":
        what = str(node.get("description", "")).removesuffix(".")
        return "is missing" + (f": {what[0].lower()}{what[1:]}" if what else ""), _allowed(node)
    return f"{_quoted(value)} {_wrong(kind, value, context, node)}", _allowed(node)


def _wrong(kind: str, value: object, context: Mapping[str, Any], node: _Node) -> str:
    """Return what is wrong with a value, to stand behind it."""
    match kind:
        case "greater_than_equal":
            return f"is below {_number(context['ge'])}"
        case "greater_than":
            return f"is not above {_number(context['gt'])}"
        case "less_than_equal":
            return f"is above {_number(context['le'])}"
        case "less_than":
            return f"is not below {_number(context['lt'])}"
        case "string_too_short" | "string_too_long":
            return "is empty" if value == "" else f"has {len(str(value)):,} characters"
        case "too_short" | "too_long":
            return f"has {context['actual_length']:,} items"
        case "string_pattern_mismatch":
            return "is not written so"
        case "literal_error":
            return "is not known"
    quoted = node.get("type") in ("integer", "number") and isinstance(value, str) and _is_number(value)
    return f"is not {_kind(node)}" + ("; write it without quotes" if quoted else "")


def _node(schema: _Node, loc: _Loc) -> _Node | None:
    """Return the schema of the value at a place, None where the schema names none. A value or null: the value's."""
    node: Any = schema
    for part in (None, *loc):
        if isinstance(part, str):
            node = node.get("properties", {}).get(part)
        elif part is not None:
            node = node.get("items")
        while node is not None and ("$ref" in node or "anyOf" in node):
            if "anyOf" in node:
                within = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
                described = {name: node[name] for name in ("description",) if name in node}
                node = {**within[0], **described} if len(within) == 1 else None
            else:
                rest = {name: value for name, value in node.items() if name != "$ref"}
                node = {**schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], **rest}
        if node is None:
            return None
    return dict(node)


def _kind(node: _Node) -> str:
    if node.get("format") == "date":
        return "a date"
    return _KINDS.get(node.get("type", ""), "allowed")


def _allowed(node: _Node) -> str:
    """Say what a value may be, from its schema."""
    if "const" in node:
        return json.dumps(node["const"])
    if "enum" in node:
        choices = [str(choice) for choice in node["enum"]]
        if len(choices) <= _MAX_CHOICES:
            return ", ".join(choices)
        return f"one of {len(choices)} values such as {', '.join(map(str, node.get('examples', choices[:3])))}"
    match node.get("type"):
        case "integer" if "minimum" in node and "maximum" in node:
            return f"{_number(node['minimum'])} to {_number(node['maximum'])}"
        case "integer" | "number":
            signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
            bounds = [f"{sign} {_number(node[name])}" for name, sign in signs.items() if name in node]
            return " ".join([_kind(node), " and ".join(bounds)]).strip()
        case "string" if node.get("format") == "date":
            return "a date as YYYY-MM-DD"
        case "string" if "pattern" in node:
            return f"text that matches {node['pattern']}"
        case "string" if "maxLength" in node:
            shortest = node.get("minLength", 0)
            return (
                f"{shortest} to {node['maxLength']:,} characters"
                if shortest
                else f"up to {node['maxLength']:,} characters"
            )
        case "array" if "minItems" in node:
            return f"a list with at least {node['minItems']} item"
        case "object" if "properties" in node:
            return f"an object with {', '.join(node['properties'])}"
    return _kind(node)


def _number(value: float) -> str:
    """Return a bound as a person writes it: thousands separated, no superfluous decimals."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.15g}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _quoted(value: object) -> str:
    """Return a value as the document has it: a text in quotes, anything else as JSON."""
    if isinstance(value, str):
        return shown(value)
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
