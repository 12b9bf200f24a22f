"""Spots of a real section, the frozen part of the bundled encoder run over their tiles once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.expression import select_hmhvg
from napari_hyperst.training.dataset import TrainingSet, count_detected, encode_tiles, measure, trainable_spots
from napari_hyperst.training.fit import Callbacks, Run, fit
from napari_hyperst.training.processes import Processes

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
def fitted() -> Callable[[Method, TrainingSet, TrainConfig], list[dict[str, Any]]]:
    """Return a function that fits a model, without a folder, and returns what was told of each epoch."""

    def fit_model(model: Method, data: TrainingSet, config: TrainConfig) -> list[dict[str, Any]]:
        epochs: list[dict[str, Any]] = []
        run = Run.start(model, data, None, config, Processes(config))
        fit(run, Callbacks(lambda kind, told: epochs.append(told) if kind == "epoch" else None))
        model.load_state_dict(run.averaged.state_dict())
        return epochs

    return fit_model


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


@pytest.fixture(scope="session")
def mirrored_section(tiny_section: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return another slide than the tiny section: its mirror image, with its spots."""
    folder = tmp_path_factory.mktemp("sections") / "mirrored"
    shutil.copytree(tiny_section, folder)
    with Image.open(folder / "he.png") as image:
        width = image.width
        ImageOps.mirror(image).save(folder / "he.png")
    spots = pd.read_csv(folder / "corner_selection.tsv", sep="\t")
    spots["pixel_x"] = width - spots.pixel_x
    spots.to_csv(folder / "corner_selection.tsv", sep="\t", index=False)
    return folder
