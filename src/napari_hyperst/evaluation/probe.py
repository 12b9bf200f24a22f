"""The ridge probe beside a checkpoint: same gene panel, same training sections, frozen features of the same encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from napari_hyperst.errors import ConfigError
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.models.device import choose_device, choose_dtype
from napari_hyperst.models.encoders import Encoder
from napari_hyperst.models.ridge import fit_ridge
from napari_hyperst.nouns.metrics import summarise
from napari_hyperst.prediction import predict
from napari_hyperst.slides.slide import Slide
from napari_hyperst.training.dataset import TrainingSet, build_training_set

#: Penalties tried by leaving out one training section after the other.
PENALTIES = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
#: Principal components that HEST's probe keeps.
_COMPONENTS = 256


def compare_with_ridge(
    checkpoint: Checkpoint, training: Sequence[Slide], test: Slide, device: str = "auto"
) -> dict[str, dict[str, float]]:
    """Measure a checkpoint and ridge probes on a slide that neither has seen.

    Parameters
    ----------
    checkpoint
        The checkpoint.
    training
        The sections to train the probes on; for a fair comparison those of the checkpoint.
    test
        The held-out slide, with raw counts.
    device
        Where to compute.

    Returns
    -------
    dict
        Agreement by method, as ``nouns.metrics.summarise`` gives it: ``hyperst``; ``ridge`` on standardised spot and
        niche features, its penalty chosen by leaving out one training section after the other; ``ridge_hest`` on 256
        principal components with HEST's penalty of 100 / (components x genes) (METHODS 4, its target centred here);
        ``mean``, the training mean of each gene; and ``hyperst_complete`` and ``ridge_complete`` on spots whose niche
        is complete.

    Raises
    ------
    ConfigError
        If the test slide is a training slide of either, or the checkpoint's slides are others.
    """
    _check_sections(checkpoint, training, test)
    target = choose_device(device)
    encoder = Encoder(checkpoint.model.encoder.spec).eval().to(target)
    encoder.dtype = choose_dtype("auto", target)

    def read(slides: Sequence[Slide]) -> TrainingSet:
        return build_training_set(slides, checkpoint.panel, encoder, checkpoint.card.tiles, symmetries=1, cache="disk")

    known, unknown = read(training), read([test])
    x, y = _features(known), known.spot_genes.numpy()
    held_x, held_y = _features(unknown), unknown.spot_genes.numpy()
    penalty = _choose_penalty(x, y, known.slide.numpy())
    ridge = fit_ridge(x, y, penalty)(held_x)
    prediction = predict(test, checkpoint, device)
    assert prediction.measured is not None  # the test slide has raw counts, or reading it would have failed
    counted = test.count_rows[prediction.spots] >= 0
    hyperst, complete = prediction.expression[counted], prediction.complete_niche[counted]
    return {
        "hyperst": summarise(hyperst, held_y),
        "ridge": summarise(ridge, held_y) | {"penalty": penalty},
        "ridge_hest": summarise(_hest_probe(x, y, held_x), held_y),
        "mean": summarise(np.broadcast_to(y.mean(axis=0), held_y.shape), held_y),
        "hyperst_complete": summarise(hyperst[complete], held_y[complete]),
        "ridge_complete": summarise(ridge[complete], held_y[complete]),
    }


def _check_sections(checkpoint: Checkpoint, training: Sequence[Slide], test: Slide) -> None:
    used = {known.fingerprint for known in checkpoint.card.training_slides}
    given = {slide.fingerprint for slide in training}
    if checkpoint.card.has_seen(test.fingerprint) or test.fingerprint in given:
        raise ConfigError("was trained on", where=test.path, do="test on a section that was held out")
    if used != given:
        names = ", ".join(known.name for known in checkpoint.card.training_slides)
        raise ConfigError("the probe must be trained on the checkpoint's own sections", do=f"give {names}")


def _features(data: TrainingSet) -> NDArray[np.float64]:
    rows = torch.arange(len(data))
    return data.fetch(rows, torch.zeros_like(rows)).states.double().flatten(start_dim=1).numpy()


def _choose_penalty(x: NDArray[np.float64], y: NDArray[np.float32], section: NDArray[np.int64]) -> float:
    """Return the penalty of least squared error on sections left out one after the other."""
    if len(np.unique(section)) < 2:
        return float(np.median(PENALTIES))

    def error(penalty: float) -> float:
        return float(
            np.mean(
                [
                    np.mean(
                        (fit_ridge(x[section != s], y[section != s], penalty)(x[section == s]) - y[section == s]) ** 2
                    )
                    for s in np.unique(section)
                ]
            )
        )

    return min(PENALTIES, key=error)


def _hest_probe(x: NDArray[np.float64], y: NDArray[np.float32], held_x: NDArray[np.float64]) -> NDArray[np.float64]:
    components = min(_COMPONENTS, *x.shape)
    probe = make_pipeline(
        StandardScaler(),
        PCA(components, random_state=1),
        Ridge(alpha=100 / (components * y.shape[1]), solver="lsqr", fit_intercept=False, max_iter=1000),
    )
    centre = y.mean(axis=0)
    return probe.fit(x, y - centre).predict(held_x) + centre
