"""The fine-tune panel alone in a dock."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError
from napari_hyperst.nouns.tasks import PredictTask
from napari_hyperst.viewer import preferences
from napari_hyperst.viewer.notices import show_error
from napari_hyperst.viewer.results import Result, read_in_thread, show_result
from napari_hyperst.viewer.session import Session, session_of
from napari_hyperst.widgets.finetune_panel import FinetunePanel

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_hyperst.slides.slide import Slide


class FinetuneDock(FinetunePanel):
    """What *Plugins > HyperST > Fine-tune* opens: it predicts in the child that also makes its plans.

    Parameters
    ----------
    napari_viewer
        The viewer it works in.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__(session_of(napari_viewer))
        self._predicting: tuple[str, Slide] | None = None
        self.predict_asked.connect(self.predict)
        self.helper.predicted.connect(self._take_in)

    def predict(self, checkpoint: str) -> None:
        """Predict the active slide with a checkpoint, by its folder, and show it."""
        entry = self.session.active
        if entry is None:
            show_error("no slide is open; open one to predict")
            return
        try:
            slide = self.session.settle(entry)
        except HyperSTError as error:
            show_error(str(error))
            return
        self._predicting = (entry.key, entry.slide)
        self.page.load.setEnabled(False)
        self.page.load.setText("Predicting…")
        device, batch_size = preferences.device(), preferences.batch_size()
        self.helper.predict(PredictTask(slide=slide, checkpoint=checkpoint, device=device, batch_size=batch_size))

    def _take_in(self, result: Path | None, table: str) -> None:
        self.page.load.setEnabled(True)
        self.page.load.setText("Load and predict")
        if self._predicting is not None and result is not None:
            key, slide = self._predicting
            self.page.shown.setChecked(False)  # the validation map is of other values, in the same place
            read_in_thread(result, slide, partial(_show, self.session, key, table))


def _show(session: Session, key: str, table: str, read: Result | str) -> None:
    """Show a prediction, also where the panel that asked for it is gone."""
    if why := show_result(session, key, table, read):
        show_error(why)
