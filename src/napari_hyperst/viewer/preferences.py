"""What the user set in napari's preferences, under this plugin's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PLUGIN = "napari-hyperst"


def device() -> str:
    """Return where to compute: ``auto``, ``cpu``, ``cuda`` or ``mps``."""
    return str(_section("prediction").device)


def batch_size() -> int:
    """Return how many spots to predict at a time."""
    return int(_section("prediction").batch_size)


def percentiles() -> tuple[float, float]:
    """Return the percentiles of the values that get the first and the last colour."""
    colours = _section("colours")
    low, high = float(colours.low_percentile), float(colours.high_percentile)
    return (low, high) if low < high else (1.0, 99.0)


def colormap() -> str:
    """Return the colormap of measured and predicted expression."""
    return str(_section("colours").colormap)


def on_colours_changed(slot: Callable[..., object]) -> None:
    """Call a method, as long as its object lives, when the user asks for other colours."""
    _section("colours").events.connect(slot)


def _section(name: str) -> Any:
    from napari.settings import get_plugin_settings

    return getattr(get_plugin_settings(PLUGIN), name)
