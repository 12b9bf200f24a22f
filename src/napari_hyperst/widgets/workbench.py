"""The workbench: open a slide, predict its genes, look, export."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QApplication, QLabel, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.viewer import ahead
from napari_hyperst.viewer.session import Session, session_of
from napari_hyperst.widgets.export_panel import ExportPanel
from napari_hyperst.widgets.genes_panel import GenesPanel
from napari_hyperst.widgets.hierarchy_panel import HierarchyPanel
from napari_hyperst.widgets.indicator import calm
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.panel import Panel, held
from napari_hyperst.widgets.predict_panel import PredictPanel
from napari_hyperst.widgets.process import Child
from napari_hyperst.widgets.regions_panel import RegionsPanel
from napari_hyperst.widgets.section import Section
from napari_hyperst.widgets.slide_panel import SlidePanel
from napari_hyperst.widgets.work import Work

if TYPE_CHECKING:
    from napari.components import ViewerModel

#: How long a gene has been looked at when napari draws what else it shows of its maps.
_CATCH_UP_MS = 300
#: How long after it was made its window is drawn, and what the first slide needs is imported.
_AHEAD_MS = 200
RESEARCH_USE = "For research use only. Not for use in diagnostic procedures."
#: The panels from the top down, in the order of the work; each is made for a session and its work.
PANELS: tuple[Callable[[Session, Work], Panel], ...] = (
    SlidePanel,
    PredictPanel,
    GenesPanel,
    held("Hierarchy", HierarchyPanel),
    held("Regions", RegionsPanel),
    ExportPanel,
)


class Workbench(QWidget):
    """The panels in sections that open and close, in the order of the work.

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
        self._window: weakref.ref[QMainWindow] | None = None
        self.session = session_of(napari_viewer)
        self.child = child or Child(parent=self)
        self.work = Work(self.session, self.child)
        self.panels = [make(self.session, self.work) for make in PANELS]
        self.sections = {panel.title: Section(panel, panel.title) for panel in self.panels}
        self._opened: list[Section] = []
        self._spared: Section | None = None
        self._step = ""
        self._then_predict: Path | None = None
        self._room = QTimer(self)
        self._room.setSingleShot(True)
        self._room.timeout.connect(self._make_room)
        self._catching_up = QTimer(self)
        self._catching_up.setSingleShot(True)
        self._catching_up.setInterval(_CATCH_UP_MS)
        self._catching_up.timeout.connect(self._catch_up)
        self._lay_out()
        for section in self.sections.values():
            section.toggled.connect(partial(self._on_toggled, section))
        signals = (self.session.slides_changed, self.session.opening_changed, self.session.prediction_changed)
        hear(self, *((signal, self._on_session) for signal in signals))
        shown = (self.session.shown_changed, self.session.prediction_changed)
        hear(self, *((signal, self._catch_up_soon) for signal in shown))
        self.work.changed.connect(self._make_room_soon)
        self._end = partial(_end, self.work, self.panels)
        self.destroyed.connect(self._end)
        QApplication.instance().aboutToQuit.connect(self._end)
        self._on_session()
        self.child.start()
        QTimer.singleShot(_AHEAD_MS, ahead.begin)

    def panel[PanelT: Panel](self, kind: type[PanelT]) -> PanelT:
        """Return the panel of a kind."""
        return next(panel for panel in self.panels if isinstance(panel, kind))

    @property
    def slide_panel(self) -> SlidePanel:
        """Which slide is worked on."""
        return self.panel(SlidePanel)

    @property
    def predict_panel(self) -> PredictPanel:
        """With what to predict."""
        return self.panel(PredictPanel)

    def open(self, path: Path) -> None:
        """Open a slide."""
        self.session.open(SlideRef(path=path))

    def open_sample(self, *, then_predict: bool = False) -> None:
        """Open the packaged slide, and predict it if asked to."""
        path = self.session.open_sample()
        self._then_predict = path if then_predict else None

    def predict(self) -> None:
        """Predict the active slide's genes with the chosen checkpoint."""
        self.predict_panel.predict()

    def export(self, out: Path) -> None:
        """Write the active slide's prediction into a store."""
        self.work.export(out)

    def sizeHint(self) -> QSize:
        """Return a size that leaves a laptop's screen to the slide."""
        return QSize(380, 620)

    def event(self, event: QEvent) -> bool:
        """End with the dock: napari takes the widget out of it, and does not delete it."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self._end()
                QTimer.singleShot(0, partial(_clear_away, self.work, self._window))
                self.deleteLater()
        return bool(super().event(event))

    def showEvent(self, event: QShowEvent) -> None:
        """Take note of the window it is docked in."""
        super().showEvent(event)
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QMainWindow):
            parent = parent.parentWidget()
        if parent is not None:
            self._window = weakref.ref(parent)
            calm(parent)

    # -- within

    def _catch_up_soon(self) -> None:
        self._catching_up.start()

    def _catch_up(self) -> None:
        if self.session.active is not None:
            self.session.overlays.catch_up(self.session.active)

    def _lay_out(self) -> None:
        self._notice = QLabel(RESEARCH_USE)
        self._notice.setWordWrap(True)
        self._notice.setStyleSheet("font-style: italic;")
        self._inside = QWidget()
        self._column = QVBoxLayout(self._inside)
        self._column.setContentsMargins(4, 4, 4, 4)
        self._column.setSpacing(4)
        for section in self.sections.values():
            self._column.addWidget(section)
        self._column.addStretch(0)
        self._column.addWidget(self._notice)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(self._inside)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(self._scroll)
        self.setMinimumWidth(320)

    def _on_session(self, *_: object) -> None:
        """Go on where the work does: predict the sample if asked to, and open the sections of the next step."""
        if self._then_predict is not None and self.session.opening == 0:
            active, wanted, self._then_predict = self.session.active, self._then_predict, None
            if active is not None and active.ref.path == wanted:
                self.predict()
        entry = self.session.active
        self._room.start(0)  # what the panels say may take more of it
        step = "open" if entry is None else "predict" if entry.table is None else "look"
        if step == self._step:
            return
        self._step = step
        for title in {"open": ("Slide", "Predict"), "predict": ("Slide", "Predict"), "look": ("Genes",)}[step]:
            self.sections[title].set_open(True)
            self._on_toggled(self.sections[title], True)  # the last to be closed for room, also where it was open

    def _on_toggled(self, section: Section, opened: bool) -> None:
        if section in self._opened:
            self._opened.remove(section)
        if opened:
            self._opened.append(section)
        growing = [one for one in self._opened if one.panel.grows]
        for one in self.sections.values():
            self._column.setStretchFactor(one, 1 if one in growing else 0)
        self._column.setStretch(self._column.count() - 2, 0 if growing else 1)
        if opened:
            self._room.start(0)  # when the section has been laid out

    def _make_room_soon(self) -> None:
        self._room.start(0)

    def _make_room(self) -> None:
        """Close the sections that were opened longest ago where not all fit; one that is at work, once it is not."""
        if self._spared is not None and not self._spared.panel.at_work:
            self._spared.set_open(False)
            self._spared = None
        width = self._inside.width()
        rest = self._notice.heightForWidth(width) + (len(self.sections) + 3) * self._column.spacing()
        for section in self._opened[:-1]:
            needed = rest + sum(one.least_height(width) for one in self.sections.values())
            if needed <= self._scroll.viewport().height():
                return
            if section.panel.at_work:
                self._spared = section
            else:
                section.set_open(False)


def _end(work: Work, panels: list[Panel], *_: object) -> None:
    """Let go of what outlives the widget."""
    for panel in panels:
        panel.let_go()
    panels.clear()
    work.close()


def _clear_away(work: Work, of: weakref.ref[QMainWindow] | None) -> None:
    """Take away what a job left that ended with the widget, where the viewer stays."""
    window = None if of is None else of()
    try:
        stays = window is not None and window.isVisible()
    except RuntimeError:  # Qt has destroyed it
        return
    if stays:
        work.clear_away()
