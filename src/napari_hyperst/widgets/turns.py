"""What would hold the window, in turns of the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from qtpy.QtCore import QTimer

#: Between two turns, in ms: what one has changed is drawn before the next.
_BETWEEN_MS = 20
_END = object()


def in_turns(steps: Iterator[None], then: Callable[[], object]) -> None:
    """Do the first of some steps now, and each other in a turn of the event loop of its own.

    Parameters
    ----------
    steps
        What goes on to the next step when it is asked.
    then
        Done last, in a turn of its own; also where a step raised an error.
    """
    left = False
    try:
        left = next(steps, _END) is not _END
    finally:
        QTimer.singleShot(_BETWEEN_MS, partial(in_turns, steps, then) if left else then)
