"""Linear probing: what a linear classifier can tell from embeddings (METHODS 3, the protocol of STimage-1K4M)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import f1_score

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.hierarchy import Embedding
from napari_hyperst.nouns.prediction import Prediction

#: Strengths of the penalty that are tried, and seeds of the splits.
PENALTIES = (1.0, 0.1, 0.01, 1e-3, 1e-4)
SEEDS = (0, 1, 2, 3, 4)
#: Labels that name no class, besides missing ones.
NO_CLASS = ("", "undetermined", "Exclude")


@dataclass(frozen=True)
class LinearProbe:
    """What came of a linear probe.

    Attributes
    ----------
    scores
        Macro-F1 on the test spots of each split.
    penalty
        The strength of the penalty, chosen by the mean macro-F1 on the validation spots.
    """

    scores: tuple[float, ...]
    penalty: float

    @property
    def mean(self) -> float:
        """The mean of the scores."""
        return float(np.mean(self.scores))

    @property
    def std(self) -> float:
        """Their standard deviation."""
        return float(np.std(self.scores))


def probe_features(prediction: Prediction, embedding: Embedding) -> NDArray[np.float64]:
    """Return an embedding as vectors that a linear probe can take: tangent vectors at the origin.

    Parameters
    ----------
    prediction
        Of any method with embeddings.
    embedding
        Which of them.

    Returns
    -------
    NDArray
        (n, d) vectors of the embedding's direction whose length is its distance from the origin; NaN rows for spots
        without counts where it is one of genes. In the flat counterpart and on the sphere, the points themselves.

    Raises
    ------
    ConfigError
        If the prediction has no such embedding.
    """
    if embedding not in prediction.embeddings:
        there = ", ".join(prediction.embeddings) or "none"
        raise ConfigError(f"there is no embedding {embedding} of this slide", do=f"there are: {there}")
    points = prediction.embeddings[embedding].astype(np.float64)
    if np.isnan(prediction.curvature):
        return points
    lengths = np.linalg.norm(points, axis=1)
    return points / np.where(lengths > 0, lengths, 1.0)[:, None] * prediction.norms[embedding][:, None]


def linear_probe(
    features: NDArray[np.floating], labels: Sequence[object] | NDArray[Any], seeds: Sequence[int] = SEEDS
) -> LinearProbe:
    """Measure how well a linear classifier tells labels from features.

    Logistic regression by stochastic gradient descent, classes balanced, an L2 penalty; random splits of the spots in
    80, 10 and 10 % (METHODS 3). Spots of one section are alike, so splitting them flatters: compare by it, and claim
    no accuracy on new sections.

    Parameters
    ----------
    features
        (n, d), for example from ``probe_features``.
    labels
        (n,) the class of each spot. Spots without one (a missing label, or one of ``NO_CLASS``) and those with a NaN
        feature are left out.
    seeds
        Of the splits, one each.

    Raises
    ------
    ConfigError
        If fewer than ten spots, or fewer than two classes, are left, or the training part of a split has but one of
        them; if features are too large to fit; or if features and labels differ in number.
    """
    named = pd.Series(list(labels), dtype=object)
    classes = named.where(named.notna(), "").astype(str).to_numpy()
    if len(classes) != len(features):
        raise ConfigError(f"there are {len(features)} rows of features and {len(classes)} labels", do="give one each")
    kept = ~np.isin(classes, NO_CLASS) & np.isfinite(features).all(axis=1)
    x, y = np.asarray(features, np.float64)[kept], classes[kept]
    if len(y) < 10 or len(np.unique(y)) < 2:
        raise ConfigError(f"{len(y)} spots of {len(np.unique(y))} classes are too few to probe", do="label more spots")
    if np.abs(x).max(initial=0.0) > np.finfo(np.float32).max:
        raise ConfigError("the features are too large to fit", do="scale them, for example to unit variance")
    validation: dict[float, list[float]] = {penalty: [] for penalty in PENALTIES}
    test: dict[float, list[float]] = {penalty: [] for penalty in PENALTIES}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(y))
        held = max(1, round(0.1 * len(y)))
        parts = {"test": order[:held], "validation": order[held : 2 * held], "train": order[2 * held :]}
        if len(np.unique(y[parts["train"]])) < 2:
            raise ConfigError(
                f"all labels but a few are {y[parts['train']][0]!r}, so a split can have but one class to learn",
                do="label more spots of the other classes",
            )
        for penalty in PENALTIES:
            model = SGDClassifier(
                loss="log_loss", penalty="l2", alpha=penalty, class_weight="balanced", max_iter=10_000,
                random_state=seed,
            ).fit(x[parts["train"]], y[parts["train"]])  # fmt: skip
            for scores, part in ((validation, "validation"), (test, "test")):
                rows = parts[part]
                scores[penalty].append(float(f1_score(y[rows], model.predict(x[rows]), average="macro")))
    best = max(PENALTIES, key=lambda penalty: float(np.mean(validation[penalty])))
    return LinearProbe(tuple(test[best]), best)
