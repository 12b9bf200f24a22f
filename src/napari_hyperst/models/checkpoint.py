"""Checkpoints: a folder with the trained tensors, the genes and a card. No pickle is ever loaded."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from napari_hyperst.errors import CheckpointError
from napari_hyperst.files import replace_folder
from napari_hyperst.models.build import build_method
from napari_hyperst.models.checkpoint_files import (
    CARD,
    GENES,
    WEIGHTS,
    find_checkpoint,
    read_card,
    read_panel,
    write_panel,
)
from napari_hyperst.models.encoders import encoder_spec, weights_sha256
from napari_hyperst.models.hub import FOLDER_VARIABLE
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.panel import GenePanel


@dataclass(frozen=True)
class Checkpoint:
    """A trained method with all that is needed to use it.

    Attributes
    ----------
    model
        The method, in evaluation mode, on the CPU.
    panel
        The genes it predicts.
    card
        Its settings and history.
    sha256
        Hash of its weights file.
    """

    model: Method
    panel: GenePanel
    card: Card
    sha256: str


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a model's numbers depend on."""
    return {name: version(name) for name in ("napari-hyperst", "torch", "timm", "peft", "spatialdata", "numpy")}


def save_checkpoint(
    folder: Path, model: nn.Module, panel: GenePanel, card: Card, also: Callable[[Path], None] | None = None
) -> None:
    """Write a checkpoint; what was in the folder is replaced only once the new one is whole.

    The base encoder is not written: the card names it, with its hash.

    Parameters
    ----------
    folder
        Where to write.
    model
        The method.
    panel
        The genes it predicts.
    card
        Its settings and history.
    also
        Called with the new folder before it takes its place, to write more into it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if _is_trained(name)}
        save_file(tensors, staged / WEIGHTS)
        write_panel(staged / GENES, panel)
        (staged / CARD).write_text(card.model_dump_json(indent=2) + "\n")
        if also is not None:
            also(staged)
        os.chmod(staged, 0o755)  # as other folders; a temporary one is its owner's alone, and so is the weights file
        os.chmod(staged / WEIGHTS, 0o644)
        replace_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def load_checkpoint(ref: str | Path) -> Checkpoint:
    """Load a checkpoint.

    Parameters
    ----------
    ref
        A folder, the name of a bundled checkpoint, or ``hf://owner/repo`` on the Hugging Face hub.

    Returns
    -------
    Checkpoint
        On the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is none, a file is missing or broken, or its encoder is not the one it was trained on.
    """
    folder = find_checkpoint(str(ref))
    card = read_card(folder / CARD)
    panel = read_panel(folder / GENES, card)
    spec = encoder_spec(card.method.encoder)
    if weights_sha256(spec.weights) != card.encoder_sha256:
        raise CheckpointError(
            f"was trained on other weights of {spec.name} (sha256 {card.encoder_sha256[:12]}…) than {spec.weights}",
            where=folder,
            do=f"name a folder with the weights it was trained on in {FOLDER_VARIABLE}",
        )
    model = build_method(card.method, len(panel))
    _load_weights(model, folder / WEIGHTS)
    model.eval()
    return Checkpoint(model, panel, card, weights_sha256(folder / WEIGHTS))


def _is_trained(name: str) -> bool:
    return not name.startswith("encoder.") or "lora_" in name


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"is no whole safetensors file ({error})", where=path, do="copy it again") from error
    wanted = {name: tensor for name, tensor in model.state_dict().items() if _is_trained(name)}
    wrong = sorted(wanted.keys() ^ tensors.keys()) or sorted(
        name for name in wanted if wanted[name].shape != tensors[name].shape
    )
    if wrong:
        raise CheckpointError(
            f"{len(wrong)} tensors are missing, unknown or of another shape, {wrong[0]} for one",
            where=path,
            do="keep card, genes and weights of one training run together",
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError("holds weights that are no finite numbers", where=path, do="train it again")
    model.load_state_dict(tensors, strict=False)
