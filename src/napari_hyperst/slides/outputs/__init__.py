"""Predictions become files of many formats, each written whole or not at all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_hyperst.slides.outputs.stored import open_prediction
    from napari_hyperst.slides.outputs.write import check_output, export, write_output

__all__ = ["check_output", "export", "open_prediction", "write_output"]

#: Imported when asked for: what only looks at a path's ending must not wait for anndata.
_HOMES = {
    "check_output": "napari_hyperst.slides.outputs.write",
    "export": "napari_hyperst.slides.outputs.write",
    "open_prediction": "napari_hyperst.slides.outputs.stored",
    "write_output": "napari_hyperst.slides.outputs.write",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
