"""napari's sign that something is at work, kept from slowing that work down."""

from __future__ import annotations

from qtpy.QtWidgets import QLabel, QMainWindow

#: Of napari's 33 pictures a second: three are seen to turn as well.
_SPEED_PERCENT = 10


def calm(window: QMainWindow) -> None:
    """Let the turning sign in the status bar turn slowly, and take its room from the beginning.

    With each of its pictures Qt puts the whole window together anew, which without a graphics card takes a good part
    of two cores from a prediction; and when it appears the status bar grows by a px, and all else is laid out anew.

    Parameters
    ----------
    window
        The window of a viewer.
    """
    for label in window.statusBar().findChildren(QLabel):
        movie = label.movie()
        if movie is not None:
            movie.setSpeed(_SPEED_PERCENT)
            label.setMinimumSize(movie.scaledSize())
