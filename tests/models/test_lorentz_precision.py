"""The hyperboloid's functions against mpmath, with float32 points (METHODS 1, 7.1 and 10.9)."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor

from napari_hyperst.models import lorentz

CURVATURES = (0.1, 1.0, 10.0)
RADII = (0.5, 1.0, 2.0, 4.0, 6.0)
SEPARATIONS = (1e-3, 1e-2, 0.1, 1.0)


def directions(seed: int, n: int, d: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1)


def orthogonal(u: Tensor, seed: int) -> Tensor:
    w = directions(seed + 1, *u.shape)
    return torch.nn.functional.normalize(w - (w * u).sum(-1, keepdim=True) * u, dim=-1)


def separated(c: float, radius: float, separation: float, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Float32 points at a radius, and others about a separation away in directions of all slopes."""
    k = math.sqrt(c)
    u = directions(1, n, d)
    w = orthogonal(u, 1)
    slope = torch.linspace(0.1, math.pi - 0.1, n, dtype=torch.float64)[:, None]
    a, t = k * radius, k * separation
    forward = math.cosh(a) * torch.cos(slope) * u + torch.sin(slope) * w
    return (math.sinh(a) * u / k).float(), ((math.cosh(t) * math.sinh(a) * u + math.sinh(t) * forward) / k).float()


