"""Which marker set is shown, and where a list of genes is pasted."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.viewer.genes import Genes
from napari_hyperst.viewer.markers import MarkerSet, keep_marker_sets, marker_sets, read_names
from napari_hyperst.widgets.panel import literal

_ONE_GENE = "One gene"
#: No more missing genes than this are named.
_NAMED = 6


class MarkerPicker(QWidget):
    """A list of the marker sets that are kept, and buttons that add one and take it away.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: The user chose a marker set, or none of them.
    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._genes = Genes()
        self.sets = QComboBox()
        self.sets.setToolTip("Show the mean of a set of marker genes instead of one gene")
        self.sets.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.add = QPushButton("New set…")
        self.add.setToolTip("Paste a list of marker genes, and keep it under a name")
        self.delete = QPushButton("Delete")
        self.delete.setToolTip("Delete the marker set that is chosen")
        self.missing = QLabel()
        self.missing.setTextFormat(Qt.TextFormat.PlainText)
        self.missing.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.sets, 1)
        row.addWidget(self.add)
        row.addWidget(self.delete)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addLayout(row)
        layout.addWidget(self.missing)
        self.sets.activated.connect(self._on_activated)
        self.add.clicked.connect(self._on_add)
        self.delete.clicked.connect(self._on_delete)
        self.select(None)

    def set_genes(self, genes: Genes) -> None:
        """Look for the markers among other genes."""
        self._genes = genes

    def select(self, markers: MarkerSet | None) -> None:
        """Mark a set, or none, without telling, and name the genes that are missing."""
        self._list(markers)
        found, missing = ((), ()) if markers is None else self._genes.find(markers.genes)
        told = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
        count = f"Mean of {len(found)} gene{'s' * (len(found) != 1)}"
        self.missing.setText(f"{count}; not predicted: {told}" if missing else count)
        self.missing.setToolTip(
            literal(f"Shown: {', '.join(found)}" + (f"\nMissing: {', '.join(missing)}" * bool(missing)))
        )
        self.missing.setVisible(markers is not None)

    def _list(self, markers: MarkerSet | None) -> None:
        self.sets.clear()
        self.sets.addItem(_ONE_GENE, None)
        kept = marker_sets()
        for one in kept if markers is None or markers in kept else [*kept, markers]:
            self.sets.addItem(one.name, one)
            if one == markers:
                self.sets.setCurrentIndex(self.sets.count() - 1)
        self.delete.setEnabled(markers is not None)

    def _on_activated(self, row: int) -> None:
        self.chosen.emit(self.sets.itemData(row))

    def _on_add(self) -> None:
        dialog = MarkerDialog(self)
        if dialog.exec():
            markers = dialog.markers
            keep_marker_sets([*marker_sets(), markers])
            self.chosen.emit(markers)
        dialog.deleteLater()

    def _on_delete(self) -> None:
        chosen = self.sets.currentData()
        keep_marker_sets(one for one in marker_sets() if one != chosen)
        self.chosen.emit(None)


class MarkerDialog(QDialog):
    """Asks for a name and a list of genes.

    Parameters
    ----------
    parent
        Qt parent.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Marker set")
        self.name = QLineEdit()
        self.name.setPlaceholderText("Name, such as Tumour")
        self.name.setToolTip("What the set is called")
        self.list = QPlainTextEdit()
        self.list.setPlaceholderText("Paste genes: symbols or Ensembl ids, between commas, spaces or lines")
        self.list.setToolTip("The genes whose mean is shown")
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Save | QDialogButtonBox.StandardButton.Cancel)
        layout = QVBoxLayout(self)
        for widget in (self.name, self.list, self.buttons):
            layout.addWidget(widget)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.name.textChanged.connect(self._allow)
        self.list.textChanged.connect(self._allow)
        self._allow()

    @property
    def markers(self) -> MarkerSet:
        """The set that was typed."""
        return MarkerSet.named(self.name.text(), read_names(self.list.toPlainText()))

    def _allow(self, *_: object) -> None:
        save = self.buttons.button(QDialogButtonBox.StandardButton.Save)
        reason = "" if self.markers.name else "Give it a name"
        reason = reason or ("" if self.markers.genes else "Paste a list of genes")
        taken = self.markers.name in [kept.name for kept in marker_sets()]
        save.setText("Replace" if taken else "Save")
        save.setEnabled(not reason)
        save.setToolTip(reason or f"Keep the set{' instead of the one of that name' * taken}, and show its mean")
