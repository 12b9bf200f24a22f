from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_hyperst.viewer.map_values import MapValues
from napari_hyperst.viewer.maps import NO_COUNTS, maps_of, robust_limits, values_of

PERCENTILES = (1.0, 99.0)


def with_values(table: AnnData, predicted: np.ndarray, measured: np.ndarray) -> AnnData:
    """Return the table with the first gene's values."""
    table = table.copy()
    table.X[:, 0] = predicted
    table.layers["measured"][:, 0] = measured
    return table


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
def test_limits_are_finite_and_apart_whatever_the_values(values: np.ndarray) -> None:
    low, high = robust_limits(values, PERCENTILES)
    assert np.isfinite([low, high]).all()
    assert np.float32(low) < np.float32(high)


@pytest.mark.parametrize("percentiles", [(0, 100), (0, 99.5), (1, 99), (25, 50.5)])
@pytest.mark.parametrize("kind", ["skewed", "counts", "one value", "sorted", "periodic", "few large"])
def test_limits_of_many_values_are_numpys_percentiles(kind: str, percentiles: tuple[float, float]) -> None:
    rng, n = np.random.default_rng(0), 250_001
    values = {
        "skewed": rng.gamma(2.0, 1.0, n),
        "counts": rng.poisson(0.7, n),
        "one value": np.r_[-1.0, np.zeros(n - 2), 1.0],
        "sorted": np.linspace(-5, 3, n),
        "periodic": np.arange(n) % 25 * 1.0,  # of which a sample at equal steps knows one
        "few large": np.where(np.arange(n) % 997 == 0, 1e6, rng.random(n)),
    }[kind].astype(np.float32)
    expected = np.percentile(values, percentiles, method="nearest")
    if expected[0] < expected[1]:
        assert robust_limits(values, percentiles) == tuple(expected)
    else:
        assert robust_limits(values, percentiles) == (values.min(), values.max())


def test_limits_are_numpys_percentiles() -> None:
    values = np.random.default_rng(0).normal(size=1000)
    expected = tuple(np.percentile(values, [5, 90]))
    assert robust_limits(values, (5, 90)) == expected
    assert robust_limits(np.append(values, [np.nan, np.inf]), (5, 90)) == expected


def test_one_outlier_does_not_take_the_colours() -> None:
    assert robust_limits(np.append(np.linspace(0, 1, 999), 1e6), PERCENTILES)[1] < 1.01


def test_a_gene_that_hardly_a_spot_has_spans_its_values() -> None:
    assert robust_limits(np.append(np.zeros(999), 3.0), PERCENTILES) == (0.0, 3.0)


def test_all_zero_spans_a_unit() -> None:
    assert robust_limits(np.zeros(10), PERCENTILES) == (0.0, 1.0)
    assert robust_limits(np.full(10, np.nan), PERCENTILES) == (0.0, 1.0)


def test_measured_and_predicted_share_one_scale(tiny_table: AnnData) -> None:
    gene = tiny_table.var_names[0]
    n = tiny_table.n_obs
    table = with_values(tiny_table, np.linspace(1, 2, n), np.linspace(3, 6, n))
    scale = MapValues(table).limits("predicted", (gene,), (0, 100))
    assert scale == MapValues(table).limits("measured", (gene,), (0, 100)) == (1.0, 6.0)


def test_limits_follow_a_prediction_as_it_fills_in_when_its_spots_have_doubled(tiny_table: AnnData) -> None:
    gene, n = tiny_table.var_names[0], tiny_table.n_obs
    table = with_values(tiny_table, np.zeros(n), np.full(n, np.nan))
    del table.layers["measured"]
    values, written = MapValues(table), np.linspace(1, 9, n)
    found = []
    for spots in (2, 3, 4, 7, 8):
        table.X[:spots] = written[:spots, None]
        values.fill(spots)
        assert values.of("predicted", (gene,))[spots - 1] == pytest.approx(written[spots - 1])
        found.append(values.limits("predicted", (gene,), (0, 100))[1])
    assert found == pytest.approx([written[1], written[1], written[3], written[3], written[7]])


def test_zero_is_amid_a_difference(tiny_table: AnnData) -> None:
    gene, n = tiny_table.var_names[0], tiny_table.n_obs
    table = with_values(tiny_table, np.zeros(n), np.linspace(0, 4, n))
    assert values_of(table, "difference", (gene,)).min() == -4
    assert MapValues(table).limits("difference", (gene,), (0, 100)) == (-4.0, 4.0)
    same = with_values(tiny_table, np.ones(n), np.ones(n))
    assert MapValues(same).limits("difference", (gene,), PERCENTILES) == (-1.0, 1.0)


def test_violations_are_in_degrees_and_never_less_than_one_wide(tiny_table: AnnData) -> None:
    table = tiny_table.copy()
    key = next(column for column in table.obs if column.startswith("violation_"))
    table.obs[key] = np.float32(np.pi / 6)
    assert values_of(table, key, ()) == pytest.approx(np.full(table.n_obs, 30.0))
    table.obs[key] = np.float32(0)
    assert MapValues(table).limits(key, (), PERCENTILES) == (0.0, 1.0)


def test_all_maps_are_listed_and_those_that_need_counts_say_so(tiny_table: AnnData) -> None:
    assert all(not found.reason for found in maps_of(tiny_table))
    keys = [found.key for found in maps_of(tiny_table)]
    assert len(keys) == len(set(keys)) == 3 + 4 + 4
    bare = tiny_table.copy()
    del bare.layers["measured"]
    genes = [column for column in bare.obs if "gene" in column]
    bare.obs = bare.obs.drop(columns=genes)
    reasons = {found.key: found.reason for found in maps_of(bare)}
    assert list(reasons) == keys
    assert {key for key, reason in reasons.items() if reason == NO_COUNTS} == {
        "measured", "difference", "norm_spot_gene", "norm_niche_gene",
        "violation_spot_image__spot_gene", "violation_niche_image__niche_gene", "violation_spot_gene__niche_gene",
    }  # fmt: skip
    assert set(reasons.values()) == {"", NO_COUNTS}
    assert {found.reason for found in maps_of(None)} == {"predict genes first"}


def test_a_gene_is_asked_for_by_name(tiny_table: AnnData) -> None:
    assert values_of(tiny_table, "predicted", ("FASN",)).dtype == np.float32
    np.testing.assert_array_equal(values_of(tiny_table, "predicted", ("FASN",)), tiny_table[:, "FASN"].X.ravel())
    with pytest.raises(ValueError, match="which gene"):
        values_of(tiny_table, "predicted", ())
