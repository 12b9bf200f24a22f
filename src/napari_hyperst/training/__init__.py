"""Slides and a config become a checkpoint."""

from napari_hyperst.training.trainer import train

__all__ = ["train"]
