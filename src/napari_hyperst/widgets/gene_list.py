"""A list of genes, thousands long, that narrows as one types."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QModelIndex, QSortFilterProxyModel, QStringListModel, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QLabel, QLineEdit, QListView, QVBoxLayout, QWidget


class GeneList(QWidget):
    """A search field over a list.

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
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search genes")
        self.search.setClearButtonEnabled(True)
        self.search.setToolTip("Type a part of a gene's name; Enter shows the first that is left, ↓ goes to the list")
        self.model = QStringListModel(self)
        self.proxy = QSortFilterProxyModel(self)
        self.proxy.setSourceModel(self.model)
        self.proxy.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.view = QListView()
        self.view.setModel(self.proxy)
        self.view.setUniformItemSizes(True)
        self.view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.view.setMinimumHeight(90)
        self.view.setToolTip("The genes that the checkpoint predicts; ↑ and ↓ step through them")
        self.count = QLabel()
        self.count.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for widget in (self.search, self.view, self.count):
            layout.addWidget(widget)
        self.search.textChanged.connect(self._on_text)
        self.search.returnPressed.connect(self._take_first)
        self.view.selectionModel().currentChanged.connect(self._on_current)
        self.view.clicked.connect(self._on_current)  # also the one that is marked: its layer may have been hidden
        self._on_text("")

    @property
    def genes(self) -> list[str]:
        """All genes."""
        return list(self.model.stringList())

    @property
    def listed(self) -> list[str]:
        """The genes that the search leaves."""
        return [str(self.proxy.index(row, 0).data()) for row in range(self.proxy.rowCount())]

    def set_genes(self, genes: Sequence[str]) -> None:
        """Show other genes; the search stays."""
        if list(genes) != self.genes:
            with _silenced(self.view):
                self.model.setStringList(list(genes))
        self._on_text(self.search.text())

    def select(self, gene: str | None) -> None:
        """Mark a gene, or none where it is not listed, without telling."""
        self._marked = gene
        role, exact = Qt.ItemDataRole.DisplayRole, Qt.MatchFlag.MatchExactly
        found = self.model.match(self.model.index(0, 0), role, gene or "", 1, exact | Qt.MatchFlag.MatchCaseSensitive)
        here = self.proxy.mapFromSource(found[0]) if found else QModelIndex()
        with _silenced(self.view):
            self.view.setCurrentIndex(here)
            if here.isValid():
                self.view.scrollTo(here, QAbstractItemView.ScrollHint.PositionAtCenter)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go from the search field to the list."""
        if event.key() == Qt.Key.Key_Down and self.search.hasFocus():
            self.view.setFocus()
            self.view.setCurrentIndex(self.proxy.index(0, 0))
            return
        if event.key() == Qt.Key.Key_Escape and self.search.text():
            self.search.clear()
            return
        super().keyPressEvent(event)

    def _on_text(self, text: str) -> None:
        with _silenced(self.view):  # what the filter takes away or brings back chooses no gene
            self.proxy.setFilterFixedString(text.strip())
        self.select(self._marked)
        shown, all_of_them = self.proxy.rowCount(), self.model.rowCount()
        none = ": this checkpoint predicts no such gene" if not shown else ""
        self.count.setText(f"{shown} of {all_of_them} genes{none}" if all_of_them else "Predict genes to list them")

    def _take_first(self) -> None:
        if self.proxy.rowCount():
            self.view.setCurrentIndex(self.proxy.index(0, 0))

    def _on_current(self, index: QModelIndex, _before: QModelIndex | None = None) -> None:
        if index.isValid() and not self.view.property("silent"):
            self._marked = str(index.data())
            self.chosen.emit(str(index.data()))


class _silenced:
    """While this lasts, changes in a view are not the user's."""

    def __init__(self, view: QListView) -> None:
        self._view = view

    def __enter__(self) -> None:
        self._view.setProperty("silent", True)

    def __exit__(self, *_: object) -> None:
        self._view.setProperty("silent", False)
