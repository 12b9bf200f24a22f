"""The spaces that embeddings can live in, behind one interface: the hyperboloid, its flat counterpart, and a sphere.

Points are rows of (..., d) tensors. As in ``lorentz``, all is computed in float64 (float32 where there is none) with
autocast off, results are at least float32, and gradients are zero where a function has none.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_hyperst.models import lorentz
from napari_hyperst.nouns import hierarchy


class Geometry(Protocol):
    """A space with what the objectives need of it.

    ``c`` is that of the curvature -c, and is of no meaning where the space is not curved; ``K`` is ``min_radius``.
    """

    def lift(self, v: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return the points of (B, d) scaled features."""

    def similarity(self, query: Tensor, key: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return (B1, B2) similarities of (B1, d) to (B2, d) points: the logits before the temperature."""

    def norm(self, x: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return (B,) distances from the origin."""

    def exterior_angle(self, parent: Tensor, child: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return (B,) radians at the parent between the prolonged ray from the origin and the way to the child."""

    def half_aperture(self, x: Tensor, c: lorentz.Curvature, min_radius: float) -> Tensor:
        """Return (B,) half-apertures of the cones at the points, in radians."""


class Hyperbolic:
    """The hyperboloid of curvature -c; similarity is the negative distance (METHODS 1)."""

    def lift(self, v: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return ``exp_map0(v, c)``."""
        return lorentz.exp_map0(v, c)

    def similarity(self, query: Tensor, key: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return negative geodesic distances."""
        return -lorentz.pairwise_distance(query, key, c)

    def norm(self, x: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return geodesic distances from the origin."""
        return lorentz.norm(x, c)

    def exterior_angle(self, parent: Tensor, child: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return exterior angles."""
        return lorentz.exterior_angle(parent, child, c)

    def half_aperture(self, x: Tensor, c: lorentz.Curvature, min_radius: float) -> Tensor:
        """Return ``asin(2 K / (sqrt(c) |x|))``, or pi / 2 within that radius."""
        return lorentz.half_aperture(x, c, min_radius)


class Euclidean:
    """The flat counterpart, the limit of the hyperboloid for c -> 0 (METHODS 8, 19).

    There the hyperbolic aperture diverges, so c is 1 in that one formula.
    """

    def lift(self, v: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return the features as they are."""
        return v

    def similarity(self, query: Tensor, key: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return ``-|u - v|``, from a float64 Gram matrix: nothing of size (B1, B2, d) is made."""
        with _exact(query):
            p, q = _upcast(query), _upcast(key)
            square = (p * p).sum(-1)[:, None] + (q * q).sum(-1)[None] - 2 * p @ q.mT
            return -_downcast(_safe_root(torch.where(square < 0, 0.0, square)), query)

    def norm(self, x: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return ``|x|``."""
        with _exact(x):
            return _downcast(_length(_upcast(x)), x)

    def exterior_angle(self, parent: Tensor, child: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return the angle between ``v - u`` and ``u``; 0 where u is the origin or the two coincide."""
        with _exact(parent):
            u, v = _upcast(parent), _upcast(child)
            length = _length(u).unsqueeze(-1)
            outward = u / torch.where(length == 0, 1.0, length)
            along = ((v - u) * outward).sum(-1)
            across = _length((v - u) - along.unsqueeze(-1) * outward)
            undefined = (length.squeeze(-1) == 0) | ((across == 0) & (along == 0))
            angle = torch.atan2(torch.where(undefined, 0.0, across), torch.where(undefined, 1.0, along))
            return _downcast(angle, parent)

    def half_aperture(self, x: Tensor, c: lorentz.Curvature, min_radius: float) -> Tensor:
        """Return ``asin(min(1, 2 K / |x|))``."""
        return lorentz.half_aperture(x, 1.0, min_radius)


class Cosine:
    """CLIP's unit sphere: features of length 1, and their inner product (METHODS 8, 18). It has no cones."""

    def lift(self, v: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return ``v / |v|``."""
        return F.normalize(v, dim=-1)

    def similarity(self, query: Tensor, key: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return cosines."""
        with _exact(query):
            return _downcast(_upcast(query) @ _upcast(key).mT, query)

    def norm(self, x: Tensor, c: lorentz.Curvature) -> Tensor:
        """Return ``|x|``, which is 1."""
        return EUCLIDEAN.norm(x, c)

    def exterior_angle(self, parent: Tensor, child: Tensor, c: lorentz.Curvature) -> Tensor:
        """Raise: there is no origin to look out from."""
        raise NotImplementedError("the unit sphere has no cones")

    def half_aperture(self, x: Tensor, c: lorentz.Curvature, min_radius: float) -> Tensor:
        """Raise: there is no origin to look out from."""
        raise NotImplementedError("the unit sphere has no cones")


HYPERBOLIC, EUCLIDEAN, COSINE = Hyperbolic(), Euclidean(), Cosine()
_GEOMETRIES: dict[hierarchy.Geometry, Geometry] = {
    "hyperbolic": HYPERBOLIC,
    "euclidean": EUCLIDEAN,
    "cosine": COSINE,
}


def geometry(name: hierarchy.Geometry) -> Geometry:
    """Return the geometry of that name."""
    return _GEOMETRIES[name]


def _exact(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _upcast(x: Tensor) -> Tensor:
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def _downcast(result: Tensor, like: Tensor) -> Tensor:
    return result.to(torch.promote_types(like.dtype, torch.float32))


def _length(x: Tensor) -> Tensor:
    return _safe_root((x * x).sum(-1))


def _safe_root(square: Tensor) -> Tensor:
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())
