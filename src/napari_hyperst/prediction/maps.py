"""Maps of the hierarchy: depth, cones and disk coordinates from embeddings, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from napari_hyperst.models.geometry import Geometry as Space
from napari_hyperst.models.geometry import geometry
from napari_hyperst.nouns.hierarchy import Embedding, Geometry, Relation
from napari_hyperst.nouns.prediction import Cones

Points = Mapping[Embedding, NDArray[np.float32]]


def hyperbolic_norms(points: Points, c: float) -> dict[Embedding, NDArray[np.float64]]:
    """Return the geodesic distance of each point from the origin, ``asinh(sqrt(c) |x|) / sqrt(c)`` (METHODS 1).

    Parameters
    ----------
    points
        (n, d) space components of each embedding.
    c
        The space has curvature -c.
    """
    return {name: np.arcsinh(np.sqrt(c) * _lengths(x)) / np.sqrt(c) for name, x in points.items()}


def distances_from_origin(points: Points, c: float, space: Geometry) -> dict[Embedding, NDArray[np.float64]]:
    """Return the distance of each point from the origin of its space; nothing on the sphere, which has none.

    Parameters
    ----------
    points
        (n, d) points of each embedding.
    c
        The curvature is -c, where the space is hyperbolic.
    space
        The geometry they live in.
    """
    if space == "cosine":
        return {}
    return hyperbolic_norms(points, c) if space == "hyperbolic" else {name: _lengths(x) for name, x in points.items()}


def entailment_cones(
    points: Points, relations: Iterable[Relation], c: float, min_radius: float, space: Geometry = "hyperbolic"
) -> tuple[Cones, ...]:
    """Measure each relation whose two embeddings exist.

    Parameters
    ----------
    points
        (n, d) space components of each embedding; NaN rows stay NaN.
    relations
        Parents and children.
    c
        The space has curvature -c.
    min_radius
        K of the half-aperture.
    space
        The geometry they live in.

    Returns
    -------
    tuple of Cones
        In the order of the relations.
    """
    return tuple(
        Cones(relation, *_cone(points[relation.parent], points[relation.child], c, min_radius, geometry(space)))
        for relation in relations
        if relation.parent in points and relation.child in points
    )


def poincare_disk(points: Points, c: float) -> dict[Embedding, NDArray[np.float32]]:
    """Project all embeddings on one Poincaré disk, their distance from the origin kept exact.

    The angle of a point is that of its tangent vector at the origin in the plane of the first two principal
    directions (not centred) of the tangent vectors of all embeddings together.

    Parameters
    ----------
    points
        (n, d) space components of each embedding; NaN rows stay NaN.
    c
        The space has curvature -c.

    Returns
    -------
    dict
        (n, 2) coordinates in the unit disk: radius ``tanh(sqrt(c) r / 2)`` for a point at distance r.
    """
    if not points:
        return {}
    norms = hyperbolic_norms(points, c)
    tangents = {name: _unit(x) * norms[name][:, None] for name, x in points.items()}
    stacked = np.concatenate([tangent[np.isfinite(tangent).all(axis=1)] for tangent in tangents.values()])
    axes = np.linalg.svd(stacked, full_matrices=False)[2][:2]
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    disk = {}
    for name, tangent in tangents.items():
        direction = _unit(tangent @ axes.T)
        radius = np.tanh(np.sqrt(c) * norms[name] / 2)
        disk[name] = (direction * radius[:, None]).astype(np.float32)
    return disk


def _cone(
    parent: NDArray[np.float32], child: NDArray[np.float32], c: float, min_radius: float, space: Space
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    there = np.isfinite(parent).all(axis=1) & np.isfinite(child).all(axis=1)
    of_parent, of_child = (torch.from_numpy(x[there].astype(np.float64)) for x in (parent, child))
    exterior, aperture = np.full(len(parent), np.nan), np.full(len(parent), np.nan)
    exterior[there] = space.exterior_angle(of_parent, of_child, c).numpy()
    aperture[there] = space.half_aperture(of_parent, c, min_radius).numpy()
    return exterior, aperture


def _lengths(x: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.linalg.norm(x.astype(np.float64), axis=1)


def _unit(x: NDArray[np.floating]) -> NDArray[np.float64]:
    lengths = _lengths(x)
    return x.astype(np.float64) / np.where(lengths > 0, lengths, 1.0)[:, None]
