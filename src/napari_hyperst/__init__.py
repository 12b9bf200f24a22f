"""Predict spatial gene expression from H&E in napari, with hyperbolic image-gene models. For research use only."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("napari-hyperst")

#: Public names and where they live; nothing is imported before it is asked for, so that importing this is cheap.
_HOMES = {
    "open_slide": "napari_hyperst.slides",
    "convert": "napari_hyperst.slides.convert",
    "export": "napari_hyperst.slides.outputs",
    "load_checkpoint": "napari_hyperst.models.checkpoint",
    "predict": "napari_hyperst.prediction",
    "show_slide": "napari_hyperst.viewer",
    "resume": "napari_hyperst.training",
    "train": "napari_hyperst.training",
    "TileSpec": "napari_hyperst.nouns.tiles",
    "TrainConfig": "napari_hyperst.nouns.training",
    "HyperSTConfig": "napari_hyperst.nouns.methods",
    "DELSTConfig": "napari_hyperst.nouns.methods",
    "ablation": "napari_hyperst.nouns.ablations",
    "HyperSTError": "napari_hyperst.errors",
}

__all__ = [
    "DELSTConfig",
    "HyperSTConfig",
    "HyperSTError",
    "TileSpec",
    "TrainConfig",
    "ablation",
    "convert",
    "export",
    "load_checkpoint",
    "open_slide",
    "predict",
    "resume",
    "show_slide",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
