"""The whole way, for real: open C2, click, look, export, and find the terminal's numbers in the store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import Qt
from spatialdata import read_zarr

from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.widgets.genes_panel import GenesPanel
from napari_hyperst.widgets.workbench import Workbench


@pytest.fixture(scope="module")
def of_the_terminal(tmp_path_factory: pytest.TempPathFactory) -> AnnData:
    """Return the table that the terminal writes for C2."""
    out = tmp_path_factory.mktemp("terminal") / "C2.zarr"
    command = [sys.executable, "-m", "napari_hyperst.cli", "predict", str(sample_folder()), "--out", str(out), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["spots"] == 187
    return read_zarr(out).tables["table_hyperst"]


@pytest.mark.slow
def test_open_click_look_export_and_find_the_same_numbers(
    qtbot: Any, make_napari_viewer_proxy: Callable[..., Any], of_the_terminal: AnnData, tmp_path: Path
) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1200, 800)
    _, found = viewer.window.add_plugin_dock_widget("napari-hyperst", "Workbench")
    bench = getattr(found, "__wrapped__", found)
    assert isinstance(bench, Workbench)
    viewer.open(str(sample_folder()), plugin="napari-hyperst")
    qtbot.waitUntil(lambda: bench.session.active is not None, timeout=60_000)
    entry = bench.session.active
    assert entry is not None
    told: list[Any] = []
    bench.child.told.connect(lambda _job, event: told.append(event))
    with qtbot.waitSignals([bench.work.rested, bench.child.ended], timeout=240_000):
        qtbot.mouseClick(bench.predict_panel.button, Qt.MouseButton.LeftButton)
    assert entry.table is not None, bench.predict_panel.status.text()
    assert [event.content["done"] for event in told if event.content.get("what") == "spots"][-1] == 187

    # another gene, by typing and Enter
    qtbot.keyClicks(bench.panel(GenesPanel).genes.search, "col1a1")
    qtbot.keyClick(bench.panel(GenesPanel).genes.search, Qt.Key.Key_Return)
    assert bench.session.gene == "COL1A1"
    layer = bench.session.layer_of(entry, "predicted")
    assert layer is not None
    assert layer.visible
    expected = of_the_terminal[:, "COL1A1"].X.ravel()
    np.testing.assert_allclose(layer.features["value"], expected, rtol=1e-5)
    low, high = layer.face_contrast_limits
    colours = ensure_colormap("viridis").map(np.clip((expected - low) / (high - low), 0, 1))
    np.testing.assert_allclose(layer.face_color, colours, atol=1e-3)

    # each spot lies on its pixel of the H&E, and is drawn there, at three zooms
    image = viewer.layers[entry.slide.source.image]
    spots = entry.slide.spots
    order = {name: i for i, name in enumerate(spots.ids)}
    rows = [order[name] for name in layer.features["spot"]]
    world = np.array([layer.data_to_world(point) for point in layer.data])
    pixels = np.array([image.world_to_data(point) for point in world]) + 0.5
    np.testing.assert_allclose(pixels, spots.centres_px[rows][:, ::-1], atol=1e-6)
    viewer.canvas.overlays.text.visible = viewer.canvas.overlays.scale_bar.visible = False
    layer.face_colorbar.visible = False
    for zoom in (0.15, 0.4, 1.5):
        viewer.scene.camera.zoom = zoom
        viewer.scene.camera.center = world[93] + 3.0
        drawn = viewer.screenshot(canvas_only=True, flash=False)[..., :3].astype(float)
        at = (world - viewer.scene.camera.center[-2:]) * zoom + np.asarray(drawn.shape[:2]) / 2
        seen = ((at > 12) & (at < np.asarray(drawn.shape[:2]) - 12)).all(axis=1)
        assert seen.any()
        for i in np.flatnonzero(seen):
            np.testing.assert_allclose(drawn[int(at[i, 0]), int(at[i, 1])], 255 * colours[i, :3], atol=4)

    # export, and read it with spatialdata alone
    store = tmp_path / "C2.zarr"
    with qtbot.waitSignal(bench.child.ended, timeout=60_000) as ended:
        bench.export(store)
    assert ended.args[1].kind == "done", ended.args[1]
    written = read_zarr(store).tables["table_hyperst"]
    assert written.obs_names.equals(of_the_terminal.obs_names)
    assert list(written.var_names) == list(of_the_terminal.var_names)
    np.testing.assert_allclose(written.X, of_the_terminal.X, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(written.layers["measured"], of_the_terminal.layers["measured"])
    for column in of_the_terminal.obs.select_dtypes("number"):
        np.testing.assert_allclose(written.obs[column], of_the_terminal.obs[column], rtol=1e-4, atol=1e-5)
