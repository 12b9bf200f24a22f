"""The objectives: their values at initialisation, their invariances and their direction (METHODS 2.2, 10.10, 10.11)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_hyperst.models import lorentz
from napari_hyperst.models.alignment import Alignment, contrastive_loss, entailment_loss
from napari_hyperst.nouns.hierarchy import EMBEDDINGS, AlignmentConfig, Embedding, Relation, modality

Points = dict[Embedding, Tensor]


def normalised_features(seed: int, n: int, d: int) -> Tensor:
    """Layer-normalised features after a projection of N(0, 1/d), as the alignment sees them first."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.layer_norm(torch.randn(n, d, generator=generator), (d,))
    return x @ torch.randn(d, d, generator=generator) * d**-0.5


def lifted(alignment: Alignment, d: int, n: int = 128) -> Points:
    """Four unrelated embeddings on the hyperboloid."""
    return {
        name: alignment.lift(normalised_features(seed, n, d), modality(name)) for seed, name in enumerate(EMBEDDINGS)
    }


def small(config: AlignmentConfig | None = None, n: int = 6, d: int = 8) -> tuple[Alignment, Points]:
    alignment = Alignment(config or AlignmentConfig(), d)
    with torch.no_grad():
        return alignment, lifted(alignment, d, n)


def outwards(x: Tensor, factor: float) -> Tensor:
    return lorentz.exp_map0(factor * lorentz.log_map0(x, 1.0), 1.0)


# METHODS 10.10: statistics at initialisation


@torch.no_grad()
def test_geometry_at_initialisation() -> None:
    """METHODS 10.10, within 1 %."""
    alignment = Alignment(AlignmentConfig(), 512)
    points = lifted(alignment, 512)
    x, y = points["spot_image"], points["spot_gene"]
    exterior, aperture, hinge = alignment.violation(points, Relation(parent="spot_image", child="spot_gene", eta=1.0))
    expected = {"length": 1.179, "distance": 1.513, "exterior": 2.567, "aperture": 0.171, "hinge": 2.395}
    found = {
        "length": x.norm(dim=-1),
        "distance": lorentz.distance(x, y, alignment.curvature),
        "exterior": exterior,
        "aperture": aperture,
        "hinge": hinge,
    }
    assert {name: value.mean().item() for name, value in found.items()} == pytest.approx(expected, rel=0.01)


