"""Measured expression: counts of spots and niches on the model's scale, and the choice of a gene panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.slides.genes import GeneColumns, aliases_of, as_sparse
from napari_hyperst.slides.slide import Slide

#: Prefixes of the mitochondrial and ribosomal genes that HMHVG drops (as published, MTOR and RPN1 go with them).
_DROPPED_PREFIXES = ("MT", "mt", "RP", "rp")
#: Highly variable genes taken from each slide before the union (METHODS 2.3).
_PER_SLIDE = 2000


def counts_are_raw(counts: AnnData) -> bool:
    """Tell raw counts (whole, not negative) from normalised ones, from up to a million stored values."""
    values = as_sparse(counts).data[:1_000_000]
    return bool(np.isfinite(values).all() and (values >= 0).all() and (values == np.rint(values)).all())


def measured_genes(slide: Slide, genes: Sequence[str]) -> NDArray[np.bool_]:
    """Return (G,) whether genes were measured on a slide, under their symbols or Ensembl ids.

    Raises
    ------
    SlideError
        If the slide has no counts.
    """
    return _columns(slide).find(genes) >= 0


def names_on(slide: Slide, panel: GenePanel) -> tuple[str, ...]:
    """Return the genes of a panel by the names that a slide knows: their other names where it lacks the first.

    Raises
    ------
    SlideError
        If the slide has no counts.
    """
    if not panel.aliases:
        return panel.genes
    each = zip(panel.genes, panel.aliases, measured_genes(slide, panel.genes), strict=True)
    return tuple(gene if there or not alias else alias for gene, alias, there in each)


def require_raw(slide: Slide) -> AnnData:
    """Return the counts of a slide that is to be learned from.

    Raises
    ------
    SlideError
        If there are none, or they are normalised or scaled.
    """
    counts = _require_counts(slide)
    if not counts_are_raw(counts):
        layers = [name for name, values in counts.layers.items() if counts_are_raw(AnnData(values))]
        raise SlideError(
            "its counts are normalised or scaled: they hold values that are negative or no whole numbers",
            where=slide.path,
            do=f"make its layer {layers[0]!r}, which holds whole numbers, the table's X"
            if layers
            else "train on raw counts",
        )
    return counts


def spot_counts(slide: Slide, genes: Sequence[str]) -> NDArray[np.float32]:
    """Return raw counts of some genes for all spots.

    Parameters
    ----------
    slide
        The slide.
    genes
        Symbols or Ensembl ids; those the slide lacks become NaN.

    Returns
    -------
    NDArray
        (n, G) float32; NaN in the rows of spots without counts and the columns of genes not measured.

    Raises
    ------
    SlideError
        If the slide has no counts.
    """
    index = _columns(slide)
    columns = index.find(genes)
    there = columns >= 0
    block = index.block(columns[there])
    rows = slide.count_rows
    values = block if len(block) == len(rows) and (rows == np.arange(len(rows))).all() else block[rows]
    if (rows < 0).any():
        values[rows < 0] = np.nan
    if there.all():
        return values
    whole = np.full((len(rows), len(genes)), np.nan, dtype=np.float32)
    whole[:, there] = values
    return whole


def detected_genes(slide: Slide) -> NDArray[np.int64]:
    """Return how many genes were found in each spot, of all that were measured on the slide.

    Returns
    -------
    NDArray
        (n,) counts of genes above 0; -1 for spots without counts.

    Raises
    ------
    SlideError
        If the slide has no counts.
    """
    found = np.asarray((as_sparse(_require_counts(slide)) > 0).sum(axis=1)).ravel()
    detected = np.full(len(slide.spots), -1, dtype=np.int64)
    counted = slide.count_rows >= 0
    detected[counted] = found[slide.count_rows[counted]]
    return detected


def niche_counts(slide: Slide, spot: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average raw counts over each spot and those of its ring of neighbours that have counts.

    Parameters
    ----------
    slide
        The slide.
    spot
        (n, G) raw counts of the spots, NaN rows where uncounted.

    Returns
    -------
    NDArray
        (n, G) float32; NaN rows for spots that are uncounted themselves.
    """
    counted, ring = slide.count_rows >= 0, slide.lattice.ring
    there = (ring >= 0) & counted[ring] & counted[:, None]
    each = there.sum(axis=1)
    neighbours = sparse.csr_matrix(
        (np.ones(each.sum(), np.float32), ring[there], np.concatenate([[0], np.cumsum(each)])), shape=(len(ring),) * 2
    )
    filled = np.nan_to_num(spot)
    means = np.asarray(neighbours @ filled)
    means += filled
    means /= 1 + each[:, None]
    means[~counted] = np.nan
    means[:, np.isnan(spot).all(axis=0)] = np.nan
    return means


