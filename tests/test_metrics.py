from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr

from napari_hyperst.nouns.metrics import error_by_gene, pearson_by_gene, summarise


@pytest.fixture
def tables() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    measured = rng.poisson(3, (60, 12)).astype(np.float32)
    predicted = measured * rng.uniform(-0.2, 1, 12) + rng.normal(size=(60, 12))
    return predicted.astype(np.float32), measured


def test_correlation_is_scipys(tables) -> None:
    """METHODS 10.12."""
    predicted, measured = tables
    wanted = [pearsonr(p, m).statistic for p, m in zip(predicted.T, measured.T, strict=True)]
    np.testing.assert_allclose(pearson_by_gene(predicted, measured), wanted, rtol=1e-5)


def test_unmeasured_spots_and_genes_are_left_out(tables) -> None:
    predicted, measured = tables
    measured[:10] = np.nan
    measured[:, 3] = np.nan
    by_gene = pearson_by_gene(predicted, measured)
    assert np.isnan(by_gene[3])
    assert by_gene[0] == pytest.approx(pearsonr(predicted[10:, 0], measured[10:, 0]).statistic, rel=1e-5)
    assert np.isnan(error_by_gene(predicted, measured)[3])
    assert summarise(predicted, measured)["constant_genes"] == 0


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_constant_genes_count_as_zero_and_are_told(tables, constant: float) -> None:
    """METHODS 10.12: NaN, and 0 in the mean."""
    predicted, measured = tables
    measured[:, 5] = constant
    by_gene = pearson_by_gene(predicted, measured)
    assert np.isnan(by_gene[5])
    summary = summarise(predicted, measured)
    assert summary["constant_genes"] == 1
    assert summary["pcc"] == pytest.approx(np.nan_to_num(by_gene).mean())


def test_pcc_at_k_takes_the_k_largest(tables) -> None:
    """METHODS 10.12."""
    predicted, measured = tables
    by_gene = sorted(pearson_by_gene(predicted, measured), reverse=True)
    summary = summarise(predicted, measured)
    assert summary["pcc@10"] == pytest.approx(np.mean(by_gene[:10]))
    assert summary["pcc@50"] == pytest.approx(np.mean(by_gene))
    assert summary["mse"] == pytest.approx(((predicted - measured) ** 2).mean(), rel=1e-5)
    assert summary["mae"] == pytest.approx(np.abs(predicted - measured).mean(), rel=1e-5)
