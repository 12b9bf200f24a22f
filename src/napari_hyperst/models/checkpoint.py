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
from safetensors.torch import save_file
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
from napari_hyperst.models.tensor_file import read_tensors
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.encoders import EncoderSpec
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
    revision
        The commit that it was fetched at, of one from the Hugging Face hub.
    """

    model: Method
    panel: GenePanel
    card: Card
    sha256: str
    revision: str | None = None


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


def load_checkpoint(ref: str | Path, encoder: str | None = None) -> Checkpoint:
    """Load a checkpoint, which may be anybody's: it can run no code, and can have nothing fetched or read but itself.

    Sizes, types and shapes are checked before anything is allocated for them. Of the encoder that its card names, the
    weights must be on this disk.

    Parameters
    ----------
    ref
        A folder, the name of a bundled checkpoint, or ``hf://owner/repo`` on the Hugging Face hub, which may end in
        ``@`` and a branch, tag or commit.
    encoder
        Where its encoder's weights are, as settings name it (``uni@pytorch_model.bin``). If not told, and the card
        names a file, one of that name in the folder that ``NAPARI_HYPERST_ENCODERS`` names.

    Returns
    -------
    Checkpoint
        On the CPU, in evaluation mode.

    Raises
    ------
    CheckpointError
        If there is none, a file is missing, broken or too large, or its encoder is not there or not the one it was
        trained on.
    """
    found = find_checkpoint(str(ref))
    card = read_card(found)
    panel = read_panel(found, card)
    spec = _encoder(card, encoder)
    if weights_sha256(spec.weights) != card.encoder_sha256:
        raise CheckpointError(
            f"was trained on other weights of {spec.name} (sha256 {card.encoder_sha256[:12]}…) than {spec.weights}",
            where=found.folder,
            do=f"name a folder with the weights it was trained on in {FOLDER_VARIABLE}",
        )
    with torch.device("meta"):
        shapes = build_method(card.method, len(panel), spec).state_dict()
    wanted = {name: tensor for name, tensor in shapes.items() if _is_trained(name)}
    tensors, sha256 = read_tensors(found.folder / WEIGHTS, wanted, found.within)
    model = build_method(card.method, len(panel), spec)
    model.load_state_dict(tensors, strict=False)
    model.eval()
    return Checkpoint(model, panel, card, sha256, found.revision)


def _encoder(card: Card, named: str | None) -> EncoderSpec:
    """Return the encoder of a card, from where the user says that it is."""
    theirs = card.method.encoder
    if named is not None and named.partition("@")[0] == theirs.partition("@")[0]:
        return encoder_spec(named)
    return encoder_spec(theirs, asked=False)


def _is_trained(name: str) -> bool:
    return not name.startswith("encoder.") or "lora_" in name
