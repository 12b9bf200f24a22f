"""Checkpoints of every geometry predict, and what a space does not have is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from napari_hyperst.evaluation.figure import draw_prediction
from napari_hyperst.models.build import build_method
from napari_hyperst.models.checkpoint import load_checkpoint, save_checkpoint
from napari_hyperst.models.encoders import weights_sha256
from napari_hyperst.nouns.ablations import ablation
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.hierarchy import EMBEDDINGS
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.export import prediction_table

GENES = ("FASN", "ERBB2", "COL1A1")
SPOT = ("spot_image", "spot_gene")


@pytest.mark.parametrize(
    ("name", "embeddings", "depth", "disk", "cones"),
    [
        ("full", EMBEDDINGS, True, True, 4),
        ("euclidean", EMBEDDINGS, True, False, 4),
        ("meru", SPOT, True, True, 1),
        ("clip", SPOT, False, False, 0),
        ("without-hha", (), False, False, 0),
        ("delst", SPOT, True, True, 1),
    ],
)
def test_prediction_has_what_the_space_has(
    tiny_section: Path, tiny_encoder: str, tmp_path: Path, name: str, embeddings: tuple[str, ...], depth: bool,
    disk: bool, cones: int,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    base: dict[str, object] = {"encoder": tiny_encoder, "lora_blocks": 1, "dim": 8}
    config = DELSTConfig(**base) if name == "delst" else ablation(name, HyperSTConfig(**base))
    model = build_method(config, len(GENES))
    card = Card(name=name, method=config, encoder_sha256=weights_sha256(model.encoder.spec.weights))
    save_checkpoint(tmp_path / name, model, GenePanel(GENES), card)
    checkpoint = load_checkpoint(tmp_path / name)
    assert checkpoint.card == card
    prediction = predict(open_slide(tiny_section), checkpoint, precision="float32")
    assert np.isfinite(prediction.expression).all()
    assert set(prediction.embeddings) == set(embeddings)
    assert set(prediction.norms) == (set(embeddings) if depth else set())
    assert set(prediction.disk) == (set(embeddings) if disk else set())
    assert len(prediction.cones) == cones
    assert np.isnan(prediction.curvature) == (not disk)
    for cone in prediction.cones:
        assert np.isfinite(cone.violation).all()
    if name == "euclidean":
        lengths = np.linalg.norm(prediction.embeddings["niche_gene"].astype(float), axis=1)
        np.testing.assert_allclose(prediction.norms["niche_gene"], lengths)
    if name == "clip":
        np.testing.assert_allclose(np.linalg.norm(prediction.embeddings["spot_gene"], axis=1), 1, rtol=1e-5)
    assert draw_prediction(prediction, tmp_path / "picture.png").stat().st_size > 10_000
    table = prediction_table(prediction)
    assert {key for key in table.obsm if key.startswith("hyperst_disk_")} == {
        f"hyperst_disk_{e}" for e in prediction.disk
    }
