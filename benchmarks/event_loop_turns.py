"""Turns of the window's event loop, which benchmarks of the window let go round."""

from __future__ import annotations

import time
from collections.abc import Callable

from qtpy.QtWidgets import QApplication


def run(until: Callable[[], bool]) -> None:
    """Let the event loop go round until something is so."""
    while not until():
        QApplication.processEvents()
        time.sleep(0.001)


def wait(seconds: float) -> None:
    """Let the event loop go round for so long."""
    end = time.monotonic() + seconds
    run(lambda: time.monotonic() > end)
