"""What is known of the genes of a prediction: other names, how well each is predicted, how much it varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.viewer.filling import is_filling

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide

#: The variance is taken over so many values at most, of spots that are evenly spaced, so that no window waits for it.
_MOST_VALUES = 20_000_000


@dataclass(frozen=True, eq=False)
class Genes:
    """The genes of a prediction, in its order.

    Attributes
    ----------
    names
        (G,) as they are predicted.
    others
        (G,) other names of each, such as Ensembl ids, a line each; empty where none are known.
    pcc
        (G,) Pearson's correlation of predicted with measured over the spots; NaN where nothing was measured.
    variance
        (G,) of the predicted log2(count + 1) over the spots.
    """

    names: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    pcc: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    variance: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def first(self) -> str:
        """The gene to show first: the one predicted best or, where nothing was measured, that varies most."""
        for told in (self.pcc, self.variance):
            if np.isfinite(told).any():
                return self.names[int(np.nanargmax(told))]
        return self.names[0]

    def find(self, wanted: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Find genes by any of their names, whatever the case of the letters.

        Parameters
        ----------
        wanted
            Symbols or ids.

        Returns
        -------
        tuple
            The names of those that are there, as they are predicted, and of those that are missing, as they were asked
            for.
        """
        found = {gene: self._by_name.get(gene.lower()) for gene in wanted}
        there = dict.fromkeys(name for name in found.values() if name is not None)
        return tuple(there), tuple(gene for gene, name in found.items() if name is None)

    @cached_property
    def _by_name(self) -> dict[str, str]:
        known: dict[str, str] = {}
        for name, more in zip(self.names, self.others, strict=True):
            for other in more.lower().splitlines():
                known.setdefault(other, name)
        return known | {name.lower(): name for name in self.names}


def genes_of(table: AnnData, slide: Slide) -> Genes:
    """Return the genes of a prediction.

    Parameters
    ----------
    table
        The prediction's table.
    slide
        The slide as it was when it was predicted.
    """
    names = tuple(map(str, table.var_names))
    if is_filling(table):
        unknown = np.full(len(names), np.nan)
        return Genes(names, _others(slide, names), unknown, unknown)
    pcc = np.asarray(table.var["pcc"], dtype=np.float64) if "pcc" in table.var else np.full(len(names), np.nan)
    return Genes(names, _others(slide, names), pcc, _variance(table))


def _others(slide: Slide, names: Sequence[str]) -> tuple[str, ...]:
    columns = slide.gene_columns
    if columns is None:
        return ("",) * len(names)
    known = columns.aliases
    found = columns.find(names).tolist()
    return tuple(
        "\n".join(dict.fromkeys(one[column] for one in known if one[column] != name)) if column >= 0 else ""
        for name, column in zip(names, found, strict=True)
    )


def _variance(table: AnnData) -> NDArray[np.float64]:
    matrix: Any = table.X
    step = -(-table.n_obs * table.n_vars // _MOST_VALUES)
    with np.errstate(invalid="ignore"):
        return np.var(np.asarray(matrix[:: max(step, 1)]), axis=0, dtype=np.float64)
