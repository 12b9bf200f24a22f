"""Square bins as an image: where they lie, what they show, and what stays small."""

from __future__ import annotations

import gc
from pathlib import Path
from unittest.mock import MagicMock

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from napari.components import ViewerModel
from napari.layers import Image, Labels
from spatialdata.models import Image2DModel, ShapesModel

from napari_hyperst.nouns.bundled import DEFAULT_CHECKPOINT
from napari_hyperst.slides.slide import Slide, Source, build_slide
from napari_hyperst.viewer import bins, map_values
from napari_hyperst.viewer.bins import grid_of
from napari_hyperst.viewer.contract import ours
from napari_hyperst.viewer.footprints import outlines_px
from napari_hyperst.viewer.maps import robust_limits, values_of
from napari_hyperst.viewer.preferences import percentiles
from napari_hyperst.viewer.session import Session, session_of

#: Bins of 16 µm, 7.3 px wide, turned by 4°, some of which are not in tissue.
PITCH_PX, TURNED, SHAPE = 7.3, np.deg2rad(4.0), (40, 30)


def centres(turned: float = TURNED) -> np.ndarray:
    """Return the centres of the bins that are there, (x, y) in px."""
    row, column = (part.ravel() for part in np.indices(SHAPE))
    there = (row - 20) ** 2 + (column - 12) ** 2 > 16
    row, column = row[there], column[there]
    down, right = (np.cos(turned), np.sin(turned)), (-np.sin(turned), np.cos(turned))
    yx = 60.4 + PITCH_PX * (row[:, None] * down + column[:, None] * right)
    return yx[:, ::-1]


def slide_of(xy: np.ndarray, spot_um: float = 16.0) -> Slide:
    pixels = da.zeros((3, 400, 400), dtype=np.uint8, chunks=(3, 400, 400)) + 200
    image = Image2DModel.parse(pixels, dims=("c", "y", "x"))
    shapes = ShapesModel.parse(xy, geometry=0, radius=4.0)
    sdata = sd.SpatialData(images={"he": image}, shapes={"bins": shapes})
    mpp = 16.0 / PITCH_PX
    return build_slide(Source(sdata, Path("bins"), "he", "bins", None, pitch_um=16.0, spot_um=spot_um, mpp=mpp))


def table_of(slide: Slide) -> AnnData:
    import napari_hyperst

    assets = Path(napari_hyperst.__file__).parent / "assets" / "checkpoints" / DEFAULT_CHECKPOINT
    values = np.random.default_rng(0).random((len(slide.spots), 2)).astype(np.float32)
    values[5, 0] = np.nan
    return AnnData(
        values,
        obs=pd.DataFrame({"complete_niche": np.arange(len(values)) % 2 == 0}, index=pd.Index(slide.spots.ids)),
        var=pd.DataFrame(index=pd.Index(["A", "B"])),
        obsm={"spatial": slide.spots.centres_px},
        layers={"measured": 2 * values},
        uns={"hyperst": {"card": (assets / "card.json").read_text(), "spot_um": 112.0, "niche_um": 300.0}},
    )


@pytest.fixture
def session() -> Session:
    viewer = ViewerModel()
    found = session_of(viewer)
    found.keep = viewer  # type: ignore[attr-defined]  # a session does not keep its viewer alive
    return found


@pytest.mark.parametrize("turned", [0.0, TURNED, np.deg2rad(-31.0)])
def test_places_are_found_to_a_hundredth_of_a_px(turned: float) -> None:
    slide = slide_of(centres(turned) + (150 if turned < 0 else 0))
    grid = grid_of(slide)
    assert grid is not None
    assert sorted(grid.shape) == sorted(SHAPE)
    places = grid.places(slide.spots.centres_px)
    assert len(np.unique(places, axis=0)) == len(places)
    back = np.column_stack([places, np.ones(len(places))]) @ grid.matrix.T
    np.testing.assert_allclose(back[:, :2], slide.spots.centres_px[:, ::-1], atol=0.01)


def test_spots_that_are_apart_are_no_bins(c2: Slide) -> None:
    assert grid_of(slide_of(centres(), spot_um=8.0)) is None
    assert grid_of(c2) is None


