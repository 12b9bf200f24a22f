"""What a prediction's table tells of the hierarchy: who violates it, and how one spot sits in its parent's cone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.nouns.hierarchy import EMBEDDINGS, Embedding, Geometry, Relation
from napari_hyperst.viewer.contract import OURS
from napari_hyperst.viewer.filling import is_filling
from napari_hyperst.viewer.maps import EMBEDDING_TITLES

if TYPE_CHECKING:
    from anndata import AnnData

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Hierarchy:
    """The hierarchy that a prediction's checkpoint was trained for.

    Attributes
    ----------
    relations
        Parents and children, also those that need counts which a slide has not.
    geometry
        The space of the embeddings.
    curvature
        c, where the curvature is -c; NaN where the space is not hyperbolic.
    """

    relations: tuple[Relation, ...]
    geometry: Geometry
    curvature: float

    @classmethod
    def of(cls, table: AnnData) -> Hierarchy:
        """Read it from the card in a prediction's table; one that is still being made has none yet."""
        from napari_hyperst.nouns.checkpoint import Card

        told = table.uns[OURS]
        if is_filling(table):
            return cls((), "hyperbolic", math.nan)
        alignment = Card.model_validate_json(told["card"]).method.alignment
        relations = alignment.relations if alignment.weight > 0 else ()
        return cls(relations, alignment.geometry, float(told["curvature"]))

    def relation(self, name: str) -> Relation | None:
        """Return a relation by its name, ``parent__child``."""
        return next((relation for relation in self.relations if relation.name == name), None)


@dataclass(frozen=True)
class Angles:
    """How the children of a relation sit in their parents' cones, at the spots where both embeddings exist.

    Attributes
    ----------
    exterior, threshold
        (k,) exterior angle of the child, and eta times the half-aperture of the parent's cone, in degrees.
    violates
        (k,) whether the child lies outside the cone.
    """

    exterior: FloatArray
    threshold: FloatArray
    violates: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """Share of the spots that violate the relation; NaN where there is no spot."""
        return float(self.violates.mean()) if len(self.violates) else float("nan")

    @classmethod
    def of(cls, table: AnnData, relation: Relation) -> Angles:
        """Read the angles of a relation from a prediction's table; none where it lacks the relation."""
        if f"violation_{relation.name}" not in table.obs:
            return cls(np.empty(0), np.empty(0), np.empty(0, dtype=bool))
        exterior, aperture, violation = (
            np.asarray(table.obs[f"{column}_{relation.name}"], dtype=np.float64)
            for column in ("exterior_angle", "half_aperture", "violation")
        )
        there = np.isfinite(violation)
        threshold = relation.eta * aperture[there]
        return cls(np.degrees(exterior[there]), np.degrees(threshold), violation[there] > 0)


@dataclass(frozen=True)
class SpotCone:
    """One spot's parent, its cone, and its child.

    Attributes
    ----------
    relation
        Parent, child and eta.
    parent_depth, child_depth
        Their distances from the origin.
    exterior, half_aperture
        In degrees.
    between
        The angle between parent and child as seen from the origin, in degrees.
    """

    relation: Relation
    parent_depth: float
    child_depth: float
    exterior: float
    half_aperture: float
    between: float

    @property
    def threshold(self) -> float:
        """Eta times the half-aperture, in degrees."""
        return self.relation.eta * self.half_aperture

    @property
    def violation(self) -> float:
        """By how many degrees the child lies outside the cone."""
        return max(0.0, self.exterior - self.threshold)

    @classmethod
    def of(cls, table: AnnData, row: int, relation: Relation) -> SpotCone | None:
        """Read the cone of a spot from a prediction's table; None where the spot lacks parent or child."""
        if f"exterior_angle_{relation.name}" not in table.obs:
            return None
        exterior, aperture = (
            float(np.degrees(table.obs[f"{column}_{relation.name}"].iloc[row]))
            for column in ("exterior_angle", "half_aperture")
        )
        if not np.isfinite(exterior):
            return None
        parent, child = (
            np.asarray(table.obsm[f"hyperst_{name}"][row], dtype=np.float64)
            for name in (relation.parent, relation.child)
        )
        above, below = (float(table.obs[f"norm_{name}"].iloc[row]) for name in (relation.parent, relation.child))
        return cls(relation, above, below, exterior, aperture, _angle(parent, child))


def title_of(relation: Relation) -> str:
    """Say a relation: parent, arrow, child."""
    return f"{EMBEDDING_TITLES[relation.parent].capitalize()} → {EMBEDDING_TITLES[relation.child]}"


def disk_embeddings(table: AnnData) -> tuple[Embedding, ...]:
    """Return the embeddings that a prediction's table has on the Poincaré disk; none where they are not hyperbolic."""
    return tuple(name for name in EMBEDDINGS if f"hyperst_disk_{name}" in table.obsm)


def disk_radius(depth: NDArray[np.floating] | float, c: float) -> NDArray[np.float64]:
    """Return the radius on the Poincaré disk, ``tanh(sqrt(c) r / 2)``, of points at distance r from the origin."""
    return np.tanh(np.sqrt(c) * np.asarray(depth, dtype=np.float64) / 2)


def from_disk(points: NDArray[np.complex128], at: complex) -> NDArray[np.complex128]:
    """Move the Poincaré disk, as a rigid motion of the hyperbolic plane, so that the origin comes to a point.

    Directions at the origin are kept: a ray from there in direction phi becomes the geodesic from ``at`` in direction
    phi. It is Möbius addition, ``(at + z) / (1 + conj(at) z)`` (Ungar; Ganea et al. 2018, eq. 4).

    Parameters
    ----------
    points
        (k,) points of the disk as complex numbers.
    at
        Where the origin comes to.
    """
    return (at + points) / (1 + np.conj(at) * points)


def _angle(one: FloatArray, other: FloatArray) -> float:
    """Return the angle between two vectors in degrees, exact also where it is small (Kahan)."""
    u, v = (x / np.linalg.norm(x) if x.any() else x for x in (one, other))
    return float(np.degrees(2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))))
