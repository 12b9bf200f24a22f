"""Folders of checkpoints: asked for, looked at before they are taken, and what they are called."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QWidget

from napari_hyperst.errors import CheckpointError
from napari_hyperst.jobs.runs import BEST
from napari_hyperst.nouns.bundled import is_checkpoint
from napari_hyperst.viewer.notices import show_error


def ask_for_checkpoint(parent: QWidget) -> Path | None:
    """Ask for the folder of a checkpoint, or of a run, whose best checkpoint is taken.

    Parameters
    ----------
    parent
        Over which widget the dialog is shown.

    Returns
    -------
    Path or None
        The checkpoint's folder; None where none was chosen, or no checkpoint, which is told.
    """
    chosen = QFileDialog.getExistingDirectory(parent, "Folder of a checkpoint")
    if not chosen:
        return None
    found = next((folder for folder in (Path(chosen), Path(chosen, BEST)) if is_checkpoint(str(folder))), None)
    if found is None:
        show_error(
            str(
                CheckpointError(
                    "no card.json, so this is no checkpoint",
                    where=chosen,
                    do="choose a checkpoint's folder, or a training run's",
                )
            )
        )
    return found


def told_apart(folders: list[str], taken: list[str]) -> list[str]:
    """Return what to call folders: by their last part or, where that says too little, by as many as it takes.

    The best checkpoint of a run is called as the run is.

    Parameters
    ----------
    folders
        Paths, each of them once.
    taken
        Names of other things.
    """
    parts = [(path.parent if path.name == BEST else path).parts for path in map(Path, folders)]
    names = []
    for mine in parts:
        others = [other for other in parts if other is not mine]
        count = 1
        while count < len(mine) and (
            "/".join(mine[-count:]) in taken or any(other[-count:] == mine[-count:] for other in others)
        ):
            count += 1
        names.append("/".join(mine[-count:]))
    return names
