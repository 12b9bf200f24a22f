"""The Poincaré disk: where points and rings are, what they are coloured by, and what is brushed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from mouse import around, click, drag
from qtpy.QtCore import QPoint, Qt

from napari_hyperst.viewer.colouring import coloured, colourings
from napari_hyperst.viewer.session import Session
from napari_hyperst.widgets import poincare_disk
from napari_hyperst.widgets.poincare_disk import PoincareDisk


def drawn_again(qtbot: Any, disk: PoincareDisk) -> None:
    plot = disk.plot
    qtbot.waitUntil(lambda: plot.axes is not None and not plot._stale, timeout=60_000)
    plot.canvas.draw()


def artists(disk: PoincareDisk, name: str) -> list[Any]:
    return [one for one in disk.plot.axes.get_children() if one.get_gid() == name]


@pytest.fixture
def disk(qtbot: Any, session: Session) -> PoincareDisk:
    made = PoincareDisk(session)
    qtbot.addWidget(made)
    made.resize(360, 520)
    with qtbot.waitExposed(made):
        made.show()
    drawn_again(qtbot, made)
    return made


def points(session: Session, name: str) -> np.ndarray:
    assert session.active is not None
    return session.active.table.obsm[f"hyperst_disk_{name}"].astype(float)


def choose(disk: PoincareDisk, key: str) -> None:
    disk.colouring.setCurrentIndex(disk.colouring.findData(key))
    disk.colouring.activated.emit(disk.colouring.currentIndex())


def test_points_are_as_deep_as_their_norms_say_and_rings_too(disk: PoincareDisk, session: Session) -> None:
    assert session.active is not None
    table = session.active.table
    c = table.uns["hyperst"]["curvature"]
    for name in ("spot_image", "spot_gene"):
        (drawn,) = artists(disk, name)
        radius = np.linalg.norm(drawn.get_offsets(), axis=1)
        np.testing.assert_allclose(radius, np.tanh(np.sqrt(c) * table.obs[f"norm_{name}"] / 2), rtol=1e-5)
        np.testing.assert_array_equal(drawn.get_array(), table.obs[f"norm_{name}"])
    assert not artists(disk, "niche_image")
    depths = [float(text.get_text()) for text in disk.plot.axes.texts]
    np.testing.assert_allclose(
        [ring.get_radius() for ring in artists(disk, "ring")], np.tanh(np.sqrt(c) * np.array(depths) / 2)
    )
    np.testing.assert_allclose(np.diff(depths), depths[0])
    (rim,) = artists(disk, "rim")
    assert rim.get_radius() == 1


def test_embeddings_are_chosen_and_told_apart(qtbot: Any, disk: PoincareDisk) -> None:
    for name in ("niche_gene", "spot_gene"):
        middle = QPoint(9, disk.boxes[name].height() // 2)
        qtbot.mouseClick(disk.boxes[name], Qt.MouseButton.LeftButton, pos=middle)
    drawn_again(qtbot, disk)
    assert artists(disk, "niche_gene")
    assert not artists(disk, "spot_gene")
    shapes = {len(artists(disk, name)[0].get_paths()[0].vertices) for name in ("spot_image", "niche_gene")}
    assert len(shapes) == 2
    for name in ("niche_gene", "spot_image"):
        disk.boxes[name].click()
    qtbot.waitUntil(lambda: disk.plot.hint.text() == "Choose an embedding above.")


def test_brushing_selects_spots_and_spots_are_highlighted(qtbot: Any, disk: PoincareDisk, session: Session) -> None:
    image, gene = points(session, "spot_image"), points(session, "spot_gene")
    way = around(image[:1], 0.02)
    drag(disk.plot, np.vstack([way, way[:1]]))
    inside = [np.flatnonzero(((xy >= way.min(axis=0)) & (xy <= way.max(axis=0))).all(axis=1)) for xy in (image, gene)]
    np.testing.assert_array_equal(session.selection, np.union1d(*inside))
    assert 0 in session.selection
    drawn_again(qtbot, disk)
    for name, xy in (("spot_image", image), ("spot_gene", gene)):
        (marks,) = artists(disk, f"selected {name}")
        np.testing.assert_allclose(np.column_stack(marks.get_data()), xy[session.selection])
    session.layer_of(session.active, "predicted").selected_data = {7}
    drawn_again(qtbot, disk)
    (marks,) = artists(disk, "selected spot_gene")
    np.testing.assert_allclose(np.column_stack(marks.get_data()), gene[[7]])
    deepest = int(np.linalg.norm(gene, axis=1).argmax())
    click(disk.plot, gene[deepest])
    np.testing.assert_array_equal(session.selection, [deepest])


def test_the_whole_disk_is_shown_when_asked_for(qtbot: Any, disk: PoincareDisk) -> None:
    reach = max(np.linalg.norm(artists(disk, name)[0].get_offsets(), axis=1).max() for name in disk.plot.seen)
    assert reach < disk.plot.axes.get_xlim()[1] < 1.3 * reach
    disk.whole.click()
    assert disk.plot.axes.get_xlim()[1] > 1
    drawn_again(qtbot, disk)
    assert disk.plot.axes.get_xlim()[1] > 1


def test_colours_are_of_gene_violation_and_annotation(qtbot: Any, disk: PoincareDisk, session: Session) -> None:
    entry = session.active
    assert entry is not None
    table, counts = entry.table, entry.slide.counts
    assert counts is not None
    choose(disk, "gene")
    drawn_again(qtbot, disk)
    (drawn,) = artists(disk, "spot_gene")
    np.testing.assert_array_equal(drawn.get_array(), table[:, session.gene].X.ravel())
    choose(disk, "violation_spot_image__spot_gene")
    drawn_again(qtbot, disk)
    (drawn,) = artists(disk, "spot_image")
    np.testing.assert_allclose(drawn.get_array(), np.degrees(table.obs["violation_spot_image__spot_gene"]), rtol=1e-6)
    kinds = pd.Categorical.from_codes(np.arange(counts.n_obs) % 3, ["stroma", "tumour", "fat"])
    counts.obs["kind"] = kinds
    counts.obs["area"] = np.where(np.arange(counts.n_obs) % 5, np.arange(counts.n_obs), np.nan)
    counts.obs["name"] = counts.obs_names
    try:
        disk.show_state()
        keys = [found.key for found in colourings(entry)]
        assert {"obs:kind", "obs:area"} <= set(keys)
        assert "obs:name" not in keys
        choose(disk, "obs:kind")
        drawn_again(qtbot, disk)
        words = [text.get_text() for text in disk.plot.axes.get_legend().get_texts()]
        assert words == ["stroma", "tumour", "fat"]
        told = coloured(entry, "obs:kind", (), "", "spot_image")
        of = dict(zip(counts.obs_names, kinds, strict=True))
        assert [told.categories[int(i)] for i in told.values] == [of[spot] for spot in table.obs_names]
        choose(disk, "obs:area")
        drawn_again(qtbot, disk)
        (drawn,) = artists(disk, "spot_image")
        area = counts.obs["area"].loc[table.obs_names].to_numpy()
        np.testing.assert_allclose(drawn.get_array(), area[np.isfinite(area)], rtol=1e-6)
    finally:
        for column in ("kind", "area", "name"):
            del counts.obs[column]


def test_many_points_are_drawn_as_means(
    qtbot: Any, disk: PoincareDisk, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poincare_disk, "MANY", 50)
    disk.plot.draw_soon()
    drawn_again(qtbot, disk)
    (image,) = artists(disk, "density")
    seen = np.asarray(image.get_array().filled(np.nan))
    assert session.active is not None
    norms = session.active.table.obs[["norm_spot_image", "norm_spot_gene"]].to_numpy()
    assert norms.min() <= np.nanmin(seen) <= np.nanmax(seen) <= norms.max()
    assert not artists(disk, "spot_image")


def test_without_counts_genes_are_not_on_the_disk(qtbot: Any, session: Session) -> None:
    assert session.active is not None
    table = session.active.table.copy()
    for name in ("spot_gene", "niche_gene"):
        del table.obsm[f"hyperst_disk_{name}"]
    session.set_prediction(session.active.key, table, "table_hyperst")
    made = PoincareDisk(session)
    qtbot.addWidget(made)
    assert not made.boxes["spot_gene"].isEnabled()
    assert "needs measured counts" in made.boxes["spot_gene"].toolTip()
    assert made.boxes["spot_image"].isEnabled()


def test_what_is_not_hyperbolic_has_no_disk(qtbot: Any, session: Session) -> None:
    assert session.active is not None
    table = session.active.table.copy()
    for name in ("spot_image", "niche_image", "spot_gene", "niche_gene"):
        del table.obsm[f"hyperst_disk_{name}"]
    card = table.uns["hyperst"]["card"].replace('"geometry":"hyperbolic"', '"geometry":"euclidean"')
    assert card != table.uns["hyperst"]["card"]
    table.uns["hyperst"] = {**table.uns["hyperst"], "card": card}
    session.set_prediction(session.active.key, table, "table_hyperst")
    made = PoincareDisk(session)
    qtbot.addWidget(made)
    made.show()
    qtbot.waitUntil(lambda: "not hyperbolic but euclidean" in made.plot.hint.text())
    session.viewer.layers.clear()
    qtbot.waitUntil(lambda: made.plot.hint.text().startswith("Predict the genes of a slide"))
