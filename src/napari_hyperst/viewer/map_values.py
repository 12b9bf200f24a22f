"""What the maps of a prediction show: values and the limits of their colours, each worked out once for a gene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from napari_hyperst.viewer.maps import Values, robust_limits, values_of

if TYPE_CHECKING:
    from anndata import AnnData

#: The colours of violations span at least a degree, so that rounding errors do not look like violations.
_LEAST_VIOLATION = 1.0


class MapValues:
    """The values of a prediction's maps for the genes that were asked for last.

    Maps beside each other share values and limits; of half a million bins these take most of the time of a change of
    gene.

    Parameters
    ----------
    table
        The prediction's table, whose values do not change but as ``fill`` tells.
    """

    def __init__(self, table: AnnData) -> None:
        self._table = table
        self._genes: tuple[str, ...] = ()
        self._values: dict[str, Values] = {}
        self._limits: dict[tuple[str, float, float], tuple[float, float]] = {}
        self._spots = 0  # predicted when the limits were found

    def fill(self, spots: int) -> None:
        """Look at the values anew, now that more is predicted, and at the limits when that is twice as much as before.

        Colours that flickered with every spot could not be compared, and each time napari draws the canvas twice for
        the colour bar.

        Parameters
        ----------
        spots
            How many spots are predicted.
        """
        self._values.clear()
        if spots >= 2 * self._spots:
            self._limits.clear()
            self._spots = spots

    def of(self, key: str, genes: Sequence[str]) -> Values:
        """Return a map's values, as ``values_of`` does; they are not to be changed.

        Parameters
        ----------
        key, genes
            The map.
        """
        self._begin(genes)
        if key not in self._values:
            self._values[key] = self._work_out(key, genes)
        return self._values[key]

    def limits(self, key: str, genes: Sequence[str], percentiles: tuple[float, float]) -> tuple[float, float]:
        """Return the limits of a map's colours: one scale for measured and predicted, zero amid a difference's.

        Parameters
        ----------
        key, genes
            The map.
        percentiles
            Lower and upper percentile of the values that get the first and the last colour.
        """
        self._begin(genes)
        known = ("expression" if key in ("predicted", "measured") else key, *percentiles)
        if known not in self._limits:
            self._limits[known] = self._find_limits(key, genes, percentiles)
        return self._limits[known]

    # -- within

    def _begin(self, genes: Sequence[str]) -> None:
        """Forget what is known of other genes."""
        if self._genes != tuple(genes):
            self._genes = tuple(genes)
            self._values.clear()
            self._limits.clear()

    def _work_out(self, key: str, genes: Sequence[str]) -> Values:
        if key == "difference" and len(genes) == 1:
            return self.of("predicted", genes) - self.of("measured", genes)
        return values_of(self._table, key, genes)

    def _find_limits(self, key: str, genes: Sequence[str], percentiles: tuple[float, float]) -> tuple[float, float]:
        if key in ("predicted", "measured"):
            kinds = ("predicted", "measured") if "measured" in self._table.layers else ("predicted",)
            return robust_limits(np.concatenate([self.of(kind, genes) for kind in kinds]), percentiles)
        values = self.of(key, genes)
        if key == "difference":
            _, most = robust_limits(np.abs(values), (0.0, percentiles[1]))
            return -most, most
        if key.startswith("violation_"):
            return 0.0, max(robust_limits(values, percentiles)[1], _LEAST_VIOLATION)
        return robust_limits(values, percentiles)
