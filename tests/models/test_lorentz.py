"""The hyperboloid against closed forms, other models of the space, geoopt and mpmath (METHODS 7 and 10)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from geoopt.manifolds.lorentz import math as geoopt_math
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from napari_hyperst.models import lorentz

Function = Callable[..., Tensor]

CURVATURES = (0.1, 1.0, 10.0)

geometry = settings(max_examples=30, deadline=None, derandomize=True, database=None)
curvatures = st.floats(0.1, 10.0)
radii = st.floats(0.05, 3.0)
seeds = st.integers(0, 10_000)


def directions(seed: int, n: int = 6, d: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1)


def orthogonal(u: Tensor, seed: int) -> Tensor:
    w = directions(seed + 1, *u.shape)
    return torch.nn.functional.normalize(w - (w * u).sum(-1, keepdim=True) * u, dim=-1)


def points(seed: int, c: float, radius: float, n: int = 6, d: int = 5) -> Tensor:
    """Points at geodesic distances from the origin spread from half the radius to all of it."""
    lengths = radius * torch.linspace(0.5, 1, n, dtype=torch.float64)[:, None]
    return lorentz.exp_map0(lengths * directions(seed, n, d), c)


def separated(c: float, radius: float, separation: float, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Float32 points at a radius, and others about a separation away in directions of all slopes."""
    k = math.sqrt(c)
    u = directions(1, n, d)
    w = orthogonal(u, 1)
    slope = torch.linspace(0.1, math.pi - 0.1, n, dtype=torch.float64)[:, None]
    a, t = k * radius, k * separation
    forward = math.cosh(a) * torch.cos(slope) * u + torch.sin(slope) * w
    return (math.sinh(a) * u / k).float(), ((math.cosh(t) * math.sinh(a) * u + math.sinh(t) * forward) / k).float()


def time(x: Tensor, c: float) -> Tensor:
    return torch.sqrt(1 / c + (x * x).sum(-1))


def close(actual: Tensor, expected: Tensor | float, tolerance: float = 1e-10) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype).expand_as(actual)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


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


def relative_error(actual: Tensor, expected: list[float]) -> float:
    truth = torch.tensor(expected, dtype=torch.float64)
    return ((actual.double() - truth) / truth).abs().max().item()


def absolute_error(actual: Tensor, expected: list[float]) -> float:
    return (actual.double() - torch.tensor(expected, dtype=torch.float64)).abs().max().item()


# METHODS 10.1 to 10.8: closed forms


@geometry
@given(c=curvatures, radius=radii, seed=seeds)
def test_exp_and_log_at_the_origin(c: float, radius: float, seed: int) -> None:
    v = radius * directions(seed)
    x = lorentz.exp_map0(v, c)
    close((x * x).sum(-1) - time(x, c) ** 2, -1 / c, 1e-8)
    close(lorentz.distance(torch.zeros_like(x), x, c), radius)
    close(lorentz.norm(x, c), radius)
    close(lorentz.log_map0(x, c), v)
    close(x, math.sinh(math.sqrt(c) * radius) / math.sqrt(c) * directions(seed))


@geometry
@given(c=curvatures, near=radii, beyond=st.floats(0.01, 2.0), seed=seeds)
def test_points_on_one_line_through_the_origin(c: float, near: float, beyond: float, seed: int) -> None:
    u = directions(seed)
    x, y, opposite = (lorentz.exp_map0(r * u, c) for r in (near, near + beyond, -near))
    close(lorentz.distance(x, y, c), beyond, 1e-9)
    close(lorentz.distance(y, opposite, c), 2 * near + beyond)
    close(lorentz.exterior_angle(x, y, c), 0.0, 1e-7)
    close(lorentz.exterior_angle(y, x, c), math.pi, 1e-7)
    close(lorentz.exterior_angle(x, opposite, c), math.pi, 1e-7)
    close(lorentz.exterior_angle(x, torch.zeros_like(x), c), math.pi)


@geometry
@given(c=curvatures, r1=radii, r2=radii, seed=seeds)
def test_points_on_orthogonal_rays(c: float, r1: float, r2: float, seed: int) -> None:
    k, u = math.sqrt(c), directions(seed)
    x, y = lorentz.exp_map0(r1 * u, c), lorentz.exp_map0(r2 * orthogonal(u, seed), c)
    close(torch.cosh(k * lorentz.distance(x, y, c)), math.cosh(k * r1) * math.cosh(k * r2))
    close(lorentz.exterior_angle(x, y, c), math.pi - math.atan(math.tanh(k * r2) / math.sinh(k * r1)))


