"""Image encoders by name: timm vision transformers, cut in two where LoRA begins."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import Attention
from timm.models.vision_transformer import Block, checkpoint_filter_fn
from torch import Tensor, nn

from napari_hyperst.errors import CheckpointError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
        A safetensors file of its state dict.
    licence
        Licence of the weights.
    size
        Side of the input in px.
    mean, std
        Normalisation of RGB values in 0 to 1.
    options
        Further arguments of the architecture.
    """

    name: str
    timm_name: str
    weights: Path
    licence: str
    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    options: dict[str, Any] = field(default_factory=dict)


_ASSETS = Path(__file__).parents[1] / "assets" / "encoders"
_SPECS: dict[str, EncoderSpec] = {}


def register_encoder(spec: EncoderSpec) -> None:
    """Make an encoder known under its name, for configs and checkpoints."""
    _SPECS[spec.name] = spec


register_encoder(
    EncoderSpec(
        name="dinov2-vits14",
        timm_name="vit_small_patch14_dinov2.lvd142m",
        weights=_ASSETS / "dinov2-vits14" / "vit_small_patch14_dinov2.lvd142m.fp16.safetensors",
        licence="Apache-2.0",
    )
)


def encoder_names() -> tuple[str, ...]:
    """Return the names of the encoders that are known."""
    return tuple(_SPECS)


def encoder_spec(name: str) -> EncoderSpec:
    """Return what is known of an encoder.

    Raises
    ------
    CheckpointError
        If the name is unknown or the weights are not there.
    """
    try:
        spec = _SPECS[name]
    except KeyError:
        raise CheckpointError(f"no encoder is called {name!r}", do=f"name one of {', '.join(_SPECS)}") from None
    if not spec.weights.is_file():
        raise CheckpointError("the encoder's weights are not there", where=spec.weights, do="install the package again")
    return spec


@lru_cache
def weights_sha256(path: Path) -> str:
    """Return the sha256 of a weights file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Encoder(nn.Module):
    """A vision transformer whose last blocks learn through LoRA and whose other weights never change.

    Parameters
    ----------
    spec
        Which transformer.
    lora_blocks
        LoRA on ``attn.qkv`` of this many last blocks.
    rank, alpha, dropout
        LoRA's rank, scale and dropout.

    Raises
    ------
    CheckpointError
        If the weights cannot be read or do not fit, or the encoder has fewer blocks than LoRA is asked for.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: EncoderSpec, lora_blocks: int = 0, rank: int = 8, alpha: int = 16, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.spec = spec
        self.vit = _load(spec)
        depth = len(self.vit.blocks)
        if lora_blocks > depth:
            raise CheckpointError(
                f"LoRA on {lora_blocks} blocks of an encoder of {depth}", do=f"set lora_blocks to {depth} or less"
            )
        self.first_trained = depth - lora_blocks
        #: Type that the transformer computes in; weights stay in float32.
        self.dtype = torch.float32
        self.vit.requires_grad_(False)
        if lora_blocks:
            targets = [f"blocks.{i}.attn.qkv" for i in range(self.first_trained, depth)]
            lora = LoraConfig(target_modules=targets, r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none")
            inject_adapter_in_model(lora, self.vit)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return int(self.vit.num_features)

    def prefix(self, tiles: Tensor) -> Tensor:
        """Return what enters the first block that learns, without a gradient.

        Parameters
        ----------
        tiles
            (B, size, size, 3) uint8 RGB.

        Returns
        -------
        Tensor
            (B, tokens, width) token states; or, where no block learns, the (B, width) features themselves.
        """
        with torch.no_grad(), self._autocast(tiles):
            images = (tiles.permute(0, 3, 1, 2).float() - self.mean) / self.std
            tokens = self.vit.norm_pre(self.vit.patch_drop(self.vit._pos_embed(self.vit.patch_embed(images))))
            for block in self.vit.blocks[: self.first_trained]:
                tokens = block(tokens)
            return self._pool(tokens) if self.frozen else tokens

    def suffix(self, states: Tensor) -> Tensor:
        """Return (B, width) features from what ``prefix`` returned."""
        if self.frozen:
            return states
        with self._autocast(states):
            for block in self.vit.blocks[self.first_trained : -1]:
                states = block(states)
            last = self.vit.blocks[-1]
            return self._pool(_class_token_only(last, states) if self._pools_class_token(last) else last(states))

    def forward(self, tiles: Tensor) -> Tensor:
        """Return (B, width) features of uint8 tiles, or of the float states that ``prefix`` made of them."""
        return self.suffix(tiles if tiles.is_floating_point() else self.prefix(tiles))

    def _autocast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    @property
    def frozen(self) -> bool:
        """Whether no block learns."""
        return self.first_trained == len(self.vit.blocks)

    def _pool(self, tokens: Tensor) -> Tensor:
        return self.vit.forward_head(self.vit.norm(tokens))

    def _pools_class_token(self, block: Any) -> bool:
        plain = type(block) is Block and type(block.attn) is Attention and block.attn.gate is None
        return plain and self.vit.global_pool == "token" and self.vit.attn_pool is None


def _class_token_only(block: Any, tokens: Tensor) -> Tensor:
    """Run a block for its class token alone: the same numbers, for a quarter of the work.

    Returns
    -------
    Tensor
        (B, 1, width).
    """
    attention = block.attn
    batch, length, _ = tokens.shape
    qkv = attention.qkv(block.norm1(tokens)).reshape(batch, length, 3, attention.num_heads, attention.head_dim)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = attention.q_norm(query[:, :, :1]), attention.k_norm(key)
    mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, 1, attention.attn_dim)
    mixed = attention.proj_drop(attention.proj(attention.norm(mixed)))
    token = tokens[:, :1] + block.drop_path1(block.ls1(mixed))
    return token + block.drop_path2(block.ls2(block.mlp(block.norm2(token))))


def _load(spec: EncoderSpec) -> Any:
    vit: Any = timm.create_model(spec.timm_name, pretrained=False, num_classes=0, img_size=spec.size, **spec.options)
    try:
        state = {key: tensor.float() for key, tensor in load_file(spec.weights).items()}
        vit.load_state_dict(checkpoint_filter_fn(state, vit))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"these weights do not load into {spec.timm_name} ({error})", where=spec.weights, do="install them again"
        ) from error
    vit.eval()
    return vit
