"""Which slide is worked on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QPushButton,
    QWidget,
)

from napari_hyperst.errors import HyperSTError
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides.formats import IMAGE_SUFFIXES
from napari_hyperst.viewer import stored
from napari_hyperst.viewer.footprints import describe_footprints
from napari_hyperst.viewer.notices import show_error
from napari_hyperst.viewer.tissue import MAX_LIVE
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.panel import Panel

if TYPE_CHECKING:
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work

_NOTHING = (
    "No slide is open. Drop a Space Ranger folder, a SpatialData Zarr, an ST folder or a whole-slide image on the "
    "viewer (choose HyperST if napari asks), or:"
)
_EDIT = "Paint or erase in the tissue layer: spots follow."
_EDIT_MANY = "Paint or erase in the tissue layer: these many spots follow when genes are predicted."


class SlidePanel(Panel):
    """A picker of the slides that are open, two ways to open one, and what the one that is chosen is.

    Where the slide has several predictions, one can be chosen. A box outlines the tiles that a model looks at.

    Parameters
    ----------
    session, work
        As for every panel.
    """

    title = "Slide"

    def __init__(self, session: Session, work: Work) -> None:
        super().__init__(session, work)
        self._pitch_um: float | None = None
        self.slides = QComboBox()
        self.slides.setToolTip("The slide that is predicted, shown and exported")
        self.open = QPushButton("Open…")
        self.open.setToolTip("Open the folder of a slide: Space Ranger outs, SpatialData Zarr or legacy ST")
        self.open_image = QPushButton("H&&E…")
        self.open_image.setToolTip("Open an H&E image file without transcriptomics: svs, ndpi, mrxs, tif, jpg, png")
        self.sample = QPushButton("Sample")
        self.sample.setToolTip("Open the packaged breast cancer section C2")
        self.status = QLabel()
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setWordWrap(True)
        self.stored = QComboBox()
        self.stored.setToolTip(
            "Which of this slide's predictions is shown: its store may hold several, by their tables"
        )
        self.predictions = QWidget()
        form = QFormLayout(self.predictions)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Prediction", self.stored)
        self.footprints = QCheckBox()
        self.footprints.setToolTip("Outline on the slide what a model looks at around each spot")
        self.pitch = QDoubleSpinBox()
        self.pitch.setRange(1.0, 10_000.0)
        self.pitch.setDecimals(1)
        self.pitch.setSuffix(" µm")
        self.pitch.setKeyboardTracking(False)
        self.pitch.setToolTip("Distance between neighbouring spots: 100 µm is Visium's, half of it predicts four times")
        self.laid = QWidget()
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        laid = QFormLayout(self.laid)
        laid.setContentsMargins(0, 0, 0, 0)
        laid.addRow("A spot every", self.pitch)
        laid.addRow(self.hint)
        row = QHBoxLayout()
        row.addWidget(self.slides, 1)
        row.addWidget(self.open)
        row.addWidget(self.open_image)
        row.addWidget(self.sample)
        for widget in (self.status, row, self.predictions, self.footprints, self.laid):
            self.column.addLayout(widget) if widget is row else self.column.addWidget(widget)
        self.slides.activated.connect(lambda row: session.activate(self.slides.itemText(row)))
        self.stored.activated.connect(self._on_stored)
        self.open.clicked.connect(self._on_open)
        self.open_image.clicked.connect(self._on_open_image)
        self.sample.clicked.connect(lambda: session.open_sample())
        self.footprints.clicked.connect(session.show_footprints)
        self.pitch.editingFinished.connect(self._on_pitch)
        signals = (session.slides_changed, session.opening_changed, session.prediction_changed)
        hear(self, *((signal, self.show_state) for signal in signals), (session.scale_asked, self._on_scale_asked))
        self.show_state()

    def show_state(self, *_: object) -> None:
        """Show what is open."""
        session = self.session
        self.slides.clear()
        self.slides.addItems(list(session.entries))
        active = session.active
        if active is not None:
            self.slides.setCurrentText(active.key)
        self.slides.setEnabled(bool(session.entries))
        choices = () if active is None else stored.choices(active)
        self.stored.clear()
        self.stored.addItems(choices)
        if active is not None:
            self.stored.setCurrentText(stored.shown_of(active))
        self.predictions.setVisible(len(choices) > 1)
        self.footprints.setVisible(active is not None)
        self.footprints.setChecked(session.footprints)
        if active is not None:
            self.footprints.setText(describe_footprints(active))
        source = None if active is None else active.slide.source
        self.laid.setVisible(source is not None and source.laid)
        self._pitch_um = None if source is None else source.pitch_um
        if active is not None:
            self.hint.setText(_EDIT if len(active.slide.spots) <= MAX_LIVE else _EDIT_MANY)
        if self._pitch_um is not None:
            with QSignalBlocker(self.pitch):
                self.pitch.setValue(self._pitch_um)
        if session.opening:
            self.status.setText("Opening a slide…")
        else:
            self.status.setText(_NOTHING if active is None else describe(active))
        self.say_state("Opening a slide…" if session.opening else "Open one to begin" if active is None else active.key)

    def _on_stored(self, row: int) -> None:
        if self.session.active is not None:
            self.session.show_stored(self.session.active, self.stored.itemText(row))

    def _on_open(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a slide")
        if folder:
            self.session.open(SlideRef(path=Path(folder)))

    def _on_open_image(self) -> None:
        patterns = " ".join(f"*{suffix}" for suffix in IMAGE_SUFFIXES)
        file, _ = QFileDialog.getOpenFileName(self, "H&E image", "", f"H&E images ({patterns})")
        if file:
            self.session.open(SlideRef(path=Path(file)))

    def _on_pitch(self) -> None:
        if self._pitch_um is None or abs(self.pitch.value() - self._pitch_um) >= 0.05:  # not only looked at
            try:
                self.session.lay(self.pitch.value())
            except HyperSTError as error:
                show_error(str(error))
            self.show_state()  # the pitch that is

    def _on_scale_asked(self, ref: SlideRef) -> None:
        """Ask for what no file tells, and open the slide with it."""
        told, given = QInputDialog.getDouble(
            self, "Scale of the H&E", f"How many µm is a px of {ref.path.name}?\n(0.25 at 40×, 0.5 at 20×)",
            0.5, 0.01, 100.0, 4,
        )  # fmt: skip
        if given:
            self.session.open(ref.model_copy(update={"mpp": told}))


def describe(entry: Entry) -> str:
    """Say in a line what a slide is."""
    slide = entry.slide
    height, width = slide.image.shape_px
    counts = slide.counts
    measured = "H&E only, no counts" if counts is None else f"{counts.n_vars:,} genes measured"
    return f"{len(slide.spots):,} spots, {measured}; {width:,} × {height:,} px at {slide.mpp:.3g} µm/px"
