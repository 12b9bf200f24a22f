from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.encoders import build
from napari_hyperst.models.state_dicts import load_into, read_state_dict
from napari_hyperst.nouns.encoders import EncoderSpec

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "image_size": 56}
SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}


def randomise(model: nn.Module) -> None:
    """Give every tensor numbers that count: biases, layer scales and registers start as nothing."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * (0.2 if parameter.ndim > 1 else 0.5)


def transformers_model(kind: str) -> tuple[PreTrainedModel, EncoderSpec]:
    """Return a small model of transformers' and what it is in timm."""
    options = {"embed_dim": 48, "depth": 3, "num_heads": 3}
    if kind == "vit":
        config = ViTConfig(intermediate_size=96, patch_size=8, **SIZES)
        options |= {"mlp_ratio": 2, "norm_eps": 1e-12, "patch_size": 8}
        return ViTModel(config), EncoderSpec("vit", "vit_base_patch16_224", Path(), "none", 56, options=options)
    gated = kind.endswith("swiglu")
    options |= {"patch_size": 14, "init_values": 1.0}
    if gated:
        options |= SWIGLU | {"mlp_ratio": 256 / 48}
    if kind.startswith("registers"):
        model: PreTrainedModel = Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(patch_size=14, num_register_tokens=4, use_swiglu_ffn=gated, **SIZES)
        )
        options |= {"reg_tokens": 4, "no_embed_class": True}
    else:
        model = Dinov2Model(Dinov2Config(patch_size=14, use_swiglu_ffn=gated, **SIZES))
    return model, EncoderSpec(kind, "vit_base_patch16_224", Path(), "none", 56, options=options)


def timm_features(spec: EncoderSpec, state: dict[str, Tensor], images: Tensor) -> Tensor:
    vit = build(spec).to_empty(device="cpu").eval()
    load_into(vit, state)
    with torch.no_grad():
        features: Tensor = vit.forward_features(images)
    return features


@pytest.mark.parametrize("kind", ["vit", "dinov2", "dinov2-swiglu", "registers", "registers-swiglu"])
@pytest.mark.parametrize("form", ["as the hub holds it", "as transformers holds it", "with a head, under a prefix"])
def test_transformers_weights_give_transformers_features(kind: str, form: str, tmp_path: Path) -> None:
    """Every token of the last layer, against transformers' own forward of the same random weights."""
    torch.manual_seed(0)
    model, spec = transformers_model(kind)
    randomise(model)
    model.eval()
    model.save_pretrained(tmp_path)
    state = read_state_dict(tmp_path / "model.safetensors")
    if form == "as the hub holds it":
        assert "encoder.layer.0.attention.attention.query.weight" in state
    elif form == "as transformers holds it":
        state = dict(model.state_dict())
    else:
        state = {f"backbone.{name}": tensor for name, tensor in state.items()} | {
            "classifier.weight": torch.ones(2, 48)
        }
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        wanted = model(pixel_values=images).last_hidden_state
    found = timm_features(spec, state, images)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=2e-5)


def dinov2_format(vit: nn.Module) -> dict[str, Tensor]:
    """Return timm's weights of a DINOv2 with registers and SwiGLU as DINOv2's own code names them."""
    state = dict(vit.state_dict())
    patches = state.pop("pos_embed")
    position_of_class = torch.randn(1, 1, 48)
    state["pos_embed"] = torch.cat([position_of_class, patches], dim=1)
    state["cls_token"] = state["cls_token"] - position_of_class
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = torch.zeros(1, 48)
    return {n.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): t for n, t in state.items()}


@pytest.mark.parametrize("masked", [True, False], ids=["with its mask token", "without"])
@pytest.mark.parametrize("chunked", [True, False], ids=["in chunks", "flat"])
def test_dinov2s_own_training_checkpoints(masked: bool, chunked: bool, tmp_path: Path) -> None:
    spec = transformers_model("registers-swiglu")[1]
    vit = build(spec).to_empty(device="cpu").eval()
    randomise(vit)
    state = dinov2_format(vit)
    if not masked:
        del state["mask_token"]
    if chunked:
        state = {n.replace("blocks.", "blocks.0."): t for n, t in state.items()}
    teacher = {f"backbone.{n}": t for n, t in state.items()} | {"dino_head.last_layer.weight": torch.ones(3, 3)}
    torch.save({"teacher": teacher, "iteration": 12}, tmp_path / "checkpoint.pth")
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        wanted = vit.forward_features(images)
    found = timm_features(spec, read_state_dict(tmp_path / "checkpoint.pth"), images)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def tiny() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=10, img_size=224).state_dict()


