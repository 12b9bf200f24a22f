"""Which validation map is in the viewer: that of the run that is followed, as its page asks for it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.runs import RunFollower
from napari_hyperst.nouns.snapshot import ValidationSnapshot
from napari_hyperst.nouns.tasks import TrainTask
from napari_hyperst.viewer.training_map import hide_validation, show_over_its_slide, show_validation
from napari_hyperst.widgets.training_run import TrainingRun

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session


class TrainingMapControl:
    """Keeps the validation map in the viewer up to date.

    Parameters
    ----------
    session
        Of the viewer.
    page
        Where a gene is chosen, and whether there is to be a map.
    """

    def __init__(self, session: Session, page: TrainingRun) -> None:
        self._session, self._page = session, page
        self._shown: tuple[int, str] | None = None
        self._active: str | None = None

    def show(self, run: RunFollower | None) -> None:
        """Show the map of a run's last epoch, of the gene that is chosen, unless it is there."""
        if run is None or run.progress.snapshot == 0 or not self._page.shown.isChecked():
            return
        wanted = (run.progress.snapshot, self._page.gene.currentText())
        if wanted == self._shown:
            return
        with contextlib.suppress(HyperSTError):  # it is being replaced, or was deleted by hand
            snapshot = ValidationSnapshot.read(run.job.folder)
            self._page.set_genes(sorted(snapshot.genes.tolist()))
            gene = self._page.gene.currentText()
            task, to_open = run.job.task, None
            if isinstance(task, TrainTask) and run.progress.live:
                to_open = task.config.ref(Path(snapshot.slides[0]))
            if gene in snapshot.genes and show_validation(self._session, snapshot, gene, run.job.folder, to_open):
                self._shown = (run.progress.snapshot, gene)

    def show_anew(self, run: RunFollower | None) -> None:
        """Show another gene's, or none any more, as the page asks."""
        self._shown = None
        if run is not None and not self._page.shown.isChecked():
            hide_validation(self._session.viewer, run.job.folder)
        self.show(run)

    def take_away(self, run: RunFollower | None) -> None:
        """Take the map of a run away, as it is no longer followed."""
        self._shown = None
        if run is not None:
            hide_validation(self._session.viewer, run.job.folder)

    def on_slides(self, run: RunFollower | None) -> None:
        """Show it with its slide, after another has become the active one or was opened."""
        active = None if self._session.active is None else self._session.active.key
        if active != self._active:
            self._active = active
            show_over_its_slide(self._session)
        self.show(run)
