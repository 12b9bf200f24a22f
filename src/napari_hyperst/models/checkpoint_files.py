"""The files of a checkpoint: where they are, its card and its genes. No torch here: the weights are read elsewhere."""

from __future__ import annotations

import csv
from pathlib import Path

from pydantic import ValidationError

from napari_hyperst.errors import CheckpointError
from napari_hyperst.nouns.bundled import BUNDLED_CHECKPOINTS, bundled_checkpoints
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.panel import GenePanel

WEIGHTS, GENES, CARD = "model.safetensors", "genes.csv", "card.json"
_HUB = "hf://"
#: Columns of the table of genes.
_NAME, _ALIAS = "gene", "alias"


def is_checkpoint(ref: str) -> bool:
    """Tell whether a reference names a checkpoint, and no slide; the hub is not asked."""
    named = not Path(ref).exists() and ref in bundled_checkpoints()
    return named or ref.startswith(_HUB) or (Path(ref) / CARD).is_file()


def find_checkpoint(ref: str) -> Path:
    """Return the folder of a checkpoint, fetched from the hub if it is there; its files are there, but not read.

    Parameters
    ----------
    ref
        A folder, the name of a bundled checkpoint, or ``hf://owner/repo`` on the Hugging Face hub.

    Raises
    ------
    CheckpointError
        If there is none, or a file is missing.
    """
    folder = _folder(ref)
    for name in (WEIGHTS, GENES, CARD):
        if not (folder / name).is_file():
            raise CheckpointError(f"no {name}, so this is no checkpoint", where=folder, do="give a checkpoint's folder")
    return folder


def _folder(ref: str) -> Path:
    if ref.startswith(_HUB):
        return _fetch(ref)
    folder = Path(ref).expanduser()
    if folder.is_dir():
        return folder
    if ref in bundled_checkpoints():
        return BUNDLED_CHECKPOINTS / ref
    raise CheckpointError(
        "there is no such checkpoint",
        where=ref,
        do=f"give a folder, hf://owner/repo, or {', '.join(bundled_checkpoints())}",
    )


def _fetch(ref: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo = ref.removeprefix(_HUB)
    try:
        return Path(snapshot_download(repo, allow_patterns=[WEIGHTS, GENES, CARD]))
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


def read_card(path: Path) -> Card:
    """Read the card of a checkpoint.

    Raises
    ------
    CheckpointError
        If it is none of this version, or cannot be read.
    """
    try:
        return Card.model_validate_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=path, do="copy the checkpoint again") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(
            f"is no card of this version: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            where=path,
            do="update napari-hyperst, or copy the checkpoint again",
        ) from error


def read_panel(path: Path, card: Card) -> GenePanel:
    """Read the genes of a checkpoint, with their other names where it has them.

    Raises
    ------
    CheckpointError
        If it is no table of genes.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        genes, aliases = tuple(row[_NAME] for row in rows), tuple(row.get(_ALIAS) or "" for row in rows)
        if not genes or not all(genes):
            raise ValueError("no genes")
        return GenePanel(genes, card.panel_method, card.panel_slides, card.transform, aliases if any(aliases) else ())
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(f"is no list of genes ({error})", where=path, do="copy the checkpoint again") from error


def write_panel(path: Path, panel: GenePanel) -> None:
    """Write the genes of a checkpoint, with their other names where any is known."""
    rows: list[tuple[str, ...]] = [(gene,) for gene in panel.genes]
    if panel.aliases:
        rows = list(zip(panel.genes, panel.aliases, strict=True))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([(_NAME, _ALIAS)[: len(rows[0])], *rows])
