"""What there is to know about image encoders, and the table of those that are known by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class HubRepository:
    """Where on the Hugging Face hub an encoder's weights are.

    Attributes
    ----------
    name
        ``owner/repository``.
    gated
        Whether its owner must grant access before the weights can be fetched.
    """

    name: str
    gated: bool = False

    @property
    def page(self) -> str:
        """The page where its terms are read and accepted."""
        return f"https://huggingface.co/{self.name}"


@dataclass(frozen=True)
class EncoderSpec:
    """What there is to know about an image encoder.

    Attributes
    ----------
    name
        The name that configs use.
    timm_name
        The architecture, as timm calls it.
    weights
        The file of its state dict; within the repository where there is a ``hub``, until it is found on this disk.
    licence
        Licence of the weights.
    size
        Side of the input in px.
    mean, std
        Normalisation of RGB values in 0 to 1.
    options
        Further arguments of the architecture; ``mlp_layer`` by timm's name, ``norm_eps`` for all layer norms.
    hub
        The repository that has the weights, where they are not on every disk.
    adds_patch_mean
        Whether a feature is the class token followed by the mean of the patch tokens, of twice the width; else it
        is what the architecture pools, the class token mostly.
    """

    name: str
    timm_name: str
    weights: Path
    licence: str
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    options: Mapping[str, Any] = field(default_factory=dict)
    hub: HubRepository | None = None
    adds_patch_mean: bool = False


_ASSETS = Path(__file__).parents[1] / "assets" / "encoders"
_SAFETENSORS, _PICKLED = Path("model.safetensors"), Path("pytorch_model.bin")
#: The packed SwiGLU of DINOv2's giant: the first half of ``fc1`` is the gate.
_SWIGLU = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_HALVES = (0.5, 0.5, 0.5)
# Lunit's and Kaiko's normalisation is their own releases'; the hub's ports of the former state ImageNet's instead.
_LUNIT_MEAN, _LUNIT_STD = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)


def _kaiko(name: str, timm_name: str) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        timm_name=timm_name,
        weights=_SAFETENSORS,
        licence="Kaiko Non-Commercial Public License",
        mean=_HALVES,
        std=_HALVES,
        hub=HubRepository(f"1aurent/{timm_name}.kaiko_ai_towards_large_pathology_fms"),
    )


def _lunit(name: str, timm_name: str) -> EncoderSpec:
    return EncoderSpec(
        name=name,
        timm_name=timm_name,
        weights=_SAFETENSORS,
        licence="Lunit Public License, non-commercial",
        mean=_LUNIT_MEAN,
        std=_LUNIT_STD,
        hub=HubRepository(f"1aurent/{timm_name}.lunit_dino"),
    )


#: The encoders that are known by name, the bundled one first.
ENCODERS: tuple[EncoderSpec, ...] = (
    EncoderSpec(
        name="dinov2-vits14",
        timm_name="vit_small_patch14_dinov2.lvd142m",
        weights=_ASSETS / "dinov2-vits14" / "vit_small_patch14_dinov2.lvd142m.fp16.safetensors",
        licence="Apache-2.0",
    ),
    EncoderSpec(
        name="uni",
        timm_name="vit_large_patch16_224",
        weights=_PICKLED,
        licence="CC-BY-NC-ND-4.0",
        options={"init_values": 1e-5},
        hub=HubRepository("MahmoodLab/UNI", gated=True),
    ),
    EncoderSpec(
        name="uni2-h",
        timm_name="vit_giant_patch14_224",
        weights=_PICKLED,
        licence="CC-BY-NC-ND-4.0",
        options={
            "embed_dim": 1536,
            "depth": 24,
            "num_heads": 24,
            "mlp_ratio": 2.66667 * 2,
            "init_values": 1e-5,
            "reg_tokens": 8,
            "no_embed_class": True,
            **_SWIGLU,
        },
        hub=HubRepository("MahmoodLab/UNI2-h", gated=True),
    ),
    EncoderSpec(
        name="h-optimus-0",
        timm_name="vit_giant_patch14_reg4_dinov2",
        weights=_PICKLED,
        licence="Apache-2.0",
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
        hub=HubRepository("bioptimus/H-optimus-0", gated=True),
    ),
    EncoderSpec(
        name="virchow2",
        timm_name="vit_huge_patch14_224",
        weights=_PICKLED,
        licence="CC-BY-NC-ND-4.0",
        options={"mlp_ratio": 5.3375, "init_values": 1e-5, "reg_tokens": 4, **_SWIGLU},
        hub=HubRepository("paige-ai/Virchow2", gated=True),
        adds_patch_mean=True,
    ),
    EncoderSpec(
        name="gigapath",
        timm_name="vit_giant_patch14_dinov2",
        weights=_PICKLED,
        licence="Apache-2.0; its card allows research only",
        options={"patch_size": 16, "mlp_ratio": 5.33334},
        hub=HubRepository("prov-gigapath/prov-gigapath", gated=True),
    ),
    EncoderSpec(
        name="phikon",
        timm_name="vit_base_patch16_224",
        weights=_SAFETENSORS,
        licence="Owkin non-commercial licence",
        options={"norm_eps": 1e-12},
        hub=HubRepository("owkin/phikon"),
    ),
    EncoderSpec(
        name="hibou-b",
        timm_name="vit_base_patch14_reg4_dinov2",
        weights=_SAFETENSORS,
        licence="Apache-2.0",
        mean=(0.7068, 0.5755, 0.722),
        std=(0.195, 0.2316, 0.1816),
        options={"mlp_ratio": 2.66667 * 2, **_SWIGLU},
        hub=HubRepository("histai/hibou-b", gated=True),
    ),
    _kaiko("kaiko-vits16", "vit_small_patch16_224"),
    _kaiko("kaiko-vits8", "vit_small_patch8_224"),
    _kaiko("kaiko-vitb16", "vit_base_patch16_224"),
    _kaiko("kaiko-vitb8", "vit_base_patch8_224"),
    _kaiko("kaiko-vitl14", "vit_large_patch14_reg4_dinov2"),
    _lunit("lunit-vits16", "vit_small_patch16_224"),
    _lunit("lunit-vits8", "vit_small_patch8_224"),
)
