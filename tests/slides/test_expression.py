from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData

from napari_hyperst.errors import SlideError
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides import expression as ex
from napari_hyperst.slides.lattice import lattice_from_array
from napari_hyperst.slides.sample import sample_folder


def test_counts_are_those_of_the_file(c2: Slide) -> None:
    table = pd.read_csv(sample_folder() / "C2.tsv.gz", sep="\t", index_col=0)
    genes = ["FASN", "no such gene", "ERBB2"]
    counts = ex.spot_counts(c2, genes)
    np.testing.assert_array_equal(counts[:, [0, 2]], table.loc[c2.spots.ids, ["FASN", "ERBB2"]])
    assert np.isnan(counts[:, 1]).all()


def test_uncounted_spots_are_nan_and_do_not_enter_niches(shared_data) -> None:
    slide = open_slide(shared_data / "her2st" / "C4")
    uncounted = slide.count_rows < 0
    assert uncounted.sum() == 3
    spot = ex.spot_counts(slide, ["FASN", "ACTB"])
    niche = ex.niche_counts(slide, spot)
    assert np.isnan(spot[uncounted]).all()
    assert np.isnan(niche[uncounted]).all()
    for i in np.flatnonzero(~uncounted):
        members = [i, *(j for j in slide.lattice.ring[i] if j >= 0 and not uncounted[j])]
        np.testing.assert_allclose(niche[i], spot[members].mean(axis=0), rtol=1e-5)


def test_niche_counts_are_those_of_a_gather_of_all_neighbours(section) -> None:
    """With neighbours missing at the edges, spots without counts, and a gene that was not measured."""
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0)
    counts.drop(index=counts.index[[3, 20]]).to_csv(section / "corner.tsv", sep="\t")
    slide = open_slide(section)
    spot = ex.spot_counts(slide, ["FASN", "no such gene", "ACTB", "ERBB2"])
    there = (slide.lattice.ring >= 0) & (slide.count_rows[slide.lattice.ring] >= 0)
    total = np.nan_to_num(spot) + np.where(there[..., None], np.nan_to_num(spot)[slide.lattice.ring], 0).sum(axis=1)
    wanted = np.where(np.isnan(spot), np.nan, total / (1 + there.sum(axis=1, keepdims=True)))
    niche = ex.niche_counts(slide, spot)
    assert niche.dtype == np.float32
    np.testing.assert_allclose(niche, wanted, rtol=1e-6)
    assert np.isnan(niche[:, 1]).all()
    assert np.isnan(niche).all(axis=1).sum() == 2


def test_niche_counts_take_no_gather_of_all_neighbours() -> None:
    """Of 20,000 spots x 50 genes on a square lattice a gather of the ring would take eight times the counts."""
    side, genes = 141, 50
    array = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), axis=-1).reshape(-1, 2)
    lattice = lattice_from_array(array[:, ::-1] * 10.0, array)
    spot = np.random.default_rng(0).poisson(1.0, (side * side, genes)).astype(np.float32)
    slide = SimpleNamespace(lattice=lattice, count_rows=np.arange(len(spot)))
    tracemalloc.start()
    try:
        niche = ex.niche_counts(slide, spot)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 5 * spot.nbytes  # what is returned, a copy without NaN, and 8 neighbours a spot
    middle = len(spot) // 2
    np.testing.assert_allclose(niche[middle], spot[[middle, *lattice.ring[middle]]].mean(axis=0), rtol=1e-6)


def test_niche_profile_is_the_log_of_the_mean_of_raw_counts() -> None:
    assert ex.log2_counts(np.float32([[0, 1, 3]])).tolist() == [[0.0, 1.0, 2.0]]


def test_variable_genes_are_scanpys(c2: Slide) -> None:
    counts = c2.counts.copy()
    sc.pp.filter_genes(counts, min_cells=1)
    sc.pp.normalize_total(counts)
    sc.pp.log1p(counts)
    sc.pp.highly_variable_genes(counts, n_top_genes=2000, flavor="seurat")
    assert ex._most_variable(c2.counts) == set(counts.var_names[counts.var.highly_variable])


