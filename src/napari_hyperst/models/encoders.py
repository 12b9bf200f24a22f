"""Image encoders by name: timm vision transformers, cut in two where LoRA begins."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from timm.layers import Attention, SwiGLUPacked
from timm.models import get_pretrained_cfg
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from napari_hyperst.errors import CheckpointError
from napari_hyperst.models.hub import find_local_weights, find_weights, weights_sha256
from napari_hyperst.models.state_dicts import load_into, read_state_dict
from napari_hyperst.nouns.encoders import ENCODERS, EncoderSpec, HubRepository

__all__ = [
    "Encoder",
    "EncoderSpec",
    "encoder_names",
    "encoder_spec",
    "known_encoder",
    "register_encoder",
    "weights_sha256",
]

_SPECS: dict[str, EncoderSpec] = {spec.name: spec for spec in ENCODERS}
_MLPS = {"SwiGLUPacked": SwiGLUPacked}
#: Side in px of the tiles, above which no transformer is fed by default.
_TILE_PX = 224


def register_encoder(spec: EncoderSpec) -> None:
    """Make an encoder known under its name, for configs and checkpoints."""
    _SPECS[spec.name] = spec


def encoder_names() -> tuple[str, ...]:
    """Return the names of the encoders that are known."""
    return tuple(_SPECS)


def known_encoder(name: str) -> EncoderSpec:
    """Return what is known of an encoder, wherever its weights are.

    Parameters
    ----------
    name
        One of ``encoder_names``, or one of timm's vision transformers, which is given tiles of 224 px (or what it
        was trained on, where that is less) and its own normalisation; its position grid is resampled.

    Raises
    ------
    CheckpointError
        If the name is unknown, or timm's, but of no plain vision transformer.
    """
    return _SPECS[name] if name in _SPECS else _timm_spec(name)


def encoder_spec(name: str, asked: bool = True) -> EncoderSpec:
    """Return what is known of an encoder, with its weights on this disk.

    Parameters
    ----------
    name
        What ``known_encoder`` takes, or that with ``@`` and a file or folder of weights of the same architecture:
        ``uni@pytorch_model.bin``, ``vit_small_patch16_224@mine.safetensors``.
    asked
        Whether it is the user who named it. Of what a checkpoint's card names nothing is fetched, and of the file only
        the last name counts, in the folder that ``NAPARI_HYPERST_ENCODERS`` names: a card is whoever sent it's.

    Raises
    ------
    CheckpointError
        If the name is unknown, or the weights are not there and cannot be fetched.
    """
    base, at, place = name.partition("@")
    spec = known_encoder(base)
    if not at:
        if spec.hub is None and base not in _SPECS:
            raise CheckpointError(f"timm has no weights of {base} on the hub", do=f"name a file of them: {base}@FILE")
        return replace(spec, weights=find_weights(spec, fetch=asked))
    licence = spec.licence if base in _SPECS else "that of the local weights"
    return replace(spec, name=name, weights=find_local_weights(place, anywhere=asked), licence=licence, hub=None)


def _timm_spec(name: str) -> EncoderSpec:
    if not timm.is_model(name):
        raise CheckpointError(
            f"no encoder is called {name!r}",
            do=f"name one of {', '.join(_SPECS)}, one of timm's vision transformers, or either with @FILE after it",
        )
    try:
        facts = get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"timm knows no weights called {name!r}", do="name one of timm.list_pretrained('vit_*')"
        ) from error
    assert facts is not None  # or there would have been an error
    mean, std = tuple(facts.mean), tuple(facts.std)
    assert len(mean) == len(std) == 3
    spec = EncoderSpec(
        name=name,
        timm_name=name,
        weights=Path(facts.hf_hub_filename or "model.safetensors"),
        licence=facts.license or "not stated by timm",
        size=min(_TILE_PX, facts.input_size[1]),
        mean=mean,
        std=std,
        hub=HubRepository(facts.hf_hub_id) if facts.hf_hub_id else None,
    )
    build(spec)  # refuses what is no plain vision transformer, before its weights are asked for
    return spec


def build(spec: EncoderSpec) -> Any:
    """Return an encoder's architecture, on the meta device: shapes without weights.

    Raises
    ------
    CheckpointError
        If timm does not know it, or it is no plain vision transformer.
    """
    options: dict[str, Any] = dict(spec.options)
    if "mlp_layer" in options:
        options["mlp_layer"] = _MLPS[options["mlp_layer"]]
    if "norm_eps" in options:
        options["norm_layer"] = partial(nn.LayerNorm, eps=options.pop("norm_eps"))
    try:
        with torch.device("meta"):
            vit = timm.create_model(spec.timm_name, pretrained=False, num_classes=0, img_size=spec.size, **options)
    except (TypeError, RuntimeError, AssertionError) as error:
        raise _no_transformer(spec) from error
    if type(vit) is not VisionTransformer:
        raise _no_transformer(spec)
    return vit


def _no_transformer(spec: EncoderSpec) -> CheckpointError:
    return CheckpointError(f"{spec.timm_name} is no plain vision transformer", do="name one of timm's ViTs")


class Encoder(nn.Module):
    """A vision transformer whose last blocks learn through LoRA and whose other weights never change.

    Within ``torch.device("meta")`` it has shapes and no weights, and no file is read.

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
        If the weights cannot be read or do not fit, or LoRA is asked for on more blocks than there are, or on blocks
        without a query-key-value projection of their own.
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
            targets = lora_targets(self.vit, lora_blocks)
            lora = LoraConfig(target_modules=targets, r=rank, lora_alpha=alpha, lora_dropout=dropout, bias="none")
            inject_adapter_in_model(lora, self.vit)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1) * 255, persistent=False)

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return int(self.vit.num_features) * (2 if self.spec.adds_patch_mean else 1)

    def prefix(self, tiles: Tensor) -> Tensor:
        """Return what enters the first block that learns, without a gradient.

        Parameters
        ----------
        tiles
            (B, side, side, 3) uint8 RGB; resampled on the device where their side is not the encoder's.

        Returns
        -------
        Tensor
            (B, tokens, width) token states; or, where no block learns, the (B, width) features themselves.
        """
        with torch.no_grad(), self._autocast(tiles):
            images = (self._fit(tiles.permute(0, 3, 1, 2).float()) - self.mean) / self.std
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

    def _fit(self, images: Tensor) -> Tensor:
        if images.shape[-1] == self.spec.size:
            return images
        side = (self.spec.size, self.spec.size)
        return F.interpolate(images, size=side, mode="bicubic", antialias=True).clamp(0, 255)

    def _pool(self, tokens: Tensor) -> Tensor:
        tokens = self.vit.norm(tokens)
        pooled: Tensor = self.vit.forward_head(tokens)
        if not self.spec.adds_patch_mean:
            return pooled
        return torch.cat([pooled, tokens[:, self.vit.num_prefix_tokens :].mean(dim=1)], dim=1)

    def _pools_class_token(self, block: Any) -> bool:
        plain = type(block) is Block and type(block.attn) is Attention and block.attn.gate is None
        pools = self.vit.global_pool == "token" and self.vit.attn_pool is None
        return plain and pools and not self.spec.adds_patch_mean


