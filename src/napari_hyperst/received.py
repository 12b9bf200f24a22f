"""Reading of files that somebody else may have made: regular ones, of their own folder, of a size that is bounded."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import IO, Any, NoReturn

#: Where a system has them: don't wait for a pipe's writer, don't follow a link that took the file's place just now.
_FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"))
_MIB = 2**20


def open_received(path: Path, within: Path | None = None) -> IO[bytes]:
    """Open a file for reading; what is checked is what was opened, whatever takes its place afterwards.

    Parameters
    ----------
    path
        The file. It may be a link, but not to what lies outside ``within``.
    within
        The folder that must hold it; its own if not told.

    Raises
    ------
    ValueError
        If it is a link out of the folder, or a folder, pipe or device.
    OSError
        If it is not there or cannot be opened.
    """
    real, home = os.path.realpath(path), os.path.realpath(within or path.parent)
    if not Path(real).is_relative_to(home):
        raise ValueError("is a link to what lies outside its folder")
    descriptor = os.open(real, os.O_RDONLY | _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("is no regular file")
    return os.fdopen(descriptor, "rb")


def read_received(path: Path, most: int, within: Path | None = None) -> bytes:
    """Read a file that may have so many bytes and no more.

    Parameters
    ----------
    path, within
        As for ``open_received``.
    most
        The most bytes; of a larger file none is read.

    Raises
    ------
    ValueError
        If it is larger, or ``open_received`` refuses it.
    OSError
        If it is not there or cannot be read.
    """
    with open_received(path, within) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most else file.read(most + 1)
    if max(size, len(content)) > most:
        raise ValueError(f"has {size / _MIB:,.1f} MiB, and {most / _MIB:g} at most are read")
    return content


def parse_json(text: bytes) -> Any:
    """Parse JSON that means the same to every parser.

    Raises
    ------
    ValueError
        If it is none, in UTF-8, or has NaN, an infinity, a key twice in one object, or is nested too deep.
    """
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return made


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no finite number")
    return number
