"""Maps beside each other, each over the H&E, and marker sets as maps."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from anndata import AnnData
from napari.components import ViewerModel

from napari_hyperst.errors import HyperSTError
from napari_hyperst.slides import open_slide
from napari_hyperst.viewer.contract import ours
from napari_hyperst.viewer.layers import limits_shown
from napari_hyperst.viewer.markers import MarkerSet
from napari_hyperst.viewer.session import Session, session_of


@pytest.fixture
def session(tiny_section: Path, tiny_table: AnnData) -> Session:
    viewer = ViewerModel()
    found = session_of(viewer)
    found.keep = viewer  # type: ignore[attr-defined]  # a session does not keep its viewer alive
    entry = found.add(open_slide(tiny_section))
    found.set_prediction(entry.key, tiny_table.copy(), "table_hyperst")
    return found


def cells(session: Session) -> dict[tuple[int, int], list[str]]:
    """Return the kinds of layers in each cell of the grid, from the bottom up."""
    layers = session.viewer.layers
    grid = session.viewer.canvas.grid
    return {at: [ours(layers[i])["kind"] for i in held] for at, held in grid.iter_viewboxes(layers) if held}


def test_each_map_lies_over_an_h_and_e_of_the_same_pixels(session: Session) -> None:
    before = [(layer.name, layer.visible) for layer in session.viewer.layers]
    session.show_side_by_side(True)
    assert session.viewer.canvas.grid.enabled
    assert sorted(cells(session).values()) == [
        ["backdrop", "difference"], ["backdrop", "predicted"], ["image", "measured"],
    ] or sorted(kinds[1] for kinds in cells(session).values()) == ["difference", "measured", "predicted"]  # fmt: skip
    assert all(kinds[0] in ("image", "backdrop") and len(kinds) == 2 for kinds in cells(session).values())
    image = next(layer for layer in session.viewer.layers if ours(layer)["kind"] == "image")
    for copy in (layer for layer in session.viewer.layers if ours(layer)["kind"] == "backdrop"):
        np.testing.assert_array_equal(copy.data_to_world((3, 4)), image.data_to_world((3, 4)))
        assert copy.data[0] is image.data[0] or np.array_equal(copy.data[0][:9, :9], image.data[0][:9, :9])
    gene = next(str(name) for name in session.active.table.var_names if name != session.gene)  # type: ignore[union-attr]
    count = len(session.viewer.layers)
    session.show(gene=gene)
    assert len(session.viewer.layers) == count
    for layer in session.viewer.layers:
        if layer.visible and ours(layer)["kind"] not in ("image", "backdrop"):
            assert ours(layer)["gene"] == gene
    session.show_side_by_side(False)
    assert not session.viewer.canvas.grid.enabled
    after = [(layer.name, layer.visible) for layer in session.viewer.layers]
    assert after[: len(before)] == before


def test_another_map_and_naparis_own_button_leave_the_grid(session: Session) -> None:
    session.show_side_by_side(True)
    session.show("norm_spot_image")
    assert not session.viewer.canvas.grid.enabled
    session.show("difference")
    assert session.viewer.canvas.grid.enabled
    session.viewer.canvas.grid.enabled = False
    assert not session.side_by_side
    assert not any(ours(layer)["kind"] == "backdrop" for layer in session.viewer.layers)
    assert [ours(layer)["kind"] for layer in session.viewer.layers if layer.visible][2:] == ["difference"]


def test_a_map_taken_away_by_hand_and_a_closed_slide_leave_the_grid(session: Session) -> None:
    session.show_side_by_side(True)
    assert session.active is not None
    session.viewer.layers.remove(session.layer_of(session.active, "measured"))
    assert not session.viewer.canvas.grid.enabled
    maps = [session.layer_of(session.active, kind) for kind in ("predicted", "difference")]
    assert [layer.visible for layer in maps if layer is not None] == [True, False]  # not on each other
    session.show_side_by_side(True)
    assert len(cells(session)) == 3
    session.viewer.layers.clear()
    assert session.active is None
    assert not session.viewer.canvas.grid.enabled


def test_another_slide_takes_the_grid_over(session: Session, tiny_section: Path, tiny_table: AnnData) -> None:
    session.show_side_by_side(True)
    first = session.active
    second = session.add(open_slide(tiny_section))
    assert not session.viewer.canvas.grid.enabled  # it has no maps yet
    session.set_prediction(second.key, tiny_table.copy(), "hyperst")
    assert {ours(layer)["slide"] for layer in session.viewer.layers if layer.visible} == {second.key}
    assert len(cells(session)) == 3
    assert first is not None
    session.activate(first.key)
    assert {ours(layer)["slide"] for layer in session.viewer.layers if layer.visible} == {first.key}
    assert len(cells(session)) == 3


def test_what_is_looked_at_stays_in_view(session: Session) -> None:
    viewer = session.viewer
    camera, size = viewer.scene.camera, np.asarray(viewer.canvas.size)
    camera.center, camera.zoom = (0.0, 60.0, 40.0), 3.0
    session.show_side_by_side(True)
    assert camera.center == (0.0, 60.0, 40.0)
    cell = size / viewer.canvas.grid.actual_shape(viewer.layers)
    assert camera.zoom == pytest.approx(3.0 * cell.min() / size.min())
    viewer.canvas.grid.enabled = False  # with napari's button
    assert camera.center == (0.0, 60.0, 40.0)
    assert camera.zoom == pytest.approx(3.0)


def test_the_caption_tells_the_limits_of_each_cell(session: Session) -> None:
    session.show_side_by_side(True)
    said = session.viewer.canvas.overlays.text.text.splitlines()
    entry = session.active
    assert entry is not None
    kinds = ("predicted", "measured", "difference")
    spans = ["{:.3g} to {:.3g}".format(*limits_shown(session.layer_of(entry, kind))) for kind in kinds]
    assert spans[0] == spans[1] != spans[2]
    assert said == [f"{entry.key} · {session.title}", spans[0], f"difference: {spans[2]}", "For research use only"]
    text, captions = session.viewer.canvas.overlays.text, MagicMock()
    text.events.text.connect(captions)
    session.show(gene=str(entry.genes.names[-1]))
    assert captions.call_count == 1  # all of it is told at once
    measured = session.layer_of(entry, "measured")
    assert measured is not None
    measured.face_contrast_limits = (0.25, 0.75)
    predicted = "{:.3g} to {:.3g}".format(*limits_shown(session.layer_of(entry, "predicted")))
    assert text.text.splitlines()[1:3] == [f"predicted: {predicted}", "measured: 0.25 to 0.75"]
    beside = text.text
    measured.face_color_mode, measured.face_contrast_limits = "direct", None
    assert [line for line in text.text.splitlines() if "measured" in line] == []  # it has none
    measured.face_contrast_limits, measured.face_color_mode = (0.25, 0.75), "colormap"
    session.show("norm_spot_image")
    assert text.text.startswith(f"{entry.key} · norm of spot image\n")
    norm = session.layer_of(entry, "norm_spot_image")
    assert norm is not None
    session.show("predicted")
    assert text.text == beside
    norm.visible = True  # by hand, on top of a cell
    assert text.text == beside


def test_the_caption_of_a_map_alone_is_not_that_of_a_cell(session: Session) -> None:
    entry = session.active
    assert entry is not None
    session.show_side_by_side(True)
    session.show("norm_spot_image")  # which is of no gene, and so alone
    norm, predicted = (session.layer_of(entry, kind) for kind in ("norm_spot_image", "predicted"))
    assert norm is not None
    assert predicted is not None
    norm.visible = False
    predicted.visible = True  # both by hand
    low, high = limits_shown(predicted) or (0.0, 0.0)
    told = session.viewer.canvas.overlays.text.text.splitlines()
    assert told[0] == f"{entry.key} · {session.title} predicted"
    assert told[1] == f"{low:.3g} to {high:.3g} log2(count + 1)"


def test_a_marker_set_shows_the_mean_of_those_that_are_predicted(session: Session) -> None:
    entry = session.active
    assert entry is not None
    assert entry.table is not None
    first, second = entry.genes.names[:2]
    session.show("predicted", markers=MarkerSet("Two", (first.lower(), second, "NOPE")))
    layer = session.layer_of(entry, "predicted")
    assert layer is not None
    expected = entry.table[:, [first, second]].X.mean(axis=1)
    np.testing.assert_allclose(layer.features["value"], expected, rtol=1e-6)
    assert "Two" in session.viewer.canvas.overlays.text.text
    session.show("difference")
    measured = entry.table[:, [first, second]].layers["measured"].mean(axis=1)
    difference = session.layer_of(entry, "difference")
    assert difference is not None
    np.testing.assert_allclose(difference.features["value"], expected - measured, atol=1e-5)
    session.show(gene=second)
    assert session.markers is None
    with pytest.raises(HyperSTError, match="none of the genes of None"):
        session.show(markers=MarkerSet("None", ("NOPE",)))
