"""Which slides a run is trained on, and which it is validated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.nouns.slide_ref import SlideRef

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session

TRAIN, VALIDATE, LEAVE = "Train", "Validate", "–"
_OPTIMISTIC = (
    "Only one section: a block at its end is held out, a niche away from the rest. This is optimistic: stain, depth "
    "and patient are those of training. A section of another patient tells more."
)
_UNCHECKED = "Nothing is held out: all epochs are trained, the last is kept, and nothing tells how good it is."
_SPLIT = "Validate on the slides of one patient, train on those of the others"
_NO_SPLIT = f"{_SPLIT}: type whose they are, two patients at least, into the table's last column"
_EMPTY = "Open slides with counts in the viewer, or add their folders."


@dataclass
class _Row:
    """A slide in the table: how it is opened, why it cannot be used, what it is for, and whose it is."""

    ref: SlideRef
    name: str
    why_not: str = ""
    use: str = TRAIN
    patient: str = ""
    typed: bool = False

    @property
    def path(self) -> Path:
        return self.ref.path


class TrainingSlides(QWidget):
    """A table of slides, those open in the viewer and folders, each for training, validation or neither.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: Another slide, or another use of one.
    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: dict[Path, _Row] = {}
        self._folders: set[Path] = set()
        self._shown: list[Path] = []
        self._chosen = False
        self.table = QTableWidget(0, 3)
        self.table.setHorizontalHeaderLabels(["Slide", "Use", "Patient"])
        self.table.verticalHeader().hide()
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(2, QHeaderView.ResizeMode.Fixed)
        self.table.setColumnWidth(1, 98)
        self.table.setColumnWidth(2, 72)
        self.add = QPushButton("Add folders…")
        self.add.setToolTip("Add the folder of a slide that is not open in the viewer")
        self.split = QPushButton("Split by patient")
        self.hold_out = QCheckBox("Hold out a block of")
        self.hold_out.setChecked(True)
        self.share = QSpinBox()
        self.share.setRange(5, 50)
        self.share.setValue(25)
        self.share.setSuffix(" %")
        self.share.setToolTip("Share of the spots that are held out, at one end of the section")
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.note.setTextFormat(Qt.TextFormat.PlainText)
        buttons, block = QHBoxLayout(), QHBoxLayout()
        buttons.addWidget(self.add)
        buttons.addWidget(self.split)
        block.addWidget(self.hold_out)
        block.addWidget(self.share)
        block.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.table)
        layout.addLayout(buttons)
        layout.addLayout(block)
        layout.addWidget(self.note)
        self.add.clicked.connect(self._on_add)
        self.split.clicked.connect(self.split_by_patient)
        self.hold_out.toggled.connect(self._on_changed)
        self.share.valueChanged.connect(self._on_changed)
        self.table.itemChanged.connect(self._on_item)
        self._show()

    @property
    def training(self) -> list[Path]:
        """Paths of the slides to train on."""
        return [row.path for row in self._rows.values() if row.use == TRAIN and not row.why_not]

    @property
    def validation(self) -> list[Path]:
        """Paths of the slides to validate on."""
        return [row.path for row in self._rows.values() if row.use == VALIDATE and not row.why_not]

    @property
    def opened(self) -> list[SlideRef]:
        """Of both, the slides that are opened in a way of the user's: with µm/px that was stated, elements by name."""
        used = {*self.training, *self.validation}
        refs = [row.ref for path, row in self._rows.items() if path in used]
        return [ref for ref in refs if any(value is not None for value in ref.options.values())]

    @property
    def holdout(self) -> float:
        """Share of the spots of the training slides that are held out; 0 where there are validation slides."""
        return self.share.value() / 100 if self.hold_out.isChecked() and not self.validation else 0.0

    def follow(self, session: Session) -> None:
        """List the slides that are open in a viewer, beside the folders that were added."""
        before = {path: row.ref for path, row in self._rows.items()}
        kept = {path: row for path, row in self._rows.items() if path in self._folders}
        for entry in session.entries.values():
            path = entry.ref.path.absolute()
            row = kept.setdefault(path, self._rows.get(path) or _Row(entry.ref, entry.key))
            row.ref = entry.ref.model_copy(update={"path": path})
            row.why_not = "" if entry.slide.counts is not None else "it has no counts"
        new = [row for path, row in kept.items() if path not in before and not row.why_not]
        usable = [row for row in kept.values() if not row.why_not]
        if new and len(usable) > 1 and not any(row.use == VALIDATE for row in usable):
            new[-1].use = VALIDATE
        self._rows = kept
        if {path: row.ref for path, row in kept.items()} != before:
            self._show()
            self.changed.emit()

    def add_folders(self, folders: Sequence[Path]) -> None:
        """Add slides by their folders, to be validated on where there is something to train on."""
        for folder in folders:
            path = folder.absolute()
            self._folders.add(path)
            use = VALIDATE if self.training and not self.validation else TRAIN
            self._rows.setdefault(path, _Row(SlideRef(path=path), path.name, use=use))
        self._show()
        self.changed.emit()

    def set_use(self, path: Path, use: str) -> None:
        """Use a slide for ``TRAIN``, ``VALIDATE`` or ``LEAVE``, as the user has chosen."""
        self._rows[path.absolute()].use = use
        self._chosen = True
        self._show()
        self.changed.emit()

    def set_patients(self, patients: Mapping[str, str]) -> None:
        """Fill in whose the slides are, by path, where the user has not said it.

        By that they are split, unless the user has chosen what they are for.
        """
        for path, patient in patients.items():
            row = self._rows.get(Path(path))
            if row is not None and patient and not row.typed:
                row.patient = patient
        self._show()
        if not self._chosen and self._shared:
            self.split_by_patient()

    def split_by_patient(self) -> None:
        """Validate on the patient with the fewest slides, and train on the others."""
        rows = [row for row in self._rows.values() if not row.why_not and row.use != LEAVE]
        patients = {row.patient for row in rows if row.patient}
        if len(patients) < 2:
            return
        held_out = min(sorted(patients), key=lambda one: sum(row.patient == one for row in rows))
        for row in rows:
            row.use = VALIDATE if row.patient == held_out else TRAIN
        self._show()
        self.changed.emit()

    # -- within

    @property
    def _shared(self) -> list[str]:
        """Patients with slides of both kinds."""
        whose = {use: {row.patient for row in self._rows.values() if row.use == use} for use in (TRAIN, VALIDATE)}
        return sorted((whose[TRAIN] & whose[VALIDATE]) - {""})

    def _show(self) -> None:
        if self._shown != list(self._rows):
            self._list()
        self.table.blockSignals(True)
        for number, row in enumerate(self._rows.values()):
            self.table.item(number, 2).setText(row.patient)
            self.table.cellWidget(number, 1).setCurrentText(row.use if not row.why_not else LEAVE)
        self.table.blockSignals(False)
        shown = min(max(len(self._rows), 1), 5)
        self.table.setFixedHeight(self.table.horizontalHeader().sizeHint().height() + 30 * shown + 4)
        self.table.verticalHeader().setDefaultSectionSize(30)
        one_sided = bool(self.training) and not self.validation
        self.hold_out.setVisible(one_sided)
        self.share.setVisible(one_sided)
        self.share.setEnabled(self.hold_out.isChecked())
        patients = {row.patient for row in self._rows.values() if row.patient}
        self.split.setEnabled(len(patients) > 1)
        self.split.setToolTip(_SPLIT if len(patients) > 1 else _NO_SPLIT)
        self.note.setText(self._note())
        self.note.setVisible(bool(self.note.text()))

    def _list(self) -> None:
        """Make the table's rows anew."""
        self._shown = list(self._rows)
        self.table.blockSignals(True)
        self.table.setRowCount(0)
        self.table.setRowCount(len(self._rows))
        for number, row in enumerate(self._rows.values()):
            name = QTableWidgetItem(row.name)
            name.setFlags(Qt.ItemFlag.ItemIsEnabled if not row.why_not else Qt.ItemFlag.NoItemFlags)
            name.setToolTip(f"{row.path}: {row.why_not}" if row.why_not else str(row.path))
            patient = QTableWidgetItem(row.patient)
            patient.setToolTip("Whose section it is; sections of one patient are not independent")
            use = QComboBox()
            use.addItems([TRAIN, VALIDATE, LEAVE])
            use.setEnabled(not row.why_not)
            use.setToolTip(name.toolTip())
            use.activated.connect(lambda _i, box=use, path=row.path: self.set_use(path, box.currentText()))
            self.table.setItem(number, 0, name)
            self.table.setCellWidget(number, 1, use)
            self.table.setItem(number, 2, patient)
        self.table.blockSignals(False)

    def _note(self) -> str:
        if not self._rows:
            return _EMPTY
        if not self.training:
            return "Choose a slide to train on."
        if not self.validation:
            return _OPTIMISTIC if self.hold_out.isChecked() else _UNCHECKED
        if self._shared:
            return f"Sections of {self._shared[0]} are in both: they say little about another patient."
        if any(not row.patient for row in self._rows.values() if row.use != LEAVE and not row.why_not):
            return "Say whose the sections are: if training and validation share a patient, the result is optimistic."
        return ""

    def _on_item(self, item: QTableWidgetItem) -> None:
        if item.column() == 2:
            row = list(self._rows.values())[item.row()]
            row.patient, row.typed = item.text().strip(), True
            self._show()

    def _on_changed(self, *_: object) -> None:
        self._show()
        self.changed.emit()

    def _on_add(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a slide with counts")
        if folder:
            self.add_folders([Path(folder)])
