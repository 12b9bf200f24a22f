"""A slide becomes tiles and counts, and results become a slide again."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_hyperst.slides.opening import open_slide
    from napari_hyperst.slides.slide import Slide, Spots

__all__ = ["Slide", "Spots", "open_slide"]

#: Imported when asked for: what looks at a folder's names must not wait for spatialdata.
_HOMES = {
    "open_slide": "napari_hyperst.slides.opening",
    "Slide": "napari_hyperst.slides.slide",
    "Spots": "napari_hyperst.slides.slide",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
