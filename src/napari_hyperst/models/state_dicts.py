"""State dicts of vision transformers, read without running code and renamed to what timm calls their tensors."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from napari_hyperst.errors import CheckpointError

#: What a training run keeps its state dict under.
_CONTAINERS = ("state_dict", "model", "teacher")
#: How many of these may lie in one another.
_WRAPPINGS = 3
#: The tensor that every transformer has, as timm and DINOv2, and as transformers, name it.
_TIMM_STEM, _TRANSFORMERS_STEM = "patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"
#: Tensors beside the encoder.
_HEADS = ("head.", "head_dist.", "pre_logits.", "pooler.", "classifier.")
_TRANSFORMERS_NAMES = (
    (r"embeddings\.(cls_token|register_tokens|mask_token)", r"\1"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"layernorm\.", "norm."),
    (r"(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
)
#: Within a block: ViT's names and DINOv2's; those of transformers 5 after those that the hub holds.
_TRANSFORMERS_BLOCK_NAMES = (
    (r"layernorm_before\.", "norm1."),
    (r"layernorm_after\.", "norm2."),
    (r"attention\.(?:attention\.)?(query|key|value)\.", r"attn.\1."),
    (r"attention\.q_proj\.", "attn.query."),
    (r"attention\.k_proj\.", "attn.key."),
    (r"attention\.v_proj\.", "attn.value."),
    (r"attention\.(?:output\.dense|o_proj)\.", "attn.proj."),
    (r"(?:intermediate\.dense|mlp\.weights_in)\.", "mlp.fc1."),
    (r"(?:output\.dense|mlp\.weights_out|mlp\.down_proj)\.", "mlp.fc2."),
    (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
)
#: Tensors that timm packs into one, in this order along their first dimension.
_PACKED = (
    ("attn.qkv", ("attn.query", "attn.key", "attn.value")),
    ("mlp.fc1", ("mlp.gate_proj", "mlp.up_proj")),
)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file.

    Parameters
    ----------
    path
        A safetensors file, or a pickle of tensors, which is read with ``weights_only`` and so runs no code. What
        training runs wrap a state dict in is taken off.

    Raises
    ------
    CheckpointError
        If the file is broken, holds more than tensors, or no tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _check_packing(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except CheckpointError:
        raise
    except UnpicklingError as error:
        raise CheckpointError(
            "is a broken pickle, or one with more than tensors in it, which could run code and so is not loaded",
            where=path,
            do="save its state dict alone, as safetensors",
        ) from error
    except Exception as error:  # a damaged pickle makes its reader stumble in any way
        raise CheckpointError(
            f"is no whole file of weights ({type(error).__name__}), so they do not load", where=path, do="copy it again"
        ) from error
    for _ in range(_WRAPPINGS):  # not for ever: a pickle may hold itself
        state = next((state[key] for key in _CONTAINERS if _holds(state, key)), state)
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, Mapping) else {}
    if not tensors:
        raise CheckpointError("holds no state dict", where=path, do="save the encoder's state dict")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, path)
    return tensors


def _check_packing(path: Path) -> None:
    """Refuse an archive whose parts are packed, which PyTorch's own never are, and which may unpack to anything."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise CheckpointError("is packed, so it may be of any size", where=path, do="save it with torch.save")


def _check_tensor(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse a tensor that is larger than its data: a copy of it would fill the memory."""
    if (
        type(tensor) not in (Tensor, torch.nn.Parameter)
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
    ):
        raise CheckpointError(f"{name} is no plain tensor", where=path, do="save a state dict of plain tensors")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"{name} claims more than is stored of it", where=path, do="save contiguous tensors")


def _holds(state: Any, key: str) -> bool:
    return isinstance(state, Mapping) and isinstance(state.get(key), Mapping)


def load_into(vit: VisionTransformer, state: Mapping[str, Tensor]) -> None:
    """Load a state dict into a timm vision transformer, every tensor of it.

    Parameters
    ----------
    vit
        The transformer, without a head; its position grid may differ from the weights'.
    state
        In timm's format, DINO's or DINOv2's, or transformers' for ViT and DINOv2 with or without registers; with
        any prefix.

    Raises
    ------
    ValueError
        If tensors are missing, unknown or of another shape; the message counts them and names one.
    """
    state = rename(state)
    patches, wanted_patches = state.get(_TIMM_STEM), vit.patch_embed.proj.weight
    if patches is not None and patches.ndim == 4 and patches.shape != wanted_patches.shape:
        # timm would resample them.
        raise ValueError(f"its patches are {tuple(patches.shape)}, and not {tuple(wanted_patches.shape)}")
    # Half-precision position grids are resampled in float32; the rest is cast as it is copied.
    state = {name: t if name.startswith("blocks.") else t.float() for name, t in state.items()}
    state = checkpoint_filter_fn(state, vit)
    wanted = vit.state_dict()
    wrong = sorted(wanted.keys() ^ state.keys()) or sorted(k for k, t in wanted.items() if t.shape != state[k].shape)
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are missing, unknown or of another shape, {wrong[0]} for one")
    vit.load_state_dict(state)


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without prefix and heads, in the names of timm or DINOv2, which timm itself understands."""
    stems = [name for name in state if name.endswith((_TIMM_STEM, _TRANSFORMERS_STEM))]
    if len(stems) != 1:
        return dict(state)  # a format that timm has a map of its own for, or none
    transformers = stems[0].endswith(_TRANSFORMERS_STEM)
    prefix = stems[0].removesuffix(_TRANSFORMERS_STEM if transformers else _TIMM_STEM)
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    inside = {name: tensor for name, tensor in inside.items() if not name.startswith(_HEADS)}
    if transformers:
        inside = _from_transformers(inside)
    # DINOv2 in training keeps its blocks in chunks: blocks.<chunk>.<index>.
    inside = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): tensor for name, tensor in inside.items()}
    if "register_tokens" in inside:
        inside.setdefault(
            "mask_token", inside["register_tokens"][:, 0]
        )  # how timm knows DINOv2's format; dropped there
    return inside


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, new in _TRANSFORMERS_NAMES:
            name = re.sub(f"^{pattern}", new, name)
        block, inside = re.match(r"(blocks\.\d+\.)?(.*)", name).groups(default="")  # type: ignore[union-attr]
        for pattern, new in _TRANSFORMERS_BLOCK_NAMES if block else ():
            inside = re.sub(f"^{pattern}", new, inside)
        renamed[block + inside] = tensor
    for name in list(renamed):
        for packed, parts in _PACKED:
            block, found, kind = name.partition(f"{parts[0]}.")
            names = [f"{block}{part}.{kind}" for part in parts]
            if found and all(part in renamed for part in names):
                renamed[f"{block}{packed}.{kind}"] = torch.cat([renamed.pop(part) for part in names])
    return renamed
