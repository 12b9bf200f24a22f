from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.encoders import build, encoder_names, known_encoder, lora_targets
from napari_hyperst.nouns.encoders import ENCODERS, EncoderSpec

#: Millions of parameters, blocks, width, heads, patch, position grid with the tokens it covers, and ``fc1`` and
#: ``fc2`` of a block, from the models' papers and cards.
SHAPES = {
    "dinov2-vits14": (21.6, 12, 384, 6, 14, 257, (1536, 384), (384, 1536)),
    "uni": (303.4, 24, 1024, 16, 16, 197, (4096, 1024), (1024, 4096)),
    "uni2-h": (681.4, 24, 1536, 24, 14, 256, (8192, 1536), (1536, 4096)),
    "h-optimus-0": (1134.8, 40, 1536, 24, 14, 256, (8192, 1536), (1536, 4096)),
    "virchow2": (631.2, 32, 1280, 16, 14, 261, (6832, 1280), (1280, 3416)),
    "gigapath": (1135.0, 40, 1536, 24, 16, 197, (8192, 1536), (1536, 4096)),
    "phikon": (85.8, 12, 768, 12, 16, 197, (3072, 768), (768, 3072)),
    "hibou-b": (85.7, 12, 768, 12, 14, 256, (4096, 768), (768, 2048)),
    "kaiko-vits16": (21.7, 12, 384, 6, 16, 197, (1536, 384), (384, 1536)),
    "kaiko-vits8": (21.7, 12, 384, 6, 8, 785, (1536, 384), (384, 1536)),
    "kaiko-vitb16": (85.8, 12, 768, 12, 16, 197, (3072, 768), (768, 3072)),
    "kaiko-vitb8": (85.8, 12, 768, 12, 8, 785, (3072, 768), (768, 3072)),
    "kaiko-vitl14": (303.2, 24, 1024, 16, 14, 256, (4096, 1024), (1024, 4096)),
    "lunit-vits16": (21.7, 12, 384, 6, 16, 197, (1536, 384), (384, 1536)),
    "lunit-vits8": (21.7, 12, 384, 6, 8, 785, (1536, 384), (384, 1536)),
}
REGISTERS = {"uni2-h": 8, "h-optimus-0": 4, "virchow2": 4, "hibou-b": 4, "kaiko-vitl14": 4}
SWIGLU = {"uni2-h", "h-optimus-0", "virchow2", "gigapath", "hibou-b"}
WITHOUT_LAYER_SCALE = {"phikon"} | {name for name in SHAPES if "kaiko-vit" in name or "lunit" in name} - {
    "kaiko-vitl14"
}


def test_all_that_were_promised_are_known() -> None:
    assert set(SHAPES) <= set(encoder_names())
    assert [spec.name for spec in ENCODERS] == list(SHAPES)


@pytest.mark.parametrize("spec", ENCODERS, ids=lambda spec: spec.name)
def test_architectures_have_their_true_shapes(spec: EncoderSpec) -> None:
    millions, depth, width, heads, patch, positions, fc1, fc2 = SHAPES[spec.name]
    vit = build(spec)
    assert all(parameter.is_meta for parameter in vit.parameters())
    shapes = {name: tuple(tensor.shape) for name, tensor in vit.state_dict().items()}
    assert sum(parameter.numel() for parameter in vit.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)
    assert len(vit.blocks) == depth
    assert shapes["pos_embed"] == (1, positions, width)
    assert shapes["cls_token"] == (1, 1, width)
    assert shapes["patch_embed.proj.weight"] == (width, 3, patch, patch)
    assert shapes["blocks.0.mlp.fc1.weight"] == fc1
    assert shapes["blocks.0.mlp.fc2.weight"] == fc2
    assert shapes["blocks.0.attn.qkv.weight"] == (3 * width, width)
    assert vit.blocks[0].attn.num_heads == heads
    assert shapes.get("reg_token", (1, 0, width)) == (1, REGISTERS.get(spec.name, 0), width)
    assert ("blocks.0.ls1.gamma" in shapes) == (spec.name not in WITHOUT_LAYER_SCALE)
    assert isinstance(vit.blocks[0].mlp.act, nn.SiLU if spec.name in SWIGLU else nn.GELU)
    assert vit.norm.eps == (1e-12 if spec.name == "phikon" else 1e-6)
    assert vit.global_pool == "token"