def log2_counts(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put raw counts on the model's scale, log2(count + 1); NaN stays NaN."""
    return np.log2(counts + 1, dtype=np.float32)


def select_hmhvg(slides: Sequence[Slide], n: int, spots: Sequence[NDArray[np.intp]] | None = None) -> GenePanel:
    """Choose highly-mean, highly-variable genes on the training slides.

    Genes measured on every slide; the union of each slide's 2,000 most variable; without mitochondrial and
    ribosomal names; then, on the raw counts of all spots together, the smallest m whose top-m by mean and top-m
    by standard deviation have ``n`` genes in common, trimmed by the sum of both ranks, ties by name (METHODS
    2.3 and 6.6).

    Parameters
    ----------
    slides
        Training slides, with raw counts.
    n
        How many genes to choose.
    spots
        Of each slide, indices of the spots to choose on, where others are held out; all that have counts if not told.

    Returns
    -------
    GenePanel
        ``n`` genes in alphabetical order.

    Raises
    ------
    SlideError
        If a slide has no raw counts, or fewer than ``n`` genes are left.
    """
    counts = [require_raw(slide) for slide in slides]
    tables, dropped = _common_genes(counts)
    if spots is not None:
        rows = [slide.count_rows[kept] for slide, kept in zip(slides, spots, strict=True)]
        tables = [table[row[row >= 0]] for table, row in zip(tables, rows, strict=True)]
    variable = set().union(*(_most_variable(table) for table in tables))
    genes = np.array(sorted(variable - dropped))
    if len(genes) < n:
        raise SlideError(
            f"{len(genes)} genes are common to the training slides and variable, fewer than the {n} asked for",
            do="ask for fewer genes",
        )
    stacked = sparse.vstack([as_sparse(table[:, genes]).astype(np.float64) for table in tables])
    mean = np.asarray(stacked.mean(axis=0)).ravel()
    std = np.sqrt(np.maximum(np.asarray(stacked.power(2).mean(axis=0)).ravel() - mean**2, 0))
    # Ranks from 0, the highest first; genes are sorted by name, so a stable sort breaks ties by name.
    mean_rank = np.argsort(np.argsort(-mean, kind="stable"), kind="stable")
    std_rank = np.argsort(np.argsort(-std, kind="stable"), kind="stable")
    depth = np.maximum(mean_rank, std_rank)
    smallest = np.sort(depth)[n - 1]
    candidates = np.flatnonzero(depth <= smallest)
    chosen = candidates[np.argsort((mean_rank + std_rank)[candidates], kind="stable")[:n]]
    names = tuple(sorted(genes[chosen].tolist()))
    aliases = aliases_of(names, counts)
    return GenePanel(names, "hmhvg", tuple(slide.name for slide in slides), aliases=aliases)


def _common_genes(tables: Sequence[AnnData]) -> tuple[list[AnnData], set[str]]:
    """Return tables of the genes that all tables have, named as in the first, and those that HMHVG drops by symbol."""
    names = tables[0].var_names
    indices = [GeneColumns(table) for table in tables]
    columns = np.stack([index.find(list(names)) for index in indices])
    for alias in indices[0].aliases[1:]:
        columns = np.where(columns < 0, [index.find(alias) for index in indices], columns)
    common = (columns >= 0).all(axis=0)
    for row in columns:  # two names of one gene
        common &= ~pd.Series(row).duplicated().to_numpy()
    if not common.any():
        raise SlideError(
            "the training slides have no gene in common", do="give slides of one species whose genes are named alike"
        )
    order = np.flatnonzero(common)[np.argsort(names[common])]
    var = pd.DataFrame(index=names[order])
    kept = [AnnData(as_sparse(table)[:, row[order]], var=var) for table, row in zip(tables, columns, strict=True)]
    symbols = [index.symbols[row[order]] for index, row in zip(indices, columns, strict=True)]
    dropped = {
        name
        for name, *others in zip(var.index, *symbols, strict=True)
        if any(str(symbol).startswith(_DROPPED_PREFIXES) for symbol in others)
    }
    return kept, dropped


def _most_variable(counts: AnnData) -> set[str]:
    """Name a slide's most variable genes by normalised dispersion of library-normalised counts.

    Dispersion is z-scored within 20 bins of mean expression (Satija et al. 2015), as scanpy's ``seurat`` flavour.
    """
    raw = as_sparse(counts).astype(np.float64)
    seen = np.asarray(raw.sum(axis=0)).ravel() > 0
    raw = raw[:, seen]
    totals = np.asarray(raw.sum(axis=1)).ravel()
    target = np.median(totals[totals > 0])
    normalised = sparse.csr_matrix(sparse.diags_array(target / np.where(totals > 0, totals, 1.0)) @ raw)
    mean = np.asarray(normalised.mean(axis=0)).ravel()
    variance = np.asarray(normalised.power(2).mean(axis=0)).ravel() - mean**2
    variance *= normalised.shape[0] / max(normalised.shape[0] - 1, 1)
    mean = np.where(mean == 0, 1e-12, mean)
    dispersion = variance / mean
    dispersion = np.log(np.where(dispersion == 0, np.nan, dispersion))
    frame = pd.DataFrame({"mean": np.log1p(mean), "dispersion": dispersion})
    frame["bin"] = pd.cut(frame["mean"], bins=20)
    grouped = frame.groupby("bin", observed=True)["dispersion"]
    centre, spread = grouped.transform("mean"), grouped.transform(lambda group: group.std(ddof=1))
    alone = spread.isna()
    spread = spread.mask(alone, centre)
    centre = centre.mask(alone, 0.0)
    score = ((frame["dispersion"] - centre) / spread).fillna(-np.inf).to_numpy()
    top = np.argsort(-score, kind="stable")[:_PER_SLIDE]
    return set(counts.var_names[seen][top])


def _columns(slide: Slide) -> GeneColumns:
    if slide.gene_columns is None:
        raise SlideError("has no counts", where=slide.path, do="give a slide with transcriptomics")
    return slide.gene_columns


def _require_counts(slide: Slide) -> AnnData:
    if slide.counts is None:
        raise SlideError("has no counts", where=slide.path, do="give a slide with transcriptomics")
    return slide.counts