def expected_contrastive_loss(d: int, n: int = 128, draws: int = 200) -> float:
    """Return its mean over draws from the law of radii and angles alone, without a vector or a model.

    Tangents of d independent normal components have lengths 1 + N(0, 1 / 2d) and cosines N(0, 1 / d); the hyperbolic
    law of cosines gives distances at c = 1.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(draws, *shape, generator=generator, dtype=torch.float64) / math.sqrt(d)

    a, b, cosine = 1 + normal(n, 1) / math.sqrt(2), 1 + normal(1, n) / math.sqrt(2), normal(n, n)
    logits = -torch.acosh(a.cosh() * b.cosh() - a.sinh() * b.sinh() * cosine) / 0.07
    return (logits.logsumexp(2) - logits.diagonal(dim1=1, dim2=2)).mean().item()


@torch.no_grad()
@pytest.mark.parametrize(("d", "stated"), [(256, 5.22), (512, 4.98), (1024, 4.88)])
def test_contrastive_loss_at_initialisation_is_near_chance(d: int, stated: float) -> None:
    """METHODS 10.10, within 1 % of its expectation; the stated values are of single draws, 0.03 to 0.05 about it."""
    alignment = Alignment(AlignmentConfig(), d)
    losses = []
    for seed in range(0, 60, 2):
        query, key = (alignment.lift(normalised_features(seed + i, 128, d), "image") for i in (0, 1))
        losses.append(contrastive_loss(query, key, alignment.logit_scale, alignment.curvature).item())
    assert sum(losses) / len(losses) == pytest.approx(expected_contrastive_loss(d), rel=0.01)
    assert min(losses) < stated < max(losses)
    assert min(losses) > math.log(128) - 0.03


@torch.no_grad()
@pytest.mark.parametrize(("preset", "expected"), [("paper", 2.40), ("code", 4.81)])
def test_entailment_at_initialisation(preset: str, expected: float) -> None:
    """METHODS 10.10, within 1 %."""
    alignment = Alignment(AlignmentConfig.preset(preset), 512)
    assert alignment(lifted(alignment, 512))["hea"].item() == pytest.approx(expected, rel=0.01)


# METHODS 10.11: facts of the losses


def test_coincident_pairs_with_far_negatives_cost_nothing() -> None:
    """METHODS 10.11: HCA."""
    points = lorentz.exp_map0(3 * torch.eye(8), 1.0)
    scale = torch.tensor(math.log(1 / 0.07))
    assert contrastive_loss(points, points.clone(), scale, torch.tensor(1.0)).item() < 1e-6
    assert contrastive_loss(points, points.roll(1, 0), scale, torch.tensor(1.0)).item() > 10


def test_contrastive_loss_is_cross_entropy_of_negative_distances() -> None:
    _, points = small()
    query, key, c, scale = points["niche_image"], points["spot_gene"], torch.tensor(0.6), torch.tensor(1.3)
    distances = lorentz.distance(query[:, None].double(), key[None].double(), c)
    right = torch.diagonal(torch.log_softmax(-math.exp(1.3) * distances, dim=1))
    torch.testing.assert_close(contrastive_loss(query, key, scale, c).double(), -right.mean(), rtol=1e-6, atol=0)
    closer = contrastive_loss(query, query + 0.1 * (key - query), scale, c)
    assert closer < contrastive_loss(query, key, scale, c)


def test_direction_of_entailment() -> None:
    """METHODS 10.11: a child pushed outward along its parent's ray costs exactly 0; swapped, it costs."""
    _, points = small()
    parent, c = points["spot_image"], torch.tensor(1.0)
    child = outwards(parent, 1.5)
    for eta in (0.7, 1.0, 1.2):
        assert entailment_loss(parent, child, c, eta, 0.1).item() == 0
        swapped = entailment_loss(child, parent, c, eta, 0.1).item()
        assert swapped == pytest.approx((math.pi - eta * lorentz.half_aperture(child, c)).mean().item(), rel=1e-5)


def test_image_is_the_parent_of_gene_and_spot_of_niche() -> None:
    """METHODS 2.2, 10.11: each embedding lies farther out than its parent on one ray: all is violated when reversed."""
    alignment, points = small()
    image = points["spot_image"]
    chain: Points = {
        "spot_image": image,
        "niche_image": outwards(image, 1.3),
        "spot_gene": outwards(image, 1.4),
        "niche_gene": outwards(image, 1.6),
    }
    assert alignment(chain)["hea"].item() == 0
    turned = tuple(Relation(parent=r.child, child=r.parent, eta=r.eta) for r in alignment.config.relations)
    terms = Alignment(AlignmentConfig(relations=turned), 8)(chain)
    assert all(value.item() > 2 for name, value in terms.items() if name.startswith("entailment/"))


def test_entailment_is_a_hinge_at_eta_times_the_half_aperture() -> None:
    x, c = torch.tensor([[1.0, 0.0]]), torch.tensor(1.0)
    child = torch.tensor([[3.0, 0.5]])
    exterior, aperture = (f.item() for f in (lorentz.exterior_angle(x, child, c), lorentz.half_aperture(x, c)))
    just = exterior / aperture
    assert entailment_loss(x, child, c, just * 1.01, 0.1).item() == 0
    assert entailment_loss(x, child, c, just * 0.9, 0.1).item() == pytest.approx(0.1 * exterior, rel=1e-4)


def test_order_of_the_batch_does_not_matter() -> None:
    """METHODS 10.11."""
    alignment, points = small()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    terms = alignment(points)
    shuffled = alignment({name: x[order] for name, x in points.items()})
    assert terms.keys() == shuffled.keys()
    for name, value in terms.items():
        torch.testing.assert_close(shuffled[name], value, rtol=1e-6, atol=1e-7)


def interaction(alignment: Alignment, points: Points, name: Embedding) -> float:
    """Return by how much the effects on HCA of changing two rows of an embedding fail to add up."""

    def hca(*rows: int) -> Tensor:
        changed = points[name].clone()
        changed[list(rows)] = outwards(changed[list(rows)].flip(-1), 0.5)
        return alignment({**points, name: changed})["hca"].double()

    return abs(hca(0, 1) - hca(0) - hca(1) + hca()).item()


