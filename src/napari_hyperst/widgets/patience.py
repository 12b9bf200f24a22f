"""How long a run that was asked to stop is waited for."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QObject, QTimer

from napari_hyperst.jobs.runs import RunFollower


class Patience(QObject):
    """Terminates and then kills the process of a run that does not hear, so that none is left at work unasked.

    Parameters
    ----------
    parent
        Qt parent.
    """

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._timers: list[QTimer] = []

    def begin(self, run: RunFollower | None, times_ms: tuple[int, int]) -> None:
        """Wait for a run's process to end.

        Parameters
        ----------
        run
            The run.
        times_ms
            After how long to terminate it, and to kill it, in ms.
        """
        if run is None:
            return
        for kill, ms in enumerate(times_ms):
            timer = QTimer(self)
            timer.setSingleShot(True)
            timer.timeout.connect(partial(_end, run, bool(kill)))
            timer.start(ms)
            self._timers.append(timer)

    def end(self) -> None:
        """Wait no longer."""
        for timer in self._timers:
            timer.stop()
            timer.deleteLater()
        self._timers.clear()


def _end(run: RunFollower, kill: bool) -> None:
    if run.alive:
        run.end(kill=kill)
