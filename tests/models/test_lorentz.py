"""The hyperboloid against closed forms, other models of the space and geoopt (METHODS 10.1 to 10.9), and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from geoopt.manifolds.lorentz import math as geoopt_math
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_hyperst.models import lorentz

Function = Callable[..., Tensor]

CURVATURES = (0.1, 1.0, 10.0)

geometry = settings(max_examples=30, deadline=None, derandomize=True, database=None)
curvatures = st.sampled_from(CURVATURES) | st.floats(0.1, 10.0)
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


def time(x: Tensor, c: float) -> Tensor:
    return torch.sqrt(1 / c + (x * x).sum(-1))


def close(actual: Tensor, expected: Tensor | float, tolerance: float = 1e-10) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype).expand_as(actual)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# Closed forms


@geometry
@given(c=curvatures, radius=radii, seed=seeds)
def test_exp_and_log_at_the_origin(c: float, radius: float, seed: int) -> None:
    """METHODS 10.1: the hyperboloid's equation, d(0, exp v) = |v|, log exp v = v."""
    v = radius * directions(seed)
    x = lorentz.exp_map0(v, c)
    close((x * x).sum(-1) - time(x, c) ** 2, -1 / c, 1e-8)
    close(lorentz.distance(torch.zeros_like(x), x, c), radius, 2e-14)
    close(lorentz.norm(x, c), radius, 2e-14)
    close(lorentz.log_map0(x, c), v, 2e-14)
    close(x, math.sinh(math.sqrt(c) * radius) / math.sqrt(c) * directions(seed), 1e-13)


@geometry
@given(c=curvatures, near=radii, beyond=st.floats(0.01, 2.0), seed=seeds)
def test_points_on_one_line_through_the_origin(c: float, near: float, beyond: float, seed: int) -> None:
    """METHODS 10.2: same ray, opposite ray."""
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
    """METHODS 10.3: Pythagoras, and the angle of a right-angled triangle."""
    k, u = math.sqrt(c), directions(seed)
    x, y = lorentz.exp_map0(r1 * u, c), lorentz.exp_map0(r2 * orthogonal(u, seed), c)
    close(torch.cosh(k * lorentz.distance(x, y, c)), math.cosh(k * r1) * math.cosh(k * r2))
    close(lorentz.exterior_angle(x, y, c), math.pi - math.atan(math.tanh(k * r2) / math.sinh(k * r1)))


@geometry
@given(c=curvatures, radius=st.floats(0.2, 2.0), seed=seeds)
def test_law_of_cosines(c: float, radius: float, seed: int) -> None:
    """METHODS 10.4: the exterior angle from three distances."""
    k, x, y = math.sqrt(c), points(seed, c, radius), points(seed + 2, c, 1.3 * radius)
    a, b, g = k * lorentz.norm(x, c), k * lorentz.distance(x, y, c), k * lorentz.norm(y, c)
    inner = torch.acos((torch.cosh(a) * torch.cosh(b) - torch.cosh(g)) / (torch.sinh(a) * torch.sinh(b)))
    close(lorentz.exterior_angle(x, y, c), math.pi - inner, 1e-6)


@geometry
@given(c=curvatures, radius=radii, seed=seeds)
def test_curvature_is_a_scale(c: float, radius: float, seed: int) -> None:
    """METHODS 10.5: every function at c from that at 1."""
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
    """METHODS 10.6: rotation, boost, symmetry and the triangle inequality."""
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
    """METHODS 10.7: at c = 1e-6 distance and angle are Euclidean."""
    u, v = directions(3, n=50), 2 * directions(5, n=50)
    x, y = lorentz.exp_map0(u, 1e-6), lorentz.exp_map0(v, 1e-6)
    close(lorentz.distance(x, y, 1e-6), (u - v).norm(dim=-1), 1e-5)
    cosine = torch.nn.functional.cosine_similarity(v - u, u, dim=-1)
    close(lorentz.exterior_angle(x, y, 1e-6), torch.acos(cosine), 1e-5)


