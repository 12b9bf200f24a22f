"""Every ablation trains two epochs on 48 spots of a real section, and its loss falls."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from napari_hyperst.models.alignment import Alignment
from napari_hyperst.models.build import build_method
from napari_hyperst.models.encoders import Encoder, EncoderSpec, encoder_spec, register_encoder
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.ablations import ABLATIONS, ablation
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide
from napari_hyperst.training.dataset import TrainingSet, count_detected, encode_tiles, measure, trainable_spots

SPOTS = 48
LORA = tuple(name for name in ABLATIONS if name.startswith("lora-"))


def two_epochs(
    config: HyperSTConfig, data: TrainingSet, fitted: Callable[..., list[dict[str, Any]]], learning_rate: float = 3e-3
) -> tuple[Method, list[dict[str, Any]]]:
    torch.manual_seed(0)
    model = build_method(config, data.spot_genes.shape[1])
    settings = TrainConfig(
        slides=(Path("unused"),), out=Path("unused"), method=config, epochs=2, batch_size=16,
        learning_rate=learning_rate, average=0.0,
    )  # fmt: skip
    return model, fitted(model, data, settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ABLATIONS if name not in LORA])
def test_ablation_learns(name: str, c3_spots: TrainingSet, fitted: Callable[..., list[dict[str, Any]]]) -> None:
    config = ablation(name, HyperSTConfig(lora_blocks=1, dim=64))
    _, (first, second) = two_epochs(config, c3_spots, fitted)
    assert second["total"] < first["total"]
    assert second["prediction"] < first["prediction"]
    assert all(math.isfinite(value) for value in second.values())
    if config.alignment.contrastive and config.alignment.weight:
        assert second["hca"] < first["hca"]


@pytest.fixture(scope="module")
def deep_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Register a narrow vision transformer as deep as the paper's LoRA asks for."""
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("encoders") / "deep.safetensors"
    save_file(timm.create_model("test_vit", depth=12, num_classes=0, img_size=224).state_dict(), weights)
    register_encoder(EncoderSpec("deep", "test_vit", weights, licence="BSD-3-Clause", options={"depth": 12}))
    return "deep"


@pytest.fixture(scope="module")
def deep_states(c3: Slide, deep_encoder: str) -> dict[int, torch.Tensor]:
    """Return what enters block 1 for 48 spots, and from that what enters every later block, by its number."""
    encoder = Encoder(encoder_spec(deep_encoder), 11).eval()
    spots = [trainable_spots(c3, TileSpec())[:SPOTS]]
    with torch.no_grad():
        entering = {1: encode_tiles([c3], spots, encoder, TileSpec(), symmetries=1)[0].flatten(0, 1).float()}
        for number, block in enumerate(encoder.vit.blocks[1:], start=2):
            entering[number] = block(entering[number - 1])
        entering[12] = encoder.vit.forward_head(encoder.vit.norm(entering[12]))
    return {number: x.unflatten(0, (SPOTS, 2))[None].half() for number, x in entering.items()}


@pytest.mark.parametrize("name", LORA)
def test_lora_on_the_last_blocks_learns(
    name: str,
    c3: Slide,
    c3_panel: GenePanel,
    deep_encoder: str,
    deep_states: dict[int, torch.Tensor],
    fitted: Callable[..., list[dict[str, Any]]],
) -> None:
    config = ablation(name, HyperSTConfig(encoder=deep_encoder, dim=32))
    kept = [trainable_spots(c3, TileSpec())[:SPOTS]]
    data = TrainingSet(
        deep_states[12 - config.lora_blocks],
        *measure([c3], kept, c3_panel),
        torch.zeros(SPOTS, dtype=torch.long),
        count_detected([c3], kept),
    )
    model, (first, second) = two_epochs(config, data, fitted)
    assert second["total"] < first["total"]
    moved = {n.split(".")[3] for n, p in model.named_parameters() if "lora_B" in n and p.abs().max() > 0}
    assert moved == {str(block) for block in range(12 - config.lora_blocks, 12)}


@pytest.mark.slow
def test_learnt_scalars_are_clamped_after_each_step_and_logged(
    c3_spots: TrainingSet, monkeypatch: pytest.MonkeyPatch, fitted: Callable[..., list[dict[str, Any]]]
) -> None:
    """They start at their bounds and the steps are large: unclamped, at least one of them leaves."""
    aligned = AlignmentConfig(curvature=0.1, temperature=0.01, weight=5.0)
    config = HyperSTConfig(lora_blocks=1, dim=2, alignment=aligned)

    def within(logged: dict[str, Any]) -> bool:
        tight = 0.1 * 0.999 <= logged["curvature"] <= 10 * 1.001 and logged["temperature"] >= 0.01 * 0.999
        return tight and logged["alpha_image"] <= 1.001 and logged["alpha_gene"] <= 1.001

    clamped = two_epochs(config, c3_spots, fitted, learning_rate=0.3)[1]
    assert all(within(logged) for logged in clamped)
    monkeypatch.setattr(Alignment, "clamp_", lambda self: None)
    assert not all(within(logged) for logged in two_epochs(config, c3_spots, fitted, learning_rate=0.3)[1])
    shares = [value for name, value in clamped[-1].items() if name.startswith("satisfied/")]
    assert len(shares) == 4
    assert all(0 <= share <= 1 for share in shares)
    assert all(clamped[-1][f"norm/{name}"] > 0 for name in aligned.embeddings)
