"""The hyperboloid model of hyperbolic space: maps, distances and entailment cones.

Convention: the curvature is -c with c > 0. A point is given by its space components x in R^d alone; its time
component is sqrt(1/c + |x|^2). The origin of the hyperboloid is x = 0. Rows of a tensor are points.

All functions compute in float64 with autocast off, from polar coordinates: the radius a = asinh(sqrt(c) |x|) and
the unit direction x / |x|. The textbook forms lose all digits in float32 at radii that training reaches (METHODS 1
and 7.1); these are exact to float32 rounding. They return float32 for half-precision inputs and the input's type
otherwise. On devices without float64 (MPS) the same forms run in float32; the relative error in distance then grows
to 1e-4 and that in angles to 1e-3 at radius 6.

Where a function is not differentiable (coincident points, the origin, the critical radius of a cone) its gradient
is taken as zero, so that no NaN or infinity enters training.
"""

from __future__ import annotations

import torch
from torch import Tensor

Curvature = Tensor | float


def exp_map0(v: Tensor, c: Curvature) -> Tensor:
    """Lift tangent vectors at the origin: ``sinh(sqrt(c) |v|) v / (sqrt(c) |v|)`` (METHODS 1).

    Parameters
    ----------
    v
        (..., d) tangent vectors; |v| is the distance from the origin that the point will have.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (..., d) space components.
    """
    with _exact(v):
        w, root = _upcast(v), _root(c, v)
        r = root * _length(w)
        return _downcast(w * torch.where(r > 0, torch.sinh(r) / torch.where(r > 0, r, 1.0), 1.0), v)


def log_map0(x: Tensor, c: Curvature) -> Tensor:
    """Invert ``exp_map0``: ``asinh(sqrt(c) |x|) x / (sqrt(c) |x|)``.

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
        y, root = _upcast(x), _root(c, x)
        r = root * _length(y)
        return _downcast(y * torch.where(r > 0, torch.asinh(r) / torch.where(r > 0, r, 1.0), 1.0), x)


def norm(x: Tensor, c: Curvature) -> Tensor:
    """Return (...) geodesic distances of (..., d) points from the origin, ``asinh(sqrt(c) |x|) / sqrt(c)``."""
    with _exact(x):
        root = _root(c, x)
        return _downcast((torch.asinh(root * _length(_upcast(x))) / root).squeeze(-1), x)


def distance(x: Tensor, y: Tensor, c: Curvature) -> Tensor:
    """Return geodesic distances of pairs of points.

    ``sinh(sqrt(c) d / 2)^2 = sinh((a - b) / 2)^2 + sinh a sinh b |u - v|^2 / 4`` for radii a, b and directions
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
        (a, u), (b, v) = _polar(x, root), _polar(y, root)
        h = ((u - v) ** 2).sum(-1, keepdim=True) / 4
        return _downcast(_distance(a, b, h, root).squeeze(-1), x)


def pairwise_distance(x: Tensor, y: Tensor, c: Curvature) -> Tensor:
    """Return geodesic distances of each of some points to each of others.

    The angle comes from a float64 Gram matrix of directions, so nothing of size (B1, B2, d) is made.

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
        (a, u), (b, v) = _polar(x, root), _polar(y, root)
        h = ((1 - u @ v.T) / 2).clamp(0, 1)
        return _downcast(_distance(a, b.T, h, root), x)


def half_aperture(x: Tensor, c: Curvature, min_radius: float = 0.1) -> Tensor:
    """Return half-apertures of entailment cones, ``asin(2 K / (sqrt(c) |x|))`` (METHODS 1).

    Parameters
    ----------
    x
        (..., d) space components of the cones' apexes.
    c
        The space has curvature -c.
    min_radius
        K; within |x| = 2 K / sqrt(c) of the origin a cone is fully open.

    Returns
    -------
    Tensor
        (...) radians in (0, pi/2].
    """
    with _exact(x):
        scaled = _root(c, x) * _length(_upcast(x))
        narrow = scaled > 2 * min_radius
        angle = torch.asin(2 * min_radius / torch.where(narrow, scaled, 4 * min_radius))
        return _downcast(torch.where(narrow, angle, torch.pi / 2).squeeze(-1), x)


def exterior_angle(parent: Tensor, child: Tensor, c: Curvature) -> Tensor:
    """Return the angle at the parent between the ray from the origin, prolonged, and the geodesic to the child.

    ``atan2(2 sinh b sqrt(h (1 - h)), sinh(b - a) - 2 cosh a sinh b h)`` with h = |u - v|^2 / 4 (METHODS 1).

    Parameters
    ----------
    parent, child
        (..., d) space components.
    c
        The space has curvature -c.

    Returns
    -------
    Tensor
        (...) radians in [0, pi]; 0 where the two coincide.
    """
    with _exact(parent):
        root = _root(c, parent)
        (a, u), (b, v) = _polar(parent, root), _polar(child, root)
        h = ((u - v) ** 2).sum(-1, keepdim=True) / 4
        across = torch.sinh(b) * _length(u - v) * _length(u + v) / 2
        along = torch.sinh(b - a) - 2 * torch.cosh(a) * torch.sinh(b) * h
        coincide = (across == 0) & (along == 0)
        angle = torch.atan2(across, torch.where(coincide, 1.0, along))
        return _downcast(angle.squeeze(-1), parent)


def _exact(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _working_type(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def _upcast(x: Tensor) -> Tensor:
    return x.to(_working_type(x))


def _downcast(result: Tensor, like: Tensor) -> Tensor:
    return result.to(torch.promote_types(like.dtype, torch.float32))


def _root(c: Curvature, like: Tensor) -> Tensor:
    return torch.as_tensor(c, device=like.device).to(_working_type(like)).sqrt()


def _length(x: Tensor) -> Tensor:
    """Return (..., 1) lengths; the gradient at zero is zero."""
    return _safe_root((x * x).sum(-1, keepdim=True))


def _safe_root(square: Tensor) -> Tensor:
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def _polar(x: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return (..., 1) radii in units of 1 / sqrt(c), and (..., d) unit directions, zero at the origin."""
    y = _upcast(x)
    length = _length(y)
    return torch.asinh(root * length), y / torch.where(length > 0, length, 1.0)


def _distance(a: Tensor, b: Tensor, h: Tensor, root: Tensor) -> Tensor:
    square = torch.sinh((a - b) / 2) ** 2 + torch.sinh(a) * torch.sinh(b) * h
    return 2 / root * torch.asinh(_safe_root(square))
