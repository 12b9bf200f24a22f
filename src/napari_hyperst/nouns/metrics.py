"""Agreement of predicted with measured expression, in numpy: usable by trainer, prediction and evaluation alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: The k of PCC@k that HyperST and Stem report.
PCC_AT = (10, 50, 200)


def pearson_by_gene(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each gene's Pearson correlation over all spots.

    Parameters
    ----------
    predicted, measured
        (n, G) on the same scale; rows with a NaN measurement are left out, gene by gene.

    Returns
    -------
    NDArray
        (G,); NaN for a gene that is constant, or measured on fewer than two spots.
    """
    predicted, measured = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    there = np.isfinite(measured)
    count = there.sum(axis=0)
    x = np.where(there, predicted, 0.0)
    y = np.where(there, measured, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = np.where(there, x - x.sum(axis=0) / count, 0.0)
        y = np.where(there, y - y.sum(axis=0) / count, 0.0)
        scale = np.sqrt((x**2).sum(axis=0)) * np.sqrt((y**2).sum(axis=0))
        # What is left of a constant after its mean is taken off is rounding.
        tiny = 1e-12 * count * np.maximum(np.abs(measured).max(axis=0, where=there, initial=0), 1)
        return np.where((scale > tiny) & (count > 1), (x * y).sum(axis=0) / scale, np.nan)


def error_by_gene(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return each gene's mean squared error over the spots where it was measured; (G,), NaN where it never was."""
    squared = (np.asarray(predicted, np.float64) - np.asarray(measured, np.float64)) ** 2
    there = np.isfinite(squared)
    with np.errstate(invalid="ignore"):
        return np.where(there, squared, 0.0).sum(axis=0) / there.sum(axis=0)


def summarise(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> dict[str, float]:
    """Summarise agreement over all genes that were measured.

    Parameters
    ----------
    predicted, measured
        (n, G) log2(count + 1); NaN where not measured.

    Returns
    -------
    dict
        ``pcc`` mean over genes with NaN as 0; ``pcc@k`` mean of the k largest, chosen on these very spots as
        HyperST and Stem do, so optimistic; ``constant_genes`` how many had no correlation; ``mse`` and ``mae``.
    """
    genes = np.isfinite(measured).any(axis=0)
    predicted, measured = np.asarray(predicted, np.float64)[:, genes], np.asarray(measured, np.float64)[:, genes]
    by_gene = pearson_by_gene(predicted, measured)
    filled = np.sort(np.nan_to_num(by_gene))[::-1]
    result = {"pcc": float(filled.mean())}
    result |= {f"pcc@{k}": float(filled[:k].mean()) for k in PCC_AT}
    difference = predicted - measured
    result["mse"] = float(np.nanmean(difference**2))
    result["mae"] = float(np.nanmean(np.abs(difference)))
    result["constant_genes"] = int(np.isnan(by_gene).sum())
    return result
