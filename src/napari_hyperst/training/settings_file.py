"""Settings in a file or a word: YAML 1.2, where ``off`` and ``no`` are words and ``1e-3`` is a number."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.settings import YAML_1_2

#: Where in a file a setting is, by the names (and numbers, in a list) that lead to it.
Location = tuple[str | int, ...]
_AS_WHAT = "give settings as YAML, name: value; the command 'napari-hyperst settings' prints them all"


@dataclass(frozen=True)
class SettingsFile:
    """The settings that a file holds.

    Attributes
    ----------
    content
        The settings; of those within settings, dicts.
    lines
        The line of each, counted from 1.
    """

    content: dict[str, Any]
    lines: Mapping[Location, int] = field(default_factory=dict)


def read_settings_file(path: Path) -> SettingsFile:
    """Read settings.

    Parameters
    ----------
    path
        A file of YAML; with the suffix ``.json``, of JSON.

    Raises
    ------
    ConfigError
        If it cannot be read, is not valid, names a setting twice, or holds no settings by name; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=path, do="give a text file with settings") from error
    content, lines = _read_json(text, path) if path.suffix.lower() == ".json" else _read_yaml(text, path)
    if not isinstance({} if content is None else content, dict):
        raise ConfigError("holds no settings by name", where=path, do=_AS_WHAT)
    return SettingsFile(content or {}, lines)


def read_value(text: str) -> Any:
    """Read a value as it would stand in a file; what is no YAML is taken for text, as it is."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        return text


class _Loader(yaml.SafeLoader):
    """Reads plain words by YAML 1.2's core schema, not by 1.1, which has more than a dozen of them for a boolean."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read a whole number; in 1.1 a leading 0 makes it octal, and colons make it sexagesimal."""
        text = str(self.construct_scalar(node))
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


for _kind, (_pattern, _first) in YAML_1_2.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _read_json(text: str, path: Path) -> tuple[Any, dict[Location, int]]:
    try:
        return json.loads(text), {}
    except json.JSONDecodeError as error:
        raise ConfigError(f"is no JSON ({error.msg})", where=f"{path}:{error.lineno}", do="correct it") from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply", where=path, do=_AS_WHAT) from error


def _read_yaml(text: str, path: Path) -> tuple[Any, dict[Location, int]]:
    lines: dict[Location, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None, lines
            _survey(node, (), lines, set(), path)
            return loader.construct_document(node), lines
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = path if mark is None else f"{path}:{mark.line + 1}"
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError(f"is no YAML ({what})", where=where, do="correct it") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"is no YAML ({error.reason})", where=f"{path}:{line}", do="correct it") from error
    except ValueError as error:  # a tag that the value does not fit
        raise ConfigError(f"is no YAML ({error})", where=path, do="correct it") from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply", where=path, do=_AS_WHAT) from error


def _survey(node: yaml.Node, at: Location, lines: dict[Location, int], seen: set[int], path: Path) -> None:
    """Note the lines of settings, and refuse names that are none or come twice, which PyYAML lets pass."""
    if id(node) in seen:  # an alias; it may even lead back to where it stands
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*at, number)] = item.start_mark.line + 1
            _survey(item, (*at, number), lines, seen, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                shown = repr(key.value) if isinstance(key, yaml.ScalarNode) else "a list"
                raise ConfigError(f"{shown} is no name of a setting", where=f"{path}:{line}", do=_AS_WHAT)
            inner = (*at, str(key.value))
            if inner in lines:
                name = ".".join(map(str, inner))
                raise ConfigError(
                    f"{name} is set twice, first in line {lines[inner]}", where=f"{path}:{line}", do="set it once"
                )
            lines[inner] = line
            _survey(value, inner, lines, seen, path)