def test_panel_is_the_smallest_intersection_of_top_means_and_deviations(c2: Slide) -> None:
    """METHODS 6.6 and 10.12, done again the slow way."""
    panel = ex.select_hmhvg([c2], 50)
    assert len(panel) == 50
    assert list(panel.genes) == sorted(panel.genes)
    assert not [gene for gene in panel.genes if gene.startswith(("MT", "RP"))]
    genes = sorted(gene for gene in ex._most_variable(c2.counts) if not gene.startswith(("MT", "mt", "RP", "rp")))
    dense = pd.DataFrame(c2.counts[:, genes].X.toarray().astype(np.float64), columns=genes)
    by_mean = dense.mean().sort_values(ascending=False, kind="stable").index
    by_std = dense.std(ddof=0).sort_values(ascending=False, kind="stable").index
    m = next(m for m in range(50, len(genes)) if len(set(by_mean[:m]) & set(by_std[:m])) >= 50)
    assert set(panel.genes) <= set(by_mean[:m]) & set(by_std[:m])
    assert len(set(by_mean[: m - 1]) & set(by_std[: m - 1])) < 50


def test_panel_of_a_toy_matrix_of_known_order() -> None:
    """METHODS 10.12: means rise from A to F; deviations put E and B first, then F, A, D, C."""
    mean = {"A": 3, "B": 10, "C": 20, "D": 30, "E": 40, "F": 50, "MTOR": 90}
    swing = {"A": 3, "B": 9, "C": 1, "D": 2, "E": 12, "F": 5, "MTOR": 90}
    counts = AnnData(
        np.array([[mean[gene] + sign * swing[gene] for gene in mean] for sign in (1, -1) * 4], dtype=np.float32),
        var=pd.DataFrame(index=list(mean)),
    )
    toy = SimpleNamespace(name="toy", counts=counts)
    # By mean F E D C B A, by deviation E B F A D C, so E and F, ranked 1 + 0 and 0 + 2, come in at depths 2 and 3;
    # D, B at depth 5, with rank sums 6 and 5; MTOR has a dropped prefix.
    assert ex.select_hmhvg([toy], 1).genes == ("E",)
    assert ex.select_hmhvg([toy], 2).genes == ("E", "F")
    assert ex.select_hmhvg([toy], 3).genes == ("B", "E", "F")
    assert ex.select_hmhvg([toy], 4).genes == ("B", "D", "E", "F")


def test_ties_in_a_panel_go_by_name() -> None:
    """METHODS 6.6: two genes of the same counts."""
    column = np.array([4, 0, 2, 6, 1, 3], dtype=np.float32)[:, None]
    table = np.hstack([column, column, column + np.float32([[0], [1], [0], [5], [0], [0]])])
    toy = SimpleNamespace(name="toy", counts=AnnData(table, var=pd.DataFrame(index=["Y", "X", "Z"])))
    assert ex.select_hmhvg([toy], 2).genes == ("X", "Z")


def test_panel_is_chosen_from_genes_common_to_all_slides(c2: Slide, tiny_section) -> None:
    corner = open_slide(tiny_section)
    panel = ex.select_hmhvg([c2, corner], 20)
    assert set(panel.genes) <= set(corner.counts.var_names)
    assert panel.slides == ("C2", "corner")
    assert panel.method == "hmhvg"


def test_too_large_a_panel_says_how_many_there_are(tiny_section) -> None:
    with pytest.raises(SlideError, match="fewer than the 5000"):
        ex.select_hmhvg([open_slide(tiny_section)], 5000)


@pytest.mark.parametrize(
    ("values", "raw"),
    [([[0, 1], [2, 30]], True), ([[0, 1.5], [2, 3]], False), ([[0, -1], [2, 3]], False), ([[np.nan, 1]], False)],
)
def test_raw_counts_are_told_from_normalised_ones(values, raw: bool) -> None:
    assert ex.counts_are_raw(AnnData(np.array(values, dtype=np.float32))) is raw


def test_normalised_counts_are_no_training_target(section) -> None:
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0)
    np.log1p(counts).to_csv(section / "corner.tsv", sep="\t")
    with pytest.raises(SlideError, match="no whole numbers"):
        ex.select_hmhvg([open_slide(section)], 20)
