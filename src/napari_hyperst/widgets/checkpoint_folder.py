"""The folder of a checkpoint, asked for and looked at before it is taken."""

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
