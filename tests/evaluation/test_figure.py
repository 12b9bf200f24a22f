from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_hyperst.errors import ConfigError
from napari_hyperst.evaluation.figure import draw_prediction
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide


def test_a_picture_of_each_kind_of_prediction(tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    prediction = predict(open_slide(tiny_section), tiny_checkpoint)
    uncounted = replace(prediction, measured=None, cones=prediction.cones[2:3])
    blank = replace(prediction, expression=np.zeros_like(prediction.expression))
    gap = replace(
        prediction, measured=np.where(np.arange(len(prediction.spots))[:, None] % 2, prediction.measured, np.nan)
    )
    pictures = set()
    for name, drawn in {"whole": prediction, "uncounted": uncounted, "all zero": blank, "gaps": gap}.items():
        path = draw_prediction(drawn, tmp_path / f"{name}.png")
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("RGB")).std() > 15
        pictures.add(path.read_bytes())
    assert len(pictures) == 4
    named = draw_prediction(prediction, tmp_path / "named.png", gene="FASN")
    assert named.read_bytes() != (tmp_path / "whole.png").read_bytes()
    with pytest.raises(ConfigError, match="does not predict"):
        draw_prediction(prediction, tmp_path / "none.png", gene="no such gene")
