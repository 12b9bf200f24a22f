"""Which slide is worked on."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_hyperst.viewer.footprints import describe_footprints, sides_um
from napari_hyperst.viewer.session import Entry, Session

_NOTHING = (
    "No slide is open. Drop a Space Ranger folder, a SpatialData Zarr or an ST folder on the viewer "
    "(choose HyperST if napari asks), or:"
)


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
    #: The user wants the packaged slide.
    sample_asked = Signal()
    #: The user wants the tiles outlined, or no longer.
    footprints_asked = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.slides = QComboBox()
        self.slides.setToolTip("The slide that is predicted, shown and exported")
        self.open = QPushButton("Open…")
        self.open.setToolTip("Open the folder of a slide: Space Ranger outs, SpatialData Zarr or legacy ST")
        self.sample = QPushButton("Sample")
        self.sample.setToolTip("Open the packaged breast cancer section C2")
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.footprints = QCheckBox()
        self.footprints.setToolTip("Outline on the slide what a model looks at around each spot")
        row = QHBoxLayout()
        row.addWidget(self.slides, 1)
        row.addWidget(self.open)
        row.addWidget(self.sample)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.status)
        layout.addLayout(row)
        layout.addWidget(self.footprints)
        self.slides.activated.connect(lambda row: self.chosen.emit(self.slides.itemText(row)))
        self.open.clicked.connect(self._on_open)
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
        if session.opening:
            self.status.setText("Opening a slide…")
        else:
            self.status.setText(_NOTHING if active is None else describe(active))

    def _on_open(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a slide")
        if folder:
            self.opened.emit(Path(folder))


def describe(entry: Entry) -> str:
    """Say in a line what a slide is."""
    slide = entry.slide
    height, width = slide.image.shape_px
    counts = slide.counts
    measured = "H&E only, no counts" if counts is None else f"{counts.n_vars:,} genes measured"
    return f"{len(slide.spots):,} spots, {measured}; {width:,} × {height:,} px at {slide.mpp:.3g} µm/px"
