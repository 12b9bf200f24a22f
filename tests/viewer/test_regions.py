"""Regions: which spots lie in them, and tests of genes against scipy and scanpy."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from napari.components import ViewerModel
from scipy.stats import false_discovery_control, mannwhitneyu

from napari_hyperst.errors import RegionError
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.viewer import regions, session_of
from napari_hyperst.viewer.regions import add_region_layer, compare, region_layer, region_of, spots_inside, write_csv
from napari_hyperst.viewer.session import Session

RANDOM = np.random.default_rng(0)


def made(n: int = 60, genes: int = 25) -> tuple[AnnData, np.ndarray]:
    """Return a table with ties, a constant gene and one that differs, and which of its spots are inside."""
    x = np.log2(RANDOM.poisson(3, (n, genes)) + 1).astype(np.float32)
    inside = np.arange(n) < n // 3
    x[:, 0] = 1.5
    x[inside, 1] += 4
    x[inside, 2] -= 2
    return AnnData(x, var=pd.DataFrame(index=[f"g{i}" for i in range(genes)])), inside


@pytest.fixture(scope="module")
def slide(tiny_section: Path) -> Slide:
    return open_slide(tiny_section)


@pytest.fixture
def session(slide: Slide, tiny_table: AnnData) -> Session:
    viewer = ViewerModel()
    found = session_of(viewer)
    found.keep = viewer  # type: ignore[attr-defined]  # a session does not keep its viewer alive
    found.set_prediction(found.add(slide).key, tiny_table.copy(), "table_hyperst")
    return found


def box(table: AnnData, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return a rectangle that holds these shares of where the spots are, (y, x) in px."""
    low, high = (f(table.obsm["spatial"], axis=0) for f in (np.min, np.max))
    low, high = low - 1, high + 1
    x0, y0, x1, y1 = np.array([left, top, right, bottom]) * np.tile(high - low, 2) + np.tile(low, 2)
    return np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])


def drawn(session: Session, *shapes: np.ndarray, kind: str = "polygon") -> Any:
    assert session.active is not None
    layer = add_region_layer(session.viewer, session.active)
    layer.add(list(shapes), shape_type=kind)
    return region_of(session.viewer, session.active, layer)


def inside(session: Session, region: Any) -> np.ndarray:
    assert session.active is not None
    assert session.active.table is not None
    return spots_inside(session.active.table, region)


def test_numbers_are_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    table, chosen = made()
    x = table.X.astype(float)
    monkeypatch.setattr(regions, "_VALUES", 200)  # a few genes at a time
    found = compare(table, chosen)
    assert found is not None
    theirs = [
        mannwhitneyu(x[chosen, i], x[~chosen, i], method="asymptotic", use_continuity=False)
        for i in range(1, table.n_vars)
    ]
    place = {gene: i for i, gene in enumerate(found.genes)}
    order = [place[f"g{i}"] for i in range(1, table.n_vars)]
    np.testing.assert_allclose(found.p_value[order], [one.pvalue for one in theirs], rtol=1e-12)
    n, m = chosen.sum(), (~chosen).sum()
    np.testing.assert_allclose(found.effect[order], [2 * one.statistic / (n * m) - 1 for one in theirs], atol=1e-12)
    np.testing.assert_allclose(found.adjusted, false_discovery_control(found.p_value), rtol=1e-12)
    np.testing.assert_allclose(found.inside[order], x[chosen, 1:].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.difference, found.inside - found.outside)
    assert (found.n_inside, found.n_outside, found.left_out) == (20, 40, 0)
    assert set(found.genes[:2]) == {"g1", "g2"}
    assert (np.diff(np.abs(found.effect)) <= 0).all()
    constant = place["g0"]
    assert (found.effect[constant], found.p_value[constant], found.adjusted[constant]) == (0.0, 1.0, 1.0)


def test_the_effect_is_the_share_of_pairs_won_less_those_lost() -> None:
    table, chosen = made(n=15)
    found = compare(table, chosen)
    assert found is not None
    for gene, effect in zip(found.genes, found.effect, strict=True):
        x = table[:, gene].X.ravel()
        np.testing.assert_allclose(effect, np.sign(x[chosen][:, None] - x[~chosen][None]).mean(), atol=1e-12)


def test_p_values_are_scanpys_wilcoxon() -> None:
    table, chosen = made()
    table = table[:, 1:].copy()  # scanpy gives a constant gene no p-value
    found = compare(table, chosen)
    assert found is not None
    table.obs["region"] = pd.Categorical(np.where(chosen, "inside", "outside"))
    sc.tl.rank_genes_groups(table, "region", groups=["inside"], method="wilcoxon", tie_correct=True)
    theirs = sc.get.rank_genes_groups_df(table, "inside").set_index("names").loc[found.genes]
    np.testing.assert_allclose(found.p_value, theirs.pvals, rtol=1e-6)
    np.testing.assert_allclose(found.adjusted, theirs.pvals_adj, rtol=1e-6)
    assert (np.sign(found.effect) == np.sign(theirs.scores)).all()


def test_spots_without_a_prediction_are_left_out() -> None:
    table, chosen = made()
    whole = compare(table[5:].copy(), chosen[5:])
    table.X[:5] = np.nan
    found = compare(table, chosen)
    assert found is not None
    assert whole is not None
    assert (found.left_out, found.n_inside) == (5, 15)
    np.testing.assert_allclose(found.p_value, whole.p_value)


