"""The settings of a model one by one, for forms and files, and YAML that says what each of them is."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, get_args

import docstring_parser
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

#: Stands for the default of a setting that has none.
REQUIRED: Any = PydanticUndefined
#: Columns that a comment may take.
_WIDTH = 100
#: Plain words that a number, a truth or nothing in YAML 1.2 is written with (its core schema).
YAML_1_2 = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
#: Of a docstring: literals' marks, and pointers to the formulas.
_MARKUP = re.compile(r"``|\s\(METHODS [^)]*\)")
_TYPES = {"integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


@dataclass(frozen=True)
class Setting:
    """A setting of a model.

    Attributes
    ----------
    name
        Its name.
    description
        What it is, from the "Attributes" of the model's docstring, in plain text; those described together share it.
    default
        Its default, or ``REQUIRED``.
    schema
        Type and bounds, as JSON schema.
    models
        The models of the settings within it: several where there is a choice, none for a plain value. A setting
        whose schema is an array has a list of them.
    """

    name: str
    description: str
    default: Any
    schema: Mapping[str, Any] = field(repr=False)
    models: tuple[type[BaseModel], ...] = ()

    @property
    def allowed(self) -> str:
        """What values it takes, in words; empty where there is but one, or its models say."""
        return "" if self.models or "const" in self.schema else _in_words(self.schema)


def describe_settings(model: type[BaseModel]) -> list[Setting]:
    """Tell the settings of a model, in their order.

    Parameters
    ----------
    model
        A pydantic model with numpydoc docstrings.

    Returns
    -------
    list of Setting
        Those of the models within are in their ``models``, to be described in turn.
    """
    described: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        if issubclass(parent, BaseModel):
            described |= _attributes(parent)
    schemas = model.model_json_schema(by_alias=False)["properties"]
    return [
        Setting(
            name,
            described.get(name, ""),
            REQUIRED if info.is_required() else info.get_default(call_default_factory=True, validated_data={}),
            {key: value for key, value in schemas[name].items() if key not in ("default", "title")},
            tuple(_models(info.annotation)),
        )
        for name, info in model.model_fields.items()
    ]


def settings_as_yaml(
    settings: BaseModel, *, heading: str = "", elsewhere: Mapping[str, str] | None = None, comments: bool = True
) -> str:
    """Write settings as YAML that reads the same in YAML 1.1 and 1.2.

    Parameters
    ----------
    settings
        The settings.
    heading
        What to say before them.
    elsewhere
        Settings of the first level that are left to be given elsewhere, and how: they are written as a comment.
    comments
        Say above each setting what it is, and beside it what it takes and, where it is another, its default.

    Returns
    -------
    str
        Lines, each with its end.
    """
    lines = [f"# {line}".rstrip() for line in heading.splitlines()]
    lines += _lines(settings, dict(elsewhere or {}), comments)
    return "".join(f"{line}\n" for line in (lines if heading or lines[0] else lines[1:]))


def as_yaml(value: Any, *, block: bool = False) -> str:
    """Write plain data as YAML, so that neither version takes a text for something else.

    Parameters
    ----------
    value
        The data.
    block
        Give names, and things in a list that have parts themselves, lines of their own; else all is in one.

    Returns
    -------
    str
        Without an end of the last line.
    """
    style = None if block else True  # None leaves only the innermost in one line
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=style, sort_keys=False, width=2**20, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML takes for a number, a truth or nothing, and never leaves the line."""


for _tag, (_pattern, _first) in YAML_1_2.items():
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first)
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def _lines(settings: BaseModel, elsewhere: Mapping[str, str], comments: bool) -> Iterator[str]:
    values = settings.model_dump(mode="json")
    described = ""
    for setting in describe_settings(type(settings)):
        if comments and setting.description != described:
            described = setting.description
            yield from ("", *_comment(described))
        value = getattr(settings, setting.name)
        if setting.name in elsewhere:
            yield from [f"# {setting.name}: {elsewhere[setting.name]}"] * comments
        elif isinstance(value, BaseModel):
            yield f"{setting.name}:"
            inner = list(_lines(value, {}, comments))
            yield from (f"  {line}".rstrip() for line in (inner if inner[0] else inner[1:]))
        else:
            yield from _plain(setting, values[setting.name], comments)


def _plain(setting: Setting, value: Any, comments: bool) -> Iterator[str]:
    """Write a setting without settings of its own, on one line, or a line for each where a list has more than words."""
    if isinstance(value, list) and any(isinstance(item, list | dict) for item in value):
        if comments:
            for model in setting.models:
                yield from _items(model)
        yield f"{setting.name}:{_beside(setting.allowed, comments)}"
        yield from (f"  - {as_yaml(item)}" for item in value)
        return
    default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    told = setting.allowed
    if default is not REQUIRED and default != value and not setting.models:
        told += "; " * bool(told) + f"default {as_yaml(default)}"
    yield f"{setting.name}: {as_yaml(value)}{_beside(told, comments)}"


def _beside(told: str, comments: bool) -> str:
    return f"  # {told}" if told and comments else ""


def _items(model: type[BaseModel]) -> Iterator[str]:
    """Tell the settings of each thing in a list."""
    for (description, allowed), alike in groupby(describe_settings(model), lambda s: (s.description, s.allowed)):
        names = ", ".join(setting.name for setting in alike)
        yield from _comment(f"{names}: {description} {allowed}".strip(), "- ")


def _comment(text: str, bullet: str = "") -> list[str]:
    # What Python calls None, YAML calls null.
    words = re.sub(r"\bNone\b", "null", text)
    first, later = f"# {bullet}", f"# {' ' * len(bullet)}"
    return textwrap.wrap(
        words, _WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """Return what the model's own docstring says of its attributes."""
    own = inspect.cleandoc(model.__dict__.get("__doc__") or "")
    described: dict[str, str] = {}
    for entry in docstring_parser.parse(own, style=docstring_parser.DocstringStyle.NUMPYDOC).params:
        if entry.args[0] == "attribute":
            text = " ".join(_MARKUP.sub("", entry.description or "").split())
            described |= {name.strip(): text for name in entry.arg_name.split(",")}
    return described


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the models within an annotation: of a choice, a list, or the one it is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _in_words(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return _either([str(value) for value in schema["enum"]])
    if "anyOf" in schema:
        return _either([_in_words(choice) for choice in schema["anyOf"]])
    if schema.get("type") == "array":
        return _list_in_words(schema.get("items", {}))
    if schema.get("type") == "string":
        return "path" if schema.get("format") == "path" else "text"
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    idle = "exclusiveMinimum" if low is not None and above is not None and low > above else None
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema and key != idle]
    return f"{_TYPES.get(str(schema.get('type')), '')} {' and '.join(bounds)}".strip()


def _list_in_words(items: Mapping[str, Any]) -> str:
    if "prefixItems" in items:
        return f"pairs of {_in_words(items['prefixItems'][0])}"
    if "enum" in items:
        return f"any of {', '.join(map(str, items['enum']))}"
    return f"list of {_in_words(items)}"


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
