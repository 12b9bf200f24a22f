"""Numbers behind the plots, against scipy and numpy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binned_statistic_2d, linregress

from napari_hyperst.viewer.statistics import Grid, Line

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_line_is_scipys(offset: float, dtype: type) -> None:
    x = (RANDOM.normal(size=300) + offset).astype(dtype)
    y = (0.3 * x + RANDOM.normal(size=300)).astype(dtype)
    line, theirs = Line.fit(x, y), linregress(x.astype(float), y.astype(float))
    assert line.n == 300
    np.testing.assert_allclose((line.pcc, line.slope), (theirs.rvalue, theirs.slope), rtol=1e-9)
    np.testing.assert_allclose(line.intercept, theirs.intercept, rtol=1e-7, atol=1e-9)


def test_what_is_not_finite_is_left_out() -> None:
    x = np.array([0, 1, 2, 3, np.nan, 5], dtype=np.float32)
    y = np.array([1, 3, 5, 7, 2, np.inf], dtype=np.float32)
    assert Line.fit(x, y) == Line(4, pytest.approx(1.0), 2.0, 1.0)


@pytest.mark.parametrize(
    ("x", "y", "slope"),
    [([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], np.nan), ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], 0.0), ([1.0], [1.0], np.nan)],
)
def test_a_constant_gene_has_no_correlation(x: list[float], y: list[float], slope: float) -> None:
    line = Line.fit(np.array(x), np.array(y))
    assert np.isnan(line.pcc)
    np.testing.assert_allclose(line.slope, slope, atol=1e-12)


def test_bins_are_numpys_and_their_means_scipys() -> None:
    x, y, values = RANDOM.normal(size=(3, 5000))
    values[::7] = np.nan
    grid = Grid((-2.0, -1.0), (1.5, 3.0), bins=17)
    theirs = np.histogram2d(x, y, bins=17, range=[(-2.0, 1.5), (-1.0, 3.0)])[0].T
    np.testing.assert_array_equal(grid.count(x, y), theirs)
    there = np.isfinite(values)
    mean = binned_statistic_2d(
        x[there], y[there], values[there], "mean", bins=17, range=[(-2.0, 1.5), (-1.0, 3.0)]
    ).statistic.T
    np.testing.assert_allclose(grid.mean(x, y, values), mean, rtol=1e-12)
    holed = np.append(x, np.nan)
    np.testing.assert_array_equal(grid.count(holed, np.append(y, 0.0)), theirs)
