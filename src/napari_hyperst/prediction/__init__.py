"""Slides and a checkpoint become a prediction."""

from napari_hyperst.prediction.predict import predict

__all__ = ["predict"]
