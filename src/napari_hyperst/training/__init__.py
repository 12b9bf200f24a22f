"""Slides and a config become a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_hyperst.training.trainer import resume, train

__all__ = ["resume", "train"]


def __getattr__(name: str) -> Any:
    """Import the trainer, and with it torch, only when it is asked for: settings are read without."""
    if name in __all__:
        from napari_hyperst.training import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
