"""What the user set in napari's preferences, under this plugin's name."""

from __future__ import annotations

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


def favourites() -> str:
    """Return the user's favourite genes, between commas."""
    return str(_section("genes").favourites)


def marker_sets() -> str:
    """Return the user's marker sets: a name, a colon and genes between commas, with a semicolon after each set."""
    return str(_section("genes").marker_sets)


def keep(name: str, value: str) -> None:
    """Keep ``favourites`` or ``marker_sets``; napari writes them to its settings at once."""
    setattr(_section("genes"), name, value)


def events(section: str) -> Any:
    """Return what tells of changes in a section (``prediction``, ``colours``, ``genes``) and in each property of it."""
    return _section(section).events


def _section(name: str) -> Any:
    from napari.settings import get_plugin_settings

    return getattr(get_plugin_settings(PLUGIN), name)
