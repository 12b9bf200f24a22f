"""The hyperboloid model of hyperbolic space: maps, distances and entailment cones.

Convention: the curvature is -c with c > 0, a float or a 0-dimensional tensor. A point is given by its space
components x in R^d alone; its time component is ``sqrt(1/c + |x|^2)``, and x = 0 is the origin. Rows are points.

All functions compute in float64 with autocast off, from polar coordinates: the radius ``a = asinh(sqrt(c) |x|)`` and
the unit direction ``u = x / |x|``. The textbook forms, acosh of an inner product and acos of a ratio, lose all digits
in float32 at radii that training reaches (METHODS 1 and 7.1); here float32 inputs lose nothing but the rounding of the
result, 6e-8 of it. The result is float32 for half-precision inputs and has the first input's type otherwise.

On devices without float64 (MPS) the same forms run in float32. Up to sqrt(c) radius = 4, distances of pairs of rows
are then off by up to 1e-6 / (sqrt(c) separation) of themselves, up to 6 by ten times that, and exterior angles by
twice that in radians; ``pairwise_distance`` by 5e-4 of the distance more.

Where a function is not differentiable (coincident points, collinear points, the critical radius of a cone) its
gradient is taken as zero, so that neither NaN nor infinity enters training. NaN in a row of the input stays NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

Curvature = Tensor | float

#: Bound on sqrt(c) |v| in ``exp_map0``: sinh of it squared (3e34) still fits float32, so no infinity gets in.
MAX_RADIUS = 40.0

#: A parent with sqrt(c) |x| up to this counts as the origin in ``exterior_angle``, whose gradient is of order 1 / |x|;
#: so does one of float16 whose gradient would come near that type's largest number.
ORIGIN_RADIUS = 1e-12
_FLOAT16_ORIGIN_RADIUS = 16 / torch.finfo(torch.float16).max


def exp_map0(v: Tensor, c: Curvature) -> Tensor:
    """Lift tangent vectors at the origin: ``sinh(sqrt(c) |v|) v / (sqrt(c) |v|)`` (METHODS 1).

    Parameters
    ----------
    v
        (..., d) tangent vectors; ``|v|`` is the distance from the origin that the point will have, up to
        ``MAX_RADIUS / sqrt(c)``.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (..., d) space components.
    """
    with _exact(v):
        w = _upcast(v)
        radius = _root(c, v) * _length(w)
        origin = radius == 0
        stretch = torch.sinh(radius.clamp(max=MAX_RADIUS)) / torch.where(origin, 1.0, radius)
        return _downcast(w * torch.where(origin, 1.0, stretch), v)


def log_map0(x: Tensor, c: Curvature) -> Tensor:
    """Invert ``exp_map0``: ``asinh(sqrt(c) |x|) x / (sqrt(c) |x|)`` (METHODS 1).

    Parameters
    ----------
    x
        (..., d) space components.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (..., d) tangent vectors at the origin.
    """
    with _exact(x):
        y = _upcast(x)
        length = _root(c, x) * _length(y)
        origin = length == 0
        shrink = torch.asinh(length) / torch.where(origin, 1.0, length)
        return _downcast(y * torch.where(origin, 1.0, shrink), x)


def norm(x: Tensor, c: Curvature) -> Tensor:
    """Return geodesic distances from the origin, ``asinh(sqrt(c) |x|) / sqrt(c)``.

    Parameters
    ----------
    x
        (..., d) space components.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (...) distances.
    """
    with _exact(x):
        root = _root(c, x)
        return _downcast((torch.asinh(root * _length(_upcast(x))) / root).squeeze(-1), x)


def distance(x: Tensor, y: Tensor, c: Curvature) -> Tensor:
    """Return geodesic distances of pairs of points.

    ``sinh(sqrt(c) d / 2)^2 = sinh((a - b) / 2)^2 + sinh a sinh b |u - v|^2 / 4`` for radii a, b and unit directions
    u, v (METHODS 1).

    Parameters
    ----------
    x, y
        (..., d) space components.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (...) distances.
    """
    with _exact(x):
        root = _root(c, x)
        (p, r, u), (q, s, v) = _polar(x, root), _polar(y, root)
        sideways = r * s * ((u - v) ** 2).sum(-1, keepdim=True) / 4
        # At the origin there is no direction, but the same term, (|p||q| - p.q) / 2, still has a gradient.
        sideways = torch.where(r * s == 0, -(p * q).sum(-1, keepdim=True) / 2, sideways)
        return _downcast(_distance(r, s, sideways, root).squeeze(-1), x)


def pairwise_distance(x: Tensor, y: Tensor, c: Curvature) -> Tensor:
    """Return geodesic distances of each of some points to each of others.

    The form of ``distance``, with ``sinh a sinh b |u - v|^2 / 4`` from a Gram matrix. Pairs whose directions nearly
    coincide, for which that cancels, are done again from their differences, no more than max(B1, B2) at a time: as
    exact as ``distance``, and nothing of size (B1, B2, d) is made.

    Parameters
    ----------
    x, y
        (B1, d) and (B2, d) space components.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (B1, B2) distances.
    """
    with _exact(x):
        root = _root(c, x)
        (p, r, u), (q, s, v) = _polar(x, root), _polar(y, root)
        s = s.mT
        sideways = _undo_cancellation((r * s - p @ q.mT) / 2, r, s, u, v)
        return _downcast(_distance(r, s, sideways, root), x)


def half_aperture(x: Tensor, c: Curvature, min_radius: float = 0.1) -> Tensor:
    """Return half-apertures of entailment cones, ``asin(2 K / (sqrt(c) |x|))`` (METHODS 1).

    Parameters
    ----------
    x
        (..., d) space components of the cones' apexes.
    c
        The space has curvature -c.
    min_radius
        K; within ``|x| = 2 K / sqrt(c)`` of the origin a cone is fully open.

    Returns
    -------
    Tensor
        (...) radians in (0, pi/2].
    """
    with _exact(x):
        length = _root(c, x) * _length(_upcast(x))
        fully_open = length <= 2 * min_radius
        angle = torch.asin(2 * min_radius / torch.where(fully_open, 4 * min_radius, length))
        return _downcast(torch.where(fully_open, torch.pi / 2, angle).squeeze(-1), x)


def exterior_angle(parent: Tensor, child: Tensor, c: Curvature) -> Tensor:
    """Return the angle at the parent between the ray from the origin, prolonged, and the geodesic to the child.

    ``atan2(2 sinh b sqrt(h (1 - h)), sinh(b - a) - 2 cosh a sinh b h)`` with ``h = |u - v|^2 / 4``, for radii a, b and
    unit directions u, v of parent and child (METHODS 1).

    Parameters
    ----------
    parent, child
        (..., d) space components.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (...) radians in [0, pi]; 0 where the two coincide, and for a parent at the origin (``ORIGIN_RADIUS``), from
        where all is outward.
    """
    with _exact(parent):
        root = _root(c, parent)
        (_, r, u), (_, s, v) = _polar(parent, root), _polar(child, root)
        a, b = torch.asinh(r), torch.asinh(s)
        gap, sum_ = _length(u - v), _length(u + v)
        across = s * gap * sum_ / 2
        along = torch.sinh(b - a) - torch.sqrt(1 + r * r) * s * gap**2 / 2
        undefined = (r <= _origin_radius(parent)) | ((across == 0) & (along == 0))
        angle = torch.atan2(torch.where(undefined, 0.0, across), torch.where(undefined, 1.0, along))
        return _downcast(angle.squeeze(-1), parent)


def _exact(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _working_type(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def _upcast(x: Tensor) -> Tensor:
    return x.to(_working_type(x))


def _downcast(result: Tensor, like: Tensor) -> Tensor:
    return result.to(torch.promote_types(like.dtype, torch.float32))


def _origin_radius(x: Tensor) -> float:
    return _FLOAT16_ORIGIN_RADIUS if x.dtype == torch.float16 else ORIGIN_RADIUS


def _root(c: Curvature, like: Tensor) -> Tensor:
    return torch.as_tensor(c, dtype=_working_type(like), device=like.device).sqrt()


def _length(x: Tensor) -> Tensor:
    """Return (..., 1) lengths of rows; the gradient of a row of zeros is zero."""
    return _safe_root((x * x).sum(-1, keepdim=True))


def _safe_root(square: Tensor) -> Tensor:
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def _polar(x: Tensor, root: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return p = sqrt(c) x, its (..., 1) lengths sinh a, and its (..., d) unit directions, zero at the origin."""
    p = root * _upcast(x)
    length = _length(p)
    return p, length, p / torch.where(length == 0, 1.0, length)


def _undo_cancellation(sideways: Tensor, r: Tensor, s: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return (B1, B2) ``r s |u - v|^2 / 4`` given it from a Gram matrix, whose gradient, no difference, is kept.

    Where half of the Gram matrix's digits are gone the values are taken from u - v.
    """
    exact = sideways.detach().clone()
    lost = exact < torch.finfo(exact.dtype).eps ** 0.5 * (r * s).detach()
    most = max(len(u), len(v), 1)
    with torch.no_grad():
        for i, j in zip(*(pairs.split(most) for pairs in lost.nonzero(as_tuple=True)), strict=True):
            exact[i, j] = r[i, 0] * s[0, j] * ((u[i] - v[j]) ** 2).sum(-1) / 4
    return exact + (sideways - sideways.detach())


def _distance(r: Tensor, s: Tensor, sideways: Tensor, root: Tensor) -> Tensor:
    """Return distances of points with sinh a = r and sinh b = s, given ``sinh a sinh b |u - v|^2 / 4``."""
    outwards = torch.sinh((torch.asinh(r) - torch.asinh(s)) / 2) ** 2
    return 2 / root * torch.asinh(_safe_root(outwards + sideways))
