"""Encoders of the table in their true widths, with two blocks of random weights, in folders laid out as the hub's."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel, ViTConfig, ViTModel

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.checkpoint import load_checkpoint, save_checkpoint
from napari_hyperst.models.encoders import (
    Encoder,
    build,
    encoder_spec,
    known_encoder,
    register_encoder,
    weights_sha256,
)
from napari_hyperst.models.hub import FOLDER_VARIABLE
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.encoders import ENCODERS, EncoderSpec
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel

HUB = [spec for spec in ENCODERS if spec.hub is not None]
#: Length of a feature, as the cards state it, and tokens: class, registers, patches.
FEATURES = {
    "uni": (1024, 1 + 196),
    "uni2-h": (1536, 1 + 8 + 256),
    "h-optimus-0": (1536, 1 + 4 + 256),
    "virchow2": (2560, 1 + 4 + 256),
    "gigapath": (1536, 1 + 196),
    "phikon": (768, 1 + 196),
    "hibou-b": (768, 1 + 4 + 256),
    "kaiko-vits16": (384, 1 + 196),
    "kaiko-vits8": (384, 1 + 784),
    "kaiko-vitb16": (768, 1 + 196),
    "kaiko-vitb8": (768, 1 + 784),
    "kaiko-vitl14": (1024, 1 + 4 + 256),
    "lunit-vits16": (384, 1 + 196),
    "lunit-vits8": (384, 1 + 784),
}


def tiles(n: int = 2, side: int = 224) -> Tensor:
    return torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def hub_weights(spec: EncoderSpec, folder: Path) -> Path:
    """Write random weights in the format that the hub has them in, and return the file."""
    if spec.name == "phikon":
        ViTModel(ViTConfig(num_hidden_layers=2), add_pooling_layer=False).save_pretrained(folder)
        return folder / "model.safetensors"
    if spec.name == "hibou-b":
        config = Dinov2WithRegistersConfig(num_hidden_layers=2, image_size=224, patch_size=14, use_swiglu_ffn=True)
        Dinov2WithRegistersModel(config).save_pretrained(folder)
        return folder / "model.safetensors"
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * 0.02 for name, tensor in build(spec).state_dict().items()
    }
    if spec.name == "kaiko-vitl14":  # on the hub its position grid is that of 518 px
        state["pos_embed"] = torch.randn(1, 37 * 37, 1024, generator=generator)
    path = folder / spec.weights.name
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's cache for this test, without a network behind it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    return tmp_path / "hub"


@pytest.fixture
def shallow(request: pytest.FixtureRequest, cache: Path, tmp_path: Path) -> Iterator[EncoderSpec]:
    """Return an encoder of the table with two blocks only, its weights in the hub's cache."""
    spec = known_encoder(request.param)
    register_encoder(replace(spec, options={**spec.options, "depth": 2}))
    try:
        file = hub_weights(known_encoder(spec.name), tmp_path)
        assert spec.hub is not None
        folder = cache / f"models--{spec.hub.name.replace('/', '--')}"
        for part in ("blobs", "refs", "snapshots/" + "a" * 40):
            (folder / part).mkdir(parents=True)
        blob = folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blob)
        (folder / "refs" / "main").write_text("a" * 40)
        (folder / "snapshots" / ("a" * 40) / spec.weights.name).symlink_to(blob)
        yield encoder_spec(spec.name)
    finally:
        register_encoder(spec)
        shutil.rmtree(tmp_path)  # hundreds of megabytes


@pytest.mark.parametrize("shallow", [spec.name for spec in HUB], indirect=True)
def test_from_the_hubs_cache_to_features(shallow: EncoderSpec) -> None:
    """Features are what the model's card tells to take; cutting the encoder where LoRA begins changes nothing."""
    width, tokens = FEATURES[shallow.name]
    encoder = Encoder(shallow, lora_blocks=1).eval()
    assert encoder.width == width
    learning = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert learning == {f"vit.blocks.1.attn.qkv.lora_{part}.default.weight" for part in "AB"}
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    images = (tiles(1).permute(0, 3, 1, 2) / 255 - torch.tensor(shallow.mean).view(1, 3, 1, 1)) / torch.tensor(
        shallow.std
    ).view(1, 3, 1, 1)
    with torch.no_grad():
        states = encoder.prefix(tiles(1))
        found = encoder.suffix(states)
        whole = encoder.vit.forward_features(images)
    assert states.shape == whole.shape == (1, tokens, encoder.vit.embed_dim)
    wanted = torch.cat([whole[:, 0], whole[:, 5:].mean(dim=1)], dim=1) if shallow.name == "virchow2" else whole[:, 0]
    assert found.shape == (1, width)
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["phikon", "hibou-b"])
def test_from_a_plain_folder_to_what_transformers_computes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = known_encoder(name)
    file = hub_weights(known, tmp_path / name)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    found_spec = encoder_spec(name)
    assert found_spec.weights == file
    reference = (ViTModel if name == "phikon" else Dinov2WithRegistersModel).from_pretrained(file.parent).eval()
    pixels = tiles(2).permute(0, 3, 1, 2) / 255
    images = (pixels - torch.tensor(known.mean).view(1, 3, 1, 1)) / torch.tensor(known.std).view(1, 3, 1, 1)
    with torch.no_grad():
        wanted = reference(pixel_values=images).last_hidden_state[:, 0]
        found = Encoder(replace(found_spec, options={**known.options, "depth": 2})).eval()(tiles(2))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("shallow", ["virchow2"], indirect=True)
