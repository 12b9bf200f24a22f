"""The files of a checkpoint: where they are, its card and its genes. No torch here: the weights are read elsewhere.

They may be anybody's, so they are bounded, regular files of the checkpoint's own folder, and hold nothing but data.
"""

from __future__ import annotations

import contextlib
import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from napari_hyperst.errors import CheckpointError, plain
from napari_hyperst.nouns.bundled import BUNDLED_CHECKPOINTS, bundled_checkpoints
from napari_hyperst.nouns.checkpoint import Card
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
#: Columns of the table of genes.
_NAME, _ALIAS = "gene", "alias"


@dataclass(frozen=True)
class CheckpointFiles:
    """Where the files of a checkpoint are.

    Attributes
    ----------
    folder
        Their folder.
    revision
        The commit that they were fetched at, from the Hugging Face hub.
    """

    folder: Path
    revision: str | None = None

    @property
    def within(self) -> Path:
        """The folder that links may lead into: the hub's cache keeps its files elsewhere in the repository's folder."""
        return self.folder if self.revision is None else self.folder.parents[1]


def find_checkpoint(ref: str) -> CheckpointFiles:
    """Find a checkpoint, fetched from the hub if it is there; its files are there, but not read.

    Parameters
    ----------
    ref
        A folder, the name of a bundled checkpoint, or ``hf://owner/repo`` on the Hugging Face hub, which may end in
        ``@`` and a branch, tag or commit.

    Raises
    ------
    CheckpointError
        If there is none, or a file is missing.
    """
    found = _find(ref)
    for name in (WEIGHTS, GENES, CARD):
        if not (found.folder / name).exists():
            raise CheckpointError(
                f"no {name}, so this is no checkpoint", where=found.folder, do="give a checkpoint's folder"
            )
    return found


def _find(ref: str) -> CheckpointFiles:
    if ref.startswith(_HUB):
        folder = _fetch(ref)
        return CheckpointFiles(folder, folder.name)
    folder = Path(ref).expanduser()
    if folder.is_dir():
        return CheckpointFiles(folder)
    if ref in bundled_checkpoints():
        return CheckpointFiles(BUNDLED_CHECKPOINTS / ref)
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


def _read(found: CheckpointFiles, name: str) -> bytes:
    path = found.folder / name
    try:
        return read_received(path, _MOST_BYTES[name], found.within)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=path, do="copy the checkpoint again") from error


def read_card(found: CheckpointFiles) -> Card:
    """Read the card of a checkpoint.

    Raises
    ------
    CheckpointError
        If it is none of this version, or cannot be read.
    """
    path, text = found.folder / CARD, _read(found, CARD)
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


def read_panel(found: CheckpointFiles, card: Card) -> GenePanel:
    """Read the genes of a checkpoint, with their other names where it has them.

    Raises
    ------
    CheckpointError
        If it is no table of genes.
    """
    path, content = found.folder / GENES, _read(found, GENES)
    try:
        rows = list(islice(csv.DictReader(content.decode("utf-8").splitlines()), _MOST_GENES + 1))
        if not 0 < len(rows) <= _MOST_GENES:
            raise ValueError(f"over {_MOST_GENES:,} genes" if rows else "no genes")
        genes = tuple(_gene(row[_NAME]) for row in rows)
        aliases = tuple(_gene(row[_ALIAS]) if row.get(_ALIAS) else "" for row in rows)
        return GenePanel(genes, card.panel_method, card.panel_slides, card.transform, aliases if any(aliases) else ())
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(f"is no list of genes ({error})", where=path, do="copy the checkpoint again") from error


def read_genes(ref: str) -> tuple[str, ...]:
    """Read which genes a checkpoint predicts; ``ref`` is as for ``find_checkpoint``.

    Raises
    ------
    CheckpointError
        If there is no such checkpoint, or it cannot be read.
    """
    files = find_checkpoint(ref)
    return read_panel(files, read_card(files)).genes


def _gene(name: str | None) -> str:
    if not name or len(name) > _LONGEST_GENE or plain(name) != name or name.startswith(_FORMULA):
        raise ValueError(f"{(name or '')[:_LONGEST_GENE]!r} is no name of a gene")
    return name


def write_panel(path: Path, panel: GenePanel) -> None:
    """Write the genes of a checkpoint, with their other names where any is known."""
    rows: list[tuple[str, ...]] = [(gene,) for gene in panel.genes]
    if panel.aliases:
        rows = list(zip(panel.genes, panel.aliases, strict=True))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([(_NAME, _ALIAS)[: len(rows[0])], *rows])
