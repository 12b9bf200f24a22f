"""What is drawn: positions against the pixels of the H&E, and colours against the values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from napari.utils.colormaps import ensure_colormap
from PIL import Image
from spatialdata.transformations import Affine, set_transformation

from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.viewer.layers import placement
from napari_hyperst.viewer.session import Session, session_of

Make = Callable[..., Any]


@pytest.fixture
def session(make_napari_viewer: Make) -> Iterator[Session]:
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(900, 700)
    return session_of(viewer)


def on_canvas(viewer: Any, world: np.ndarray) -> np.ndarray:
    """Return where (n, 2) world positions, (y, x) in µm, lie on a screenshot of the canvas."""
    return (world - viewer.scene.camera.center[-2:]) * viewer.scene.camera.zoom + np.asarray(viewer.canvas.size) / 2


def picture(viewer: Any) -> np.ndarray:
    return viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(float)


def only(viewer: Any, *layers: Any) -> None:
    for layer in viewer.layers:
        layer.visible = layer in layers
    viewer.canvas.overlays.scale_bar.visible = viewer.canvas.overlays.text.visible = False


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    """Return a slide whose H&E is white but for a black disc exactly at each spot, also at fractions of a px."""
    folder = tmp_path_factory.mktemp("slides") / "discs"
    folder.mkdir()
    grid = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"), axis=-1).reshape(-1, 2)
    centres = 310.0 + 240 * grid + 0.37 * (grid % 3)
    y, x = np.mgrid[:2304, :2304] + 0.5  # centres of the pixels: pixel i spans i to i + 1
    pixels = np.full((2304, 2304), 255, np.uint8)
    for cx, cy in centres:
        part = np.s_[int(cy) - 80 : int(cy) + 80, int(cx) - 80 : int(cx) + 80]
        pixels[part][(x[part] - cx) ** 2 + (y[part] - cy) ** 2 < 60**2] = 0
    Image.fromarray(np.repeat(pixels[..., None], 3, axis=2)).save(folder / "he.png")
    spots = pd.DataFrame({"x": grid[:, 0], "y": grid[:, 1], "pixel_x": centres[:, 0], "pixel_y": centres[:, 1]})
    spots.to_csv(folder / "discs_selection.tsv", sep="\t", index=False)
    names = [f"{a}x{b}" for a, b in grid]
    pd.DataFrame({"A": 1, "B": 2}, index=names).to_csv(folder / "discs.tsv", sep="\t")
    return open_slide(folder)


def centroid(image: np.ndarray, near: np.ndarray, radius: float) -> np.ndarray:
    """Return the centre of mass of what is dark around a position of a picture."""
    low = np.floor(near - radius).astype(int)
    part = image[low[0] : low[0] + int(2 * radius), low[1] : low[1] + int(2 * radius)].mean(axis=2)
    dark = 255 - part
    y, x = np.mgrid[: part.shape[0], : part.shape[1]] + 0.5
    return low + np.array([(y * dark).sum(), (x * dark).sum()]) / dark.sum()


@pytest.mark.parametrize("zoom", [0.3, 1.0, 2.2])
def test_spots_are_drawn_where_they_are_in_the_image(session: Session, discs: Slide, zoom: float) -> None:
    session.add(discs)
    viewer = session.viewer
    image, spots = viewer.layers
    assert len(discs.image.levels) == 3
    spots.face_color = "black"
    spots.border_width = 0
    world = np.array([spots.data_to_world(point) for point in spots.data])
    middle = 27
    viewer.scene.camera.center = world[middle] + 10.3
    viewer.scene.camera.zoom = zoom
    near = on_canvas(viewer, world[middle : middle + 1])[0]
    radius = 75 * discs.mpp * zoom
    pictures = []
    for layer in (image, spots):
        only(viewer, layer)
        if layer is spots:
            viewer.canvas.background_color_override = "white"
        pictures.append(centroid(picture(viewer), near, radius))
    np.testing.assert_allclose(pictures[0], pictures[1], atol=0.25)  # canvas px
    np.testing.assert_allclose(pictures[1], near, atol=0.25)


def test_a_spots_world_position_is_its_pixels(session: Session, c2: Slide) -> None:
    session.add(c2)
    image, spots = session.viewer.layers
    for point, centre in zip(spots.data[::20], c2.spots.centres_px[::20], strict=True):
        world = np.asarray(spots.data_to_world(point))
        np.testing.assert_allclose(world, centre[::-1] * c2.mpp)  # µm
        np.testing.assert_allclose(image.world_to_data(world) + 0.5, centre[::-1])  # pixel i spans i to i + 1
    assert {str(unit) for layer in (image, spots) for unit in layer.units} == {"micrometer"}
    assert spots.size[0] * spots.scale[-1] == pytest.approx(100)  # µm


def test_an_affine_of_the_coordinate_system_is_kept_in_um(session: Session, section: Path) -> None:
    slide = open_slide(section)
    turned = np.array([[0.0, -2.0, 5000.0], [2.0, 0.0, 300.0], [0, 0, 1]])  # twice as fine, turned and moved
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    for element in (slide.sdata.images[slide.source.image], slide.sdata.shapes[slide.name]):
        set_transformation(element, Affine(turned, **axes), slide.coordinate_system)
    session.add(slide)
    image, spots = session.viewer.layers
    centre = slide.spots.centres_px[7]
    world = np.asarray(spots.data_to_world(spots.data[7]))
    expected = (turned @ [*centre, 1])[:2][::-1] * slide.mpp / 2
    np.testing.assert_allclose(world, expected)
    np.testing.assert_allclose(image.world_to_data(world) + 0.5, centre[::-1])
    a, b = (np.asarray(spots.data_to_world(spots.data[i])) for i in (0, 1))
    apart_px = np.linalg.norm(slide.spots.centres_px[0] - slide.spots.centres_px[1])
    assert np.linalg.norm(a - b) == pytest.approx(apart_px * slide.mpp)  # a µm stays a µm
    assert placement(slide)["scale"][0] * spots.size[0] == pytest.approx(slide.spots.diameter_um)


CASES = {
    "NaN": (np.where(np.arange(47) % 2, np.nan, 1.0), "measured"),
    "all zero": (np.zeros(47), "measured"),
    "few distinct integers": (np.arange(47) % 3, "measured"),
    "one outlier": (np.where(np.arange(47) == 5, 1e4, np.linspace(0, 5, 47)), "measured"),
    "negative differences": (np.linspace(0, 9, 47), "difference"),
}


@pytest.mark.parametrize("case", CASES)
def test_colours_are_those_of_the_values(session: Session, tiny_section: Path, tiny_table: AnnData, case: str) -> None:
    values, kind = CASES[case]
    table = tiny_table.copy()
    table.X[:, 0] = np.linspace(0, 4, 47)
    table.layers["measured"][:, 0] = values
    entry = session.add(open_slide(tiny_section))
    session.set_prediction(entry.key, table, "hyperst")
    session.show(kind, table.var_names[0])
    layer = session.layer_of(entry, kind)
    assert layer is not None
    shown = layer.features["value"].to_numpy()
    assert shown.dtype == np.float32
    wanted = values if kind == "measured" else np.linspace(0, 4, 47) - values
    np.testing.assert_allclose(shown, wanted, rtol=1e-6)
    low, high = layer.face_contrast_limits
    assert layer.face_color_mode == "colormap"
    assert np.isfinite([low, high]).all()
    assert low < high
    if case == "one outlier":
        assert high < 10_000
    if case == "negative differences":
        assert (low, layer.face_colormap.name) == (-high, "PiYG")
    colormap = ensure_colormap(layer.face_colormap.name)
    expected = colormap.map(np.clip((wanted.astype(np.float32) - low) / (high - low), 0, 1))
    expected[np.isnan(wanted), 3] = 0
    seen = np.isfinite(wanted)
    np.testing.assert_allclose(layer.face_color[seen], expected[seen], atol=1e-5)
    assert (layer.face_color[~seen, 3] == 0).all()  # blank, not grey
    assert layer.face_colorbar.visible
    # as drawn
    viewer = session.viewer
    only(viewer, layer)
    layer.face_colorbar.visible = False
    viewer.canvas.background_color_override = "black"
    drawn = picture(viewer)
    at = on_canvas(viewer, np.array([layer.data_to_world(point) for point in layer.data]))
    for i in np.flatnonzero(((at > 5) & (at < np.array(drawn.shape[:2]) - 5)).all(axis=1)):
        here = drawn[int(at[i, 0]), int(at[i, 1])]
        np.testing.assert_allclose(here, 255 * expected[i, :3] * expected[i, 3], atol=3, err_msg=str(i))
