"""Signals of what outlives a widget, heard as long as the widget is there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtWidgets import QWidget

Link = tuple[Any, Callable[..., Any]]


def hear(widget: QWidget, *links: Link) -> None:
    """Connect signals to methods of a widget until Qt destroys it.

    Parameters
    ----------
    widget
        Whose methods they are.
    links
        Pairs of a signal and a method.
    """
    kept = list(links)
    for signal, slot in kept:
        signal.connect(slot)
    widget.destroyed.connect(partial(_end, kept))


def _end(links: list[Link], *_: object) -> None:
    for signal, slot in links:
        signal.disconnect(slot)
    links.clear()  # they hold the widget
