"""A progress bar that does not hold the window up."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar


class Bar(QProgressBar):
    """A progress bar that is drawn when the event loop is free.

    Qt's draws the whole window there and then when its value is set, and so napari's canvas once more.
    """

    def show_progress(self, done: int, total: int) -> None:
        """Show how much is done of how much; a total of 0 is one that is not known yet.

        Parameters
        ----------
        done, total
            In the same unit.
        """
        self.setUpdatesEnabled(False)
        self.setRange(0, total)
        self.setValue(done)
        self.setUpdatesEnabled(True)