def lora_targets(vit: nn.Module, lora_blocks: int) -> list[str]:
    """Return the names of the query-key-value projections of the last blocks of a vision transformer.

    Raises
    ------
    CheckpointError
        If a block has none.
    """
    blocks = [name for name, _ in vit.named_modules() if name.startswith("blocks.") and name.count(".") == 1]
    targets = [f"{name}.attn.qkv" for name in blocks[len(blocks) - lora_blocks :]]
    missing = set(targets) - {name for name, module in vit.named_modules() if isinstance(module, nn.Linear)}
    if missing:
        raise CheckpointError(
            f"its blocks have no {min(missing).rpartition('.')[2]} projection for LoRA", do="set lora_blocks to 0"
        )
    return targets


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
    vit = build(spec)
    if torch.get_default_device().type == "meta":
        return vit.eval()
    vit = vit.to_empty(device="cpu")  # no random weights that would be overwritten at once
    try:
        load_into(vit, read_state_dict(spec.weights))
    except (
        ValueError,
        TypeError,
        RuntimeError,
        LookupError,
        AttributeError,
        AssertionError,
    ) as error:  # timm's own among them
        raise CheckpointError(
            f"these weights do not load into {spec.timm_name} ({error})",
            where=spec.weights,
            do=f"give weights of {spec.name}'s architecture",
        ) from error
    vit.eval()
    return vit
