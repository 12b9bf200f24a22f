"""What is shown of a gene: predicted, measured or their difference."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QPushButton, QWidget

from napari_hyperst.viewer.maps import Map, maps_of
from napari_hyperst.widgets.panel import literal

_SHORT = {"difference": "Difference"}
_KEYS = {"predicted": "T changes to measured and back", "measured": "T changes to predicted and back"}
_KEYS["difference"] = "D changes to the difference and back"


class MapButtons(QWidget):
    """A button for each map of a gene; what cannot be shown is greyed out, with the reason as its tooltip.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: The user chose a map, by its key.
    chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QPushButton] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for one in maps_of(None):
            button = QPushButton(_SHORT.get(one.key, one.title))
            button.setCheckable(True)
            button.clicked.connect(lambda _checked, key=one.key: self.chosen.emit(key))
            self._group.addButton(button)
            self.buttons[one.key] = button
            row.addWidget(button, 1)
        self.set_maps(maps_of(None))

    def set_maps(self, maps: Sequence[Map]) -> None:
        """Enable those that can be shown."""
        by_key = {one.key: one for one in maps}
        for key, button in self.buttons.items():
            one = by_key.get(key)
            reason = "predict genes first" if one is None else one.reason
            button.setEnabled(not reason)
            told = button.text() if one is None else one.title
            button.setToolTip(literal(f"{told}: {reason}" if reason else f"{told}; in the canvas {_KEYS[key]}"))

    def select(self, key: str | None) -> None:
        """Mark a map, or none where none is shown or it is no gene's, without telling."""
        self._group.setExclusive(False)
        for name, button in self.buttons.items():
            button.setChecked(name == key)
        self._group.setExclusive(True)
