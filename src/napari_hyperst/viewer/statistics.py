"""Numbers behind the plots: a fitted line, and counts in bins, for half a million spots within a blink."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Line:
    """The least-squares line of y over x.

    Attributes
    ----------
    n
        How many pairs there are of which both are finite.
    pcc
        Pearson's correlation; NaN where x or y is constant.
    slope, intercept
        Of the line; NaN where x is constant.
    """

    n: int
    pcc: float
    slope: float
    intercept: float

    @classmethod
    def fit(cls, x: NDArray[Any], y: NDArray[Any]) -> Line:
        """Fit a line; pairs with a number that is not finite are left out.

        Parameters
        ----------
        x, y
            (n,) numbers.
        """
        there = np.isfinite(x) & np.isfinite(y)
        x, y = (np.asarray(values[there], dtype=np.float64) for values in (x, y))
        n, nan = len(x), float("nan")
        if n < 2:
            return cls(n, nan, nan, nan)
        middle_x, middle_y = float(x.mean()), float(y.mean())
        dx, dy = x - middle_x, y - middle_y
        xx, yy, xy = (float(a @ b) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
        # What is left of a constant after its mean is taken off is rounding.
        flat_x, flat_y = (
            square <= n * (1e-12 * max(1.0, abs(m))) ** 2 for square, m in ((xx, middle_x), (yy, middle_y))
        )
        slope = nan if flat_x else xy / xx
        pcc = nan if flat_x or flat_y else xy / (np.sqrt(xx) * np.sqrt(yy))
        return cls(n, pcc, slope, middle_y - slope * middle_x)


@dataclass(frozen=True)
class Grid:
    """Square bins over a rectangle.

    Attributes
    ----------
    low, high
        (x, y) of two corners.
    bins
        How many bins a side has.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    bins: int = 100

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top, as matplotlib asks for it."""
        return self.low[0], self.high[0], self.low[1], self.high[1]

    def count(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """Return (bins, bins), rows from the bottom: how many points each bin has; others are passed over."""
        return self._sum(x, y, None)

    def mean(self, x: NDArray[Any], y: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
        """Return (bins, bins), rows from the bottom: the mean of the finite values in each bin; NaN where none is."""
        there = np.isfinite(values)
        x, y, values = x[there], y[there], values[there]
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._sum(x, y, values) / self._sum(x, y, None)

    def _sum(self, x: NDArray[Any], y: NDArray[Any], weights: NDArray[Any] | None) -> NDArray[np.float64]:
        places = []
        inside = np.ones(len(x), dtype=bool)
        for values, low, high in zip((x, y), self.low, self.high, strict=True):
            with np.errstate(invalid="ignore"):
                inside &= (values >= low) & (values <= high)
            place = (np.nan_to_num(values) - low) * (self.bins / (high - low))
            places.append(np.minimum(np.clip(place, 0, self.bins).astype(np.intp), self.bins - 1))
        flat = (places[1] * self.bins + places[0])[inside]
        told = None if weights is None else weights[inside]
        return np.bincount(flat, told, self.bins**2).astype(np.float64).reshape(self.bins, self.bins)
