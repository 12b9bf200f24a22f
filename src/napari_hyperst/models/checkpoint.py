"""Checkpoints: a folder with the trained tensors, the genes and a card. No pickle is ever loaded."""

from __future__ import annotations

import contextlib
import csv
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from napari_hyperst.errors import CheckpointError, plain
from napari_hyperst.files import replace_folder
from napari_hyperst.models.build import build_method
from napari_hyperst.models.encoders import encoder_spec, weights_sha256
from napari_hyperst.models.hub import FOLDER_VARIABLE
from napari_hyperst.models.method import Method
from napari_hyperst.models.tensor_file import read_tensors
from napari_hyperst.nouns.bundled import BUNDLED_CHECKPOINTS, bundled_checkpoints
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.encoders import EncoderSpec
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.received import parse_json, read_received

if TYPE_CHECKING:
    from huggingface_hub import DryRunFileInfo

WEIGHTS, GENES, CARD = "model.safetensors", "genes.csv", "card.json"
_HUB = "hf://"
_REPOSITORY = re.compile(r"([\w-][\w.-]{0,95}/[\w-][\w.-]{0,95})(?:@([\w-][\w./-]{0,127}))?", re.ASCII)
#: Files that somebody sent are read up to here; those that we write are a hundredth of it.
_MOST_BYTES = {CARD: 4 * 2**20, GENES: 4 * 2**20, WEIGHTS: 4 * 2**30}
_MOST_GENES, _LONGEST_GENE = 100_000, 100
#: What a spreadsheet takes for a formula.
_FORMULA = ("=", "+", "-", "@")


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
        with (staged / GENES).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([["gene"], *([gene] for gene in panel.genes)])
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
    folder, revision = _find(str(ref))
    # The hub's cache keeps the files elsewhere in the repository's folder, and links to them.
    within = folder if revision is None else folder.parents[1]
    card = _read_card(folder / CARD, within)
    panel = _read_panel(folder / GENES, card, within)
    spec = _encoder(card, encoder)
    if weights_sha256(spec.weights) != card.encoder_sha256:
        raise CheckpointError(
            f"was trained on other weights of {spec.name} (sha256 {card.encoder_sha256[:12]}…) than {spec.weights}",
            where=folder,
            do=f"name a folder with the weights it was trained on in {FOLDER_VARIABLE}",
        )
    with torch.device("meta"):
        shapes = build_method(card.method, len(panel), spec).state_dict()
    wanted = {name: tensor for name, tensor in shapes.items() if _is_trained(name)}
    try:
        tensors, sha256 = read_tensors(folder / WEIGHTS, wanted, within)
    except CheckpointError as error:
        raise _missing(folder, WEIGHTS) if isinstance(error.__cause__, FileNotFoundError) else error from error
    model = build_method(card.method, len(panel), spec)
    model.load_state_dict(tensors, strict=False)
    model.eval()
    return Checkpoint(model, panel, card, sha256, revision)


def _encoder(card: Card, named: str | None) -> EncoderSpec:
    """Return the encoder of a card, from where the user says that it is."""
    theirs = card.method.encoder
    if named is not None and named.partition("@")[0] == theirs.partition("@")[0]:
        return encoder_spec(named)
    return encoder_spec(theirs, asked=False)


def _is_trained(name: str) -> bool:
    return not name.startswith("encoder.") or "lora_" in name


def _find(ref: str) -> tuple[Path, str | None]:
    """Return the folder of a checkpoint and, of one from the hub, its commit."""
    if ref.startswith(_HUB):
        folder = _fetch(ref)
        return folder, folder.name
    folder = Path(ref).expanduser()
    if folder.is_dir():
        return folder, None
    if ref in bundled_checkpoints():
        return BUNDLED_CHECKPOINTS / ref, None
    raise CheckpointError(
        "there is no such checkpoint",
        where=ref,
        do=f"give a folder, hf://owner/repo, or {', '.join(bundled_checkpoints())}",
    )


def _fetch(ref: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        DryRunError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    named = _REPOSITORY.fullmatch(ref.removeprefix(_HUB))
    if named is None or ".." in ref:
        raise CheckpointError("names no repository", where=ref, do="write hf://owner/repo, or hf://owner/repo@revision")
    repo, revision = named.groups()
    try:
        with contextlib.suppress(DryRunError):  # without a network, what was fetched before is used
            _check_sizes(
                ref, snapshot_download(repo, revision=revision, allow_patterns=list(_MOST_BYTES), dry_run=True)
            )
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(_MOST_BYTES)))
    except GatedRepoError as error:
        raise CheckpointError(
            "is gated", where=ref, do=f"ask for access at huggingface.co/{repo}, then run: hf auth login"
        ) from error
    except HFValidationError as error:
        raise CheckpointError(f"names no repository ({error})", where=ref, do="write hf://owner/repo") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"cannot be fetched ({error})", where=ref, do="check the name and the network, or give a folder"
        ) from error


def _check_sizes(ref: str, files: Sequence[DryRunFileInfo]) -> None:
    for file in files:
        most = _MOST_BYTES.get(file.filename, 0)
        if file.file_size is None or file.file_size > most:
            raise CheckpointError(
                f"{file.filename} has {file.file_size or math.inf:,} bytes, over the {most:,} that are fetched",
                where=ref,
                do="look at its page on the hub: this is no checkpoint of napari-hyperst",
            )


def _missing(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(f"no {name}, so this is no checkpoint", where=folder, do="give a checkpoint's folder")


def _read(path: Path, within: Path) -> bytes:
    try:
        return read_received(path, _MOST_BYTES[path.name], within)
    except FileNotFoundError as error:
        raise _missing(path.parent, path.name) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=path, do="copy the checkpoint again") from error


def _read_card(path: Path, within: Path) -> Card:
    text = _read(path, within)
    try:
        parse_json(text)
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            f"is no card of this version: {'.'.join(map(str, first['loc']))[:200]}: {first['msg'][:200]}",
            where=path,
            do="update napari-hyperst, or copy the checkpoint again",
        ) from error
    except ValueError as error:
        raise CheckpointError(f"is no card: no JSON ({error})", where=path, do="copy the checkpoint again") from error


def _read_panel(path: Path, card: Card, within: Path) -> GenePanel:
    content = _read(path, within)
    try:
        lines = csv.DictReader(content.decode("utf-8").splitlines())
        genes = tuple(_gene(row["gene"]) for row in islice(lines, _MOST_GENES + 1))
        if not 0 < len(genes) <= _MOST_GENES:
            raise ValueError(f"over {_MOST_GENES:,} genes" if genes else "no genes")
        return GenePanel(genes, card.panel_method, card.panel_slides, card.transform)
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(f"is no list of genes ({error})", where=path, do="copy the checkpoint again") from error


def _gene(name: str | None) -> str:
    if not name or len(name) > _LONGEST_GENE or plain(name) != name or name.startswith(_FORMULA):
        raise ValueError(f"{(name or '')[:_LONGEST_GENE]!r} is no name of a gene")
    return name