@pytest.mark.parametrize("spec", ENCODERS, ids=lambda spec: spec.name)
def test_lora_is_on_the_projections_of_the_last_blocks(spec: EncoderSpec) -> None:
    depth, width = SHAPES[spec.name][1:3]
    vit = build(spec)
    targets = lora_targets(vit, 3)
    assert targets == [f"blocks.{i}.attn.qkv" for i in range(depth - 3, depth)]
    assert all(vit.get_submodule(target).out_features == 3 * width for target in targets)
    assert len(lora_targets(vit, depth)) == depth


def test_who_must_be_asked_and_what_the_tiles_are_normalised_by() -> None:
    gated = {spec.name for spec in ENCODERS if spec.hub is not None and spec.hub.gated}
    assert gated == {"uni", "uni2-h", "h-optimus-0", "virchow2", "gigapath", "hibou-b"}
    imagenet = {spec.name for spec in ENCODERS if spec.mean == (0.485, 0.456, 0.406)}
    assert imagenet == {"dinov2-vits14", "uni", "uni2-h", "virchow2", "gigapath", "phikon"}
    for spec in ENCODERS:
        assert spec.licence
        assert spec.size == 224
        assert all(0 < value < 1 for value in (*spec.mean, *spec.std))
        if spec.hub is not None:
            owner, _, repository = spec.hub.name.partition("/")
            assert owner
            assert repository
            assert spec.hub.page == f"https://huggingface.co/{owner}/{repository}"


def test_timm_names_bring_their_own_normalisation_and_licence() -> None:
    spec = known_encoder("vit_base_patch14_dinov2.lvd142m")
    assert (spec.size, spec.mean, spec.licence) == (224, (0.485, 0.456, 0.406), "apache-2.0")
    assert spec.hub is not None
    assert spec.hub.name == "timm/vit_base_patch14_dinov2.lvd142m"
    assert known_encoder("vit_small_patch16_224.augreg_in21k").mean == (0.5, 0.5, 0.5)
    assert known_encoder("test_vit.r160_in1k").size == 160
    assert build(spec).patch_embed.grid_size == (16, 16)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("uni9", "no encoder is called 'uni9'.*gigapath"),
        ("vit_small_patch16_224.no_such_weights", "no_such_weights"),
        ("resnet50", "resnet50.* is no plain vision transformer"),
        ("vit_small_patch16_dinov3.lvd1689m", "is no plain vision transformer"),
        ("deit_small_distilled_patch16_224.fb_in1k", "is no plain vision transformer"),
    ],
)
def test_names_that_mean_no_vision_transformer(name: str, told: str) -> None:
    with pytest.raises(CheckpointError, match=told):
        known_encoder(name)


def test_blocks_without_a_joint_projection_take_no_lora() -> None:
    with torch.device("meta"):
        vit = timm.create_model("vit_tiny_patch16_224", depth=2)
    vit.blocks[1].attn.qkv = nn.Identity()
    assert lora_targets(vit, 0) == []
    with pytest.raises(CheckpointError, match="no qkv projection"):
        lora_targets(vit, 1)


def test_a_mistaken_option_is_told_and_not_ignored() -> None:
    with pytest.raises(CheckpointError, match="vit_large_patch16_224"):
        build(replace(known_encoder("uni"), options={"registers": 4}))


def test_the_documentation_has_the_same_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "encoders.md"
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| `")]
    wanted = []
    for spec in ENCODERS:
        where = "in the package" if spec.hub is None else f"[{spec.hub.name}]({spec.hub.page})"
        gated = "yes" if spec.hub is not None and spec.hub.gated else "no"
        width = SHAPES[spec.name][2] * (2 if spec.adds_patch_mean else 1)
        wanted.append([f"`{spec.name}`", where, gated, spec.licence, str(width)])
    assert rows == wanted
