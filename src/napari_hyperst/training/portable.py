"""Names and settings without the folders of the machine that they are from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


def portable(value: Any) -> Any:
    """Return plain data with ``portable_name`` for each text in it."""
    if isinstance(value, str):
        return portable_name(value)
    if isinstance(value, Mapping):
        return {key: portable(inner) for key, inner in value.items()}
    return [portable(inner) for inner in value] if isinstance(value, list | tuple) else value


def portable_name(name: str) -> str:
    """Return a name as it is, but of a path from the root or the home its last name.

    Of an encoder's ``architecture@path``, the path is told by its last name as well, by which another machine finds it.
    """
    base, at, path = name.partition("@")
    if at and ("/" in path or "\\" in path):
        return f"{base}@{last_name(path)}"
    windows = PureWindowsPath(name)
    rooted = name.startswith("~") or PurePosixPath(name).is_absolute() or bool(windows.drive and windows.root)
    return last_name(name) if rooted else name


def last_name(path: str) -> str:
    """Return the last name of a path of any system."""
    return PureWindowsPath(path).name or "unnamed"