@torch.no_grad()
def test_niches_enter_only_as_queries() -> None:
    """METHODS 10.11: rows that are only queries act on the loss one by one; negatives of others interact."""
    alignment, points = small()
    assert {key for _, key in alignment.config.contrastive} == {"spot_image", "spot_gene"}
    for name in EMBEDDINGS:
        added = interaction(alignment, points, name)
        assert added < 1e-5 if name.startswith("niche") else added > 1e-3, name


def test_presets_differ_as_published() -> None:
    """METHODS 8.1."""
    code, paper = AlignmentConfig.preset("code"), AlignmentConfig.preset("paper")
    assert code == AlignmentConfig()
    assert [r.eta for r in code.relations] == [0.7, 0.7, 1.2, 1.2]
    assert [r.eta for r in paper.relations] == [1.0] * 4
    names = ["spot_image__spot_gene", "niche_image__niche_gene", "spot_image__niche_image", "spot_gene__niche_gene"]
    assert [r.name for r in code.relations] == [r.name for r in paper.relations] == names
    weights = [p.weight * p.entailment_weight * p.entailment_scale for p in (code, paper)]
    assert weights == pytest.approx([0.04, 0.02])
    same = {"entailment_scale", "relations"}
    assert code.model_dump(exclude=same) == paper.model_dump(exclude=same)


# The module


@pytest.mark.parametrize("preset", ["code", "paper"])
def test_total_is_the_weighted_sum_of_the_named_terms(preset: str) -> None:
    config = AlignmentConfig.preset(preset)
    alignment, points = small(config)
    terms = alignment(points)
    contrastive = [terms[f"contrastive/{query}__{key}"] for query, key in config.contrastive]
    entailment = [terms[f"entailment/{relation.name}"] for relation in config.relations]
    looked_at = [name for name in terms if name.startswith(("satisfied/", "norm/"))]
    assert len(looked_at) == len(entailment) + len(EMBEDDINGS)
    assert len(terms) == len(contrastive) + len(entailment) + len(looked_at) + 3
    torch.testing.assert_close(terms["hca"], sum(contrastive) / 4)
    torch.testing.assert_close(terms["hea"], (0.5 if preset == "code" else 0.25) * sum(entailment))
    torch.testing.assert_close(terms["total"], 0.2 * (terms["hca"] + 0.4 * terms["hea"]))


def test_terms_can_be_left_out() -> None:
    _, points = small()
    bare = Alignment(AlignmentConfig(contrastive=(), relations=()), 8)(points)
    assert {name: value.item() for name, value in bare.items()} == {"hca": 0, "hea": 0, "total": 0}
    spots: Points = {name: points[name] for name in ("spot_image", "spot_gene")}
    relation = Relation(parent="spot_gene", child="spot_image")
    single = Alignment(AlignmentConfig(contrastive=(("spot_image", "spot_gene"),), relations=(relation,)), 8)(spots)
    assert single["hca"] == single["contrastive/spot_image__spot_gene"] > 0
    assert single["entailment/spot_gene__spot_image"] > 0


def test_violation_is_the_loss_before_its_mean() -> None:
    alignment, points = small()
    terms = alignment(points)
    for relation in alignment.config.relations:
        exterior, aperture, violation = alignment.violation(points, relation)
        assert exterior.shape == aperture.shape == violation.shape == (6,)
        torch.testing.assert_close(violation, (exterior - relation.eta * aperture).clamp(min=0))
        torch.testing.assert_close(violation.mean(), terms[f"entailment/{relation.name}"])


def test_every_scalar_learns_and_a_fixed_curvature_does_not() -> None:
    for learn in (True, False):
        alignment = Alignment(AlignmentConfig(learn_curvature=learn), 8)
        alignment(lifted(alignment, 8, 6))["total"].backward()
        gradients = {name: p.grad for name, p in alignment.named_parameters()}
        assert set(gradients) == {"log_curvature", "logit_scale", "log_alpha.image", "log_alpha.gene"}
        assert (gradients.pop("log_curvature") is not None) == learn
        assert all(g is not None and g.isfinite() and g != 0 for g in gradients.values())


