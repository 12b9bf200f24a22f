"""The hierarchy panel: the list, and the cone and tiles of one spot."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QComboBox, QPushButton, QWidget
from superqt.utils import qimage_to_array

from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.tiles import read_tiles
from napari_hyperst.viewer.hierarchy import Hierarchy, SpotCone
from napari_hyperst.viewer.maps import NO_COUNTS
from napari_hyperst.viewer.session import Session
from napari_hyperst.viewer.tile_reader import SpotTiles
from napari_hyperst.widgets.cone_view import ConeView, describe
from napari_hyperst.widgets.hierarchy_panel import HierarchyPanel


def still(qtbot: Any) -> None:
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=60_000)
    qtbot.wait(10)


@pytest.fixture
def panel(qtbot: Any, session: Session) -> HierarchyPanel:
    made = HierarchyPanel(session)
    qtbot.addWidget(made)
    made.resize(360, 700)
    return made


def pixels(tile: Any) -> np.ndarray:
    return qimage_to_array(tile.pixmap().toImage())[..., :3]


def test_an_empty_viewer_says_what_to_do_first(qtbot: Any, empty_session: Session) -> None:
    made = HierarchyPanel(empty_session)
    qtbot.addWidget(made)
    assert made.status.text().startswith("Predict the genes of a slide first")
    assert made.status.isVisibleTo(made)
    assert not made.list.isEnabled()
    assert made.cone.plot.reason == "Predict the genes of a slide first."


def test_norms_and_the_share_that_violates_are_listed(panel: HierarchyPanel, session: Session) -> None:
    assert not panel.status.isVisibleTo(panel)  # a laptop has no room for what the views say
    assert session.active is not None
    table = session.active.table
    rows = [panel.list.topLevelItem(i) for i in range(panel.list.topLevelItemCount())]
    assert [row.text(0) for row in rows] == [
        "Norm of spot image", "Norm of niche image", "Norm of spot genes", "Norm of niche genes",
        "Spot image → spot genes", "Niche image → niche genes", "Spot image → niche image", "Spot genes → niche genes",
    ]  # fmt: skip
    assert rows[0].text(1) == f"mean {table.obs['norm_spot_image'].mean():.2f}"
    share = (table.obs["violation_spot_image__niche_image"] > 0).mean()
    assert rows[6].text(1) == f"{100 * share:.0f} % outside"
    assert "1.2 times the half-aperture" in rows[6].toolTip(0)


def test_a_click_shows_the_map(qtbot: Any, panel: HierarchyPanel, session: Session) -> None:
    panel.show()
    item = panel.list.item_of("violation_spot_gene__niche_gene")
    where = panel.list.visualItemRect(item).center()
    qtbot.mouseClick(panel.list.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert session.map == "violation_spot_gene__niche_gene"
    assert session.layer_of(session.active, session.map).visible
    session.show("norm_spot_image")
    assert panel.list.currentItem() is panel.list.item_of("norm_spot_image")
    session.show("predicted")
    assert panel.list.currentItem() is None
    still(qtbot)


def test_what_needs_counts_is_greyed_with_the_reason(panel: HierarchyPanel, session: Session) -> None:
    assert session.active is not None
    table = session.active.table.copy()
    del table.layers["measured"]
    for column in [column for column in table.obs if "gene" in column]:
        del table.obs[column]
    session.set_prediction(session.active.key, table, "table_hyperst")
    item = panel.list.item_of("violation_spot_image__spot_gene")
    assert not item.flags() & Qt.ItemFlag.ItemIsEnabled
    assert item.text(1) == "needs counts"
    assert NO_COUNTS in item.toolTip(0)
    assert panel.list.item_of("violation_spot_image__niche_image").flags() & Qt.ItemFlag.ItemIsEnabled
    session.select([0])
    assert panel.cone.words.text().startswith("Spot ")  # the one relation that is there
    assert "Child: niche image" in panel.cone.words.text()


def test_a_spot_has_its_cone_in_words_and_its_own_tiles(qtbot: Any, session: Session, tiny_slide: Slide) -> None:
    assert session.active is not None
    table = session.active.table
    view = ConeView(session)
    qtbot.addWidget(view)
    view.resize(360, 480)
    assert view.plot.reason == "Click a spot on the slide to see its cone."
    view.show()
    session.show("violation_niche_image__niche_gene")
    session.select([11])
    relation = Hierarchy.of(table).relations[1]
    cone = SpotCone.of(table, 11, relation)
    assert cone is not None
    assert view.words.text() == f"Spot {table.obs_names[11]}\n{describe(cone)}"
    exterior = np.degrees(table.obs[f"exterior_angle_{relation.name}"].iloc[11])
    aperture = np.degrees(table.obs[f"half_aperture_{relation.name}"].iloc[11])
    assert f"Exterior angle {exterior:.1f}° against 0.7 × {aperture:.1f}° = {0.7 * aperture:.1f}°" in describe(cone)
    outside = exterior > 0.7 * aperture
    assert ("outside the cone" in describe(cone)) == outside
    qtbot.waitUntil(lambda: view.captions["spot"].text() == "Spot tile, 112 µm", timeout=60_000)
    told = table.uns["hyperst"]
    place = tiny_slide.spots.ids.tolist().index(table.obs_names[11])
    spec = TileSpec(spot_um=told["spot_um"], niche_um=told["niche_um"])
    (batch,) = read_tiles(tiny_slide, spec, np.array([place]))
    for name, tile in (("spot", batch.spot[0]), ("niche", batch.niche[0])):
        shown = pixels(view.tiles[name]).astype(int)  # on a screen of few colours
        np.testing.assert_allclose(shown, tile.astype(int), atol=8)
    assert view.captions["niche"].text() == f"Niche tile, {told['niche_um']:.4g} µm"
    qtbot.waitUntil(lambda: view.plot.axes is not None, timeout=60_000)
    session.select([12, 30])
    assert view.words.text().startswith(f"Spot {table.obs_names[12]} (first of 2 selected)")
    session.select([])
    assert not view.tiles["spot"].isVisible()
    still(qtbot)
    assert not view.tiles["spot"].isVisible()  # tiles that come late are no longer wanted


def test_tiles_of_another_slide_that_come_late_are_not_shown(qtbot: Any, session: Session, tiny_slide: Slide) -> None:
    assert session.active is not None
    view = ConeView(session)
    qtbot.addWidget(view)
    view.show()
    before = session.active.table
    session.select([11])
    later = before.copy()
    session.set_prediction(session.active.key, later, "table_hyperst")
    session.select([11])
    qtbot.waitUntil(lambda: view.tiles["spot"].isVisible(), timeout=60_000)
    right = pixels(view.tiles["spot"])
    black = SpotTiles(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), 1.0, 2.0)
    view._on_tiles((before, 11, black))
    np.testing.assert_array_equal(pixels(view.tiles["spot"]), right)
    view._on_tiles((later, 11, black))
    assert not pixels(view.tiles["spot"]).any()
    still(qtbot)


def test_a_spot_that_was_not_counted_has_no_cone(qtbot: Any, session: Session) -> None:
    assert session.active is not None
    table = session.active.table.copy()
    for column in ("violation", "exterior_angle", "half_aperture"):
        table.obs.loc[table.obs_names[3], f"{column}_spot_image__spot_gene"] = np.nan
    session.set_prediction(session.active.key, table, "table_hyperst")
    view = ConeView(session)
    qtbot.addWidget(view)
    session.show("violation_spot_image__spot_gene")
    session.select([3])
    assert view.plot.reason == "Spot image → spot genes: this spot has no cone, as it was not counted."


def test_tiles_that_cannot_be_read_are_told(qtbot: Any, session: Session) -> None:
    assert session.active is not None
    table = session.active.table.copy()
    table.obs["spot_id"] = [f"gone{i}" for i in range(table.n_obs)]
    session.set_prediction(session.active.key, table, "table_hyperst")
    view = ConeView(session)
    qtbot.addWidget(view)
    view.show()
    session.select([3])
    qtbot.waitUntil(lambda: "no longer on the slide" in view.captions["spot"].text(), timeout=60_000)
    still(qtbot)


def test_tiles_of_a_slide_that_was_deleted_are_told_and_not_black(
    qtbot: Any, session: Session, tmp_path: Path, tiny_section: Path
) -> None:
    assert session.active is not None
    table = session.active.table
    there = Path(shutil.copytree(tiny_section, tmp_path / "moved"))
    entry = session.add(open_slide(there))
    session.set_prediction(entry.key, table.copy(), "table_hyperst")
    shutil.rmtree(there)
    view = ConeView(session)
    qtbot.addWidget(view)
    view.show()
    session.select([3])
    qtbot.waitUntil(lambda: "moved: the slide is no longer there" in view.captions["spot"].text(), timeout=60_000)
    assert not view.tiles["spot"].isVisible()
    still(qtbot)


def test_every_control_has_a_tooltip(panel: HierarchyPanel) -> None:
    for control in (*panel.findChildren(QPushButton), *panel.findChildren(QComboBox)):
        assert control.toolTip(), control
    assert all(panel.tabs.tabToolTip(i) for i in range(3))


def test_a_panel_that_is_gone_hears_nothing(qtbot: Any, session: Session) -> None:
    before = len(session.selection_changed), len(session.shown_changed), len(session.prediction_changed)
    outer = QWidget()
    made = HierarchyPanel(session)
    made.setParent(outer)
    assert len(session.selection_changed) > before[0]
    outer.deleteLater()
    qtbot.waitUntil(lambda: len(session.selection_changed) == before[0])
    assert (len(session.selection_changed), len(session.shown_changed), len(session.prediction_changed)) == before
    session.select([1])
    session.viewer.theme = "light"


@pytest.mark.parametrize("width", [330, 480])
def test_the_tiles_of_a_spot_lie_beside_its_cone_and_their_captions_beneath_them(
    qtbot: Any, session: Session, width: int
) -> None:
    view = ConeView(session)
    qtbot.addWidget(view)
    view.resize(width, 290)  # what a laptop has for it
    view.show()
    session.show("violation_niche_image__niche_gene")
    session.select([11])
    qtbot.waitUntil(lambda: view.captions["niche"].text().startswith("Niche tile, "), timeout=60_000)
    qtbot.waitUntil(lambda: view.tiles["spot"].geometry().left() > view.plot.geometry().right(), timeout=5_000)
    column = [view.tiles["spot"], view.captions["spot"], view.tiles["niche"], view.captions["niche"]]
    for above, below in pairwise(column):
        assert above.geometry().bottom() < below.geometry().top()
    assert view.plot.height() > 150
    assert view.plot.width() > width / 2
