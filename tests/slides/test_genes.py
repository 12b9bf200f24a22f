"""Genes found by symbol or id; raw counts told from others, by what is learned from them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from napari_hyperst.errors import SlideError
from napari_hyperst.slides import expression as ex
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.genes import GeneColumns, is_ensembl, why_none_is_found, without_version

IDS = ["ENSG00000141736.13", "ENSG00000169710", "ENSMUSG00000000001.4", "no-id"]
SYMBOLS = ["ERBB2", "FASN", "Gnai3", "LINC1"]
VALUES = np.array([[1, 0, 3, 0], [0, 5, 0, 2], [7, 0, 0, 0]], dtype=np.float32)


def table(kind: str = "csr", **var: list[str]) -> AnnData:
    index = var.pop("index", SYMBOLS)
    made = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[kind](VALUES)
    return AnnData(made, var=pd.DataFrame(var, index=index))


@pytest.mark.parametrize("column", ["gene_ids", "gene_id", "ENSEMBL", "Ensembl_ID"])
def test_genes_named_by_symbol_are_found_by_id(column: str) -> None:
    columns = GeneColumns(table(**{column: IDS}))
    assert columns.find(["FASN", "ENSG00000141736", "ENSMUSG00000000001.9", "x", "ERBB2"]).tolist() == [1, 0, 2, -1, 0]


@pytest.mark.parametrize("column", ["gene_name", "gene_symbols", "SYMBOL", "feature_name"])
def test_genes_named_by_id_are_found_by_symbol(column: str) -> None:
    columns = GeneColumns(table(index=IDS, **{column: SYMBOLS}))
    assert columns.find(["FASN", "ENSG00000141736", "Gnai3", "x"]).tolist() == [1, 0, 2, -1]
    assert list(columns.symbols) == ["ERBB2", "FASN", "Gnai3", "no-id"]


def test_the_tables_own_names_go_before_others() -> None:
    columns = GeneColumns(table(gene_name=["FASN", "ERBB2", "FASN", "y"]))
    assert columns.find(["FASN", "y"]).tolist() == [1, 3]


def test_what_an_ensembl_id_is() -> None:
    assert is_ensembl("ENSG00000141736.13")
    assert is_ensembl("ENSMUSG00000000001")
    assert not is_ensembl("ENSA")
    assert without_version("ENSG00000141736.13") == "ENSG00000141736"
    assert without_version("RP11-34P13.7") == "RP11-34P13.7"


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_columns_are_those_of_the_table(kind: str) -> None:
    counts = table(kind)
    columns = GeneColumns(counts)
    for wanted in ([2], [3, 0], [], [1] * 20):
        found = columns.block(np.array(wanted, dtype=np.intp))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, VALUES[:, wanted])
    assert sparse.issparse(counts.X) is (kind != "dense")


def test_spots_without_counts_and_in_another_order_are_told_apart() -> None:
    slide = SimpleNamespace(
        path="x", spots=[0, 1, 2, 3], count_rows=np.array([2, -1, 0, 1]), gene_columns=GeneColumns(table(gene_ids=IDS))
    )
    found = ex.spot_counts(slide, ["ERBB2", "nothing", "ENSG00000169710"])
    np.testing.assert_array_equal(found, [[7, np.nan, 0], [np.nan, np.nan, np.nan], [1, np.nan, 0], [0, np.nan, 5]])
    assert ex.measured_genes(slide, ["ERBB2", "nothing"]).tolist() == [True, False]


def test_a_panel_of_slides_named_differently_is_that_of_slides_named_alike() -> None:
    rng = np.random.default_rng(0)
    ids = [f"ENSMUSG{i:011d}" for i in range(60)]
    symbols = [f"mt-G{i}" if i % 10 == 0 else f"G{i}" for i in range(60)]
    values = [rng.poisson(rng.gamma(1.0, 20.0, 60), (40, 60)).astype(np.float32) for _ in range(2)]
    order = rng.permutation(60)

    def named(names: list[str], **var: list[str]) -> pd.DataFrame:
        return pd.DataFrame(var, index=pd.Index(names))

    alike = [SimpleNamespace(name="s", path="s", counts=AnnData(one, var=named(symbols))) for one in values]
    by_id = AnnData(
        values[1][:, order], var=named([f"{ids[i]}.2" for i in order], gene_name=[symbols[i] for i in order])
    )
    mixed = [alike[0], SimpleNamespace(name="t", path="t", counts=by_id)]
    wanted = ex.select_hmhvg(alike, 20).genes
    assert ex.select_hmhvg(mixed, 20).genes == wanted
    turned = ex.select_hmhvg(mixed[::-1], 20).genes
    assert {symbols[ids.index(gene.partition(".")[0])] for gene in turned} == set(wanted)
    assert not any(symbols[ids.index(gene.partition(".")[0])].startswith("mt-") for gene in turned)


def test_a_panel_keeps_both_names_and_is_found_by_either() -> None:
    rng = np.random.default_rng(0)
    symbols, ids = [f"G{i}" for i in range(40)], [f"ENSG{i:011d}" for i in range(40)]
    values = rng.poisson(rng.gamma(1.0, 20.0, 40), (40, 40)).astype(np.float32)

    def slide(index: list[str], **var: list[str]) -> SimpleNamespace:
        counts = AnnData(values, var=pd.DataFrame(var, index=pd.Index(index)))
        columns = GeneColumns(counts)
        return SimpleNamespace(name="s", path="s", counts=counts, gene_columns=columns, count_rows=np.arange(40))

    only_symbols, only_ids = slide(symbols), slide([f"{one}.3" for one in ids])
    assert ex.select_hmhvg([only_symbols], 9).aliases == ()
    both = ex.select_hmhvg([only_symbols, slide(ids, gene_name=symbols)], 9)
    assert both.aliases == tuple(ids[symbols.index(gene)] for gene in both.genes)
    turned = ex.select_hmhvg([slide(ids, gene_name=symbols)], 9)
    assert turned.aliases == tuple(symbols[ids.index(gene)] for gene in turned.genes)
    wanted = values[:, [symbols.index(gene) for gene in both.genes]]
    for one in (only_symbols, only_ids):
        np.testing.assert_array_equal(ex.spot_counts(one, ex.names_on(one, both)), wanted)
    assert not ex.measured_genes(only_ids, both.genes).any()


def test_symbols_and_ids_that_nothing_joins_are_told_with_the_column_to_add() -> None:
    why, do = why_none_is_found(["FASN", "ENSA"], IDS[:3])
    assert why == "it has symbols for names, the slide Ensembl ids, and neither has both"
    assert "a column gene_name of its table's var" in do
    why, do = why_none_is_found(IDS[:3], SYMBOLS)
    assert why.startswith("it has Ensembl ids for names, the slide symbols")
    assert do.endswith("as a column gene_ids of its table's var")
    assert why_none_is_found(["Fasn"], SYMBOLS) is None


def test_slides_without_a_common_gene(section) -> None:
    counts = AnnData(sparse.csr_matrix(VALUES), var=pd.DataFrame(index=SYMBOLS))
    slides = [open_slide(section), SimpleNamespace(name="t", path="t", counts=counts[:, 2:])]
    with pytest.raises(SlideError, match="no gene in common"):
        ex.select_hmhvg(slides, 2)


def test_a_normalised_matrix_is_refused_with_the_layer_that_is_raw(section) -> None:
    slide = open_slide(section)
    raw = slide.counts.X.copy()
    ex.require_raw(slide)
    slide.counts.X = raw.log1p()
    with pytest.raises(SlideError, match=r"normalised or scaled.*no whole numbers; train on raw counts"):
        ex.require_raw(slide)
    slide.counts.layers["counts"] = raw
    with pytest.raises(SlideError, match="make its layer 'counts'"):
        ex.require_raw(slide)


def test_a_normalised_matrix_is_no_training_target_whatever_chose_the_panel(section) -> None:
    from napari_hyperst.nouns.panel import GenePanel
    from napari_hyperst.training.dataset import measure

    slide = open_slide(section)
    kept = [np.arange(len(slide.spots))]
    spot, niche = measure([slide], kept, GenePanel(("FASN", "ERBB2")))
    assert spot.shape == niche.shape == (len(slide.spots), 2)
    with pytest.raises(SlideError, match="none of the panel's 2 genes"):
        measure([slide], kept, GenePanel(("Fasn", "Erbb2")))
    slide.counts.X = slide.counts.X.log1p()
    with pytest.raises(SlideError, match="normalised or scaled"):
        measure([slide], kept, GenePanel(("FASN",)))
