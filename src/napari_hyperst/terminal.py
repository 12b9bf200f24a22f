"""What a terminal shows: results on standard output, progress with the time left on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from napari_hyperst.errors import HyperSTWarning

#: How long the bar of a progress is, in characters.
_BAR = 24


def say(content: dict[str, Any], as_json: bool) -> None:
    """Print a result on standard output."""
    if as_json:
        print(json.dumps(content, default=float, allow_nan=False))
        return
    for key, value in content.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, number in value.items():
                if isinstance(number, list):
                    print(f"  {inner}:", *number, sep="\n    ")
                else:
                    print(f"  {inner}: {_pretty(number)}")
        else:
            print(f"{key}: {_pretty(value)}")


def _pretty(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_progress(what: str) -> Callable[[int, int], None]:
    """Return a reporter of progress, a bar with an estimate of the time left, on standard error.

    The estimate goes by what was done since the first report: work that is gone on with may begin anywhere.
    """
    began: tuple[float, int] | None = None
    shown = float("-inf")

    def report(done: int, total: int) -> None:
        nonlocal shown, began
        if not total:  # it is not known yet
            return
        now, window = time.monotonic(), sys.stderr.isatty()
        since, first = began = began or (now, done)
        if done < total and now - shown < (0.2 if window else 10):
            return
        shown = now
        bar = f" [{'#' * (_BAR * done // max(total, 1)):.<{_BAR}}]" if window else ""
        left = f", {(now - since) / (done - first) * (total - done):.0f} s left" if done > first else ""
        end = "\r" if window and done < total else "\n"
        print(f"{what}{bar} {done}/{total}{left}   ", end=end, file=sys.stderr, flush=True)

    return report


def show_events() -> Callable[[str, dict[str, Any]], None]:
    """Return a reporter of a job's events, on standard error."""
    reporters: dict[tuple[str, int], Callable[[int, int], None]] = {}

    def report(kind: str, content: dict[str, Any]) -> None:
        if kind == "progress":
            what, total = str(content["what"]), int(content["total"])
            if total > 0:
                reporters.setdefault((what, total), show_progress(what))(int(content["done"]), total)
        elif kind == "epoch":
            numbers = {
                key: content[key]
                for key in ("total", "prediction", "validation/pcc", "validation/mse")
                if key in content
            }
            told = ", ".join(f"{key} {value:.4f}" for key, value in numbers.items())
            print(f"epoch {content['epoch']}/{content['of']}: {told}", file=sys.stderr)
        elif kind == "warning":
            print(f"warning: {content['message']}", file=sys.stderr)

    return report


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print our own warnings, a line each; those of libraries about themselves are nothing to the user."""
    if issubclass(category, HyperSTWarning):
        print(f"warning: {message}", file=sys.stderr)
