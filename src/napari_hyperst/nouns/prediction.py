"""The result of a model on a slide."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.hierarchy import Embedding, Relation
from napari_hyperst.nouns.panel import GenePanel

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Cones:
    """How the children of a relation sit in their parents' cones.

    Attributes
    ----------
    relation
        Parent, child and eta.
    exterior_angle, half_aperture
        (n,) in radians; NaN where an embedding is missing.
    """

    relation: Relation
    exterior_angle: NDArray[np.float64]
    half_aperture: NDArray[np.float64]

    @property
    def violation(self) -> NDArray[np.float64]:
        """(n,) ``max(0, exterior angle - eta * half-aperture)`` in radians."""
        return np.maximum(0.0, self.exterior_angle - self.relation.eta * self.half_aperture)


@dataclass(frozen=True)
class Prediction[SlideT]:
    """Expression, embeddings and hierarchy of the spots of a slide.

    Attributes
    ----------
    slide
        The slide.
    spots
        (n,) indices into the slide's spots: those whose spot tile lies in the image.
    panel
        The G genes.
    expression
        (n, G) predicted log2(count + 1).
    measured
        (n, G) measured log2(count + 1), NaN where not measured; None on a slide without raw counts.
    embeddings
        (n, d) points of each embedding that exists, in hyperbolic space their space components; NaN rows for spots
        without counts.
    disk
        (n, 2) Poincaré disk coordinates of each embedding, for display: distance from the origin is exact, the
        angle is that in the plane of the two main directions of all embeddings. Empty unless the space is hyperbolic.
    norms
        (n,) geodesic distance of each embedding from the origin: its depth in the hierarchy. Empty on the unit
        sphere of the CLIP variant, which has no origin.
    cones
        One per relation whose embeddings exist.
    complete_niche
        (n,) whether the niche tile lies in the image and the whole ring of neighbours is there; on a slide with counts,
        whether the spot and all of its ring have some.
    inside_image
        (n,) whether both tiles lie wholly in the image; where not, part of the niche tile is the image's reflection.
    in_training
        (n,) whether the checkpoint, or the encoder that it started from, was trained on the spot's section.
    curvature
        c of the hyperbolic space; NaN where the method has none.
    card, checkpoint_hash
        The checkpoint's card, and the hash of its weights.
    run
        How the prediction was made: sizes in µm, device, precision, seconds.
    """

    slide: SlideT
    spots: NDArray[np.intp]
    panel: GenePanel
    expression: FloatArray
    measured: FloatArray | None
    embeddings: dict[Embedding, FloatArray]
    disk: dict[Embedding, FloatArray]
    norms: dict[Embedding, NDArray[np.float64]]
    cones: tuple[Cones, ...]
    complete_niche: NDArray[np.bool_]
    inside_image: NDArray[np.bool_]
    in_training: NDArray[np.bool_]
    curvature: float
    card: Card
    checkpoint_hash: str
    run: dict[str, float | str] = field(default_factory=dict)
