"""A file that a prediction fills as it goes, for a viewer that shows it meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILLING = "filling.npy"
#: How often what is predicted so far is to be shown, and for how long a prediction then waits, in seconds.
_EVERY_S, _DRAWING_S = 2.0, 0.1


class Filling:
    """Expression on its way: (genes, spots) float32, NaN where nothing is predicted yet.

    A gene's values follow one another, so that a viewer reads one gene without the others; each value is written once.

    Parameters
    ----------
    folder
        Of the job.
    genes
        The genes that are predicted.
    spots
        How many spots the slide has, also those that are not going to be predicted.
    """

    def __init__(self, folder: Path, genes: Sequence[str], spots: int) -> None:
        self.genes = list(genes)
        shape = (len(self.genes), spots)
        self._values = np.lib.format.open_memmap(folder / FILLING, mode="w+", dtype=np.float32, shape=shape)
        self._values[:] = np.nan

    @property
    def told(self) -> dict[str, Any]:
        """What the job's event says of it."""
        return {"file": FILLING, "genes": self.genes}

    def put(self, spots: NDArray[np.intp], expression: NDArray[np.float32]) -> None:
        """Write the (n, genes) expression of n spots, which are told by their place in the slide."""
        self._values[:, spots] = expression.T


def read_filling(path: Path) -> NDArray[np.float32]:
    """Return (spots, genes) of what is there of a filling, which goes on changing.

    Raises
    ------
    OSError, ValueError
        If the file is gone, or is not whole.
    """
    values: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False).T
    return values


def show_meanwhile(
    progress: Callable[[int, int], None], report: Callable[[str, dict[str, Any]], None], *, wait: bool
) -> Callable[[int, int], None]:
    """Return what tells how far a prediction is, and now and then that there is more of it to be seen.

    Parameters
    ----------
    progress
        What tells how far it is.
    report
        Takes the event "filled".
    wait
        Whether the prediction then waits a moment, in which a window draws that. One that is drawn without a graphics
        card needs every core: beside a prediction on the same cores it would be held up for twice as long.
    """
    shown = -math.inf

    def tell(done: int, total: int) -> None:
        nonlocal shown
        progress(done, total)
        if done < total and time.monotonic() - shown >= _EVERY_S:
            report("filled", {"spots": done})
            if wait:
                time.sleep(_DRAWING_S)
            shown = time.monotonic()

    return tell