TINY = EncoderSpec("tiny", "test_vit", Path(), "none")


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "legacy.pt"])
def test_file_formats(tiny: dict[str, Tensor], tmp_path: Path, name: str, wrapped: bool) -> None:
    path = tmp_path / name
    state = {f"module.{k}": v for k, v in tiny.items()} if wrapped else tiny
    if name.endswith(".safetensors"):
        save_file(state, path)
    else:
        content = {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}} if wrapped else state
        torch.save(content, path, _use_new_zipfile_serialization=name != "legacy.pt")
    vit = build(TINY).to_empty(device="cpu")
    load_into(vit, read_state_dict(path))
    loaded = vit.state_dict()
    assert set(loaded) == {k for k in tiny if not k.startswith("head.")}
    assert all(torch.equal(tensor, tiny[k]) for k, tensor in loaded.items())


def test_half_precision_is_loaded_as_float32_and_grids_are_resampled_in_it(tiny: dict[str, Tensor]) -> None:
    half = {k: v.half() for k, v in tiny.items()}
    small = build(EncoderSpec("small", "test_vit", Path(), "none", size=160)).to_empty(device="cpu")
    load_into(small, half)
    exact = build(EncoderSpec("small", "test_vit", Path(), "none", size=160)).to_empty(device="cpu")
    load_into(exact, {k: v.float() for k, v in half.items()})
    for name, tensor in small.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, exact.state_dict()[name]), name
    assert small.pos_embed.shape == (1, 101, 64)


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return open, ("pwned", "w")  # type: ignore[return-value]


@pytest.mark.parametrize("content", [Attack(), {"state_dict": Attack()}, {"args": argparse.Namespace(lr=1)}])
def test_a_pickle_with_code_is_refused_and_not_run(
    content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "w.bin")
    with pytest.raises(CheckpointError, match="more than tensors") as caught:
        read_state_dict(tmp_path / "w.bin")
    assert "safetensors" in str(caught.value.do)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
@pytest.mark.parametrize("content", [b"", b"not tensors", b"PK\x03\x04 cut off"])
def test_broken_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(tmp_path / name)
    assert caught.value.where == str(tmp_path / name)
    assert caught.value.do
    assert "\n" not in str(caught.value)


def test_a_file_cut_off_in_the_middle(tiny: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tiny, tmp_path / "w.safetensors")
    torch.save(tiny, tmp_path / "w.bin")
    for path in (tmp_path / "w.safetensors", tmp_path / "w.bin"):
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(CheckpointError, match="whole file|broken pickle"):
            read_state_dict(path)


@pytest.mark.parametrize("protocol", [0, 2])
def test_damaged_pickles_end_in_an_error_of_ours(tiny: dict[str, Tensor], protocol: int, tmp_path: Path) -> None:
    """Whatever a byte is changed to: no other exception, and no hanging."""
    path = tmp_path / "w.bin"
    small = {name: tensor for name, tensor in tiny.items() if tensor.numel() < 100}
    torch.save(small, path, _use_new_zipfile_serialization=protocol == 2)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for place in random.integers(len(whole), size=300):
        path.write_bytes(whole[:place] + random.bytes(1) + whole[place + 1 :])
        with contextlib.suppress(CheckpointError):
            assert all(isinstance(tensor, Tensor) for tensor in read_state_dict(path).values())


def test_a_state_dict_that_holds_itself(tmp_path: Path) -> None:
    state: dict[str, object] = {}
    state["model"] = state
    torch.save(state, tmp_path / "w.bin")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.bin")


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"model": {"epoch": 3}}])
def test_files_without_a_state_dict(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.bin")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.bin")


MISFITS = {
    "a tensor is missing": (lambda s: s.pop("norm.bias"), "1 tensors .* norm.bias"),
    "a tensor too many": (lambda s: s.update({"blocks.0.ls1.gamma": torch.ones(64)}), "blocks.0.ls1.gamma"),
    "another width": (lambda s: s.update({"norm.bias": torch.ones(3)}), "norm.bias"),
    "patches of another size": (lambda s: s.update({"patch_embed.proj.weight": torch.ones(64, 3, 8, 8)}), "patches"),
    "no transformer": (lambda s: [s.clear(), s.update({"conv1.weight": torch.ones(3, 3)})], "tensors are missing"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_weights_of_another_architecture(tiny: dict[str, Tensor], name: str) -> None:
    change, told = MISFITS[name]
    state = dict(tiny)
    change(state)
    vit = build(TINY).to_empty(device="cpu")
    with pytest.raises(ValueError, match=told):
        load_into(vit, state)
