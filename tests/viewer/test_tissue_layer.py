"""The mask of an H&E-only slide as a layer: in register, and the spots follow what is painted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import painted
import pytest
from anndata import AnnData
from napari.components import ViewerModel

from napari_hyperst.errors import SlideError
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.prediction import predict
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.export import prediction_table
from napari_hyperst.slides.readers.whole_slide import lay_again
from napari_hyperst.viewer import session_of, tissue
from napari_hyperst.viewer.contract import OURS
from napari_hyperst.viewer.footprints import footprint_layer
from napari_hyperst.viewer.session import Session

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    return open_slide(painted.write_tif(tmp_path_factory.mktemp("wsi") / "he.tif", painted.paint(), levels=2))


@pytest.fixture
def session() -> Iterator[Session]:
    viewer = ViewerModel()
    yield session_of(viewer)
    viewer.layers.clear()


@pytest.fixture
def layers(session: Session, slide: Slide) -> tuple[Any, Any, Any]:
    session.add(slide)
    image, mask, spots = session.viewer.layers
    return image, mask, spots


def test_outlines_of_tiles_follow_the_spots(session: Session, layers: Any) -> None:
    entry = session.active
    assert entry is not None
    session.show_footprints(True)
    session.lay(entry.slide.source.pitch_um / 2)
    outlines = footprint_layer(session.viewer, entry.key)
    assert outlines is not None
    assert len(outlines.data) == 2 * 4 * len(entry.slide.spots)
    erase_left(layers[1])
    outlines = footprint_layer(session.viewer, entry.key)
    assert outlines is not None
    assert len(outlines.data) == 2 * 4 * len(entry.slide.spots)


def erase_left(mask: Any) -> None:
    """Erase the left half of a mask as a stroke does."""
    mask.data_setitem(np.nonzero(mask.data[:, : mask.data.shape[1] // 2]), 0)


def test_the_mask_is_a_labels_layer_between_the_he_and_the_spots(session: Session, slide: Slide, layers: Any) -> None:
    image, mask, spots = layers
    assert [layer.metadata[OURS]["kind"] for layer in layers] == ["image", "tissue", "spots"]
    assert mask.name == "he_tissue"
    assert mask.metadata["sdata"] is slide.sdata
    assert mask.contour == 2
    assert mask.brush_size * mask.scale[-1] == pytest.approx(200, rel=0.05)
    np.testing.assert_array_equal(mask.data, slide.sdata.labels["he_tissue"])
    assert mask.data is not slide.sdata.labels["he_tissue"].data  # what is painted does not change the store's
    assert len(spots.data) == len(slide.spots)


def test_the_mask_lies_on_the_he_to_a_fraction_of_a_px(slide: Slide, layers: Any) -> None:
    image, mask, _ = layers
    (low, high), (low_mask, high_mask) = image.extent.world, mask.extent.world
    half = np.array([slide.mpp, slide.mpp]) / 2, np.asarray(mask.scale) / 2  # extents are those of centres of px
    np.testing.assert_allclose(np.asarray(low) - half[0], np.asarray(low_mask) - half[1], atol=1e-6)
    np.testing.assert_allclose(np.asarray(high) + half[0], np.asarray(high_mask) + half[1], atol=1e-6)
    assert {str(unit) for layer in layers for unit in layer.units} == {"micrometer"}
    truth = painted.true_tissue()
    for place in ((700, 1000), (400, 1650), (600, 700), (100, 100), (1400, 500)):  # y, x in px of the H&E
        world = image.data_to_world(np.array(place) - 0.5)
        row, column = np.round(mask.world_to_data(world)).astype(int)
        assert bool(mask.data[row, column]) == bool(truth[place])


@pytest.mark.parametrize("edit", ["setitem", "paint", "fill", "undo", "redo", "contour off"])
def test_spots_follow_what_is_painted(
    session: Session, layers: Any, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tissue, "_SHARE", 1e9)
    _, mask, spots = layers
    before = spots.data.copy()
    entry = session.active
    assert entry is not None
    told: list[int] = []
    session.slides_changed.connect(lambda: told.append(len(entry.slide.spots)))
    erased = np.array(painted.PIECE) / painted.SHAPE * mask.data.shape
    if edit == "setitem":
        erase_left(mask)
    elif edit == "paint":
        mask.brush_size = 120
        mask.paint(tuple(erased), 0)
    else:
        mask.contour = 0 if edit == "contour off" else mask.contour
        mask.fill(tuple(erased), 0)
    if edit in ("undo", "redo"):
        mask.undo()
    if edit == "redo":
        mask.redo()
    if edit == "undo":
        np.testing.assert_array_equal(spots.data, before)
        return
    assert told[-1] == len(entry.slide.spots) == len(spots.data) < len(before)
    np.testing.assert_array_equal(spots.data, entry.slide.spots.centres_px[:, ::-1])
    left = set(map(tuple, spots.data.tolist()))
    assert left < set(map(tuple, before.tolist()))
    gone = np.array([place for place in before.tolist() if tuple(place) not in left]) / painted.SHAPE
    middle = (gone[:, 1] < 0.5 + 1e-6).all() if edit == "setitem" else (gone[:, 1] > 0.7).all()
    assert middle
    assert list(spots.features["spot"]) == list(entry.slide.spots.ids)
    assert spots.metadata["indices"] == entry.slide.spots.index.tolist()
    assert spots.metadata["sdata"] is entry.slide.sdata
    assert len(np.unique(spots.size)) == 1
    assert spots.size[0] * spots.scale[-1] == pytest.approx(55)
    assert (spots.face_color[:, 3] == 0).all()


def test_the_edited_mask_is_what_another_process_opens(session: Session, slide: Slide, layers: Any) -> None:
    entry = session.active
    assert entry is not None
    assert session.settle(entry) == slide.ref  # not edited: no file
    _, mask, spots = layers
    mask.data[:, : mask.data.shape[1] // 2] = 0  # by a script, which napari does not tell
    ref = session.settle(entry)
    assert ref.tissue is not None
    assert (spots.data[:, 1] > painted.SHAPE[1] / 2 - 1).all()
    opened = open_slide(ref.path, **ref.options)
    assert opened.fingerprint == entry.slide.fingerprint != slide.fingerprint
    assert session.settle(entry) == ref
    session.lay(50.0)
    again = session.settle(entry)
    assert (again.tissue, again.pitch_um) == (ref.tissue, 50)
    assert open_slide(again.path, **again.options).fingerprint == entry.slide.fingerprint
    assert "--pitch 50.0 --tissue" in " ".join(again.words)


def test_a_mask_without_tissue_leaves_the_spots_and_is_told(session: Session, slide: Slide, layers: Any) -> None:
    _, mask, spots = layers
    mask.data_setitem(np.nonzero(mask.data), 0)
    assert len(spots.data) == len(slide.spots)
    assert session.active is not None
    with pytest.raises(SlideError, match="no tissue was found"):
        session.settle(session.active)
    with pytest.raises(SlideError, match="no tissue was found"):
        session.lay(50.0)
    mask.undo()
    assert session.settle(session.active) == slide.ref


def test_very_many_spots_follow_when_they_are_predicted(
    session: Session, slide: Slide, layers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tissue, "MAX_LIVE", 10)
    _, mask, spots = layers
    erase_left(mask)
    assert len(spots.data) == len(slide.spots)
    assert session.active is not None
    session.settle(session.active)
    assert len(spots.data) < len(slide.spots)


def test_a_mask_that_was_taken_away_is_as_it_was(session: Session, slide: Slide, layers: Any) -> None:
    session.viewer.layers.remove(layers[1])
    assert session.active is not None
    assert session.settle(session.active) == slide.ref
    session.lay(200.0)
    assert session.active.slide.fingerprint == lay_again(slide, pitch_um=200).fingerprint


def test_a_prediction_stays_where_it_was_predicted(
    session: Session, slide: Slide, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    coarse = lay_again(slide, pitch_um=200)
    table: AnnData = prediction_table(predict(coarse, tiny_checkpoint))
    entry = session.add(coarse)
    session.set_prediction(entry.key, table, "hyperst", tmp_path / "prediction.h5ad")
    shown = session.layer_of(entry, "predicted")
    assert shown is not None
    assert len(shown.data) == table.n_obs
    positions = shown.data.copy()
    session.activate(entry.key)
    session.show("predicted")
    assert not session.viewer.layers["he"].visible
    session.lay(100.0)
    assert session.viewer.layers["he"].visible  # the map colours others than these
    assert len(session.viewer.layers["he"].data) > 3 * table.n_obs
    np.testing.assert_array_equal(shown.data, positions)
    session.show(gene=table.var_names[1])
    np.testing.assert_array_equal(shown.data, positions)
    assert entry.predicted is coarse
    assert "hyperst" in coarse.sdata.tables
    assert "hyperst" not in entry.slide.sdata.tables
    # what was asked for before the mask was edited is of the slide as it was then
    other = lay_again(coarse, pitch_um=150)
    session.set_prediction(entry.key, table, "hyperst", tmp_path / "later.h5ad", other)
    assert entry.predicted is other


def test_measured_slides_have_no_mask_and_are_not_laid(session: Session, section: Path) -> None:
    entry = session.add(open_slide(section))
    assert len(session.viewer.layers) == 2
    assert session.settle(entry) == entry.ref
    with pytest.raises(SlideError, match="has spots of its own"):
        session.lay(50.0)


def test_fewer_spots_are_laid_while_they_are_hidden(make_napari_viewer: Make, slide: Slide) -> None:
    session = session_of(make_napari_viewer())  # with a canvas, whose picture of the spots follows
    entry = session.add(slide)
    spots = session.viewer.layers[-1]
    spots.visible = False  # as beneath a map of them all
    before = len(spots.data)
    session.lay(2 * slide.source.pitch_um)
    assert 0 < len(spots.data) == len(entry.slide.spots) < before
    assert not spots.visible
    spots.visible = True
    assert spots.size.shape == (len(spots.data),)


def test_the_outline_and_the_spots_are_drawn_on_the_tissue(make_napari_viewer: Make, slide: Slide) -> None:
    """As drawn: the outline of the mask runs along the edge of the tissue of the H&E."""
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(900, 700)
    session_of(viewer).add(slide)
    image, mask, spots = viewer.layers
    spots.visible = viewer.canvas.overlays.scale_bar.visible = False
    viewer.reset_view()
    seen = []
    for layer in (image, mask):
        image.visible, mask.visible = layer is image, layer is mask
        seen.append(viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(float))
    he, outline = seen
    drawn = (outline[..., 0] > 150) & (outline[..., 2] < 80)  # orange on black
    assert drawn.sum() > 200
    pink = (he[..., 0] - he[..., 1]) > 25
    height, width = np.array(slide.image.shape_px) * slide.mpp
    zoom, size, centre = viewer.scene.camera.zoom, np.asarray(viewer.canvas.size), viewer.scene.camera.center[-2:]
    for middle, radius in ((painted.PIECE, painted.PIECE_RADIUS), (painted.MIDDLE, painted.RADIUS)):
        at = (np.array(middle) * slide.mpp - centre) * zoom + size / 2
        y, x = np.mgrid[: drawn.shape[0], : drawn.shape[1]] + 0.5
        distance = np.hypot(y - at[0], x - at[1])
        near = np.abs(distance - radius * slide.mpp * zoom) < 8
        rim = distance[drawn & near].mean()
        edge = np.sqrt(pink[distance < radius * slide.mpp * zoom + 8].sum() / np.pi)
        assert rim == pytest.approx(radius * slide.mpp * zoom, abs=2)  # canvas px
        if middle == painted.PIECE:
            assert rim == pytest.approx(edge, abs=3)
