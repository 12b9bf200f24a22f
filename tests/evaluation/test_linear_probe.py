from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from napari_hyperst.errors import ConfigError
from napari_hyperst.evaluation.linear_probe import PENALTIES, linear_probe, probe_features
from napari_hyperst.models import lorentz
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.prediction import predict
from napari_hyperst.slides import Slide


def test_what_is_linear_is_found_and_what_is_not_there_is_not() -> None:
    random = np.random.default_rng(0)
    labels = random.choice(["WM", "L1", "L2"], 300)
    told = np.array([["WM", "L1", "L2"].index(label) for label in labels])
    noise = random.normal(size=(300, 8))
    apart = noise.copy()
    apart[np.arange(300), told] += 8
    probe = linear_probe(apart, labels)
    assert probe.mean > 0.97
    assert probe.penalty in PENALTIES
    assert len(probe.scores) == 5
    assert probe.std == pytest.approx(np.std(probe.scores))
    assert 0.15 < linear_probe(noise, labels).mean < 0.5
    assert linear_probe(apart, labels) == probe


def test_unlabelled_spots_and_those_without_counts_are_left_out() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 3)), np.where(np.arange(60) % 2, "a", "b")
    features[:, 0] += 20 * (labels == "a")
    spoiled, holes = features.copy(), labels.copy().astype("U1")
    spoiled[:5], holes[5:10] = np.nan, ""
    assert linear_probe(spoiled, holes) == linear_probe(features[10:], labels[10:])


def test_what_names_no_class_is_left_out() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 3)), np.where(np.arange(60) % 2, "a", "b")
    features[:, 0] += 20 * (labels == "a")
    some = pd.Series(labels, dtype="category").cat.add_categories(["undetermined", "Exclude", ""])
    some.iloc[:6] = [np.nan, None, "undetermined", "Exclude", "", np.nan]
    for holes in (some, some.astype(object), some.astype(object).to_numpy(), list(some)):
        assert linear_probe(features, holes) == linear_probe(features[6:], labels[6:])


def test_too_little_to_probe() -> None:
    for features, labels, told in (
        (np.zeros((5, 2)), ["a", "b", "a", "b", "a"], "5 spots of 2 classes"),
        (np.zeros((20, 2)), ["a"] * 20, "20 spots of 1 classes"),
        (np.zeros((20, 2)), ["a", "b"], "20 rows of features and 2 labels"),
        (np.zeros((20, 2)), ["a"] * 19 + ["b"], "all labels but a few are 'a'"),
        (np.full((20, 2), 1e300), ["a", "b"] * 10, "too large to fit"),
    ):
        with pytest.raises(ConfigError, match=told):
            linear_probe(features, labels)


def test_embeddings_are_probed_as_tangent_vectors(c2: Slide, tiny_checkpoint: Checkpoint) -> None:
    """Whether much was expressed, told from the embedding of the genes themselves."""
    prediction = predict(c2, tiny_checkpoint)
    features = probe_features(prediction, "spot_gene")
    wanted = lorentz.log_map0(torch.from_numpy(prediction.embeddings["spot_gene"]).double(), prediction.curvature)
    np.testing.assert_allclose(features, wanted.numpy(), rtol=1e-6, atol=1e-9)
    assert prediction.measured is not None
    level = prediction.measured.sum(axis=1)
    assert linear_probe(features, np.where(level > np.median(level), "high", "low")).mean > 0.7
    with pytest.raises(ConfigError, match="no embedding nothing"):
        probe_features(prediction, "nothing")  # type: ignore[arg-type]
