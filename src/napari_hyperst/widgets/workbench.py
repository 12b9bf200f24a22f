"""The workbench: open a slide, predict its genes, look, export."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QPushButton,
    QScrollArea,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.errors import HyperSTError, unmarked
from napari_hyperst.jobs.job import Job, jobs_folder
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import ExportTask, PredictTask, SlideRef
from napari_hyperst.viewer import preferences
from napari_hyperst.viewer.session import session_of
from napari_hyperst.widgets.gene_list import GeneList
from napari_hyperst.widgets.map_list import MapList
from napari_hyperst.widgets.predict_panel import PredictPanel
from napari_hyperst.widgets.process import Child, result_of
from napari_hyperst.widgets.slide_panel import SlidePanel

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.entry import Entry

RESEARCH_USE = "For research use only. Not for use in diagnostic procedures."


class Workbench(QWidget):
    """Slide, Predict, Look and Export, from the top down.

    Parameters
    ----------
    napari_viewer
        The viewer it works in.
    child
        The process that predicts; its own, unless a test gives another.
    """

    def __init__(self, napari_viewer: ViewerModel, child: Child | None = None) -> None:
        super().__init__()
        self._docked = False
        self.session = session_of(napari_viewer)
        self.child = child or Child()
        self._folders: list[Path] = []
        self._slide_of: dict[Path, tuple[str, Slide]] = {}
        self._then_predict: Path | None = None
        self.slide_panel = SlidePanel()
        self.predict_panel = PredictPanel(preferences.device())
        self.genes = GeneList()
        self.maps = MapList()
        self.export_new = QPushButton("Export as new store…")
        self.export_own = QPushButton("Write into its store")
        self._lay_out()
        self._connect()
        self._on_slides()
        self._on_prediction()
        self.child.start()

    def open(self, path: Path) -> None:
        """Open a slide."""
        self.session.open(SlideRef(path=path))

    def open_sample(self, *, then_predict: bool = False) -> None:
        """Open the packaged slide, and predict it if asked to."""
        path = self.session.open_sample()
        self._then_predict = path if then_predict else None

    def predict(self) -> None:
        """Predict the active slide's genes with the chosen checkpoint."""
        entry = self.session.active
        if entry is None or self.child.job is not None:
            return
        try:
            slide = self.session.settle(entry)
        except HyperSTError as error:
            _show_error(str(error))
            return
        task = PredictTask(
            slide=slide,
            checkpoint=self.predict_panel.checkpoint.value,
            device=self.predict_panel.device.value,
            batch_size=preferences.batch_size(),
        )
        self._submit(task, entry, "Starting…" if self.child.devices is None else "Predicting…")

    def export(self, out: Path) -> None:
        """Write the active slide's prediction into a store."""
        entry = self.session.active
        if entry is None or entry.table is None or self.child.job is not None:
            return
        result = entry.result
        if result is None or not result.is_file():  # it came with its store, or an earlier workbench has tidied up
            try:
                result = self._new_folder().parent / "prediction.h5ad"
                entry.table.write_h5ad(result)
            except (HyperSTError, OSError) as error:
                _show_error(str(error))
                return
        slide = entry.predicted or entry.slide
        task = ExportTask(slide=slide.ref, result=result, out=out, table=entry.table_name)
        self._submit(task, entry, f"Writing {out.name}…")
        self.predict_panel.cancel.setEnabled(False)  # it is short, and ends whole

    # -- within

    def _lay_out(self) -> None:
        look = QSplitter(Qt.Orientation.Horizontal)
        look.addWidget(self.genes)
        look.addWidget(self.maps)
        look.setChildrenCollapsible(False)
        look.setSizes([140, 220])
        export = QWidget()
        row = QHBoxLayout(export)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.export_new)
        row.addWidget(self.export_own)
        notice = QLabel(RESEARCH_USE)
        notice.setWordWrap(True)
        notice.setStyleSheet("font-style: italic;")
        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(6, 6, 6, 6)
        panels = {"Slide": self.slide_panel, "Predict": self.predict_panel, "Look": look, "Export": export}
        for title, panel in panels.items():
            layout.addWidget(_group(title, panel), 1 if panel is look else 0)
        layout.addWidget(notice)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(scroll)
        self.setMinimumWidth(320)

    def sizeHint(self) -> QSize:
        """Return a size that leaves a laptop's screen to the slide."""
        return QSize(380, 620)

    def _connect(self) -> None:
        self.slide_panel.chosen.connect(self.session.activate)
        self.slide_panel.opened.connect(self.open)
        self.slide_panel.sample_asked.connect(lambda: self.open_sample())
        self.slide_panel.footprints_asked.connect(self.session.show_footprints)
        self.slide_panel.pitch_chosen.connect(self._on_pitch)
        self.predict_panel.asked.connect(self.predict)
        self.predict_panel.cancelled.connect(self._on_cancelled)
        self.genes.chosen.connect(lambda gene: self._show(gene=gene))
        self.maps.chosen.connect(lambda key: self._show(map_key=key))
        self.export_new.clicked.connect(self._on_export_new)
        self.export_own.clicked.connect(self._on_export_own)
        self.child.ready.connect(self.predict_panel.set_devices)
        self.child.told.connect(self._on_told)
        self.child.ended.connect(self._on_ended)
        self.child.broken.connect(self._on_broken)
        links: list[tuple[Any, Callable[..., Any]]] = [
            (self.session.slides_changed, self._on_slides),
            (self.session.opening_changed, self._on_slides),
            (self.session.scale_asked, self._on_scale_asked),
            (self.session.prediction_changed, self._on_prediction),
            (self.session.shown_changed, self._on_shown),
            (preferences.events("prediction").device, self._on_device),
        ]
        for signal, slot in links:
            signal.connect(slot)
        self._end = partial(_end, self.child, links, self._folders)
        self.destroyed.connect(self._end)
        QApplication.instance().aboutToQuit.connect(self._end)

    def event(self, event: QEvent) -> bool:
        """End with the dock: napari takes the widget out of it, and does not delete it."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self._end()
                self.deleteLater()
        return bool(super().event(event))

    def _submit(self, task: PredictTask | ExportTask, entry: Entry, what: str) -> None:
        try:
            job = Job.create(self._new_folder(), task)
        except HyperSTError as error:
            _show_error(str(error))
            return
        self._slide_of[job.folder] = (entry.key, entry.slide)
        self.predict_panel.work(what)
        self.child.submit(job)
        self._allow()

    def _new_folder(self) -> Path:
        folder = jobs_folder()
        self._folders.append(folder.parent)
        return folder

    def _on_slides(self, *_: object) -> None:
        self.slide_panel.show_state(self.session)
        self._allow()
        if self._then_predict is not None and self.session.opening == 0:
            active, wanted, self._then_predict = self.session.active, self._then_predict, None
            if active is not None and active.ref.path == wanted:
                self.predict()

    def _on_prediction(self) -> None:
        """List the genes and the maps of the active slide, and say what tiles its model looks at."""
        self.slide_panel.show_state(self.session)
        entry = self.session.active
        table = None if entry is None else entry.table
        self.genes.set_genes([] if table is None else list(table.var_names))
        self.maps.set_maps(() if entry is None else entry.maps)
        self._on_shown()
        self._allow()

    def _on_device(self, *_: object) -> None:
        self.predict_panel.device.value = preferences.device()

    def _on_shown(self) -> None:
        entry = self.session.active
        if entry is not None and entry.table is not None:
            self.genes.select(self.session.gene)
            self.maps.select(self.session.map)

    def _allow(self) -> None:
        """Enable what can be done now, and say why the rest cannot."""
        entry = self.session.active
        busy = "" if self.child.job is None else "wait until what is at work is done"
        self.predict_panel.allow(busy or ("" if entry is not None else "Open a slide first"))
        unpredicted = "" if entry is not None and entry.table is not None else "Predict genes first"
        for button, told in (
            (self.export_new, "Write H&E, spots, counts and prediction as a new SpatialData Zarr"),
            (self.export_own, "Add the prediction to the SpatialData Zarr that the slide was opened from"),
        ):
            button.setEnabled(not (busy or unpredicted))
            button.setToolTip(busy or unpredicted or told)
        self.export_own.setVisible(entry is not None and _store_of(entry) is not None)
        for view in (self.genes, self.maps):
            view.setEnabled(entry is not None and entry.table is not None)

    def _show(self, gene: str | None = None, map_key: str | None = None) -> None:
        try:
            self.session.show(map_key, gene)
        except HyperSTError as error:
            _show_error(str(error))

    def _on_cancelled(self) -> None:
        self.predict_panel.cancel.setEnabled(False)
        self.predict_panel.say("Stopping…")
        self.child.stop()

    def _on_pitch(self, pitch_um: float) -> None:
        try:
            self.session.lay(pitch_um)
        except HyperSTError as error:
            _show_error(str(error))
        self.slide_panel.show_state(self.session)  # the pitch that is

    def _on_scale_asked(self, ref: SlideRef) -> None:
        """Ask for what no file tells, and open the slide with it."""
        told, given = QInputDialog.getDouble(
            self, "Scale of the H&E", f"How many µm is a px of {ref.path.name}?\n(0.25 at 40×, 0.5 at 20×)",
            0.5, 0.01, 100.0, 4,
        )  # fmt: skip
        if given:
            self.session.open(ref.model_copy(update={"mpp": told}))

    def _on_told(self, _job: Job, event: Event) -> None:
        if event.kind == "progress":
            self.predict_panel.progress(event)
        elif event.kind == "warning":
            _show_warning(str(event.content["message"]))

    def _on_ended(self, job: Job, event: Event) -> None:
        key, slide = self._slide_of.pop(job.folder)
        message = "Stopped." if event.kind == "stopped" else ""
        if event.kind == "error":
            message = str(event.content["message"])
            _show_error(message)
        elif event.kind == "done" and isinstance(job.task, ExportTask):
            message = f"Written: {event.content['store']}"
        elif event.kind == "done":
            content = event.content
            seconds = float(content["seconds"])
            message = f"{content['genes']} genes predicted at {content['spots']:,} spots in {seconds:.0f} s."
            try:
                self._take_in(key, slide, result_of(job, event), str(content["table"]))
            except Exception as error:  # whatever it is, the workbench goes on
                message = f"the prediction cannot be shown ({type(error).__name__}: {error})"
                _show_error(message)
        self.predict_panel.rest(message)
        self._allow()

    def _take_in(self, key: str, slide: Slide, result: Path, table: str) -> None:
        """Read a prediction and show it, if its slide is still open."""
        from anndata import read_h5ad

        if key in self.session.entries:
            self.session.set_prediction(key, read_h5ad(result), table, result, slide)

    def _on_broken(self, message: str) -> None:
        self.predict_panel.rest("The process that predicts could not be started.")
        _show_error(message)
        self._allow()

    def _on_export_new(self) -> None:
        entry = self.session.active
        if entry is None:
            return
        folder = entry.ref.path.absolute().parent
        suggested = folder / f"{entry.slide.name}_hyperst.zarr"
        name, _ = QFileDialog.getSaveFileName(self, "New store", str(suggested), "SpatialData Zarr (*.zarr)")
        if name:
            path = Path(name)
            self.export(path if path.suffix == ".zarr" else path.with_name(f"{path.name}.zarr"))

    def _on_export_own(self) -> None:
        entry = self.session.active
        store = None if entry is None else _store_of(entry)
        if store is not None:
            self.export(store)


def _store_of(entry: Entry) -> Path | None:
    """Return the store that holds the spots which are predicted."""
    path = (entry.predicted or entry.slide).sdata.path
    return None if path is None else Path(path)


def _end(child: Child, links: list[tuple[Any, Callable[..., Any]]], folders: list[Path], *_: object) -> None:
    """Let go of what outlives the widget."""
    for signal, slot in links:
        signal.disconnect(slot)
    links.clear()  # they hold the widget
    child.close()
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _group(title: str, panel: QWidget) -> QGroupBox:
    box = QGroupBox(title)
    layout = QVBoxLayout(box)
    layout.setContentsMargins(6, 4, 6, 6)
    layout.addWidget(panel)
    return box


def _show_error(message: str) -> None:
    from napari.utils.notifications import show_error

    show_error(unmarked(message))


def _show_warning(message: str) -> None:
    from napari.utils.notifications import show_warning

    show_warning(unmarked(message))
