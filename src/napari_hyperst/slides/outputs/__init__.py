"""Predictions become files of many formats, each written whole or not at all."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_hyperst.slides.outputs.write import check_output, export, write_output

__all__ = ["check_output", "export", "write_output"]

#: Imported when asked for: what only looks at a path's ending must not wait for anndata.
_HOME = "napari_hyperst.slides.outputs.write"


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(_HOME), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
