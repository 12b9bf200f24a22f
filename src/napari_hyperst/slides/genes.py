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

#: Columns of ``var``, in lower case, in which readers and public tables keep a gene's id, or its symbol.
_IDS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "ensemblid", "feature_id")
_SYMBOLS = ("gene_name", "gene_names", "gene_symbol", "gene_symbols", "symbol", "symbols", "feature_name")
_ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{6,})(\.\d+)?")
#: What tables write where they have no name.
_NO_NAMES = ("", "nan", "None", "<NA>", "NA")
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

    @cached_property
    def symbols(self) -> NDArray[np.object_]:
        """(genes,) symbols, where the table knows them; else its own names of the genes."""
        names = self._counts.var_names.to_numpy(dtype=object)
        for column in self._columns_called(_SYMBOLS):
            return np.where([is_ensembl(str(name)) for name in names], column.to_numpy(dtype=object), names)
        return names

    def block(self, columns: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return (spots, G) float32 counts of some columns, in the order of the table's rows."""
        counts: Any = self._counts.X
        if isinstance(counts, np.ndarray):
            return np.asarray(counts[:, columns], dtype=np.float32)
        if len(columns) > _FEW:
            return np.asarray(counts[:, columns].toarray(), dtype=np.float32)
        by_column = self._by_column
        values = np.zeros((by_column.shape[0], len(columns)), dtype=np.float32)
        for i, column in enumerate(columns):
            there = slice(by_column.indptr[column], by_column.indptr[column + 1])
            values[by_column.indices[there], i] = by_column.data[there]
        return values

    @cached_property
    def aliases(self) -> list[list[str]]:
        """The table's own names of its genes, and any others that it has for them, each a list of one a gene."""
        others = self._columns_called((*_IDS, *_SYMBOLS))
        return [[str(name) for name in self._counts.var_names], *([*map(str, column)] for column in others)]

    @cached_property
    def _others(self) -> list[pd.Series]:
        """Other names of genes and the table's own without versions, each as a series of columns."""
        series = [pd.Series(np.arange(len(one)), index=[without_version(name) for name in one]) for one in self.aliases]
        return [one[~one.index.duplicated()] for one in series]

    def _columns_called(self, names: Sequence[str]) -> list[pd.Series]:
        """Return the columns of ``var`` of some names, whatever their case, as text."""
        var: Any = self._counts.var
        by_name = {str(column).lower(): column for column in var.columns}
        return [var[by_name[name]].astype(str) for name in names if name in by_name]

    @cached_property
    def _by_column(self) -> sparse.csc_matrix:
        counts: Any = self._counts.X
        return sparse.csc_matrix(counts)


def is_ensembl(gene: str) -> bool:
    """Tell whether a gene's name is an Ensembl id, with a version or without."""
    return _ENSEMBL.fullmatch(gene) is not None


def without_version(gene: str) -> str:
    """Take the version off an Ensembl id of a gene; other names stay as they are."""
    found = _ENSEMBL.fullmatch(gene)
    return gene if found is None else found.group(1)


def aliases_of(genes: Sequence[str], tables: Sequence[AnnData]) -> tuple[str, ...]:
    """Return the other name of each gene: the Ensembl id of a symbol, the symbol of an id.

    Parameters
    ----------
    genes
        Symbols or Ensembl ids.
    tables
        Tables of counts; the first that has both names of a gene tells.

    Returns
    -------
    tuple of str
        Ids without versions, ``""`` where no table tells; ``()`` where none tells of any gene.
    """
    found = [""] * len(genes)
    for index in map(GeneColumns, tables):
        columns = index.find(genes).tolist()
        for names in index.aliases:
            for i, column in enumerate(columns):
                name = names[column] if column >= 0 and not found[i] else ""
                if name not in _NO_NAMES and is_ensembl(name) != is_ensembl(genes[i]):
                    found[i] = without_version(name)
    return tuple(found) if any(found) else ()


def why_none_is_found(genes: Sequence[str], names: Sequence[str]) -> tuple[str, str] | None:
    """Say what is wrong, and what to do, where genes are of one naming and a table of another; None where they are not.

    Parameters
    ----------
    genes
        Genes that are asked for, of which the table has none.
    names
        The table's own names.
    """
    asked, there = (sum(map(is_ensembl, each)) > len(each) / 2 for each in (genes, names))
    if asked == there:
        return None
    kinds = ("Ensembl ids", "symbols")
    wanted, had = kinds if asked else kinds[::-1]
    column = "gene_ids" if asked else "gene_name"
    return (
        f"it has {wanted} for names, the slide {had}, and neither has both",
        f"add their {wanted} to the slide, as a column {column} of its table's var"
        + ("" if asked else ", or in an ST folder as a table of gene_id and gene_name"),
    )


def as_sparse(counts: AnnData) -> Any:
    """Return the counts as a sparse matrix, by row where they were not sparse."""
    return counts.X if sparse.issparse(counts.X) else sparse.csr_matrix(np.asarray(counts.X))