@pytest.mark.parametrize(
    ("many", "told"),
    [(0, "no spot lies inside"), (1, "only one spot lies inside"), (60, "no spot lies outside")],
)
def test_a_side_without_spots_is_told(many: int, told: str) -> None:
    table, _ = made()
    with pytest.raises(RegionError, match=f"{told} the region; draw it so that"):
        compare(table, np.arange(60) < many)


def test_it_can_be_cancelled() -> None:
    assert compare(*made(), cancelled=lambda: True) is None


def test_spots_are_in_the_polygon_that_is_drawn_around_them(session: Session) -> None:
    assert session.active is not None
    table = session.active.table
    assert table is not None
    x, y = table.obsm["spatial"].T
    corners = box(table, 0, 0, 0.5, 1)
    found = inside(session, drawn(session, corners))
    np.testing.assert_array_equal(found, x < corners[1, 1])
    assert 0 < found.sum() < table.n_obs
    triangle = corners[:3]
    layer = region_layer(session.viewer, session.active.key)
    assert layer is not None
    layer.data = []
    found = inside(session, drawn(session, triangle))
    (y0, x0), _, (y1, x1) = triangle
    above = (y - y0) * (x1 - x0) < (x - x0) * (y1 - y0)  # the diagonal
    np.testing.assert_array_equal(found, above & (x < x1))
    assert 0 < found.sum() < above.sum()


def test_overlapping_regions_are_one(session: Session) -> None:
    assert session.active is not None
    table = session.active.table
    region = drawn(session, box(table, 0, 0, 0.6, 1), box(table, 0.4, 0, 1, 1), box(table, 2, 2, 3, 3))
    assert inside(session, region).all()


def test_a_region_off_the_tissue_has_no_spots(session: Session) -> None:
    assert session.active is not None
    table = session.active.table
    found = inside(session, drawn(session, box(table, 2, 2, 3, 3)))
    assert not found.any()
    with pytest.raises(RegionError, match="no spot lies inside"):
        compare(table, found)


def test_an_ellipse_is_round(session: Session) -> None:
    assert session.active is not None
    corners = box(session.active.table, 0.2, 0.2, 0.8, 0.8)
    region = drawn(session, corners, kind="ellipse")
    height, width = np.ptp(corners, axis=0)
    assert region.area == pytest.approx(np.pi * height * width / 4, rel=2e-3)


def test_what_has_no_inside_is_told(session: Session) -> None:
    assert session.active is not None
    layer = add_region_layer(session.viewer, session.active)
    with pytest.raises(RegionError, match="there is no region; draw a polygon"):
        region_of(session.viewer, session.active, layer)
    bow = box(session.active.table, 0, 0, 1, 1)[[0, 2, 1, 3]]
    with pytest.raises(RegionError, match="region 1 crosses itself"):
        drawn(session, bow)
    layer.data = []
    with pytest.raises(RegionError, match="region 1 is a line, which has no inside"):
        drawn(session, bow[:2], kind="line")


@pytest.mark.parametrize("moved", ["slide", "regions"])
def test_regions_go_by_where_they_are_seen(session: Session, moved: str) -> None:
    entry = session.active
    assert entry is not None
    corners = box(entry.table, 0, 0, 0.5, 1)
    before = inside(session, drawn(session, corners))
    turned = np.array([[0, -1, 100], [1, 0, 50], [0, 0, 1.0]])
    of_slide = [one for one in session.viewer.layers if one.metadata["hyperst"]["kind"] != "regions"]
    layer = region_layer(session.viewer, entry.key)
    assert layer is not None
    if moved == "slide":  # as a switch of coordinate systems does; the regions follow the spots
        for one in of_slide:
            one.affine = turned @ one.affine.affine_matrix
        np.testing.assert_allclose(layer.affine.affine_matrix, of_slide[1].affine.affine_matrix)
        np.testing.assert_array_equal(inside(session, region_of(session.viewer, entry, layer)), before)
    else:
        half = 0.5 * np.ptp(corners[:, 1]) * 2
        layer.translate = (0.0, half * layer.scale[1])  # onto the other half
        found = inside(session, region_of(session.viewer, entry, layer))
        assert not (found & before).any()
        assert found.sum() > 0.6 * (~before).sum()


def test_regions_belong_to_their_slide(session: Session, slide: Slide) -> None:
    entry = session.active
    assert entry is not None
    layer = add_region_layer(session.viewer, entry)
    assert layer.mode == "add_polygon"
    assert session.viewer.layers.selection.active is layer
    assert add_region_layer(session.viewer, entry) is layer
    session.add(slide)
    assert not layer.visible
    session.activate(entry.key)
    assert layer.visible


def test_a_comparison_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    found = compare(*made())
    assert found is not None
    write_csv(found, tmp_path / "genes.csv")
    with (tmp_path / "genes.csv").open() as file:
        lines = list(csv.reader(file))
    assert lines[0][0] == "gene"
    assert lines[0][3] == "mean log2(count + 1) inside (20 spots)"
    assert [line[0] for line in lines[1:]] == found.genes.tolist()
    np.testing.assert_allclose([float(line[1]) for line in lines[1:]], found.effect, rtol=1e-5, atol=1e-9)
    with pytest.raises(RegionError, match="cannot be written"):
        write_csv(found, tmp_path / "missing" / "genes.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["genes.csv"]
