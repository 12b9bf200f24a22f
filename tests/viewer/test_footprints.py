"""The outlines of tiles: where they lie in the world, and what they go by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from spatialdata.transformations import Affine, set_transformation

from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.lattice import Lattice
from napari_hyperst.viewer.contract import ours
from napari_hyperst.viewer.footprints import footprint_layer, sides_um
from napari_hyperst.viewer.session import Session, session_of

Make = Callable[..., Any]


@pytest.fixture
def session(make_napari_viewer: Make) -> Iterator[Session]:
    return session_of(make_napari_viewer())


def corners(layer: Any, spots: int) -> dict[str, np.ndarray]:
    """Return the corners of each kind of tile in the world, (n, 4, 2), having seen that its four edges are closed."""
    starts = np.array([layer.data_to_world(edge[0]) for edge in layer.data]).reshape(-1, 4, 2)
    ends = np.array([layer.data_to_world(edge[0] + edge[1]) for edge in layer.data]).reshape(-1, 4, 2)
    np.testing.assert_allclose(ends, np.roll(starts, -1, axis=1), atol=1e-6)
    tiles = layer.features["tile"].to_numpy().reshape(-1, 4)[:, 0]
    found = {tile: starts[tiles == tile] for tile in ("spot", "niche")}
    assert all(len(found[tile]) in (0, spots) for tile in found)
    return found


def test_the_boxes_lie_where_the_tiles_are_read(session: Session, c2: Slide) -> None:
    session.add(c2)
    assert not session.footprints
    session.show_footprints(True)
    layer = session.viewer.layers[-1]
    assert layer.name == f"{session.active.key} tile footprints: spot 112 µm, niche 500 µm"  # type: ignore[union-attr]
    assert [str(unit) for unit in layer.units] == ["micrometer"] * 2
    for tile, side in (("spot", 112.0), ("niche", 500.0)):
        left, top, right, bottom = (c2.boxes_px(side) * c2.mpp).T
        wanted = np.array([[top, left], [top, right], [bottom, right], [bottom, left]]).transpose(2, 0, 1)
        np.testing.assert_allclose(corners(layer, len(c2.spots))[tile], wanted)
        np.testing.assert_allclose(right - left, side)


def test_they_turn_with_the_coordinate_system_and_follow_the_spots(session: Session, section: Path) -> None:
    slide = open_slide(section)
    turned = np.array([[0.6, -0.8, 5000.0], [0.8, 0.6, 300.0], [0, 0, 1]])
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    for element in (slide.sdata.images[slide.source.image], slide.sdata.shapes[slide.name]):
        set_transformation(element, Affine(turned, **axes), slide.coordinate_system)
    entry = session.add(slide)
    session.show_footprints(True)
    layer = footprint_layer(session.viewer, entry.key)
    spots = session.viewer.layers[slide.name]

    def check() -> None:
        centres = np.array([spots.data_to_world(point) for point in spots.data])
        for tile, side in (("spot", 112.0), ("niche", 500.0)):
            found = corners(layer, len(slide.spots))[tile]
            np.testing.assert_allclose(found.mean(axis=1), centres)  # around the spots
            np.testing.assert_allclose(np.linalg.norm(np.diff(found, axis=1), axis=2), side)  # in their true size
        np.testing.assert_allclose((found[0, 1] - found[0, 0]) / 500, [0.8, 0.6])  # turned as the image is

    check()
    moved = np.asarray(spots.affine.affine_matrix).copy()
    moved[:2, 2] += (700, -40)
    spots.affine = moved
    check()


@pytest.mark.parametrize("at_once", [False, True])
def test_they_go_with_the_last_of_the_layers_that_they_are_of(session: Session, section: Path, at_once: bool) -> None:
    entry = session.add(open_slide(section))
    session.show_footprints(True)
    session.viewer.layers.move(2, 0)
    if at_once:
        session.viewer.layers.clear()
    for layer in [one for one in session.viewer.layers if one is not footprint_layer(session.viewer, entry.key)]:
        assert entry.key in session.entries
        session.viewer.layers.remove(layer)
    assert list(session.viewer.layers) == []
    assert session.entries == {}


def test_they_come_and_go_and_change_nothing_else(session: Session, section: Path) -> None:
    changes: list[bool] = []
    session.slides_changed.connect(lambda: changes.append(session.footprints))
    session.show_footprints(True)  # on an empty viewer
    entry = session.add(open_slide(section))
    selected = session.viewer.layers.selection.active
    session.show_footprints(True)
    session.show_footprints(True)
    assert len(session.viewer.layers) == 3
    assert session.viewer.layers.selection.active is selected
    session.viewer.layers.remove(footprint_layer(session.viewer, entry.key))  # by hand
    assert not session.footprints
    assert entry.key in session.entries
    assert changes[-2:] == [True, False]
    session.show_footprints(True)
    other = session.add(open_slide(section))
    assert not session.footprints  # of the slide that is active now
    assert not footprint_layer(session.viewer, entry.key).visible  # type: ignore[union-attr]
    session.activate(entry.key)
    assert session.footprints
    assert footprint_layer(session.viewer, entry.key).visible  # type: ignore[union-attr]
    assert footprint_layer(session.viewer, other.key) is None


def test_they_are_those_of_the_model_that_predicted(session: Session, tiny_section: Path, tiny_table: AnnData) -> None:
    entry = session.add(open_slide(tiny_section))
    session.show_footprints(True)
    table = tiny_table.copy()
    table.uns["hyperst"] |= {"spot_um": 90.0, "niche_um": 300.0}
    session.set_prediction(entry.key, table, "hyperst")
    layer = footprint_layer(session.viewer, entry.key)
    assert layer is not None
    assert ours(layer)["sides_um"] == {"spot": 90.0, "niche": 300.0}
    assert session.layer_of(entry, "predicted").visible  # type: ignore[union-attr]
    table.uns["hyperst"]["niche_um"] = "of another version"
    assert sides_um(entry)["spot"] == TileSpec().spot_um


def test_without_a_lattice_there_is_no_niche_to_outline(session: Session, tiny_section: Path) -> None:
    slide = open_slide(tiny_section)
    entry = session.add(replace(slide, lattice=Lattice("none", np.nan, np.empty((len(slide.spots), 0), np.intp))))
    session.show_footprints(True)
    layer = footprint_layer(session.viewer, entry.key)
    assert layer is not None
    assert len(layer.data) == 4 * len(slide.spots)
    assert layer.name.endswith("tile footprints: spot 112 µm")


def test_the_slide_is_written_with_its_outlines_selected(session: Session, tiny_section: Path, tmp_path: Path) -> None:
    session.add(open_slide(tiny_section))
    session.show_footprints(True)
    out = tmp_path / "out.zarr"
    session.viewer.layers.save(str(out), plugin="napari-hyperst")
    assert len(open_slide(out).spots) == 48