@geometry
@given(c=curvatures, radius=st.floats(0.2, 2.0), seed=seeds)
def test_law_of_cosines(c: float, radius: float, seed: int) -> None:
    k, x, y = math.sqrt(c), points(seed, c, radius), points(seed + 2, c, 1.3 * radius)
    a, b, g = k * lorentz.norm(x, c), k * lorentz.distance(x, y, c), k * lorentz.norm(y, c)
    inner = torch.acos((torch.cosh(a) * torch.cosh(b) - torch.cosh(g)) / (torch.sinh(a) * torch.sinh(b)))
    close(lorentz.exterior_angle(x, y, c), math.pi - inner, 1e-6)


@geometry
@given(c=curvatures, radius=radii, seed=seeds)
def test_curvature_is_a_scale(c: float, radius: float, seed: int) -> None:
    k, v = math.sqrt(c), radius * directions(seed)
    x, y = points(seed, c, radius), points(seed + 2, c, radius)
    close(lorentz.exp_map0(v, c), lorentz.exp_map0(k * v, 1.0) / k)
    close(lorentz.log_map0(x, c), lorentz.log_map0(k * x, 1.0) / k)
    close(lorentz.distance(x, y, c), lorentz.distance(k * x, k * y, 1.0) / k)
    close(lorentz.pairwise_distance(x, y, c), lorentz.pairwise_distance(k * x, k * y, 1.0) / k)
    close(lorentz.half_aperture(x, c), lorentz.half_aperture(k * x, 1.0))
    close(lorentz.exterior_angle(x, y, c), lorentz.exterior_angle(k * x, k * y, 1.0))


@geometry
@given(c=curvatures, radius=radii, rapidity=st.floats(-2.0, 2.0), seed=seeds)
def test_isometries(c: float, radius: float, rapidity: float, seed: int) -> None:
    x, y, z = (points(seed + i, c, radius) for i in (0, 2, 4))
    d = lorentz.distance(x, y, c)
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    close(lorentz.distance(x @ rotation, y @ rotation, c), d)
    close(lorentz.exterior_angle(x @ rotation, y @ rotation, c), lorentz.exterior_angle(x, y, c), 1e-9)

    def boost(p: Tensor) -> Tensor:
        first = math.cosh(rapidity) * p[:, 0] + math.sinh(rapidity) * time(p, c)
        return torch.cat([first[:, None], p[:, 1:]], dim=-1)

    close(lorentz.distance(boost(x), boost(y), c), d, 1e-7)
    close(lorentz.distance(y, x, c), d, 0)
    assert (d <= lorentz.distance(x, z, c) + lorentz.distance(z, y, c) + 1e-12).all()


def test_flat_limit() -> None:
    u, v = directions(3, n=50), 2 * directions(5, n=50)
    x, y = lorentz.exp_map0(u, 1e-6), lorentz.exp_map0(v, 1e-6)
    close(lorentz.distance(x, y, 1e-6), (u - v).norm(dim=-1), 1e-5)
    cosine = torch.nn.functional.cosine_similarity(v - u, u, dim=-1)
    close(lorentz.exterior_angle(x, y, 1e-6), torch.acos(cosine), 1e-5)


@geometry
@given(radius=radii, seed=seeds)
def test_poincare_ball_and_its_cones(radius: float, seed: int) -> None:
    x, y = points(seed, 1.0, radius), points(seed + 2, 1.0, radius)
    p, q = (z / (1 + time(z, 1.0))[:, None] for z in (x, y))
    pp, qq, pq, gap = (p * p).sum(-1), (q * q).sum(-1), (p * q).sum(-1), (p - q).norm(dim=-1)
    close(torch.cosh(lorentz.distance(x, y, 1.0)), 1 + 2 * gap**2 / ((1 - pp) * (1 - qq)), 1e-9)
    cosine = (pq * (1 + pp) - pp * (1 + qq)) / (pp.sqrt() * gap * torch.sqrt(1 + pp * qq - 2 * pq))
    close(torch.cos(lorentz.exterior_angle(x, y, 1.0)), cosine, 1e-8)
    sine = 0.1 * (1 - pp) / pp.sqrt()
    close(torch.sin(lorentz.half_aperture(x, 1.0)), sine.clamp(max=1), 1e-8)


@geometry
@given(c=curvatures, radius=radii, seed=seeds)
def test_pairwise_is_distance_of_all_pairs(c: float, radius: float, seed: int) -> None:
    x, y = points(seed, c, radius, n=4), points(seed + 2, c, radius, n=3)
    close(lorentz.pairwise_distance(x, y, c), lorentz.distance(x[:, None], y[None], c), 1e-9)


