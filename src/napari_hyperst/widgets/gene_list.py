"""A list of genes, thousands long, that narrows as one types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from qtpy.QtCore import QModelIndex, QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.viewer import preferences
from napari_hyperst.viewer.genes import Genes
from napari_hyperst.viewer.markers import favourites, keep_favourites
from napari_hyperst.widgets.gene_model import NAME, PCC, STAR, VARIANCE, GeneModel
from napari_hyperst.widgets.links import hear

_EMPTY = "Predict genes to list them"
#: The list is at least so high.
_LEAST_PX = 110


class _View(QTreeView):
    """A list that likes to be as low as it may: it takes what is left, and asks for no scroll bar around it."""

    #: A star was pressed, which chooses no gene: its row.
    starred = Signal(int)

    def sizeHint(self) -> QSize:
        return QSize(200, _LEAST_PX)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        index = self.indexAt(event.position().toPoint())
        if index.isValid() and index.column() == STAR and event.button() == Qt.MouseButton.LeftButton:
            self.starred.emit(index.row())
        else:
            super().mousePressEvent(event)


class GeneList(QWidget):
    """A search field over a list that is sorted by a click on its head.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: The user chose a gene.
    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._marked: str | None = None
        self._silent = False
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search genes, by symbol or Ensembl id")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("Type a part of a gene's name; Enter shows the first that is left, ↓ goes to the list")
        self.model = GeneModel()
        self.model.set_favourites(favourites())
        self.view = _View()
        self.view.setModel(self.model)
        self.view.setRootIsDecorated(False)
        self.view.setUniformRowHeights(True)
        self.view.setAllColumnsShowFocus(True)
        self.view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.view.setMinimumHeight(_LEAST_PX)
        self.view.setToolTip("The genes that the checkpoint predicts; ↑ and ↓ step through them")
        header = self.view.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        header.setToolTip("Click to sort")
        letter = self.fontMetrics().averageCharWidth()
        for column, width in ((STAR, 4), (PCC, 8), (VARIANCE, 11)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(column, width * letter)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.view.setSortingEnabled(True)
        header.setSortIndicator(PCC, Qt.SortOrder.DescendingOrder)
        self.count = QLabel(_EMPTY)
        self.count.setTextFormat(Qt.TextFormat.PlainText)
        self.count.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for widget in (self.search, self.view, self.count):
            layout.addWidget(widget, 1 if widget is self.view else 0)
        self.search.textChanged.connect(self._on_text)
        self.search.returnPressed.connect(self._take_first)
        self.view.selectionModel().currentChanged.connect(self._on_current)
        self.view.clicked.connect(self._on_current)  # also the one that is marked: its layer may have been hidden
        self.view.starred.connect(self._on_starred)
        header.sortIndicatorChanged.connect(lambda *_: self.view.scrollToTop())
        self.model.modelAboutToBeReset.connect(lambda: self._be_silent(True))
        self.model.modelReset.connect(self._on_reset)
        hear(self, (preferences.events("genes").favourites, self._on_favourites))

    @property
    def genes(self) -> list[str]:
        """All genes."""
        return list(self.model.genes.names)

    @property
    def listed(self) -> list[str]:
        """The genes that the search leaves, in the order that they are listed in."""
        return self.model.listed

    def set_genes(self, genes: Genes) -> None:
        """Show other genes; search and order stay."""
        self.model.set_genes(genes)

    def select(self, gene: str | None) -> None:
        """Mark a gene, or none where it is not listed, without telling."""
        self._marked = gene
        row = self.model.row(gene)
        with self._silence():
            here = self.model.index(row, NAME) if row >= 0 else QModelIndex()
            self.view.setCurrentIndex(here)
            if row >= 0:
                self.view.scrollTo(here, QAbstractItemView.ScrollHint.EnsureVisible)

    def step(self, by: int) -> None:
        """Choose the gene that is so many places on in the list, from its end to its beginning."""
        count = self.model.rowCount()
        if count:
            row = self.model.row(self._marked)
            at = (row + by) % count if row >= 0 else 0 if by > 0 else count - 1
            self.view.setCurrentIndex(self.model.index(at, NAME))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go from the search field to the list."""
        if event.key() == Qt.Key.Key_Down and self.search.hasFocus():
            self.view.setFocus()
            self.view.setCurrentIndex(self.model.index(0, NAME))
            return
        if event.key() == Qt.Key.Key_Escape and self.search.text():
            self.search.clear()
            return
        super().keyPressEvent(event)

    # -- within

    def _on_text(self, text: str) -> None:
        self.model.search(text)

    def _on_reset(self) -> None:
        """Mark what is marked again; what a search takes away or brings back chooses no gene."""
        self._be_silent(False)
        self.select(self._marked)
        shown, all_of_them = self.model.rowCount(), len(self.model.genes)
        none = "" if shown else f": {self._why_none()}"
        self.count.setText(f"{shown:,} of {all_of_them:,} genes{none}" if all_of_them else _EMPTY)

    def _on_favourites(self, *_: object) -> None:
        """Have the stars that are kept, whoever gave them: another viewer, or the preferences."""
        self.model.set_favourites(favourites())

    def _why_none(self) -> str:
        genes = self.model.genes
        ensembl = self.search.text().strip().upper().startswith("ENS")
        if ensembl and not any(genes.others) and not any(name.upper().startswith("ENS") for name in genes.names):
            return "no Ensembl id is known of them; search by symbol"
        return "this checkpoint predicts no such gene"

    def _take_first(self) -> None:
        if self.model.rowCount():
            self.view.setCurrentIndex(self.model.index(0, NAME))

    def _on_starred(self, row: int) -> None:
        keep_favourites(self.model.favourites ^ {self.model.name(row)})

    def _on_current(self, index: QModelIndex, _before: QModelIndex | None = None) -> None:
        if index.isValid() and not self._silent:
            self._marked = self.model.name(index.row())
            self.chosen.emit(self._marked)

    def _be_silent(self, silent: bool) -> None:
        self._silent = silent

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """While this lasts, changes in the list are not the user's."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False
