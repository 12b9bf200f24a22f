"""Selections of spots, here and in napari's layers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from anndata import AnnData
from napari.components import ViewerModel
from qtpy.QtCore import QPoint, Qt

from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.viewer import selection, session_of
from napari_hyperst.viewer.session import Session

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def slide(tiny_section: Path) -> Slide:
    return open_slide(tiny_section)


def predicted(viewer: Any, slide: Slide, table: AnnData) -> Session:
    session = session_of(viewer)
    entry = session.add(slide)
    session.set_prediction(entry.key, table.copy(), "table_hyperst")
    return session


@pytest.fixture
def session(slide: Slide, tiny_table: AnnData) -> Session:
    viewer = ViewerModel()
    found = predicted(viewer, slide, tiny_table)
    found.keep = viewer  # type: ignore[attr-defined]  # a session does not keep its viewer alive
    return found


def layer(session: Session, kind: str) -> Any:
    assert session.active is not None
    own = (one for one in session.viewer.layers if one.metadata["hyperst"]["slide"] == session.active.key)
    return next(one for one in own if one.metadata["hyperst"]["kind"] == kind)


def told(session: Session) -> MagicMock:
    heard = MagicMock()
    session.selection_changed.connect(heard)
    return heard


def test_rows_are_highlighted_where_they_are_seen(session: Session) -> None:
    heard = told(session)
    session.select([5, 3, 5])
    np.testing.assert_array_equal(session.selection, [3, 5])
    assert session.selection.dtype == np.intp
    assert layer(session, "predicted").selected_data == {3, 5}
    np.testing.assert_array_equal(np.flatnonzero(layer(session, "predicted").border_width), [3, 5])
    assert not layer(session, "measured").selected_data  # hidden
    heard.assert_called_once()
    session.select([3, 5])
    heard.assert_called_once()
    session.show("measured")
    assert layer(session, "measured").selected_data == {3, 5}
    session.select(())
    assert not layer(session, "measured").selected_data
    layer(session, "predicted").visible = True  # by hand, with what was selected before
    assert not layer(session, "predicted").selected_data


def test_points_that_are_selected_in_any_layer_are_rows(session: Session) -> None:
    entry = session.active
    assert entry is not None
    assert entry.table is not None
    heard = told(session)
    layer(session, "predicted").selected_data = {7, 2}
    np.testing.assert_array_equal(np.flatnonzero(layer(session, "predicted").border_width), [2, 7])
    np.testing.assert_array_equal(session.selection, [2, 7])
    heard.assert_called_once()
    spots = layer(session, "spots")
    assert len(spots.data) > entry.table.n_obs  # one spot's tile reaches over the edge
    ids = spots.features["spot"].to_numpy()[sorted(spots.selected_data)]
    assert set(ids) == set(entry.table.obs_names[[2, 7]])
    some = [0, len(spots.data) - 1]
    spots.selected_data = set(some)
    chosen = entry.table.obs_names[session.selection]
    assert set(chosen) == set(spots.features["spot"].to_numpy()[some]) & set(entry.table.obs_names)
    assert len(chosen)
    assert layer(session, "predicted").selected_data == set(session.selection.tolist())
    assert heard.call_count == 2


def test_a_layer_that_is_renamed_goes_on_and_one_that_is_removed_does_not(session: Session) -> None:
    shown = layer(session, "predicted")
    shown.name = "mine"
    session.select([1])
    assert shown.selected_data == {1}
    session.viewer.layers.remove(shown)
    session.select([2])
    assert shown.selected_data == {1}
    shown.selected_data = {4}
    np.testing.assert_array_equal(session.selection, [2])
    session.show("predicted")
    assert layer(session, "predicted").selected_data == {2}
    gone = weakref.ref(shown)
    del shown
    gc.collect()
    assert gone() is None


def test_another_slide_or_prediction_has_nothing_selected(session: Session, slide: Slide, tiny_table: AnnData) -> None:
    first = session.active
    assert first is not None
    session.select([1, 2])
    before = layer(session, "predicted")
    predicted(session.viewer, slide, tiny_table)
    assert len(session.selection) == 0
    session.select([4])
    assert before.selected_data == {1, 2}  # hidden, not of the active slide
    session.activate(first.key)
    assert len(session.selection) == 0
    assert not before.selected_data
    session.select([1])
    session.show(gene=str(tiny_table.var_names[0]))
    np.testing.assert_array_equal(session.selection, [1])
    session.set_prediction(first.key, tiny_table.copy(), "table_hyperst")
    assert len(session.selection) == 0
    assert not before.selected_data
    session.viewer.layers.clear()
    assert len(session.selection) == 0


def test_two_viewers_do_not_know_of_each_other(session: Session, slide: Slide, tiny_table: AnnData) -> None:
    viewer = ViewerModel()
    other = predicted(viewer, slide, tiny_table)
    session.select([1])
    other.select([2, 3])
    np.testing.assert_array_equal(session.selection, [1])
    assert layer(session, "predicted").selected_data == {1}
    gone = weakref.ref(other)
    del other, viewer
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("row", [-1, 10_000])
def test_a_row_that_is_not_there_is_refused(session: Session, row: int) -> None:
    with pytest.raises(ValueError, match=f"and {row} is none"):
        session.select([row])
    assert len(session.selection) == 0


def test_nothing_can_be_selected_before_there_is_a_prediction(slide: Slide) -> None:
    viewer = ViewerModel()
    session = session_of(viewer)
    session.select(())
    with pytest.raises(ValueError, match="there are 0 rows"):
        session.select([0])
    session.add(slide)
    layer(session, "spots").selected_data = {0}
    assert len(session.selection) == 0


def test_too_many_for_napari_are_only_ringed(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MAX_SELECTED", 2)
    session.select([1, 2])
    assert layer(session, "predicted").selected_data == {1, 2}
    session.select([1, 2, 3])
    assert not layer(session, "predicted").selected_data
    np.testing.assert_array_equal(np.flatnonzero(layer(session, "predicted").border_width), [1, 2, 3])
    layer(session, "predicted").selected_data = {4, 5, 6}  # napari has them already
    assert layer(session, "predicted").selected_data == {4, 5, 6}
    np.testing.assert_array_equal(session.selection, [4, 5, 6])


def test_points_deleted_by_hand_select_no_others(session: Session) -> None:
    shown = layer(session, "predicted")
    shown.selected_data = {0}
    shown.remove_selected()
    shown.selected_data = {3}
    np.testing.assert_array_equal(session.selection, [0])


def test_a_click_selects_a_spot_and_shift_another(
    qtbot: Any, make_napari_viewer_proxy: Make, slide: Slide, tiny_table: AnnData
) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    session = predicted(viewer, slide, tiny_table)
    shown = layer(session, "predicted")
    canvas = session.viewer.window._qt_viewer.canvas  # where the mouse is
    qtbot.waitUntil(canvas.native.isVisible)
    qtbot.wait(50)

    def pixel(row: int, off: float = 0.0) -> QPoint:
        y, x = shown.data_to_world(shown.data[row])
        view = canvas.view.scene.transform.map([x + off, y])
        return QPoint(round(float(view[0])), round(float(view[1])))

    click = Qt.MouseButton.LeftButton
    qtbot.mouseClick(canvas.native, click, pos=pixel(4))
    np.testing.assert_array_equal(session.selection, [4])
    assert shown.selected_data == {4}
    shift = Qt.KeyboardModifier.ShiftModifier
    qtbot.mouseClick(canvas.native, click, shift, pos=pixel(9))
    np.testing.assert_array_equal(session.selection, [4, 9])
    qtbot.mouseClick(canvas.native, click, shift, pos=pixel(4))
    np.testing.assert_array_equal(session.selection, [9])
    qtbot.mousePress(canvas.native, click, pos=pixel(4))  # a drag pans
    qtbot.mouseMove(canvas.native, pixel(4) + QPoint(40, 0))
    qtbot.mouseRelease(canvas.native, click, pos=pixel(4) + QPoint(40, 0))
    np.testing.assert_array_equal(session.selection, [9])
    shown.mode = "select"  # now napari's
    qtbot.mouseClick(canvas.native, click, pos=pixel(5))
    np.testing.assert_array_equal(session.selection, [5])
    shown.mode = "pan_zoom"
    qtbot.mouseClick(canvas.native, click, pos=pixel(5, off=0.5 * slide.pitch_um))  # between two spots
    assert len(session.selection) == 0