@pytest.mark.parametrize("c", CURVATURES)
def test_half_aperture_is_open_within_the_critical_radius(c: float) -> None:
    critical = 0.2 / math.sqrt(c)
    x = torch.tensor([[0.0], [0.5], [1.0], [2.0], [10.0]], dtype=torch.float64) * critical
    close(
        lorentz.half_aperture(x, c),
        torch.tensor([math.pi / 2, math.pi / 2, math.pi / 2, math.pi / 6, math.asin(0.1)]),
        1e-6,
    )
    close(lorentz.half_aperture(2 * x, c, min_radius=0.2), lorentz.half_aperture(x, c))


# METHODS 10.9: other implementations, and 7.1: precision


@pytest.mark.parametrize("c", CURVATURES)
def test_agrees_with_geoopt(c: float) -> None:
    k = torch.tensor(1 / c, dtype=torch.float64)  # geoopt's k is a squared radius, and time comes first
    v, w = 0.8 * directions(0, n=40), 1.5 * directions(2, n=40)
    zero = torch.zeros(40, 1, dtype=torch.float64)
    p, q = (geoopt_math.expmap0(torch.cat([zero, t], dim=-1), k=k) for t in (v, w))
    x, y = lorentz.exp_map0(v, c), lorentz.exp_map0(w, c)
    close(x, p[:, 1:], 1e-12)
    close(lorentz.log_map0(x, c), geoopt_math.logmap0(p, k=k)[:, 1:], 1e-7)
    close(lorentz.distance(x, y, c), geoopt_math.dist(p, q, k=k), 1e-9)
    close(lorentz.norm(x, c), geoopt_math.dist0(p, k=k), 1e-9)


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("radius", [0.5, 1.0, 2.0, 4.0, 6.0])
@pytest.mark.parametrize("separation", [1e-3, 1e-2, 0.1, 1.0])
def test_float32_points_lose_nothing(c: float, radius: float, separation: float) -> None:
    x, y = separated(c, radius, separation, n=5, d=16)
    distances, angles = exact(x, y, c)
    d, angle = lorentz.distance(x, y, c), lorentz.exterior_angle(x, y, c)
    assert d.dtype == angle.dtype == torch.float32
    assert relative_error(d, distances) < 2e-7
    assert absolute_error(angle, angles) < 3e-7
    # The Gram matrix cancels where points nearly coincide far out: the bound that the docstring states.
    error = absolute_error(lorentz.pairwise_distance(x, y, c).diagonal(), distances)
    assert error < 2e-7 * max(distances) + 2e-8 * math.sinh(math.sqrt(c) * (radius + separation)) / math.sqrt(c)
    if separation >= 0.01 and math.sqrt(c) * radius <= 4:
        assert relative_error(lorentz.pairwise_distance(x, y, c).diagonal(), distances) < 2e-7


@pytest.mark.parametrize("radius", [1.0, 10.0, 20.0, 35.0])
def test_extreme_radii_against_mpmath(radius: float) -> None:
    u = directions(4, n=5, d=8)
    x, y = lorentz.exp_map0(radius * u, 1.0), lorentz.exp_map0(0.9 * radius * orthogonal(u, 4) + 0.3 * u, 1.0)
    distances, angles = exact(x, y, 1.0)
    assert relative_error(lorentz.distance(x, y, 1.0), distances) < 1e-12
    assert relative_error(lorentz.exterior_angle(x, y, 1.0), angles) < 1e-12
    with mpmath.workdps(80):
        first = [float(mpmath.sinh(radius) / radius * mpmath.mpf(e)) for e in (radius * u)[0].tolist()]
    close(x[0], torch.tensor(first, dtype=torch.float64), 1e-12)


#: METHODS 7.1: the largest relative error of the acosh form in float32, c = 1, d = 512.
ACOSH = {
    1: (5.1e-1, 5.3e-3, 7.1e-5, 3.6e-7),
    2: (1.0, 2.3e-2, 2.1e-4, 2.1e-6),
    4: (15, 1.0, 1.2e-2, 1.5e-4),
    6: (87, 11, 1.0, 6.5e-3),
    8: (1200, 110, 8.6, 0.45),
}


@pytest.mark.parametrize("radius", ACOSH)
def test_acosh_form_loses_what_ours_keeps(radius: int) -> None:
    for separation, published in zip((1e-3, 1e-2, 0.1, 1.0), ACOSH[radius], strict=True):
        x, y = separated(1.0, radius, separation, n=12, d=512)
        distances, _ = exact(x, y, 1.0)
        product = time(x, 1.0) * time(y, 1.0) - (x * y).sum(-1)
        theirs = relative_error(torch.acosh(product.clamp(min=1.0)), distances)
        assert relative_error(lorentz.distance(x, y, 1.0), distances) < 1.2e-7
        if published >= 1e-4:
            assert theirs > max(published / 100, 1e-5)


