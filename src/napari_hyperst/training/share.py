"""The checkpoint of a run as others may have it: what was trained, its genes, its card and its curves, and no more."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from napari_hyperst.errors import CheckpointError, StoreError
from napari_hyperst.models.checkpoint import CARD, GENES, WEIGHTS, load_checkpoint
from napari_hyperst.models.hub import upload_folder
from napari_hyperst.nouns.metrics import pearson_by_gene
from napari_hyperst.nouns.snapshot import ValidationSnapshot
from napari_hyperst.training.card import README, write_model_card
from napari_hyperst.training.folder import BEST, EVENTS
from napari_hyperst.training.portable import portable
from napari_hyperst.training.report import PICTURE, draw_run

#: All that is ever shared.
SHARED = (WEIGHTS, GENES, CARD, README, PICTURE)


def share_checkpoint(run: Path, out: Path) -> Path:
    """Write the checkpoint that a run has kept as a folder to share.

    It holds trained tensors only: of the image encoder, LoRA's, never its own weights, whatever their licence.
    Of paths, only their last names are written.

    Parameters
    ----------
    run
        The folder of the run.
    out
        The folder to write; it must be new.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CheckpointError
        If the run has kept no checkpoint yet, or it is broken, or holds weights that were not trained.
    StoreError
        If the folder is there already or cannot be written.
    """
    if out.exists():
        raise StoreError("is there already", where=out, do="name a new folder")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise StoreError(f"cannot be written ({error.strerror})", where=out, do="choose another folder") from error
    try:
        _fill(run, staged)
        staged.chmod(0o755)
        staged.rename(out)
    except OSError as error:
        raise StoreError(f"cannot be written ({error.strerror})", where=out, do="choose another folder") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return out


def push_checkpoint(run: Path, repository: str, *, private: bool = True) -> str:
    """Send the checkpoint that a run has kept to the Hugging Face hub; the same files as ``share_checkpoint`` writes.

    Parameters
    ----------
    run
        The folder of the run.
    repository
        ``owner/name``; made if it is not there.
    private
        Whether one that is made is seen by its owner only.

    Returns
    -------
    str
        The page of the repository.

    Raises
    ------
    CheckpointError
        As ``share_checkpoint``; or if nobody is logged in, or the hub refuses.
    """
    with tempfile.TemporaryDirectory(prefix="hyperst-") as scratch:
        folder = share_checkpoint(run, Path(scratch) / "checkpoint")
        return upload_folder(folder, repository, SHARED, private=private)


def untrained_tensors(weights: Path) -> list[str]:
    """Return the names of tensors in a weights file that are the base encoder's own.

    Raises
    ------
    CheckpointError
        If it is no whole safetensors file.
    """
    try:
        with safe_open(weights, framework="np") as file:
            return [name for name in file.keys() if name.startswith("encoder.") and "lora_" not in name]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"is no whole safetensors file ({error})", where=weights, do="train it again") from error


def _fill(run: Path, folder: Path) -> None:
    best = run / BEST
    if not (best / CARD).is_file():
        raise CheckpointError("has kept no checkpoint yet", where=run, do="wait for the first epoch to end")
    checkpoint = load_checkpoint(best)  # also makes sure that it is whole
    forbidden = untrained_tensors(best / WEIGHTS)
    if forbidden:
        raise CheckpointError(
            f"holds {len(forbidden)} tensors of the base encoder ({forbidden[0]}), whose licence may forbid sharing",
            where=best,
            do="share a checkpoint that this package has trained",
        )
    for name in (WEIGHTS, GENES):
        shutil.copyfile(best / name, folder / name)
    card = type(checkpoint.card).model_validate(portable(checkpoint.card.model_dump(mode="json")))
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if (best / PICTURE).is_file():
        shutil.copyfile(best / PICTURE, folder / PICTURE)
    else:  # the run was stopped, which draws nothing
        draw_run(run / EVENTS, _by_gene(run), checkpoint.panel.genes, folder / PICTURE, title=card.name)
    write_model_card(card, checkpoint.panel, folder)


def _by_gene(run: Path) -> np.ndarray | None:
    try:
        snapshot = ValidationSnapshot.read(run)
    except StoreError:
        return None
    return pearson_by_gene(snapshot.predicted.astype(np.float64), snapshot.measured.astype(np.float64))
