"""The hyperboloid's functions with half precision, under autocast, without a (B, B, d) tensor, and given NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from napari_hyperst.models import lorentz

Function = Callable[..., Tensor]

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")],
    ),
]


def directions(seed: int, n: int = 6, d: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=-1)


def points(seed: int, c: float, radius: float, n: int = 6, d: int = 5) -> Tensor:
    """Points at geodesic distances from the origin spread from half the radius to all of it."""
    lengths = radius * torch.linspace(0.5, 1, n, dtype=torch.float64)[:, None]
    return lorentz.exp_map0(lengths * directions(seed, n, d), c)


def close(actual: Tensor, expected: Tensor | float, tolerance: float) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype).expand_as(actual)
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def every_function(x: Tensor, y: Tensor, c: Tensor) -> dict[str, Tensor]:
    return {
        "exp": lorentz.exp_map0(x, c),
        "log": lorentz.log_map0(x, c),
        "norm": lorentz.norm(x, c),
        "distance": lorentz.distance(x, y, c),
        "pairwise": lorentz.pairwise_distance(x, y, c),
        "aperture": lorentz.half_aperture(x, c),
        "exterior": lorentz.exterior_angle(x, y, c),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("autocast", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(device: str, dtype: torch.dtype, autocast: torch.dtype) -> None:
    """METHODS 7.4: values in float32, the same with autocast and without, as exact as the inputs; gradients too."""
    x, y = (points(seed, 1.0, 1.0, n=4).to(device, dtype).requires_grad_() for seed in (0, 2))
    c = torch.tensor(0.5, device=device, requires_grad=True)
    plain = every_function(x, y, c)
    with torch.autocast(device, dtype=autocast):
        inside = every_function(x, y, c)
        gradients = torch.autograd.grad(sum(value.sum() for value in inside.values()), [x, y, c])
    wanted = torch.autograd.grad(sum(value.sum() for value in plain.values()), [x, y, c])
    truth = every_function(x.detach().double(), y.detach().double(), c.detach().double())
    for name, value in inside.items():
        assert value.dtype == torch.float32, name
        assert torch.equal(value, plain[name]), name
        close(value, truth[name].float(), 1.2e-7)
    assert [gradient.dtype for gradient in gradients] == [dtype, dtype, torch.float32]
    for gradient, other in zip(gradients, wanted, strict=True):
        assert gradient.isfinite().all()
        assert torch.equal(gradient, other)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_coincident_half_precision_points_are_at_distance_zero(device: str, dtype: torch.dtype) -> None:
    x = points(0, 1.0, 1.0).to(device, dtype)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert (lorentz.distance(x, x.clone(), 0.5) == 0).all()
        assert (lorentz.pairwise_distance(x, x.clone(), 0.5).diagonal() == 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_float16_features_of_norm_32_stay_finite(device: str) -> None:
    """METHODS 7.4: where exp in half precision gives infinity."""
    v = (32 * directions(0, d=64)).to(device).half()
    x = lorentz.exp_map0(v, 1.0)
    assert torch.isfinite(x).all()
    close(lorentz.norm(x, 1.0), v.double().norm(dim=-1).float(), 1e-6)


def test_matrices_without_float64_ignore_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lorentz, "_working_type", lambda x: torch.float32)
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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("in_one_place", [False, True])
def test_pairwise_makes_nothing_of_three_dimensions(device: str, in_one_place: bool) -> None:
    """Nor where every pair of points cancels in the Gram matrix."""
    x = points(0, 1.0, 1.0, n=32, d=64).to(device)
    if in_one_place:
        x = x[:1].repeat(32, 1)
    x.requires_grad_()
    with Largest() as largest:
        lorentz.pairwise_distance(x, x.detach().flip(0), 1.0).sum().backward()
    assert largest.elements == 32 * 64


def test_matrix_with_no_rows() -> None:
    x = torch.zeros(0, 3)
    assert lorentz.pairwise_distance(x, x, 1.0).shape == (0, 0)
    assert lorentz.pairwise_distance(x, torch.ones(4, 3), 1.0).shape == (0, 4)


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