def test_a_checkpoint_over_an_encoder_of_the_hub(
    shallow: EncoderSpec, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class token and mean of the patches go through the heads, back from the card, and on a machine with a folder."""
    config = HyperSTConfig(encoder="virchow2", lora_blocks=1, dim=16)
    model = HyperST(config, 3).eval()
    assert model.image_projectors["spot"].in_features == 2560
    card = Card(name="x", method=config, encoder_sha256=weights_sha256(model.encoder.spec.weights))
    save_checkpoint(tmp_path / "checkpoint", model, GenePanel(("A", "B", "C")), card)
    again = load_checkpoint(tmp_path / "checkpoint")
    assert again.model.encoder.spec == shallow
    folder = tmp_path / "weights" / "virchow2"
    folder.mkdir(parents=True)
    shallow.weights.resolve().rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="huggingface.co/paige-ai/Virchow2.*hf auth login"):
        load_checkpoint(tmp_path / "checkpoint")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "weights"))
    assert load_checkpoint(tmp_path / "checkpoint").sha256 == again.sha256


def local_vit(folder: Path, seed: int, name: str = "mine.pth") -> Path:
    torch.manual_seed(seed)
    state = {n: torch.randn(t.shape) * 0.05 for n, t in build(known_encoder("test_vit.r160_in1k")).state_dict().items()}
    folder.mkdir(exist_ok=True)
    torch.save({"state_dict": state}, folder / name)
    return folder / name


def test_a_checkpoint_over_a_local_state_dict(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file is, the user says; or it is found by the card's name for it in a folder. Its hash proves it."""
    file = local_vit(tmp_path / "here", seed=0)
    config = HyperSTConfig(encoder=f"test_vit.r160_in1k@{file}", lora_blocks=1, dim=16)
    torch.manual_seed(1)
    model = HyperST(config, 3).eval()
    spec = model.encoder.spec
    assert (spec.name, spec.size, spec.weights) == (config.encoder, 160, file.resolve())
    assert spec.licence == "that of the local weights"
    card = Card(name="x", method=config, encoder_sha256=weights_sha256(spec.weights))
    save_checkpoint(tmp_path / "checkpoint", model, GenePanel(("A", "B", "C")), card)
    with torch.no_grad():
        wanted = model.encoder(tiles())
        told = load_checkpoint(tmp_path / "checkpoint", encoder=config.encoder)
        torch.testing.assert_close(told.model.encoder(tiles()), wanted)
        file.rename(tmp_path / "mine.pth")
        with pytest.raises(CheckpointError, match=f"mine.pth.*{FOLDER_VARIABLE}"):
            load_checkpoint(tmp_path / "checkpoint")
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
        torch.testing.assert_close(load_checkpoint(tmp_path / "checkpoint").model.encoder(tiles()), wanted)
    local_vit(tmp_path / "others", seed=9)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "others"))
    with pytest.raises(CheckpointError, match="was trained on other weights of test_vit.r160_in1k@"):
        load_checkpoint(tmp_path / "checkpoint")


def test_a_known_encoder_with_local_weights_keeps_its_facts(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    spec = encoder_spec(f"h-optimus-0@{tmp_path}")
    known = known_encoder("h-optimus-0")
    assert (spec.mean, spec.std, spec.licence, spec.options) == (known.mean, known.std, known.licence, known.options)
    assert spec.weights == (tmp_path / "pytorch_model.bin").resolve()
    with pytest.raises(CheckpointError, match="no whole file|broken pickle"):
        Encoder(spec)


def test_timms_weights_come_from_its_own_repository(cache: Path) -> None:
    with pytest.raises(CheckpointError, match=re.escape("huggingface.co/timm/vit_tiny_patch16_224.augreg_in21k")):
        encoder_spec("vit_tiny_patch16_224.augreg_in21k")
    with pytest.raises(CheckpointError, match="timm has no weights of vit_giant_patch14_224 on the hub.*@FILE"):
        encoder_spec("vit_giant_patch14_224")


def test_tiles_of_another_side_are_resampled(tmp_path: Path) -> None:
    """As Pillow does it, which rounds to whole numbers."""
    file = local_vit(tmp_path, seed=0)
    encoder = Encoder(encoder_spec(f"test_vit.r160_in1k@{file}")).eval()
    smooth = tiles(2, 20).repeat_interleave(16, 1).repeat_interleave(16, 2)
    resized = [np.array(Image.fromarray(t.numpy()).resize((160, 160), Image.Resampling.BICUBIC)) for t in smooth]
    with torch.no_grad():
        found, wanted = encoder(smooth), encoder(torch.from_numpy(np.stack(resized)))
    assert found.shape == (2, 64)
    assert torch.linalg.norm(found - wanted) / torch.linalg.norm(wanted) < 5e-3


def test_a_timm_name_over_real_weights_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled weights under timm's own name, found by it in a folder, give the bundled encoder's features."""
    bundled = encoder_spec("dinov2-vits14")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    shutil.copyfile(bundled.weights, tmp_path / f"{bundled.timm_name}.safetensors")
    spec = encoder_spec(bundled.timm_name)
    assert (spec.mean, spec.std, spec.size) == (bundled.mean, bundled.std, bundled.size)
    assert weights_sha256(spec.weights) == weights_sha256(bundled.weights)
    with torch.no_grad():
        assert torch.equal(Encoder(spec).eval()(tiles()), Encoder(bundled).eval()(tiles()))
