from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_hyperst.errors import ConfigError
from napari_hyperst.evaluation.probe import _hest_probe, compare_with_ridge
from napari_hyperst.models.checkpoint import Checkpoint, load_checkpoint
from napari_hyperst.models.ridge import fit_ridge
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.prediction import predict
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.training import train


@pytest.fixture(scope="module")
def trained(tiny_section: Path, tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=0, dim=8)
    out = tmp_path_factory.mktemp("runs") / "run"
    return load_checkpoint(train(TrainConfig(slides=(tiny_section,), out=out, method=method, genes=15, epochs=1)))


@pytest.fixture(scope="module")
def held_out(shared_data: Path) -> Slide:
    return open_slide(shared_data / "her2st" / "C4")


def test_rows_are_measured_on_the_same_spots_and_genes(
    trained: Checkpoint, tiny_section: Path, held_out: Slide
) -> None:
    rows = compare_with_ridge(trained, [open_slide(tiny_section)], held_out, "cpu")
    prediction = predict(held_out, trained, "cpu")
    counted = np.isfinite(prediction.measured).all(axis=1)
    assert (~counted).sum() == 3
    squared = (prediction.expression[counted].astype(float) - prediction.measured[counted]) ** 2
    assert rows["hyperst"]["mse"] == pytest.approx(squared.mean(), rel=1e-4)
    complete = prediction.complete_niche[counted]
    assert rows["hyperst_complete"]["mse"] == pytest.approx(squared[complete].mean(), rel=1e-4)
    corner = predict(open_slide(tiny_section), trained, "cpu").measured
    guess = prediction.measured[counted] - corner.mean(axis=0)
    assert rows["mean"]["mse"] == pytest.approx((guess**2).mean(), rel=1e-3)
    assert rows["mean"]["pcc"] == 0
    assert rows["mean"]["constant_genes"] == 15


def test_only_sections_that_make_the_comparison_fair(trained: Checkpoint, tiny_section: Path, held_out: Slide) -> None:
    corner = open_slide(tiny_section)
    with pytest.raises(ConfigError, match="was trained on"):
        compare_with_ridge(trained, [corner], corner)
    with pytest.raises(ConfigError, match="give corner"):
        compare_with_ridge(trained, [held_out], open_slide(held_out.path.parent / "C5"))


def test_ridge_is_sklearns() -> None:
    """METHODS 10.12."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 5, (60, 20)), rng.normal(size=(60, 4))
    wanted = make_pipeline(StandardScaler(), Ridge(alpha=7.0)).fit(x, y).predict(x[:5] + 1)
    np.testing.assert_allclose(fit_ridge(x, y, 7.0)(x[:5] + 1), wanted)


def test_hest_probe_is_sklearns_with_hests_penalty() -> None:
    """METHODS 4 and 10.12: 256 components, alpha = 100 / (components x genes), in closed form here."""
    rng = np.random.default_rng(0)
    x, y, held = rng.normal(size=(400, 300)), rng.normal(2, 1, (400, 5)), rng.normal(size=(7, 300))
    scaler = StandardScaler().fit(x)
    pca = PCA(256, random_state=1).fit(scaler.transform(x))
    z, alpha = pca.transform(scaler.transform(x)), 100 / (256 * 5)
    weight = np.linalg.solve(z.T @ z + alpha * np.eye(256), z.T @ (y - y.mean(axis=0)))
    wanted = pca.transform(scaler.transform(held)) @ weight + y.mean(axis=0)
    np.testing.assert_allclose(_hest_probe(x, y.astype(np.float32), held), wanted, rtol=1e-3, atol=1e-3)
