"""DELST: its terms, their direction, and the pairs of poor and rich spots (METHODS 3)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from napari_hyperst.errors import ConfigError
from napari_hyperst.models import lorentz
from napari_hyperst.models.build import build_method
from napari_hyperst.models.delst import DELST, pair_by_detected
from napari_hyperst.models.method import Batch, Embeddings
from napari_hyperst.models.transfer import start_encoder
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig

GENES = 12


def make(encoder: str, **changes: object) -> DELST:
    torch.manual_seed(0)
    return DELST(DELSTConfig(encoder=encoder, lora_blocks=1, dim=16, **changes), GENES).eval()


def batch(n: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(0)
    spot, niche = (torch.randint(0, 256, (n, 224, 224, 3), dtype=torch.uint8, generator=generator) for _ in range(2))
    genes = torch.rand(n, GENES, generator=generator)
    return Batch(spot, niche, genes, None, torch.arange(n) % 2, torch.randint(50, 100, (n,), generator=generator))


def ladder(model: DELST, n: int = 8) -> Embeddings:
    """Spots of one slide on one ray, the more genes the farther out, each image beyond its gene profile."""
    ray = torch.nn.functional.normalize(torch.ones(n, model.config.dim), dim=-1)
    out = torch.linspace(0.5, 2.5, n)[:, None]
    points = {"spot_gene": lorentz.exp_map0(out * ray, 1.0), "spot_image": lorentz.exp_map0((out + 0.1) * ray, 1.0)}
    return Embeddings(torch.zeros(n, GENES), points, torch.zeros(n, dtype=torch.long), torch.arange(n) + 10)  # type: ignore[arg-type]


def test_loss_is_the_sum_that_the_methods_state(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder, cross_weight=0.3, intra_weight=0.7), batch()
    found = model(spots)
    assert set(found.points) == {"spot_image", "spot_gene"}
    torch.manual_seed(1)
    terms = {name: term.item() for name, term in model.objective(found, spots.spot_genes).items()}
    contrastive = [value for name, value in terms.items() if name.startswith("contrastive/")]
    assert terms["contrastive"] == pytest.approx(sum(contrastive) / 2, rel=1e-5)
    assert terms["cross"] == pytest.approx(terms["entailment/spot_gene__spot_image"])
    assert terms["intra"] == pytest.approx((terms["intra/gene"] + terms["intra/image"]) / 2, rel=1e-5)
    stated = terms["contrastive"] + 0.3 * terms["cross"] + 0.7 * terms["intra"]
    assert terms["total"] == pytest.approx(stated + terms["prediction"], rel=1e-5)


def test_nothing_is_violated_where_fine_lies_beyond_broad(tiny_encoder: str) -> None:
    """The gene is the parent of the image, few genes of many; the other way round all is violated."""
    model = make(tiny_encoder)
    right = ladder(model)
    terms = model.objective(right, right.prediction)
    assert terms["cross"].item() == terms["intra"].item() == 0
    assert terms["satisfied/low_gene__high_gene"] == terms["satisfied/low_image__high_image"] == 1
    assert terms["satisfied/spot_gene__spot_image"] == 1
    assert right.detected is not None
    wrong = Embeddings(right.prediction, right.points, right.slide, right.detected.flip(0))
    turned = model.objective(wrong, right.prediction)
    assert turned["intra"].item() > 2.5
    assert turned["satisfied/low_gene__high_gene"] == turned["satisfied/low_image__high_image"] == 0
    assert make(tiny_encoder, parent="image").objective(right, right.prediction)["cross"].item() > 2.5


def test_intra_entailment_is_between_spots_and_not_modalities(tiny_encoder: str) -> None:
    model = make(tiny_encoder)
    found = ladder(model)
    half = {**found.points, "spot_image": found.points["spot_image"].flip(0)}
    terms = model.objective(Embeddings(found.prediction, half, found.slide, found.detected), found.prediction)
    assert terms["intra/gene"].item() == 0
    assert terms["intra/image"].item() == pytest.approx(2 * terms["intra"].item())
    assert terms["intra/image"].item() > 2


def test_pairs_are_the_ends_of_each_slide() -> None:
    slide = torch.tensor([0] * 8 + [1] * 4 + [2])
    detected = torch.tensor([5, 1, 8, 3, 7, 2, 6, 4, 40, 10, 30, 20, 9])
    low, high = pair_by_detected(slide, detected, 0.25)
    assert sorted(detected[high].tolist()) == [7, 8, 40]
    assert set(detected[low].tolist()) <= {1, 2, 10}
    assert torch.equal(slide[low], slide[high])
    assert len(pair_by_detected(slide, detected, 0.5)[0]) == 4 + 2


def test_low_spots_are_drawn_at_random() -> None:
    slide, detected = torch.zeros(40, dtype=torch.long), torch.arange(40)
    drawn = set()
    for seed in range(20):
        torch.manual_seed(seed)
        low, high = pair_by_detected(slide, detected, 0.25)
        assert sorted(high.tolist()) == list(range(30, 40))
        drawn |= set(low.tolist())
    assert drawn == set(range(10))


@pytest.mark.parametrize(
    ("slide", "detected"),
    [([0, 1, 2], [1, 2, 3]), ([0, 0, 0], [4, 4, 4]), ([], [])],
    ids=["one spot a slide", "all alike", "no spots"],
)
def test_without_pairs_the_loss_is_zero_and_has_a_gradient(
    tiny_encoder: str, slide: list[int], detected: list[int]
) -> None:
    low, high = pair_by_detected(torch.tensor(slide), torch.tensor(detected), 0.25)
    assert len(low) == len(high) == 0
    if not slide:
        return
    model = make(tiny_encoder)
    found = ladder(model, len(slide))
    points = {name: x.requires_grad_() for name, x in found.points.items()}
    terms = model.objective(
        Embeddings(found.prediction, points, torch.tensor(slide), torch.tensor(detected)), found.prediction
    )
    assert terms["intra"].item() == 0
    assert not any(name.startswith("satisfied/low") for name in terms)
    terms["total"].backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in points.values())


def test_every_trained_tensor_gets_a_gradient(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder), batch()
    model.objective(model(spots), spots.spot_genes)["total"].backward()
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in learning.items() if p.grad is None or not p.grad.isfinite().all()] == []


def test_readout_shapes_no_embedding(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder), batch()
    model.objective(model(spots), spots.spot_genes)["prediction"].backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {"output.weight", "output.bias"}


@torch.no_grad()
def test_tangent_vectors_start_with_a_length_of_one(tiny_encoder: str) -> None:
    torch.manual_seed(0)
    model = DELST(DELSTConfig(encoder=tiny_encoder, dim=512), GENES).eval()
    for points in model(batch()).points.values():
        assert lorentz.norm(points, 1.0).mean().item() == pytest.approx(1, rel=0.1)


@torch.no_grad()
def test_niches_are_not_looked_at_and_prediction_needs_no_genes(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder), batch()
    bare = model(Batch(spots.spot, torch.zeros(0)))
    torch.testing.assert_close(bare.prediction, model(spots).prediction)
    assert set(bare.points) == {"spot_image"}
    with pytest.raises(ValueError, match="slide and detected"):
        model.objective(bare, torch.zeros(8, GENES))


# Starting another method's encoder


def with_learnt_lora(config: DELSTConfig | HyperSTConfig) -> DELST:
    model = build_method(config, GENES)
    for name, parameter in model.encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()  # type: ignore[return-value]


@torch.no_grad()
@pytest.mark.parametrize("blocks", [2, 4])
def test_hyperst_starts_from_the_encoder_of_delst(tiny_encoder: str, blocks: int) -> None:
    source = with_learnt_lora(DELSTConfig(encoder=tiny_encoder, lora_blocks=2, dim=16))
    model = build_method(HyperSTConfig(encoder=tiny_encoder, lora_blocks=blocks, dim=8), GENES).eval()
    tiles = batch().spot
    before, wanted = model.encoder(tiles), source.encoder(tiles)
    others = {n: p.clone() for n, p in model.named_parameters() if not n.startswith("encoder.")}
    assert not torch.allclose(before, wanted, atol=1e-3)
    start_encoder(model, source)
    torch.testing.assert_close(model.encoder(tiles), wanted)
    assert all(torch.equal(p, others[n]) for n, p in model.named_parameters() if n in others)
    assert all(p.requires_grad for n, p in model.named_parameters() if "lora_" in n)


@pytest.mark.parametrize(
    ("theirs", "told"),
    [
        ({"lora_blocks": 0}, "frozen encoder"),
        ({"lora_blocks": 3}, "set method.lora_blocks=3 or more"),
        ({"lora_rank": 4}, "set method.lora_rank=4"),
        ({"lora_alpha": 4}, "set method.lora_alpha=4"),
        ({"encoder": "dinov2-vits14"}, "set method.encoder=dinov2-vits14"),
    ],
)
def test_encoders_that_do_not_fit(tiny_encoder: str, theirs: dict[str, object], told: str) -> None:
    model = build_method(HyperSTConfig(encoder=tiny_encoder, lora_blocks=2, dim=8), GENES)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fields: dict[str, object] = {"encoder": tiny_encoder, "lora_blocks": 2, "dim": 8}
    source = build_method(DELSTConfig(**(fields | theirs)), GENES)
    with pytest.raises(ConfigError) as caught:
        start_encoder(model, source)
    assert told in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_temperature_and_bounds_are_merus(tiny_encoder: str) -> None:
    model = make(tiny_encoder)
    scalars: dict[str, float] = model.scalars()
    assert scalars == pytest.approx({"temperature": 0.07, "curvature": 1, "alpha_image": 0.25, "alpha_gene": 0.25})
    learnt: list[Tensor] = [p for n, p in model.named_parameters() if n.startswith("alignment.")]
    with torch.no_grad():
        for scalar in learnt:
            scalar.fill_(9.0)
    model.clamp_()
    assert model.scalars() == pytest.approx({"temperature": 0.01, "curvature": 10, "alpha_image": 1, "alpha_gene": 1})
    assert math.isclose(model.alignment.log_alpha["image"].item(), 0)
