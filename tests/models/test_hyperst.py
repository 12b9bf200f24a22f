from __future__ import annotations

import math

import pytest
import torch

from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.method import Batch
from napari_hyperst.nouns.ablations import ABLATIONS, ablation
from napari_hyperst.nouns.hierarchy import EMBEDDINGS, AlignmentConfig
from napari_hyperst.nouns.methods import HyperSTConfig

GENES = 12


def make(encoder: str, **changes: object) -> HyperST:
    torch.manual_seed(0)
    return HyperST(HyperSTConfig(encoder=encoder, lora_blocks=1, dim=16, **changes), GENES).eval()


def batch(n: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    spot, niche = (torch.randint(0, 256, (n, 224, 224, 3), dtype=torch.uint8, generator=generator) for _ in range(2))
    return Batch(spot, niche, torch.rand(n, GENES, generator=generator), torch.rand(n, GENES, generator=generator))


def test_loss_is_the_sum_that_the_methods_state(tiny_encoder: str) -> None:
    """METHODS 2.2: L = L_pred + 0.2 (L_HCA + 0.4 L_HEA), L_HEA half the sum, L_HCA a quarter."""
    model, spots = make(tiny_encoder), batch()
    found = model(spots)
    terms = {name: term.item() for name, term in model.objective(found, spots.spot_genes).items()}
    assert set(found.points) == set(EMBEDDINGS)
    contrastive = [value for name, value in terms.items() if name.startswith("contrastive/")]
    entailment = [value for name, value in terms.items() if name.startswith("entailment/")]
    assert len(contrastive) == len(entailment) == 4
    assert terms["prediction"] == pytest.approx(((found.prediction - spots.spot_genes) ** 2).mean().item())
    assert terms["hca"] == pytest.approx(sum(contrastive) / 4, rel=1e-5)
    assert terms["hea"] == pytest.approx(0.5 * sum(entailment), rel=1e-5)
    assert terms["total"] == pytest.approx(terms["prediction"] + 0.2 * (terms["hca"] + 0.4 * terms["hea"]), rel=1e-5)


def test_paper_preset(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder, alignment=AlignmentConfig.preset("paper")), batch()
    terms = {name: term.item() for name, term in model.objective(model(spots), spots.spot_genes).items()}
    entailment = [value for name, value in terms.items() if name.startswith("entailment/")]
    assert terms["hea"] == pytest.approx(sum(entailment) / 4, rel=1e-5)
    assert {relation.eta for relation in model.config.alignment.relations} == {1.0}


def test_every_trained_tensor_gets_a_gradient(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder), batch()
    model.objective(model(spots), spots.spot_genes)["total"].backward()
    without = [
        n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.isfinite().all())
    ]
    assert without == []


def test_prediction_needs_no_genes(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder), batch()
    with torch.no_grad():
        bare = model(Batch(spots.spot, spots.niche))
        torch.testing.assert_close(bare.prediction, model(spots).prediction)
    assert set(bare.points) == {"spot_image", "niche_image"}


def test_without_alignment_the_model_is_smaller(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder, alignment=AlignmentConfig(weight=0)), batch()
    terms = model.objective(model(spots), spots.spot_genes)
    assert set(terms) == {"prediction", "total"}
    assert not hasattr(model, "alignment_encoders")


@pytest.mark.parametrize(("inputs", "matters"), [(("spot",), "spot"), (("niche",), "niche")])
def test_decoder_sees_only_its_inputs(tiny_encoder: str, inputs: tuple[str, ...], matters: str) -> None:
    model, one, other = make(tiny_encoder, decoder_inputs=inputs, linear_path=True), batch(), batch(seed=1)
    swapped = {"spot": Batch(other.spot, one.niche), "niche": Batch(one.spot, other.niche)}
    with torch.no_grad():
        before = model.predict(one)
        for scale, changed in swapped.items():
            assert torch.allclose(model.predict(changed), before) == (scale != matters)


def test_cached_states_give_the_same_as_tiles(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder), batch()
    with torch.no_grad():
        cached = Batch(model.encoder.prefix(spots.spot), model.encoder.prefix(spots.niche))
        torch.testing.assert_close(model.predict(cached), model.predict(spots))


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name not in ("lora-7", "lora-11")])
def test_an_ablation_builds_what_learns_and_nothing_else(tiny_encoder: str, name: str) -> None:
    """Every tensor that may learn gets a gradient; what no term and no prediction needs is not there."""
    torch.manual_seed(0)
    config = ablation(name, HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=16))
    model, spots = HyperST(config, GENES).eval(), batch()
    found = model(spots)
    terms = model.objective(found, spots.spot_genes)
    terms["total"].backward()
    learning = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert [n for n, p in learning.items() if p.grad is None or not p.grad.isfinite().all()] == []
    assert set(found.points) == set(config.alignment.embeddings)
    assert {f"entailment/{relation.name}" for relation in config.alignment.relations if model.aligned} == {
        term for term in terms if term.startswith("entailment/")
    }
    assert any("niche" in n for n in learning) == (name not in ("meru", "clip"))
    assert any("lora_" in n for n in learning) == (name != "lora-0")


def test_tangent_features_are_the_scaled_ones(tiny_encoder: str) -> None:
    """They reach the decoder as alpha times the Euclidean features, and its first layer norm takes alpha away."""
    seen: list[torch.Tensor] = []
    predictions = []
    for features in ("euclidean", "tangent"):
        model = make(tiny_encoder, decoder_features=features)
        model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            model.alignment.log_alpha["image"].fill_(-0.7)
            predictions.append(model.predict(batch()))
    torch.testing.assert_close(seen[1], seen[0] * math.exp(-0.7))
    torch.testing.assert_close(predictions[1], predictions[0], rtol=1e-3, atol=1e-4)


def test_shared_scales_have_one_set_of_weights(tiny_encoder: str) -> None:
    model, spots = make(tiny_encoder, share_scales=True), batch()
    alike = Batch(spots.spot, spots.spot, spots.spot_genes, spots.spot_genes)
    with torch.no_grad():
        found = model(alike).points
    assert torch.equal(found["spot_image"], found["niche_image"])
    assert torch.equal(found["spot_gene"], found["niche_gene"])
    apart = make(tiny_encoder)
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in apart.parameters())


@torch.no_grad()
def test_spot_only_variants_do_not_look_at_niches(tiny_encoder: str) -> None:
    one, other = batch(), batch(seed=1)
    for name in ("meru", "clip"):
        config = ablation(name, HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=16))
        model = HyperST(config, GENES).eval()
        found = [model(Batch(one.spot, niche, one.spot_genes, one.niche_genes)) for niche in (one.niche, other.niche)]
        assert torch.equal(found[0].prediction, found[1].prediction)
        assert all(torch.equal(found[0].points[key], found[1].points[key]) for key in found[0].points)
