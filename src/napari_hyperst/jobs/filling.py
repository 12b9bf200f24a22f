"""A file that a prediction fills as it goes, for a viewer that shows it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILLING = "filling.npy"


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
