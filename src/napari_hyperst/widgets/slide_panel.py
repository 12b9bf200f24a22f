"""Which slide is worked on."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.slides.formats import IMAGE_SUFFIXES
from napari_hyperst.viewer.footprints import describe_footprints, sides_um
from napari_hyperst.viewer.session import Entry, Session
from napari_hyperst.viewer.tissue import MAX_LIVE

_NOTHING = (
    "No slide is open. Drop a Space Ranger folder, a SpatialData Zarr, an ST folder or a whole-slide image on the "
    "viewer (choose HyperST if napari asks), or:"
)
_EDIT = "Paint or erase in the tissue layer: spots follow."
_EDIT_MANY = "Paint or erase in the tissue layer: these many spots follow when genes are predicted."


class SlidePanel(QWidget):
    """A picker of the slides that are open, two ways to open one, and what the one that is chosen is.

    A box outlines the tiles that a model looks at.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: The user chose another slide, by its key.
    chosen = Signal(str)
    #: The user wants a slide opened.
    opened = Signal(object)
    #: The user wants the spots of an H&E-only slide this far apart, in µm.
    pitch_chosen = Signal(float)
    #: The user wants the packaged slide.
    sample_asked = Signal()
    #: The user wants the tiles outlined, or no longer.
    footprints_asked = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
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
        self.status.setWordWrap(True)
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
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.status)
        layout.addLayout(row)
        layout.addWidget(self.footprints)
        layout.addWidget(self.laid)
        self.slides.activated.connect(lambda row: self.chosen.emit(self.slides.itemText(row)))
        self.open.clicked.connect(self._on_open)
        self.open_image.clicked.connect(self._on_open_image)
        self.pitch.editingFinished.connect(self._on_pitch)
        self.sample.clicked.connect(self.sample_asked)
        self.footprints.clicked.connect(self.footprints_asked)

    def show_state(self, session: Session) -> None:
        """Show what is open."""
        self.slides.clear()
        self.slides.addItems(list(session.entries))
        active = session.active
        if active is not None:
            self.slides.setCurrentText(active.key)
        self.slides.setEnabled(bool(session.entries))
        self.footprints.setVisible(active is not None)
        self.footprints.setChecked(session.footprints)
        if active is not None:
            self.footprints.setText(describe_footprints(sides_um(active)))
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

    def _on_open(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a slide")
        if folder:
            self.opened.emit(Path(folder))

    def _on_open_image(self) -> None:
        patterns = " ".join(f"*{suffix}" for suffix in IMAGE_SUFFIXES)
        file, _ = QFileDialog.getOpenFileName(self, "H&E image", "", f"H&E images ({patterns})")
        if file:
            self.opened.emit(Path(file))

    def _on_pitch(self) -> None:
        if self._pitch_um is None or abs(self.pitch.value() - self._pitch_um) >= 0.05:  # not only looked at
            self.pitch_chosen.emit(self.pitch.value())


def describe(entry: Entry) -> str:
    """Say in a line what a slide is."""
    slide = entry.slide
    height, width = slide.image.shape_px
    counts = slide.counts
    measured = "H&E only, no counts" if counts is None else f"{counts.n_vars:,} genes measured"
    return f"{len(slide.spots):,} spots, {measured}; {width:,} × {height:,} px at {slide.mpp:.3g} µm/px"
