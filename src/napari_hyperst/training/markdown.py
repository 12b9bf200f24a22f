"""Markdown in which a name stays a name, whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

# What means something within a line, in CommonMark or in GitHub's tables, strikethrough, formulas and entities.
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~$&])")


def text(words: object) -> str:
    """Return words that Markdown shows as they are, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(words).split()))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table of plain words; columns after the first are aligned right where all are numbers."""
    numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))]
    marks = ["---:" if is_number and rows else "---" for is_number in numeric]
    return [_row([text(cell) for cell in header]), _row(marks), *(_row([_cell(cell) for cell in row]) for row in rows)]


def fenced(code: str, language: str) -> list[str]:
    """Return the lines of a block of code, in a fence that is longer than any within."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *code.rstrip("\n").splitlines(), fence]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)
