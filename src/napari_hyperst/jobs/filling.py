"""A file that a prediction fills as it goes, for a viewer that shows it meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILLING = "filling.npy"
#: For how many seconds at most, and for what share of the time, a prediction leaves the processor to who watches it.
_PAUSE_S, _PAUSE_SHARE = 0.15, 0.05


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


def leave_time(progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Return what tells how far a prediction is, and then pauses for a moment, in which a window draws that.

    A window that is drawn without a graphics card needs every core: beside a prediction on the same cores it would be
    held up for twice as long.
    """
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        progress(done, total)
        if done < total:
            time.sleep(min(_PAUSE_S, _PAUSE_SHARE * (time.monotonic() - last)))
        last = time.monotonic()

    return tell
