"""The genes of a prediction as a table that is searched and sorted at the speed of typing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

from napari_hyperst.viewer.genes import Genes
from napari_hyperst.widgets.panel import literal

#: The columns.
STAR, NAME, PCC, VARIANCE = range(4)
_TITLES = ("★", "Gene", "PCC", "Variance")
_TOLD = (
    "Favourites first; a click on a star adds or takes one away",
    "By name",
    "By how well it is predicted: Pearson's correlation with what was measured, over the spots",
    "By how much the prediction varies over the spots",
)
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_INVALID = QModelIndex()


class GeneModel(QAbstractTableModel):
    """Rows are genes, in the order asked for; those that a search leaves out are not there.

    A filter proxy would ask for each gene and column by a call of its own; here a search is one pass over strings.
    """

    def __init__(self) -> None:
        super().__init__()
        self.genes = Genes()
        self.favourites: set[str] = set()
        self._keys: list[str] = []
        self._places: dict[str | None, int] = {}
        self._rank: NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._rows: list[int] = []
        self._text = ""
        self._sorted = (NAME, Qt.SortOrder.AscendingOrder)

    def set_genes(self, genes: Genes) -> None:
        """Show other genes; search and order stay."""
        self.genes = genes
        self._places = {name: place for place, name in enumerate(genes.names)}
        self._keys = [f"\n{name}\n{other}\n".lower() for name, other in zip(genes.names, genes.others, strict=True)]
        self.sort(*self._sorted)

    def search(self, text: str) -> None:
        """Leave the genes of which a name contains a text: first those that are called so, then those that begin so."""
        self._text = text.strip().lower()
        self.beginResetModel()
        self._find()
        self.endResetModel()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Order the genes by a column; what is not known comes last, and ties go by name."""
        self._sorted = (column, order)
        by_name = np.argsort(np.array([name.lower() for name in self.genes.names], dtype=object), kind="stable")
        sign = 1 if order == Qt.SortOrder.AscendingOrder else -1
        if column == NAME:
            ranked = by_name[::sign]
        else:
            starred = np.array([name in self.favourites for name in self.genes.names], dtype=float)
            values = {STAR: starred, PCC: self.genes.pcc, VARIANCE: self.genes.variance}[column]
            ranked = by_name[np.argsort(sign * values[by_name], kind="stable")]
        self.beginResetModel()
        self._rank = ranked
        self._find()
        self.endResetModel()

    def set_favourites(self, favourites: set[str]) -> None:
        """Give these genes a star, and no others; the order stays until it is asked for again."""
        self.favourites = favourites
        if self._rows:
            self.dataChanged.emit(self.index(0, STAR), self.index(len(self._rows) - 1, STAR))

    @property
    def listed(self) -> list[str]:
        """The genes that are there, in order."""
        return [self.genes.names[place] for place in self._rows]

    def name(self, row: int) -> str:
        """Return the gene in a row."""
        return self.genes.names[self._rows[row]]

    def row(self, gene: str | None) -> int:
        """Return the row of a gene; -1 where it is not there."""
        place = self._places.get(gene, -1)
        return self._rows.index(place) if place in self._rows else -1

    # -- what Qt asks

    def rowCount(self, parent: QModelIndex = _INVALID) -> int:
        """Return how many genes are there."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex = _INVALID) -> int:
        """Return how many columns are there."""
        return 0 if parent.isValid() else len(_TITLES)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        place, column = self._rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text_of(place, column)
        if role == Qt.ItemDataRole.TextAlignmentRole and column in (PCC, VARIANCE):
            return _RIGHT
        if role == Qt.ItemDataRole.ToolTipRole:
            return literal("\n".join([self.genes.names[place], *self.genes.others[place].splitlines()]))
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the head of a column."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return _TITLES[section]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole:
            return _TOLD[section]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.InitialSortOrderRole:
            return (Qt.SortOrder.AscendingOrder if section == NAME else Qt.SortOrder.DescendingOrder).value
        return None

    # -- within

    def _text_of(self, place: int, column: int) -> str:
        if column == STAR:
            return "★" if self.genes.names[place] in self.favourites else "☆"
        if column == NAME:
            return self.genes.names[place]
        value = (self.genes.pcc if column == PCC else self.genes.variance)[place]
        return f"{value:.2f}" if np.isfinite(value) else "–"

    def _find(self) -> None:
        text, keys = self._text, self._keys
        rows: list[int] = self._rank.tolist()
        if text:
            rows = [place for place in rows if text in keys[place]]
            begin, whole = f"\n{text}", f"\n{text}\n"
            first = [place for place in rows if begin in keys[place]]
            called = {place for place in first if whole in keys[place]}
            began = set(first)
            first.sort(key=lambda place: place not in called)
            rows = first + [place for place in rows if place not in began]
        self._rows = rows
