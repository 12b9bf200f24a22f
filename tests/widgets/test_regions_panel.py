"""The regions panel: draw, compare, sort, select, save."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.utils.interactions import mouse_double_click_callbacks, mouse_move_callbacks, mouse_press_callbacks
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt, QThreadPool
from qtpy.QtWidgets import QFileDialog

from napari_hyperst.jobs.filling import Filling
from napari_hyperst.slides import Slide
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.viewer.filling import WAIT, filling_table
from napari_hyperst.viewer.regions import compare, spots_inside
from napari_hyperst.viewer.session import Session, session_of
from napari_hyperst.widgets.regions_panel import RegionsPanel

LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def panel(qtbot: Any, session: Session) -> RegionsPanel:
    made = RegionsPanel(session)
    qtbot.addWidget(made)
    made.resize(360, 500)
    made.show()
    notification_manager.records.clear()
    return made


def draw_left_half(qtbot: Any, panel: RegionsPanel) -> Any:
    qtbot.mouseClick(panel.draw, LEFT)
    entry = panel.session.active
    assert entry is not None
    xy = entry.table.obsm["spatial"]
    (x0, y0), (x1, y1), middle = xy.min(axis=0) - 5, xy.max(axis=0) + 5, np.median(xy[:, 0]) + 2
    layer = panel.layer()
    layer.add(np.array([(y0, x0), (y0, middle), (y1, middle), (y1, x0)]), shape_type="polygon")
    return xy[:, 0] < middle, x1


def compared(qtbot: Any, panel: RegionsPanel) -> None:
    qtbot.mouseClick(panel.compare, LEFT)
    qtbot.waitUntil(lambda: panel._cancel is None, timeout=60_000)
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0)


def column(panel: RegionsPanel, place: int) -> list[str]:
    proxy = panel.table.proxy
    return [str(proxy.index(row, place).data()) for row in range(proxy.rowCount())]


def test_an_empty_viewer_says_what_to_do_first(qtbot: Any, empty_session: Session) -> None:
    made = RegionsPanel(empty_session)
    qtbot.addWidget(made)
    assert made.status.text().startswith("Predict the genes of a slide first")
    for button in (made.draw, made.compare, made.select, made.save):
        assert not button.isEnabled()
        assert button.toolTip() == "Predict genes first"


def test_draw_compare_look_select(qtbot: Any, panel: RegionsPanel, session: Session) -> None:
    assert "Press Draw" in panel.status.text()
    assert panel.compare.toolTip() == "Draw a region first"
    inside, _ = draw_left_half(qtbot, panel)
    assert panel.layer().mode == "add_polygon"
    assert panel.status.text().startswith("1 region. Press Compare")
    compared(qtbot, panel)
    assert session.active is not None
    expected = compare(session.active.table, inside)
    assert expected is not None
    assert panel.status.text().startswith(f"{inside.sum()} spots inside, {(~inside).sum()} outside.")
    assert column(panel, 0) == expected.genes.tolist()
    assert column(panel, 1) == [f"{effect:+.2f}" for effect in expected.effect]
    where = panel.table.visualRect(panel.table.proxy.index(2, 0)).center()
    qtbot.mouseClick(panel.table.viewport(), LEFT, pos=where)
    assert session.gene == expected.genes[2]
    qtbot.mouseClick(panel.select, LEFT)
    np.testing.assert_array_equal(session.selection, np.flatnonzero(inside))


def test_a_closed_polygon_gives_the_mouse_back(make_napari_viewer: Any, qtbot: Any, session: Session) -> None:
    viewer = make_napari_viewer()
    mine = session_of(viewer)
    assert session.active is not None
    mine.add(session.active.slide)
    mine.set_prediction(mine.active.key, session.active.table.copy(), "table_hyperst")
    panel = RegionsPanel(mine)
    qtbot.addWidget(panel)
    qtbot.mouseClick(panel.draw, LEFT)
    layer = panel.layer()
    corners = mine.active.table.obsm["spatial"][[0, 5, 30], ::-1]
    for corner in corners:
        at = tuple(layer.data_to_world(corner))
        for kind in ("mouse_move", "mouse_press"):
            event = SimpleNamespace(type=kind, position=at, pos=np.array(at), modifiers=[], button=1, is_dragging=False,
                                    dims_displayed=[0, 1], view_direction=None)  # fmt: skip
            (mouse_move_callbacks if kind == "mouse_move" else mouse_press_callbacks)(layer, event)
        qtbot.wait(5)
        assert layer.mode == "add_polygon"
    mouse_double_click_callbacks(layer, event)
    qtbot.waitUntil(lambda: layer.mode == "pan_zoom")
    assert layer.shape_type == ["polygon"]
    assert viewer.layers.selection.active is mine.layer_of(mine.active, "predicted")
    assert panel.status.text().startswith("1 region. ")


def test_any_column_sorts_by_its_numbers(qtbot: Any, panel: RegionsPanel) -> None:
    draw_left_half(qtbot, panel)
    compared(qtbot, panel)
    found = panel.found
    assert found is not None
    for place, numbers in ((1, found.effect), (3, found.inside), (5, found.adjusted)):
        for order, sign in ((Qt.SortOrder.AscendingOrder, 1), (Qt.SortOrder.DescendingOrder, -1)):
            panel.table.sortByColumn(place, order)
            rows = [found.genes.tolist().index(gene) for gene in column(panel, 0)]
            assert (sign * np.diff(numbers[rows]) >= 0).all()


def test_it_is_saved_as_csv(qtbot: Any, panel: RegionsPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_left_half(qtbot, panel)
    assert panel.save.toolTip() == "Compare first"
    compared(qtbot, panel)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "genes"), ""))
    qtbot.mouseClick(panel.save, LEFT)
    with (tmp_path / "genes.csv").open() as file:
        assert [line[0] for line in csv.reader(file)][1:] == panel.found.genes.tolist()
    suggested: list[str] = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *asked: (suggested.append(asked[2]), ("", ""))[1])
    entry = panel.session.active
    assert entry is not None
    entry.slide = replace(entry.slide, ref=entry.ref.model_copy(update={"path": sample_folder()}))
    qtbot.mouseClick(panel.save, LEFT)
    assert Path(suggested[0]).parent == Path.home()  # not within the package
    panel.write(tmp_path / "missing" / "genes.csv")
    assert "cannot be written" in str(notification_manager.records[-1].message)


def test_another_polygon_or_prediction_forgets_what_was_found(
    qtbot: Any, panel: RegionsPanel, session: Session
) -> None:
    inside, right = draw_left_half(qtbot, panel)
    compared(qtbot, panel)
    assert panel.found is not None
    layer = panel.layer()
    y = layer.data[0][:, 0]
    middle = layer.data[0][:, 1].max()
    layer.add(np.array([(y.min(), middle - 9), (y.min(), right), (y.max(), right), (y.max(), middle - 9)]))
    assert panel.found is None
    assert panel.table.proxy.rowCount() == 0
    assert panel.status.text().startswith("2 regions. ")
    compared(qtbot, panel)  # all spots are inside
    assert panel.found is None
    assert "no spot lies outside the region" in str(notification_manager.records[-1].message)
    layer.selected_data = {1}
    layer.remove_selected()
    compared(qtbot, panel)
    assert panel.found is not None
    assert session.active is not None
    session.set_prediction(session.active.key, session.active.table.copy(), "table_hyperst")
    assert panel.found is None
    session.viewer.layers.remove(layer)  # by hand
    assert panel.layer() is None
    assert "Press Draw" in panel.status.text()


def test_a_polygon_that_crosses_itself_is_told(qtbot: Any, panel: RegionsPanel) -> None:
    qtbot.mouseClick(panel.draw, LEFT)
    panel.layer().add(np.array([(0, 0), (1000, 1000), (0, 1000), (1000, 0)]), shape_type="polygon")
    qtbot.mouseClick(panel.compare, LEFT)
    assert "region 1 crosses itself; delete it" in str(notification_manager.records[-1].message)
    assert panel._cancel is None


def test_a_prediction_that_is_being_made_is_waited_for(
    panel: RegionsPanel, session: Session, tiny_slide: Slide, tmp_path: Path
) -> None:
    assert session.active is not None
    filling = Filling(tmp_path, ["A", "B"], len(tiny_slide.spots))
    filling.put(np.arange(4), np.ones((4, 2), np.float32))
    table = filling_table(tiny_slide, ["A", "B"], tmp_path / str(filling.told["file"]))
    session.set_prediction(session.active.key, table, "")
    assert panel.status.text() == WAIT
    for button in (panel.draw, panel.compare, panel.select, panel.save):
        assert not button.isEnabled()
        assert button.toolTip() == WAIT


def test_it_can_be_cancelled(qtbot: Any, panel: RegionsPanel) -> None:
    draw_left_half(qtbot, panel)
    qtbot.mouseClick(panel.compare, LEFT)
    assert panel.compare.text() == "Cancel"
    qtbot.mouseClick(panel.compare, LEFT)
    assert panel.compare.text() == "Compare"
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=60_000)
    qtbot.wait(20)
    assert panel.found is None
    compared(qtbot, panel)
    assert panel.found is not None


def test_spots_are_where_the_region_is(qtbot: Any, panel: RegionsPanel, session: Session) -> None:
    inside, _ = draw_left_half(qtbot, panel)
    assert session.active is not None
    np.testing.assert_array_equal(spots_inside(session.active.table, panel._region()), inside)
