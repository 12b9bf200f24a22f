"""A table of genes that differ inside against outside of a region."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from napari_hyperst.viewer.regions import RegionGenes
from napari_hyperst.widgets.panel import literal

_NUMBER = Qt.ItemDataRole.UserRole
#: Title, tooltip, and how a number is written, of each column but the first.
_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("Gene", "The gene; click a line to lay it over the slide", str),
    (
        "Effect",
        "Rank-biserial correlation: the chance that a spot inside is higher than one outside, less the chance that it "
        "is lower; 1 where all inside are higher, -1 where all are lower",
        lambda number: f"{number:+.2f}",
    ),
    ("Δ", "Mean inside less mean outside, log2(count + 1)", lambda number: f"{number:+.2f}"),
    ("In", "Mean predicted log2(count + 1) inside", lambda number: f"{number:.2f}"),
    ("Out", "Mean predicted log2(count + 1) outside", lambda number: f"{number:.2f}"),
    (
        "Adj. p",
        "Two-sided Mann-Whitney U test, adjusted by Benjamini and Hochberg over the genes. It takes spots for "
        "independent, which neighbours are not: go by the effect first",
        lambda number: f"{number:.1e}" if number < 0.001 else f"{number:.3f}",
    ),
)


class RegionModel(QAbstractTableModel):
    """A comparison as Qt asks for it.

    Parameters
    ----------
    parent
        Qt parent.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._columns: list[Any] = []

    def set_found(self, found: RegionGenes | None) -> None:
        """Show another comparison, or none."""
        self.beginResetModel()
        self._columns = []
        if found is not None:
            numbers = (found.effect, found.difference, found.inside, found.outside, found.adjusted)
            self._columns = [found.genes, *(np.asarray(column) for column in numbers)]
        self.endResetModel()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many genes there are."""
        return len(self._columns[0]) if self._columns and (parent is None or not parent.isValid()) else 0

    def columnCount(self, _parent: QModelIndex | None = None) -> int:
        """Return how many columns there are."""
        return len(_COLUMNS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what is written in a cell, or by what it is sorted."""
        if not index.isValid() or not self._columns:
            return None
        value = self._columns[index.column()][index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return _COLUMNS[index.column()][2](value)
        if role == Qt.ItemDataRole.ToolTipRole and index.column() == 0:
            return literal(str(value))
        if role == _NUMBER:
            return str(value) if index.column() == 0 else float(value)
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() > 0:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | None:
        """Return the title of a column, or what it means."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return _COLUMNS[section][0]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole:
            return _COLUMNS[section][1]
        return None


class RegionTable(QTableView):
    """A comparison, sorted by any column.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: The user chose a gene.
    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.found = RegionModel(self)
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(self.found)
        self.proxy.setSortRole(_NUMBER)
        self.setModel(self.proxy)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setToolTip("Genes whose prediction differs most come first; click a heading to sort by it")
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 6)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(36)
        self.setMinimumHeight(160)
        self.selectionModel().currentRowChanged.connect(self._on_row)

    def sizeHint(self) -> QSize:
        """Return a size that leaves the height to others."""
        return QSize(super().sizeHint().width(), self.minimumHeight())

    def set_found(self, found: RegionGenes | None) -> None:
        """Show another comparison, in its own order, or none."""
        self.setSortingEnabled(False)
        self.found.set_found(found)
        self.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.proxy.sort(-1, Qt.SortOrder.AscendingOrder)  # as they come
        self.setSortingEnabled(True)

    def _on_row(self, index: QModelIndex, _before: QModelIndex) -> None:
        if index.isValid():
            self.chosen.emit(str(self.proxy.index(index.row(), 0).data()))
