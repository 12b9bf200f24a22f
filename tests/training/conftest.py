"""Spots of a real section, the frozen part of the bundled encoder run over their tiles once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.expression import select_hmhvg
from napari_hyperst.training.dataset import TrainingSet, count_detected, encode_tiles, measure, trainable_spots

SPOTS, GENES = 48, 50


def read_spots(slide: Slide, panel: GenePanel, encoder: Encoder) -> TrainingSet:
    """Return 48 spots of a slide, upright."""
    kept: list[np.ndarray] = [trainable_spots(slide, TileSpec())[:SPOTS]]
    return TrainingSet(
        encode_tiles([slide], kept, encoder, TileSpec(), symmetries=1),
        *measure([slide], kept, panel),
        torch.zeros(SPOTS, dtype=torch.long),
        count_detected([slide], kept),
    )


@pytest.fixture(scope="session")
def c3(shared_data: Path) -> Slide:
    """Return a real section that the package does not ship."""
    return open_slide(shared_data / "her2st" / "C3")


@pytest.fixture(scope="session")
def c3_panel(c3: Slide) -> GenePanel:
    """Return a panel of genes chosen on it."""
    return select_hmhvg([c3], GENES)


@pytest.fixture(scope="session")
def c3_spots(c3: Slide, c3_panel: GenePanel) -> TrainingSet:
    """Return 48 of its spots as they enter the last block of the bundled encoder."""
    return read_spots(c3, c3_panel, Encoder(encoder_spec("dinov2-vits14"), 1).eval())
