"""Columns of widgets with lines that wrap."""

from __future__ import annotations

from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QScrollArea, QWidget


class Tall(QWidget):
    """A widget as high as its wrapped lines need at its width: Qt's layouts alone would squeeze what is below them."""

    def event(self, event: QEvent) -> bool:
        """Be high enough after what is in it, or its width, has changed."""
        handled = bool(super().event(event))
        if event.type() in (QEvent.Type.LayoutRequest, QEvent.Type.Resize) and self.layout() is not None:
            height = self.layout().totalHeightForWidth(self.width())
            if height > 0 and height != self.minimumHeight():
                self.setMinimumHeight(height)
        return handled


def scrolling(inside: QWidget) -> QScrollArea:
    """Return a frameless area in which a widget scrolls up and down."""
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QScrollArea.Shape.NoFrame)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setWidget(inside)
    return scroll