@geometry
@given(radius=radii, seed=seeds)
def test_poincare_ball_and_its_cones(radius: float, seed: int) -> None:
    """METHODS 10.8: the formulas of Ganea et al. for the ball at c = 1."""
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
    """METHODS 1 and 8.4: the cone opens wholly at |x| = 2 K / sqrt(c)."""
    critical = 0.2 / math.sqrt(c)
    x = torch.tensor([[0.0], [0.5], [1.0], [2.0], [10.0]], dtype=torch.float64) * critical
    close(
        lorentz.half_aperture(x, c),
        torch.tensor([math.pi / 2, math.pi / 2, math.pi / 2, math.pi / 6, math.asin(0.1)]),
        1e-6,
    )
    close(lorentz.half_aperture(2 * x, c, min_radius=0.2), lorentz.half_aperture(x, c))


# Another implementation


@pytest.mark.parametrize("c", CURVATURES)
def test_agrees_with_geoopt(c: float) -> None:
    """METHODS 10.9."""
    k = torch.tensor(1 / c, dtype=torch.float64)  # geoopt's k is a squared radius, and time comes first
    v, w = 0.8 * directions(0, n=40), 1.5 * directions(2, n=40)
    zero = torch.zeros(40, 1, dtype=torch.float64)
    p, q = (geoopt_math.expmap0(torch.cat([zero, t], dim=-1), k=k) for t in (v, w))
    x, y = lorentz.exp_map0(v, c), lorentz.exp_map0(w, c)
    close(x, p[:, 1:], 1e-12)
    close(lorentz.log_map0(x, c), geoopt_math.logmap0(p, k=k)[:, 1:], 1e-7)
    close(lorentz.distance(x, y, c), geoopt_math.dist(p, q, k=k), 1e-9)
    close(lorentz.norm(x, c), geoopt_math.dist0(p, k=k), 1e-9)


# Gradients


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_gradcheck(c: float, radius: float) -> None:
    """METHODS 10.9: in float64, away from coincidence, the origin and the critical radius."""
    x, y = (points(seed, c, radius / math.sqrt(c), n=3, d=4).requires_grad_() for seed in (0, 2))
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


@pytest.mark.parametrize("gap", [1e-8, 1e-5, 1e-3])
def test_gradients_of_pairs_that_nearly_coincide_are_those_of_distance(gap: float) -> None:
    """Where the Gram matrix has cancelled its gradient has not."""
    x = points(0, 1.0, 4.0)
    y = x + gap * directions(2)
    matrix = [p.clone().requires_grad_() for p in (x, y)]
    rows = [p.clone().requires_grad_() for p in (x, y)]
    lorentz.pairwise_distance(*matrix, 1.0).diagonal().sum().backward()
    lorentz.distance(*rows, 1.0).sum().backward()
    for ours, theirs in zip(matrix, rows, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("working_type", [torch.float64, torch.float32])
@pytest.mark.parametrize("function", [lorentz.distance, lorentz.pairwise_distance, lorentz.exterior_angle])
def test_gradients_on_the_way_to_the_origin_are_finite(
    function: Function, working_type: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to the smallest float32 numbers, whose squares are zero, also without float64."""
    monkeypatch.setattr(lorentz, "_working_type", lambda x: working_type)
    for c in CURVATURES:
        for t in (1e-45, 1e-40, 1e-30, 1e-23, 1e-22, 1e-20, 1e-13, 1e-11, 1e-6):
            for one, other in (([t, 0.0], [0.3, 0.4]), ([t, 0.0], [0.0, t]), ([t, 0.0], [2 * t, 0.0])):
                for pair in ((one, other), (other, one)):
                    assert all(torch.isfinite(gradient).all() for gradient in gradients(function, *pair, c=c))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [lorentz.distance, lorentz.pairwise_distance, lorentz.exterior_angle])
def test_gradients_of_half_types_on_the_way_to_the_origin_are_finite(function: Function, dtype: torch.dtype) -> None:
    for c in CURVATURES:
        for t in (6e-8, 1e-6, 5e-5, 1e-4, 2e-4, 3e-4, 1e-3):
            for one, other in (([t, 0.0], [0.3, 0.4]), ([t, 0.0], [0.0, t]), ([t, 0.0], [2 * t, 0.0])):
                for pair in ((one, other), (other, one)):
                    for gradient in gradients(function, *pair, c=c, dtype=dtype):
                        assert torch.isfinite(gradient).all()


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