def test_nearly_collinear_angle_is_not_rounded_to_zero() -> None:
    x = torch.tensor([[1.0, 0.0]])
    y = torch.tensor([[2.0, 4e-4]])
    _, angles = exact(x, y, 1.0)
    assert angles[0] > 1e-4
    assert relative_error(lorentz.exterior_angle(x, y, 1.0), angles) < 2e-7


def test_error_without_float64_is_as_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lorentz, "_working_type", lambda x: torch.float32)
    for c in CURVATURES:
        k = math.sqrt(c)
        for radius in (r for r in (0.5, 1.0, 2.0, 4.0, 6.0) if k * r <= 6):
            for separation, bound in ((1e-3, 2e-3), (1.0, 1e-5)):
                x, y = separated(c, radius, separation, n=16, d=64)
                distances, angles = exact(x, y, c)
                assert relative_error(lorentz.distance(x, y, c), distances) < bound
                assert absolute_error(lorentz.exterior_angle(x, y, c), angles) < 2 * bound
                pairwise = lorentz.pairwise_distance(x, y, c).diagonal()
                assert absolute_error(pairwise, distances) < 1e-3 * math.sinh(k * (radius + separation)) / k
    x = points(0, 1.0, 2.0).float()
    plain = lorentz.pairwise_distance(x, x.flip(0), 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lorentz.pairwise_distance(x, x.flip(0), 1.0), plain)


