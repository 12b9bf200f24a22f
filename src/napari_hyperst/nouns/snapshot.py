"""What a training run predicts on its validation spots after an epoch: one small file, replaced in place."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.errors import StoreError

#: Its name in the folder of a run.
SNAPSHOT = "validation.npz"
#: The most numbers of either kind that are written, 16 MiB: of more, spots are left out evenly.
MOST_NUMBERS = 8_388_608
_ARRAYS = ("slide", "ids", "genes", "predicted", "measured")


@dataclass(frozen=True)
class ValidationSnapshot:
    """Predicted and measured expression of validation spots.

    Attributes
    ----------
    epoch
        After which epoch.
    slides
        Paths of the validation slides, as the run's settings have them.
    slide
        (n,) which of them a spot is on.
    ids
        (n,) ids of the spots.
    genes
        (G,) the panel.
    predicted, measured
        (n, G) float16 log2(count + 1); measured is NaN for a gene that a spot's slide lacks.
    """

    epoch: int
    slides: tuple[str, ...]
    slide: NDArray[np.int32]
    ids: NDArray[np.str_]
    genes: NDArray[np.str_]
    predicted: NDArray[np.float16]
    measured: NDArray[np.float16]

    def write(self, folder: Path) -> None:
        """Put it in the place of the last one; readers see either, whole.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        every = max(1, -(-self.predicted.size // MOST_NUMBERS))
        arrays: dict[str, Any] = {"slide": self.slide, "ids": self.ids}
        arrays |= {"predicted": self.predicted, "measured": self.measured}
        arrays = {name: values[::every] for name, values in arrays.items()}
        staged = folder / f".{SNAPSHOT}-{os.getpid()}"
        try:
            with staged.open("wb") as file:
                np.savez(file, epoch=self.epoch, slides=np.array(self.slides), genes=self.genes, **arrays)
            os.replace(staged, folder / SNAPSHOT)
        finally:
            staged.unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> ValidationSnapshot:
        """Read the one in the folder of a run; no pickle is loaded.

        Raises
        ------
        StoreError
            If there is none, or it is broken.
        """
        try:
            with np.load(folder / SNAPSHOT, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS}
                return cls(int(file["epoch"]), tuple(map(str, file["slides"])), **arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError(f"is no snapshot ({error})", where=folder / SNAPSHOT, do="wait for an epoch") from error

    def values(self, gene: str, kind: str) -> NDArray[np.float32]:
        """Return (n,) ``"predicted"`` or ``"measured"`` values of a gene."""
        column = int(np.flatnonzero(self.genes == gene)[0])
        return np.asarray((self.predicted if kind == "predicted" else self.measured)[:, column], dtype=np.float32)
