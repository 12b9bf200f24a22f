"""Pages behind tabs, in a panel that has little height to give."""

from __future__ import annotations

from qtpy.QtCore import QSize
from qtpy.QtWidgets import QTabWidget


class Tabs(QTabWidget):
    """Tabs that are content with the least height of their pages: what scrolls gives each widget what it likes best."""

    def hasHeightForWidth(self) -> bool:
        """Return that the height does not follow from the width."""
        return False

    def sizeHint(self) -> QSize:
        """Return the least size."""
        return self.minimumSizeHint()