class Largest(TorchDispatchMode):
    """Remember the size of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func: Function, types: object, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_pairwise_makes_nothing_of_three_dimensions() -> None:
    x = points(0, 1.0, 1.0, n=32, d=64).requires_grad_()
    with Largest() as largest:
        lorentz.pairwise_distance(x, x.detach().flip(0), 1.0).sum().backward()
    assert largest.elements == 32 * 64


# Gradients


@pytest.mark.parametrize("c", CURVATURES)
def test_gradcheck(c: float) -> None:
    x, y = (points(seed, c, 1.0, n=3, d=4).requires_grad_() for seed in (0, 2))
    curvature = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    for function in (lorentz.exp_map0, lorentz.log_map0, lorentz.norm, lorentz.half_aperture):
        assert torch.autograd.gradcheck(function, (x, curvature))
    for function in (lorentz.distance, lorentz.pairwise_distance, lorentz.exterior_angle):
        assert torch.autograd.gradcheck(function, (x, y, curvature))


def gradients(
    function: Function, *rows: list[float], c: float = 1.0, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    inputs = [torch.tensor([row], dtype=dtype, requires_grad=True) for row in rows]
    curvature = torch.tensor(c, requires_grad=True)
    value = function(*inputs, curvature)
    assert torch.isfinite(value).all()
    return list(torch.autograd.grad(value.sum(), [*inputs, curvature], allow_unused=True, materialize_grads=True))


SINGULAR_PAIRS = {
    "coincident": ([0.3, 0.4], [0.3, 0.4]),
    "both at the origin": ([0.0, 0.0], [0.0, 0.0]),
    "first at the origin": ([0.0, 0.0], [0.3, 0.4]),
    "second at the origin": ([0.3, 0.4], [0.0, 0.0]),
    "farther on one ray": ([0.3, 0.4], [0.6, 0.8]),
    "nearer on one ray": ([0.6, 0.8], [0.3, 0.4]),
    "on opposite rays": ([0.3, 0.4], [-0.3, -0.4]),
}


@pytest.mark.parametrize("pair", SINGULAR_PAIRS.values(), ids=SINGULAR_PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [lorentz.distance, lorentz.pairwise_distance, lorentz.exterior_angle])
def test_gradients_at_singular_pairs_are_finite(
    function: Function, pair: tuple[list[float], list[float]], dtype: torch.dtype
) -> None:
    for gradient in gradients(function, *pair, dtype=dtype):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() < 10


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("function", [lorentz.exp_map0, lorentz.log_map0, lorentz.norm, lorentz.half_aperture])
def test_gradients_of_maps_are_finite_at_origin_and_critical_radius(function: Function, c: float) -> None:
    critical = torch.tensor(0.2 / math.sqrt(c))
    above, below = (torch.nextafter(critical, torch.tensor(to)).item() for to in (9.0, 0.0))
    for length in (0.0, 1e-30, 1e-8, below, critical.item(), above):
        for gradient in gradients(function, [length, 0.0], c=c):
            assert torch.isfinite(gradient).all()


def test_coincident_points_pull_nowhere() -> None:
    for function in (lorentz.distance, lorentz.pairwise_distance):
        for gradient in gradients(function, [0.3, 0.4], [0.3, 0.4]):
            assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("function", [lorentz.distance, lorentz.pairwise_distance])
def test_gradient_of_distance_from_the_origin_points_away(function: Function) -> None:
    at_origin, at_point, _ = gradients(function, [0.0, 0.0], [0.3, 0.4], dtype=torch.float64)
    close(at_origin, torch.tensor([[-0.6, -0.8]]), 1e-6)
    close(at_point, torch.tensor([[0.6, 0.8]]) / math.sqrt(1.25), 1e-6)
    close(gradients(function, [0.3, 0.4], [0.0, 0.0], dtype=torch.float64)[1], at_origin)


@pytest.mark.parametrize("function", [lorentz.exp_map0, lorentz.log_map0])
def test_maps_are_the_identity_to_first_order_at_the_origin(function: Function) -> None:
    jacobian = torch.autograd.functional.jacobian(lambda v: function(v, 2.0), torch.zeros(3, dtype=torch.float64))
    close(jacobian, torch.eye(3))


# Types, autocast and the unexpected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_out_as_float32_whatever_autocast_says(dtype: torch.dtype) -> None:
    x, y = (points(seed, 1.0, 1.0, n=4).to(dtype) for seed in (0, 2))
    c = torch.tensor(0.5, requires_grad=True)
    calls = {
        "exp": lambda: lorentz.exp_map0(x, c),
        "log": lambda: lorentz.log_map0(x, c),
        "norm": lambda: lorentz.norm(x, c),
        "distance": lambda: lorentz.distance(x, y, c),
        "pairwise": lambda: lorentz.pairwise_distance(x, y, c),
        "aperture": lambda: lorentz.half_aperture(x, c),
        "exterior": lambda: lorentz.exterior_angle(x, y, c),
    }
    for call in calls.values():
        plain = call()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = call()
        assert plain.dtype == inside.dtype == torch.float32
        assert torch.equal(plain, inside)
    close(lorentz.distance(x, x.clone(), c), 0.0, 0)
    close(lorentz.distance(x, y, c), lorentz.distance(x.double(), y.double(), c).float(), 1e-6)


def test_float16_features_of_norm_32_stay_finite() -> None:
    v = (32 * directions(0, d=64)).half()
    x = lorentz.exp_map0(v, 1.0)
    assert torch.isfinite(x).all()
    close(lorentz.norm(x, 1.0), v.double().norm(dim=-1).float(), 1e-6)


def test_radius_is_bounded_before_float32_overflows() -> None:
    v = torch.tensor([[3000.0, 4000.0]], requires_grad=True)
    x = lorentz.exp_map0(v, 1.0)
    close(lorentz.norm(x, 1.0), lorentz.MAX_RADIUS, 1e-6)
    close(x / x.norm(), torch.tensor([[0.6, 0.8]]), 1e-6)
    total = lorentz.distance(x, -x, 1.0) + lorentz.exterior_angle(x, x.flip(-1), 1.0)
    (gradient,) = torch.autograd.grad(total.sum(), v)
    assert torch.isfinite(total).all()
    assert torch.isfinite(gradient).all()


def test_float_curvature_keeps_its_digits() -> None:
    x, y = points(0, 0.1, 1.0), points(2, 0.1, 1.0)
    close(lorentz.distance(x, y, 0.1), lorentz.distance(x, y, torch.tensor(0.1, dtype=torch.float64)), 0)


def test_nan_is_not_hidden() -> None:
    x, y = points(0, 1.0, 1.0).float(), points(2, 1.0, 1.0).float()
    x[1] = float("nan")
    rows = torch.isnan(x).any(-1)
    for value in (
        lorentz.exp_map0(x, 1.0).sum(-1),
        lorentz.log_map0(x, 1.0).sum(-1),
        lorentz.norm(x, 1.0),
        lorentz.half_aperture(x, 1.0),
        lorentz.distance(x, y, 1.0),
        lorentz.distance(y, x, 1.0),
        lorentz.exterior_angle(x, y, 1.0),
        lorentz.exterior_angle(y, x, 1.0),
        lorentz.pairwise_distance(x, y, 1.0).sum(-1),
    ):
        assert torch.equal(torch.isnan(value), rows)


def test_parent_at_the_origin_entails_everything() -> None:
    y = points(0, 1.0, 1.0)
    assert torch.equal(lorentz.exterior_angle(torch.zeros_like(y), y, 1.0), torch.zeros(len(y), dtype=torch.float64))
