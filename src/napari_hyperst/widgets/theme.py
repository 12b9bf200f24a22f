"""The colours of napari's theme, for what is drawn by others than Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Colours:
    """Colours of a plot, as matplotlib takes them.

    Attributes
    ----------
    background, text, grid
        Of the plot, of its words and axes, and of lines behind the data.
    points, selected, warning
        Of what is plotted, of what of it is selected, and of what is out of bounds.
    """

    background: str
    text: str
    grid: str
    points: str
    selected: str
    warning: str


def colours_of(viewer: Any) -> Colours:
    """Return the colours that go with the theme of a viewer."""
    from napari.utils.theme import get_theme

    theme = get_theme(viewer.theme)
    dark = theme.type == "dark"
    return Colours(
        background=theme.background.as_hex("long"),
        text=theme.text.as_hex("long"),
        grid=theme.primary.as_hex("long"),
        points="#6cb8ff" if dark else "#1f66ad",
        selected="#ffa41b" if dark else "#d95f02",
        warning="#ff6f61" if dark else "#c62828",
    )
