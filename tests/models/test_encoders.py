from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.encoders import Encoder, EncoderSpec, encoder_spec


def tiles(n: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (n, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_bundled_encoder_is_timms_own_forward() -> None:
    """Strictly loaded into timm's architecture at its native grid, features agree (the grid is resampled for 224)."""
    spec = encoder_spec("dinov2-vits14")
    state = {key: value.float() for key, value in load_file(spec.weights).items()}
    reference = timm.create_model(spec.timm_name, pretrained=False, num_classes=0, dynamic_img_size=True)
    reference.load_state_dict(state, strict=True)
    reference.eval()
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    images = ((tiles() / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = reference(images)
        found = Encoder(spec)(tiles())
    assert torch.linalg.norm(found - wanted) / torch.linalg.norm(wanted) < 2e-3


@pytest.mark.parametrize("lora_blocks", [0, 1, 3])
def test_prefix_and_suffix_make_the_whole(tiny_encoder: str, lora_blocks: int) -> None:
    """Cutting the encoder in two, and computing the last block for its class token alone, changes nothing."""
    spec = encoder_spec(tiny_encoder)
    torch.manual_seed(0)
    encoder = Encoder(spec, lora_blocks).eval()
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    images = (tiles().permute(0, 3, 1, 2) - encoder.mean) / encoder.std
    with torch.no_grad():
        torch.testing.assert_close(encoder.suffix(encoder.prefix(tiles())), encoder.vit(images), rtol=1e-4, atol=1e-5)


def test_only_lora_of_the_last_blocks_learns(tiny_encoder: str) -> None:
    encoder = Encoder(encoder_spec(tiny_encoder), lora_blocks=2)
    learning = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    depth = len(encoder.vit.blocks)
    assert learning == {
        f"vit.blocks.{i}.attn.qkv.lora_{part}.default.weight" for i in (depth - 2, depth - 1) for part in "AB"
    }
    encoder(tiles()).sum().backward()
    assert all(p.grad is not None for n, p in encoder.named_parameters() if n in learning)


def test_lora_changes_features_and_a_frozen_encoder_is_the_base(tiny_encoder: str) -> None:
    frozen, lora = (Encoder(encoder_spec(tiny_encoder), k).eval() for k in (0, 2))
    with torch.no_grad():
        torch.testing.assert_close(frozen(tiles()), lora(tiles()), rtol=1e-4, atol=1e-5)  # LoRA starts as nothing
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
        assert not torch.allclose(frozen(tiles()), lora(tiles()), rtol=1e-2)


def test_bfloat16_features_are_close(tiny_encoder: str) -> None:
    encoder = Encoder(encoder_spec(tiny_encoder), 2).eval()
    with torch.no_grad():
        exact = encoder(tiles())
        encoder.dtype = torch.bfloat16
        rough = encoder(tiles()).float()
    assert torch.linalg.norm(rough - exact) / torch.linalg.norm(exact) < 0.03


def test_unknown_names_missing_weights_and_too_much_lora(tiny_encoder: str, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no encoder is called 'uni9'.*dinov2-vits14"):
        encoder_spec("uni9")
    with pytest.raises(CheckpointError, match="LoRA on 40 blocks"):
        Encoder(encoder_spec(tiny_encoder), lora_blocks=40)
    (tmp_path / "w.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="do not load"):
        Encoder(EncoderSpec("broken", "test_vit", tmp_path / "w.safetensors", "none"))
    with pytest.raises(CheckpointError, match="do not load into test_vit"):
        Encoder(EncoderSpec("other", "test_vit", encoder_spec("dinov2-vits14").weights, "none"))
