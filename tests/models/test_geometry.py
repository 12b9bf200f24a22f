"""The flat counterpart and the sphere beside the hyperboloid (METHODS 8, 18 and 19; 10.7)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_hyperst.models.alignment import Alignment
from napari_hyperst.models.geometry import COSINE, EUCLIDEAN, HYPERBOLIC, Geometry, geometry
from napari_hyperst.nouns.hierarchy import AlignmentConfig, Relation

SPACES = {"hyperbolic": HYPERBOLIC, "euclidean": EUCLIDEAN, "cosine": COSINE}


def points(seed: int = 0, n: int = 7, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_flat_space_is_the_limit_of_the_hyperboloid() -> None:
    u, v, c = points(0).double(), points(1).double(), 1e-6
    torch.testing.assert_close(EUCLIDEAN.similarity(u, v, c), HYPERBOLIC.similarity(u, v, c), rtol=1e-5, atol=0)
    torch.testing.assert_close(EUCLIDEAN.exterior_angle(u, v, c), HYPERBOLIC.exterior_angle(u, v, c), rtol=0, atol=3e-6)
    torch.testing.assert_close(EUCLIDEAN.norm(u, c), HYPERBOLIC.norm(u, c), rtol=1e-5, atol=0)
    torch.testing.assert_close(EUCLIDEAN.lift(u, c), HYPERBOLIC.lift(u, c), rtol=1e-5, atol=0)


def test_flat_angles_and_apertures_are_the_stated_ones() -> None:
    u, v = points(0).double(), points(1).double()
    cosine = ((v - u) * u).sum(1) / (v - u).norm(dim=1) / u.norm(dim=1)
    torch.testing.assert_close(EUCLIDEAN.exterior_angle(u, v, 1.0), cosine.acos(), rtol=1e-9, atol=1e-9)
    aperture = (0.2 / u.norm(dim=1)).clamp(max=1).asin()
    torch.testing.assert_close(EUCLIDEAN.half_aperture(u, 7.0, 0.1), aperture)
    assert EUCLIDEAN.half_aperture(0.01 * u, 7.0, 0.1).tolist() == pytest.approx([math.pi / 2] * 7)
    torch.testing.assert_close(EUCLIDEAN.exterior_angle(u, 2 * u, 1.0), torch.zeros(7).double(), atol=1e-7, rtol=0)
    assert EUCLIDEAN.exterior_angle(u, u / 2, 1.0).tolist() == pytest.approx([math.pi] * 7)


def test_cosine_is_of_directions() -> None:
    u, v = points(0), points(1)
    lifted = COSINE.lift(3 * u, 1.0)
    torch.testing.assert_close(lifted, COSINE.lift(u, 1.0))
    torch.testing.assert_close(COSINE.norm(lifted, 1.0), torch.ones(7))
    wanted = torch.nn.functional.cosine_similarity(u[:, None], v[None], dim=-1)
    torch.testing.assert_close(COSINE.similarity(lifted, COSINE.lift(v, 1.0), 1.0), wanted)
    with pytest.raises(NotImplementedError, match="no cones"):
        COSINE.exterior_angle(u, v, 1.0)
    with pytest.raises(NotImplementedError, match="no cones"):
        COSINE.half_aperture(u, 1.0, 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", SPACES)
def test_autocast_changes_no_similarity(name: str, dtype: torch.dtype) -> None:
    space = SPACES[name]
    u, v = points(0).to(dtype), points(1).to(dtype)
    plain = space.similarity(u, v, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(space.similarity(u, v, 1.0), plain)
    assert plain.dtype == torch.float32


@pytest.mark.parametrize("space", [HYPERBOLIC, EUCLIDEAN])
def test_gradients_are_finite_where_there_are_none(space: Geometry) -> None:
    u, v = points(0, 4), points(0, 4)
    u[1], v[1] = 0, 0  # at the origin
    u[2], v[2] = torch.tensor([0.2, 0, 0, 0, 0]), torch.tensor([0.4, 0, 0, 0, 0])  # critical radius, collinear
    u, v = u.requires_grad_(), v.requires_grad_()
    loss = space.similarity(u, v, 1.0).sum() + space.norm(u, 1.0).sum()
    loss = loss + (space.exterior_angle(u, v, 1.0) - space.half_aperture(u, 1.0, 0.1)).sum()
    loss.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (u, v))


def test_similarity_of_coincident_points_is_exact() -> None:
    assert EUCLIDEAN.similarity(points(3), points(3), 1.0).diagonal().abs().max() < 1e-6


@pytest.mark.parametrize(
    ("name", "learnt"),
    [
        ("hyperbolic", {"curvature", "temperature", "alpha_image", "alpha_gene"}),
        ("euclidean", {"temperature", "alpha_image", "alpha_gene"}),
        ("cosine", {"temperature"}),
    ],
)
def test_only_scalars_that_matter_learn_and_are_logged(name: str, learnt: set[str]) -> None:
    relations = () if name == "cosine" else (Relation(parent="spot_image", child="spot_gene"),)
    config = AlignmentConfig(
        geometry=name,  # type: ignore[arg-type]
        contrastive=(("spot_image", "spot_gene"),),
        relations=relations,
    )
    alignment = Alignment(config, 5)
    terms = alignment(
        {"spot_image": alignment.lift(points(0), "image"), "spot_gene": alignment.lift(points(1), "gene")}
    )
    terms["total"].backward()
    moved = [p for p in alignment.parameters() if p.grad is not None]
    assert len(moved) == len(learnt) == sum(p.requires_grad for p in alignment.parameters())
    assert set(alignment.scalars()) == learnt
    assert ("norm/spot_image" in terms) == (name != "cosine")
    assert geometry(config.geometry) is SPACES[name]