def level(radius: float, separation: float, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Float32 points of one radius at c = 1, a separation apart."""
    u = directions(1, n, d)
    half = math.asin(math.sinh(separation / 2) / math.sinh(radius))
    along, across = math.sinh(radius) * math.cos(half) * u, math.sinh(radius) * math.sin(half) * orthogonal(u, 1)
    return (along + across).float(), (along - across).float()


def time(x: Tensor) -> Tensor:
    return torch.sqrt(1 + (x * x).sum(-1))


def exact(x: Tensor, y: Tensor, c: float) -> tuple[list[float], list[float]]:
    """Return distances and exterior angles of rows from METHODS 1's defining formulas, to 80 digits."""
    distances, angles = [], []
    with mpmath.workdps(80):
        for p, q in zip(x.tolist(), y.tolist(), strict=True):
            k = mpmath.mpf(c)
            p, q = [mpmath.mpf(e) for e in p], [mpmath.mpf(e) for e in q]
            square = mpmath.fdot(p, p)
            p_time, q_time = mpmath.sqrt(1 / k + square), mpmath.sqrt(1 / k + mpmath.fdot(q, q))
            inner = mpmath.fdot(p, q) - p_time * q_time
            distances.append(float(mpmath.acosh(-k * inner) / mpmath.sqrt(k)))
            cosine = (q_time + p_time * k * inner) / (mpmath.sqrt(square) * mpmath.sqrt((k * inner) ** 2 - 1))
            angles.append(float(mpmath.acos(cosine)))
    return distances, angles


def relative_error(actual: Tensor, expected: list[float] | float) -> float:
    truth = torch.as_tensor(expected, dtype=torch.float64)
    return ((actual.double() - truth) / truth).abs().max().item()


def absolute_error(actual: Tensor, expected: list[float]) -> float:
    return (actual.double() - torch.tensor(expected, dtype=torch.float64)).abs().max().item()


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize("separation", SEPARATIONS)
def test_pairs_of_float32_points_lose_nothing(c: float, radius: float, separation: float) -> None:
    """Distance, of pairs of rows and of all pairs, and exterior angle: half a unit in float32's last place."""
    x, y = separated(c, radius, separation, n=5, d=16)
    distances, angles = exact(x, y, c)
    d, angle, matrix = lorentz.distance(x, y, c), lorentz.exterior_angle(x, y, c), lorentz.pairwise_distance(x, y, c)
    assert d.dtype == angle.dtype == matrix.dtype == torch.float32
    assert relative_error(d, distances) < 1.2e-7
    assert relative_error(matrix.diagonal(), distances) < 1.2e-7
    assert relative_error(angle, angles) < 1.2e-7


@pytest.mark.parametrize("c", CURVATURES)
def test_maps_of_float32_points_lose_nothing(c: float) -> None:
    x = torch.cat([radius * directions(7, 1, 16) for radius in RADII]).float()
    with mpmath.workdps(50):
        k = mpmath.sqrt(c)
        rows = [[mpmath.mpf(e) for e in row] for row in x.tolist()]
        lengths = [k * mpmath.sqrt(mpmath.fdot(row, row)) for row in rows]
        lifted = [[float(mpmath.sinh(t) / t * e) for e in row] for row, t in zip(rows, lengths, strict=True)]
        lowered = [[float(mpmath.asinh(t) / t * e) for e in row] for row, t in zip(rows, lengths, strict=True)]
        norms = [float(mpmath.asinh(t) / k) for t in lengths]
        apertures = [float(mpmath.asin(mpmath.mpf(0.2) / t)) if t > 0.2 else math.pi / 2 for t in lengths]
    assert relative_error(lorentz.exp_map0(x, c), lifted) < 1.2e-7
    assert relative_error(lorentz.log_map0(x, c), lowered) < 1.2e-7
    assert relative_error(lorentz.norm(x, c), norms) < 1.2e-7
    assert relative_error(lorentz.half_aperture(x, c), apertures) < 1.2e-7


@pytest.mark.parametrize("radius", [1.0, 10.0, 20.0, 35.0])
def test_extreme_radii(radius: float) -> None:
    """METHODS 10.9: mpmath for extreme radii, in float64."""
    u = directions(4, 5, 8)
    x, y = lorentz.exp_map0(radius * u, 1.0), lorentz.exp_map0(0.9 * radius * orthogonal(u, 4) + 0.3 * u, 1.0)
    distances, angles = exact(x, y, 1.0)
    assert relative_error(lorentz.distance(x, y, 1.0), distances) < 1e-12
    assert relative_error(lorentz.pairwise_distance(x, y, 1.0).diagonal(), distances) < 1e-12
    assert relative_error(lorentz.exterior_angle(x, y, 1.0), angles) < 1e-12
    with mpmath.workdps(80):
        first = [float(mpmath.sinh(radius) / radius * mpmath.mpf(e)) for e in (radius * u)[0].tolist()]
    assert relative_error(x[0], first) < 1e-12


#: METHODS 7.1, c = 1, d = 512: radius, and for each separation the largest relative error, in float32, of acosh of the
#: inner product, and of asinh of the chord. The first is the formula's own. The second is that of the points, which
#: float32 rounds to others: it is what no formula can avoid.
TABLE = {
    1: ((5.1e-1, 4.6e-6), (5.3e-3, 3.5e-7), (7.1e-5, 8.9e-8), (3.6e-7, 1.2e-7)),
    2: ((1.0, 1.7e-5), (2.3e-2, 1.2e-6), (2.1e-4, 1.6e-7), (2.1e-6, 1.2e-7)),
    4: ((15, 1.4e-4), (1.0, 7.9e-6), (1.2e-2, 9.5e-7), (1.5e-4, 1.2e-7)),
    6: ((87, 6.6e-4), (11, 5.3e-5), (1.0, 6.1e-6), (6.5e-3, 4.8e-7)),
    8: ((1200, 6e-3), (110, 6.7e-4), (8.6, 4.8e-5), (0.45, 4.3e-6)),
}


@pytest.mark.parametrize("radius", TABLE)
@pytest.mark.parametrize("column", range(4))
def test_table_of_methods(radius: int, column: int) -> None:
    """METHODS 7.1: its errors are found again, within a factor 3, and ours has neither the first nor more than both."""
    acosh_error, rounding_error = TABLE[radius][column]
    separation = SEPARATIONS[column]
    x, y = level(radius, separation, n=48, d=512)
    distances, _ = exact(x, y, 1.0)
    acosh = torch.acosh((time(x) * time(y) - (x * y).sum(-1)).clamp(min=1.0))
    gap = ((x - y) * (x + y)).sum(-1) / (time(x) + time(y))
    asinh = 2 * torch.asinh(torch.sqrt(((x - y) ** 2).sum(-1) - gap**2) / 2)
    assert acosh_error / 3 < relative_error(acosh, distances) < 3 * acosh_error
    assert rounding_error / 3 < relative_error(asinh, separation) < 3 * rounding_error
    for ours in (lorentz.distance(x, y, 1.0), lorentz.pairwise_distance(x, y, 1.0).diagonal()):
        assert relative_error(ours, distances) < 1.2e-7
        assert relative_error(ours, separation) < 2 * rounding_error


def test_nearly_collinear_angle_is_not_rounded_to_zero() -> None:
    """METHODS 7.3: 3.731e-4 where acos in float32 returns 0."""
    x = torch.tensor([[1.0, 0.0]])
    y = torch.tensor([[2.0, 4e-4]])
    _, angles = exact(x, y, 1.0)
    assert angles[0] > 1e-4
    assert relative_error(lorentz.exterior_angle(x, y, 1.0), angles) < 1.2e-7


def test_all_points_in_one_place() -> None:
    """Every pair cancels in the Gram matrix, so every one is done again; the whole matrix stays exact."""
    x = directions(0, 1, 32).float() + 1e-6 * directions(1, 9, 32).float()
    y = directions(0, 1, 32).float() + 1e-6 * directions(2, 5, 32).float()
    distances, _ = exact(x.repeat_interleave(5, dim=0), y.repeat(9, 1), 1.0)
    assert max(distances) < 1e-5
    assert relative_error(lorentz.pairwise_distance(x, y, 1.0).flatten(), distances) < 1.2e-7
    assert torch.equal(lorentz.pairwise_distance(x, x.clone(), 1.0).diagonal(), torch.zeros(9))


#: What the module's docstring and docs/hyperbolic.md state where there is no float64: sqrt(c) radius, and the bound on
#: error times sqrt(c) separation.
WITHOUT_FLOAT64 = {0.5: 1e-6, 1.0: 1e-6, 2.0: 1e-6, 4.0: 1e-6, 6.0: 1e-5}


@pytest.mark.parametrize("radius", WITHOUT_FLOAT64)
@pytest.mark.parametrize("separation", SEPARATIONS)
def test_error_without_float64_is_as_stated(radius: float, separation: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lorentz, "_working_type", lambda x: torch.float32)
    bound = WITHOUT_FLOAT64[radius] / separation
    for c in CURVATURES:
        k = math.sqrt(c)
        x, y = separated(c, radius / k, separation / k, n=16, d=64)
        distances, angles = exact(x, y, c)
        assert relative_error(lorentz.distance(x, y, c), distances) < bound
        assert absolute_error(lorentz.exterior_angle(x, y, c), angles) < 2 * bound
        assert relative_error(lorentz.pairwise_distance(x, y, c).diagonal(), distances) < bound + 5e-4
