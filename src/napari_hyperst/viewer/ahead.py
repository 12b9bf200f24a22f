"""What napari imports with the first image of a process, imported ahead, in a thread.

napari asks xarray whether data are its own, and scipy for a thumbnail: that is seconds of imports at the moment when a
picture is there to be shown, and they hold the window.
"""

from __future__ import annotations

import threading
from functools import cache

import numpy as np


def wait() -> None:
    """Return when it is imported; begins it, if nobody did."""
    begin().join()


def read_units() -> None:
    """Have the units read that napari's layers are placed in, in the main thread, before other threads make any.

    pint reads them when they are first asked for. Where two threads do so at once, they are unknown from then on.
    """
    from napari.utils.transforms import Affine

    Affine()


@cache
def begin() -> threading.Thread:
    """Begin, if nobody did, and do not wait."""
    read_units()
    thread = threading.Thread(target=_make_an_image, name="napari-hyperst-ahead")
    thread.start()
    return thread


def _make_an_image() -> None:
    from napari.layers import Image

    Image(np.zeros((1, 1, 3), np.uint8), rgb=True)
