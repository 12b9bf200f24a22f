"""Where a prediction is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton

from napari_hyperst.slides.outputs.formats import FORMATS, STORE
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.panel import Panel, folder_of, literal
from napari_hyperst.widgets.work_bar import WorkBar

if TYPE_CHECKING:
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work

_NEW = "Write H&E, spots, counts and prediction as a new SpatialData Zarr"
_OWN = "Add the prediction to the SpatialData Zarr that the slide was opened from"
_OTHER = "Write a table, a map or a figure for other tools; of one gene, the one that is shown"
#: What can be written beside stores, the tables first.
_FORMATS = tuple(sorted((found for found in FORMATS if found is not STORE), key=lambda found: found.gene == "needed"))


class ExportPanel(Panel):
    """Buttons that write a prediction into a new store, into the slide's own, and in other formats.

    Parameters
    ----------
    session, work
        As for every panel.
    """

    title = "Export"

    def __init__(self, session: Session, work: Work) -> None:
        super().__init__(session, work)
        self.progress = WorkBar(work, exports=True)
        self.new = QPushButton("New store…")
        self.own = QPushButton("Into its store")
        self.other = QPushButton("Other formats…")
        row = QHBoxLayout()
        for button in (self.new, self.own, self.other):
            row.addWidget(button)
        self.column.addLayout(row)
        self.column.addWidget(self.progress)
        self.new.clicked.connect(self._on_new)
        self.own.clicked.connect(self._on_own)
        self.other.clicked.connect(self._on_other)
        hear(self, (session.slides_changed, self.allow), (session.prediction_changed, self._on_prediction))
        work.changed.connect(self.allow)
        self.progress.said.connect(self.allow)
        self.allow()

    @property
    def at_work(self) -> bool:
        """Whether something goes on that it tells of, and that can be cancelled in it."""
        return self.progress.at_work

    def allow(self, *_: object) -> None:
        """Enable what can be done now, and say why the rest cannot."""
        entry = self.session.active
        unpredicted = "" if entry is not None and entry.table is not None else "Predict genes first"
        reason = unpredicted or self.work.busy
        for button, told in ((self.new, _NEW), (self.own, _OWN), (self.other, _OTHER)):
            button.setEnabled(not reason)
            button.setToolTip(literal(reason or told))
        self.own.setVisible(entry is not None and _store_of(entry) is not None)
        said = self.progress.status.text()
        self.say_state(said or reason[:1].upper() + reason[1:] or "The prediction can be written")

    def _on_prediction(self, *_: object) -> None:
        if not self.work.busy:  # what was written is another
            self.progress.say("")
        self.allow()

    def _on_new(self) -> None:
        entry = self.session.active
        if entry is None:
            return
        suggested = folder_of(entry) / f"{entry.slide.name}_hyperst.zarr"
        name, _ = QFileDialog.getSaveFileName(self, "New store", str(suggested), "SpatialData Zarr (*.zarr)")
        if name:
            path = Path(name)
            self.work.export(path if path.suffix == ".zarr" else path.with_name(f"{path.name}.zarr"))

    def _on_own(self) -> None:
        entry = self.session.active
        store = None if entry is None else _store_of(entry)
        if store is not None:
            self.work.export(store)

    def _on_other(self) -> None:
        entry = self.session.active
        if entry is None:
            return
        suggested = folder_of(entry) / f"{entry.slide.name}_hyperst{_FORMATS[0].suffixes[0]}"
        filters = {f"{found.name} (*{' *'.join(found.suffixes)})": found for found in _FORMATS}
        name, chosen = QFileDialog.getSaveFileName(self, "Export as", str(suggested), ";;".join(filters))
        if not name:
            return
        path, found = Path(name), filters.get(chosen, _FORMATS[0])
        if not any(path.name.lower().endswith(one.suffixes) for one in _FORMATS):
            path = path.with_name(path.name + found.suffixes[0])
        self.work.export(path, overwrite=path.exists() and str(path) == name)  # the dialog has asked


def _store_of(entry: Entry) -> Path | None:
    """Return the store that holds the spots which are predicted."""
    path = (entry.predicted or entry.slide).sdata.path
    return None if path is None else Path(path)