def test_bins_are_one_image_in_register_and_another_gene_recolours_it(session: Session) -> None:
    slide = slide_of(centres())
    entry = session.add(slide)
    base = session.viewer.layers["bins"]
    assert isinstance(base, Image)
    assert base.metadata["sdata"] is slide.sdata
    table = table_of(slide)
    session.set_prediction(entry.key, table, "hyperst")
    session.show("predicted", "A")
    layer = session.layer_of(entry, "predicted")
    assert isinstance(layer, Image)
    count = len(session.viewer.layers)
    for gene in ("A", "B", "A"):
        session.show(gene=gene)
        assert session.layer_of(entry, "predicted") is layer
        values = values_of(table, "predicted", (gene,))
        for row in (0, 3, 5, 400, len(values) - 1):
            world = slide.spots.centres_px[row, ::-1] * slide.mpp
            place = layer.world_to_data(world)
            np.testing.assert_allclose(place, np.rint(place), atol=0.01)  # half a px would be 0.07
            np.testing.assert_equal(layer.data[tuple(np.rint(place).astype(int))], values[row])
        assert np.isfinite(layer.data).sum() == np.isfinite(values).sum()
        assert np.isfinite(layer.contrast_limits).all()
    assert len(session.viewer.layers) == count
    assert layer.colorbar.visible
    assert layer.colormap.name == "viridis"
    where = {"world": True, "view_direction": None, "dims_displayed": [0, 1]}
    told = layer.get_status(slide.spots.centres_px[3, ::-1] * slide.mpp, **where)["value"]
    assert told.startswith(
        f"spot {slide.spots.ids[3]} · its niche is incomplete · A predicted {table.X[3, 0]:.2f}, measured "
    )
    assert "its niche is incomplete" in told
    assert layer.get_status((0.0, 0.0), **where)["value"] == ""
    layer.contrast_limits = (0.25, 0.5)  # with napari's slider
    assert "0.25 to 0.5 " in session.viewer.canvas.overlays.text.text
    copy = Image(layer.data.copy(), metadata=layer.metadata, name="copy")
    session.viewer.add_layer(copy)
    session.show(gene="B")
    np.testing.assert_array_equal(copy.data, layer.data)
    labels = Labels(layer.data > 0, metadata=layer.metadata)  # as napari turns an image into labels
    session.viewer.add_layer(labels)
    session.show(gene="A")
    np.testing.assert_array_equal(labels.data, labels.data.astype(bool))
    assert session.viewer.canvas.overlays.text.text.startswith(f"{entry.key} · A predicted")


def test_maps_of_bins_follow_their_base_and_so_do_the_outlines(session: Session) -> None:
    slide = slide_of(centres())
    entry = session.add(slide)
    session.set_prediction(entry.key, table_of(slide), "hyperst")
    session.show_footprints(True)
    layer = session.layer_of(entry, "predicted")
    assert layer is not None
    outlined = next(one for one in session.viewer.layers if ours(one).get("kind") == "footprints")
    centre = slide.spots.centres_px[0, ::-1]
    corner = centre - 112.0 / 2 / slide.mpp
    np.testing.assert_allclose(outlined.data[0, 0], corner)
    np.testing.assert_allclose(outlined.data_to_world(corner), corner * slide.mpp, atol=1e-6)
    moved = np.array([[0, -2, 30], [2, 0, -7], [0, 0, 1.0]])
    base = session.viewer.layers["bins"]
    base.affine = moved @ base.affine.affine_matrix
    for one in (layer, outlined):
        data = layer.world_to_data(centre * slide.mpp) if one is layer else centre
        world = (moved @ [*(centre * slide.mpp), 1])[:2]
        place = one.world_to_data(world)
        assert np.isfinite(data).all()
        if one is outlined:
            np.testing.assert_allclose(place, centre, atol=1e-6)
        else:
            np.testing.assert_allclose(place, np.rint(place), atol=0.01)


def test_the_outline_is_where_bins_end() -> None:
    slide = slide_of(centres(0.0))
    grid = grid_of(slide)
    assert grid is not None
    outline = grid.outline(grid.places(slide.spots.centres_px))
    assert outline[0].all()
    assert outline[:, 0].all()
    assert not outline[3:10, 3:10].any()
    assert outline[20, 17]  # beside the hole
    assert not outline[20, 12]  # in it


def test_of_many_bins_some_are_outlined() -> None:
    xy = np.stack(np.meshgrid(np.arange(150.0), np.arange(150.0)), axis=-1).reshape(-1, 2) * 2 + 40
    slide = slide_of(xy)
    assert len(slide.spots) == 22_500
    assert len(outlines_px(slide, 16.0)) == 4 * 7_500


def test_a_change_of_gene_works_each_value_out_once_and_tells_each_layer_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = slide_of(centres())
    entry = session.add(slide)
    table = table_of(slide)
    session.set_prediction(entry.key, table, "hyperst")
    session.show("predicted", "A")
    session.show_side_by_side(True)
    layers = [session.layer_of(entry, kind) for kind in ("predicted", "measured", "difference")]
    asked, limited, told, moved = MagicMock(wraps=values_of), MagicMock(wraps=robust_limits), MagicMock(), MagicMock()
    monkeypatch.setattr(map_values, "values_of", asked)
    monkeypatch.setattr(map_values, "robust_limits", limited)
    for layer in layers:
        layer.events.contrast_limits.connect(told)
        layer.events.extent.connect(moved)
    session.show(gene="B")
    assert sorted(call.args[1] for call in asked.call_args_list) == ["measured", "predicted"]
    assert limited.call_count == 2
    assert told.call_count == 3
    moved.assert_not_called()
    predicted, measured, difference = (layer.data for layer in layers)
    np.testing.assert_array_equal(predicted - measured, difference)
    shared = layers[0].contrast_limits
    assert layers[1].contrast_limits == shared == layers[0].contrast_limits_range
    both = np.concatenate([table.X[:, 1], table.layers["measured"][:, 1]])
    assert shared == pytest.approx(np.percentile(both, percentiles()).tolist())
    session.show(gene="A")
    session.show(gene="B")
    assert layers[0].contrast_limits == shared


