"""Genes of a table of counts, found by symbol or Ensembl id, and their columns, found at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

#: Columns of ``var`` in which readers and public tables keep a gene's other name.
_OTHER_NAMES = (
    "gene_ids", "gene_id", "ensembl_id", "ensembl", "gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol",
    "symbols", "feature_name", "SYMBOL",
)  # fmt: skip
_VERSION = re.compile(r"(ENS[A-Z]*G\d+)\.\d+$")
#: For no more genes than this at a time, columns are worth having by themselves.
_FEW = 16


class GeneColumns:
    """The columns of a table of counts by gene; nothing is computed until it is asked for.

    Parameters
    ----------
    counts
        The table; not changed, and not copied but for one copy of the counts by column, made when the columns of a
        few genes are first asked for.
    """

    def __init__(self, counts: AnnData) -> None:
        self._counts = counts

    def find(self, genes: Sequence[str]) -> NDArray[np.intp]:
        """Find genes by name: as the table names them, else by symbol or Ensembl id, whatever the id's version.

        Parameters
        ----------
        genes
            Symbols or Ensembl ids.

        Returns
        -------
        NDArray
            (G,) columns; -1 for a gene that is not there. Of genes that share another name, the first.
        """
        wanted = pd.Index(list(genes), dtype=object)
        found = self._counts.var_names.get_indexer(wanted)
        if (found < 0).any():
            for names in self._others:
                missing = np.flatnonzero(found < 0)
                found[missing] = names.reindex([without_version(gene) for gene in wanted[missing]], fill_value=-1)
        return found.astype(np.intp)

    def block(self, columns: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return (spots, G) float32 counts of some columns, in the order of the table's rows."""
        if len(columns) > _FEW:
            return np.asarray(self._by_row[:, columns].toarray(), dtype=np.float32)
        by_column = self._by_column
        values = np.zeros((by_column.shape[0], len(columns)), dtype=np.float32)
        for i, column in enumerate(columns):
            there = slice(by_column.indptr[column], by_column.indptr[column + 1])
            values[by_column.indices[there], i] = by_column.data[there]
        return values

    @cached_property
    def _others(self) -> list[pd.Series]:
        """Other names of genes and the table's own without versions, each as a series of columns."""
        var = self._counts.var
        names = [pd.Index(self._counts.var_names), *(pd.Index(var[c].astype(str)) for c in _OTHER_NAMES if c in var)]
        series = [pd.Series(np.arange(len(one)), index=[without_version(str(name)) for name in one]) for one in names]
        return [one[~one.index.duplicated()] for one in series]

    @property
    def _by_row(self) -> Any:
        return as_sparse(self._counts)

    @cached_property
    def _by_column(self) -> sparse.csc_matrix:
        return sparse.csc_matrix(self._by_row)


def without_version(gene: str) -> str:
    """Take the version off an Ensembl id of a gene; other names stay as they are."""
    found = _VERSION.fullmatch(gene)
    return gene if found is None else found.group(1)


def as_sparse(counts: AnnData) -> Any:
    """Return the counts as a sparse matrix, by row where they were not sparse."""
    return counts.X if sparse.issparse(counts.X) else sparse.csr_matrix(np.asarray(counts.X))