def test_scalars_start_where_the_config_says() -> None:
    alignment = Alignment(AlignmentConfig(curvature=2.0, temperature=0.05), 64)
    expected = {"curvature": 2.0, "temperature": 0.05, "alpha_image": 0.125, "alpha_gene": 0.125}
    assert alignment.scalars() == pytest.approx(expected, rel=1e-6)


def test_clamp_brings_the_scalars_back() -> None:
    """METHODS 1: c in 0.1 to 10, scale up to 100, alpha up to 1, after the step."""
    alignment = Alignment(AlignmentConfig(), 8)
    for far, expected in (
        (9.0, {"curvature": 10, "temperature": 0.01, "alpha_image": 1, "alpha_gene": 1}),
        (-9.0, {"curvature": 0.1, "temperature": math.exp(9), "alpha_image": math.exp(-9), "alpha_gene": math.exp(-9)}),
    ):
        for parameter in alignment.parameters():
            parameter.data.fill_(far)
        alignment.clamp_()
        assert alignment.scalars() == pytest.approx(expected, rel=1e-5)
        assert all(parameter.requires_grad for parameter in alignment.parameters())


def test_clamp_leaves_a_fixed_curvature_alone() -> None:
    alignment = Alignment(AlignmentConfig(curvature=1e-3, learn_curvature=False), 8)
    alignment.clamp_()
    assert alignment.scalars()["curvature"] == pytest.approx(1e-3)


def test_lift_scales_by_the_alpha_of_the_modality() -> None:
    alignment = Alignment(AlignmentConfig(curvature=0.5), 16)
    alignment.log_alpha["gene"].data.fill_(math.log(0.5))
    features = torch.nn.functional.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    for name, length in (("image", 0.25), ("gene", 0.5)):
        norms = lorentz.norm(alignment.lift(features, name), alignment.curvature)
        torch.testing.assert_close(norms, torch.full((5,), length))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    alignment = Alignment(AlignmentConfig(), 8)
    features = {name: (10 * normalised_features(seed, 6, 8)).to(dtype) for seed, name in enumerate(EMBEDDINGS)}

    def losses() -> dict[str, Tensor]:
        return alignment({name: alignment.lift(x, modality(name)) for name, x in features.items()})

    plain = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = losses()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in inside.values())
    assert all(torch.equal(value, plain[name]) for name, value in inside.items())


def test_losses_are_finite_with_gradients_where_geometry_is_singular() -> None:
    alignment = Alignment(AlignmentConfig(), 8)
    features = {name: normalised_features(7, 6, 8).requires_grad_() for name in EMBEDDINGS}
    with torch.no_grad():
        for x in features.values():
            x[0] = 0  # at the origin, and everywhere coincident with the other embeddings
    total = alignment({name: alignment.lift(x, modality(name)) for name, x in features.items()})["total"]
    total.backward()
    assert total.isfinite()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in features.values())
    assert all(p.grad is not None and p.grad.isfinite() for p in alignment.parameters())


def test_descent_aligns_and_orders() -> None:
    """Two hundred steps on free features bring pairs together and children into their parents' cones."""
    alignment = Alignment(AlignmentConfig(weight=1.0, entailment_weight=1.0), 8)
    features = {name: normalised_features(seed, 12, 8).requires_grad_() for seed, name in enumerate(EMBEDDINGS)}
    optimiser = torch.optim.Adam([*features.values(), *alignment.parameters()], lr=0.05)
    history = []
    for _ in range(200):
        points = {name: alignment.lift(x, modality(name)) for name, x in features.items()}
        terms = alignment(points)
        optimiser.zero_grad()
        terms["total"].backward()
        optimiser.step()
        alignment.clamp_()
        history.append({name: terms[name].item() for name in ("hca", "hea")})
    assert history[-1]["hca"] < 0.2 * history[0]["hca"]
    assert history[-1]["hea"] < 0.2 * history[0]["hea"]
    nearest = lorentz.pairwise_distance(points["spot_image"], points["spot_gene"], alignment.curvature).argmin(1)
    assert torch.equal(nearest, torch.arange(12))