@pytest.fixture
def predicted(session: Session) -> Session:
    slide = slide_of(centres())
    entry = session.add(slide)
    session.set_prediction(entry.key, table_of(slide), "hyperst")
    return session


def outlined(session: Session) -> Labels:
    (layer,) = (layer for layer in session.viewer.layers if ours(layer).get("kind") == "selection")
    assert isinstance(layer, Labels)
    return layer


def test_bins_that_are_selected_are_outlined_where_they_are(predicted: Session) -> None:
    entry, viewer = predicted.active, predicted.viewer
    assert entry is not None
    before, active = len(viewer.layers), viewer.layers.selection.active
    predicted.select([3, 400])
    assert len(viewer.layers) == before + 1
    assert viewer.layers.selection.active is active
    layer = outlined(predicted)
    assert layer.visible
    assert layer.contour == 1
    assert np.count_nonzero(layer.data) == 2
    for row in (3, 400):
        place = layer.world_to_data(entry.slide.spots.centres_px[row, ::-1] * entry.slide.mpp)
        assert layer.data[tuple(np.rint(place).astype(int))] == 1
    predicted.select([5])
    assert outlined(predicted) is layer
    assert np.count_nonzero(layer.data) == 1
    predicted.select(())
    assert not layer.visible
    assert outlined(predicted) is layer  # it waits for the next
    predicted.select([7])
    assert layer.visible
    predicted.show(gene="B")
    assert len(viewer.layers) == before + 1
    base = viewer.layers["bins"]
    base.affine = np.array([[0, -2, 30], [2, 0, -7], [0, 0, 1.0]]) @ base.affine.affine_matrix
    np.testing.assert_allclose(layer.affine.affine_matrix, base.affine.affine_matrix)


def test_bins_that_are_painted_are_selected_and_erased_ones_are_not(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    predicted.select([3])
    layer, heard = outlined(predicted), MagicMock()
    predicted.selection_changed.connect(heard)
    rows = predicted.layer_of(entry, "predicted").index
    there = np.argwhere(rows >= 0)[:40]
    layer.data_setitem(tuple(there.T), 1)
    np.testing.assert_array_equal(predicted.selection, np.unique([3, *rows[tuple(there.T)]]))
    assert heard.call_count == 1
    layer.data_setitem(tuple(np.argwhere(rows < 0)[:3].T), 1)  # beside the bins
    assert heard.call_count == 1
    layer.mode = "erase"
    layer.brush_size = 1
    layer.data_setitem(tuple(there.T), 0)
    layer.events.paint(value=[])  # the stroke has ended
    assert not set(rows[tuple(there.T)]) & set(predicted.selection.tolist())


@pytest.mark.parametrize("hidden", [False, True])
def test_the_outline_of_what_is_selected_is_taken_away_for_good(predicted: Session, hidden: bool) -> None:
    entry, layers = predicted.active, predicted.viewer.layers
    assert entry is not None
    predicted.select([3, 400])
    layer = outlined(predicted)
    predicted.layer_of(entry, "predicted").visible = not hidden
    layers.remove(layer)
    assert all(ours(left).get("kind") != "selection" for left in layers)
    predicted.select([3])
    inserted = MagicMock()
    layers.events.inserted.connect(inserted)
    layers.clear()  # which would never end if it came back
    inserted.assert_not_called()
    assert predicted.active is None


def test_another_prediction_of_fewer_bins_empties_what_is_selected(predicted: Session) -> None:
    entry = predicted.active
    assert entry is not None
    assert entry.table is not None
    fewer = entry.table[:900].copy()
    predicted.select([1100])
    predicted.show_footprints(True)
    predicted.layer_of(entry, "predicted").visible = False
    predicted.set_prediction(entry.key, fewer, "fewer")
    assert len(predicted.selection) == 0
    assert predicted.seen == "predicted"


def test_maps_beside_each_other_are_not_pushed_aside_by_what_is_selected(predicted: Session) -> None:
    predicted.select([3])
    layer = outlined(predicted)
    predicted.show_side_by_side(True)
    shape = predicted.viewer.canvas.grid.actual_shape(predicted.viewer.layers)
    assert not layer.visible
    predicted.select([3, 4])
    assert not layer.visible
    assert predicted.viewer.canvas.grid.actual_shape(predicted.viewer.layers) == shape
    predicted.show_side_by_side(False)
    assert layer.visible
    assert np.count_nonzero(layer.data) == 2


def test_the_array_of_bins_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slide = slide_of(centres())
    found = grid_of(slide)
    monkeypatch.setattr(bins, "_find_grid", MagicMock(side_effect=AssertionError))
    assert grid_of(slide) is found
    key = id(slide.spots)
    del slide
    gc.collect()
    assert key not in bins._FOUND
