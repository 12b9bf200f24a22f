"""The maps of a prediction, one of which is shown."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QWidget

from napari_hyperst.viewer.maps import NO_COUNTS, Map

_KEY = Qt.ItemDataRole.UserRole


class MapList(QListWidget):
    """A list with a heading for each group; what cannot be shown is greyed out, with the reason as its tooltip.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: The user chose a map, by its key.
    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setUniformItemSizes(True)
        self.currentItemChanged.connect(self._on_current)
        self.itemClicked.connect(self._on_current)  # also the one that is marked: its layer may have been hidden

    def sizeHint(self) -> QSize:
        """Return the least height: it takes what is left, and asks for no scroll bar around it."""
        return QSize(200, self.minimumHeight())

    def set_maps(self, maps: Sequence[Map]) -> None:
        """List other maps."""
        self.blockSignals(True)
        self.clear()
        group = None
        for shown in maps:
            if shown.group != group:
                group = shown.group
                heading = QListWidgetItem(group, self)
                heading.setFlags(Qt.ItemFlag.ItemIsEnabled)  # in plain text, but not to be chosen
                font = heading.font()
                font.setBold(True)
                heading.setFont(font)
            item = QListWidgetItem(f"   {shown.title.removesuffix(' violation')}", self)
            item.setData(_KEY, shown.key)
            item.setToolTip(f"{shown.title}: {shown.reason}" if shown.reason else f"Show this map, in {shown.unit}")
            if shown.reason:
                item.setFlags(Qt.ItemFlag.NoItemFlags)
                if shown.reason == NO_COUNTS:
                    item.setText(f"{item.text()} (needs counts)")
        self.blockSignals(False)

    def select(self, key: str) -> None:
        """Mark a map, without telling."""
        self.blockSignals(True)
        item = self.item_of(key)
        if item is not None:
            self.setCurrentItem(item)
        self.blockSignals(False)

    def item_of(self, key: str) -> QListWidgetItem | None:
        """Return the item of a map."""
        return next((self.item(row) for row in range(self.count()) if self.item(row).data(_KEY) == key), None)

    def _on_current(self, item: QListWidgetItem | None, _before: QListWidgetItem | None = None) -> None:
        if item is not None and item.data(_KEY) is not None:
            self.chosen.emit(item.data(_KEY))
