"""Python's garbage collector, held back while a slide is predicted.

It looks through the half million objects of napari and of what reads slides, which takes a third of a second in which
the window is still. What was there when a job began it passes over until the last job has ended, also what is closed
meanwhile; what came since then it looks at. A training run takes hours, and is not waited for.
"""

from __future__ import annotations

import gc
from weakref import WeakSet

_WATCHING: WeakSet[object] = WeakSet()


def hold_back(who: object) -> None:
    """Hold it back for somebody who watches a job."""
    if not _WATCHING:
        gc.freeze()
    _WATCHING.add(who)


def let_go(who: object) -> None:
    """Hold it back no longer for somebody, and let it go if nobody else watches a job."""
    if who in _WATCHING:
        _WATCHING.discard(who)
        if not _WATCHING:
            gc.unfreeze()
