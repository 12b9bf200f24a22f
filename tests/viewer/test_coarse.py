"""A slide that is being opened is seen from afar, where it will lie, until it is there or cannot be."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtCore import QThreadPool
from superqt.utils import WorkerBase

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides import decoded, pillow
from napari_hyperst.slides.pillow import CoarsePicture, open_picture
from napari_hyperst.slides.pyramid_writer import PyramidWriter
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.viewer import session_of
from napari_hyperst.viewer.coarse import CoarseLayer

Make = Callable[..., Any]
MPP = 0.6872
PICTURE = CoarsePicture(np.full((30, 40, 3), 200, np.uint8), (237, 320))


@pytest.fixture(scope="module")
def corner() -> Image.Image:
    with open_picture(next(sample_folder().glob("*.jpg"))) as image:
        return image.crop((4300, 4200, 6001, 5503))


@pytest.fixture
def jpg(corner: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a real picture that was never decoded."""
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path / "cache"))
    corner.save(tmp_path / "he.jpg", quality=95)
    return tmp_path / "he.jpg"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what a decoding waits for."""
    gate, decode = threading.Event(), decoded.decode

    def wait(path: Path) -> np.ndarray:
        assert gate.wait(60)
        return decode(path)

    monkeypatch.setattr(decoded, "decode", wait)
    return gate


def test_a_coarse_picture_lies_where_the_slide_then_does(
    make_napari_viewer_proxy: Make, qtbot: Any, jpg: Path, slow: threading.Event
) -> None:
    viewer = make_napari_viewer_proxy()
    session = session_of(viewer)
    session.open(SlideRef(path=jpg, mpp=MPP))
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=60_000)
    (coarse,) = viewer.layers
    assert coarse.name == "he (opening)"
    assert session.opening == 1
    assert not slow.is_set()
    seen, edges = np.asarray(coarse.data), extent(coarse)
    slow.set()
    qtbot.waitUntil(lambda: session.opening == 0, timeout=60_000)
    assert [layer.name for layer in viewer.layers] == ["he_full_image", "he_tissue", "he"]
    image = viewer.layers[0]
    assert coarse.units == image.units
    np.testing.assert_allclose(edges, extent(image))
    np.testing.assert_allclose(edges, [[0, 0], [1303 * MPP, 1701 * MPP]])
    fine = np.asarray(image.data[0])[: 160 * 8, : 208 * 8].reshape(160, 8, 208, 8, 3).mean(axis=(1, 3))
    assert np.abs(seen[:160, :208] - fine).mean() < 4


def test_a_png_is_seen_from_afar_while_its_pyramid_is_written(
    make_napari_viewer_proxy: Make, qtbot: Any, jpg: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Image.open(jpg) as picture:
        picture.save(jpg.with_suffix(".png"))
    jpg.unlink()
    monkeypatch.setattr(pillow, "_QUICK_PX", 0)  # as if it were large
    gate, write = threading.Event(), PyramidWriter.write

    def wait(self: PyramidWriter, *told: Any) -> None:
        assert gate.wait(60)
        write(self, *told)

    monkeypatch.setattr(PyramidWriter, "write", wait)
    viewer = make_napari_viewer_proxy()
    session = session_of(viewer)
    session.open(SlideRef(path=jpg.with_suffix(".png"), mpp=MPP))
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=60_000)
    (coarse,) = viewer.layers
    seen, edges = np.asarray(coarse.data), extent(coarse)
    gate.set()
    qtbot.waitUntil(lambda: session.opening == 0, timeout=60_000)
    image = viewer.layers["he_full_image"]
    np.testing.assert_allclose(edges, extent(image))
    whole, part = np.array(image.data[0].shape[:2]), np.array(seen.shape[:2])
    rows, columns = (((np.arange(k) + 0.5) * n / k).astype(int) for n, k in zip(whole, part, strict=True))
    np.testing.assert_array_equal(seen, np.asarray(image.data[0])[rows[:, None], columns])


def extent(layer: Any) -> np.ndarray:
    """Return where the px of a layer begin and end in µm: napari tells where their centres do."""
    level = layer.data[0] if layer.multiscale else layer.data
    corners = np.array([[-0.5, -0.5], np.asarray(level.shape[:2]) - 0.5])
    return np.array([layer.data_to_world(corner) for corner in corners])


def test_it_goes_when_the_slide_cannot_be_opened(
    make_napari_viewer_proxy: Make, qtbot: Any, jpg: Path, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> np.ndarray:
        assert slow.wait(60)
        raise SlideError("is broken", where=path)

    monkeypatch.setattr(decoded, "decode", fail)
    viewer = make_napari_viewer_proxy()
    session = session_of(viewer)
    session.open(SlideRef(path=jpg, mpp=MPP))
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=60_000)
    slow.set()
    qtbot.waitUntil(lambda: session.opening == 0, timeout=60_000)
    assert len(viewer.layers) == 0
    assert "is broken" in str(notification_manager.records[-1].message)


def test_it_may_be_taken_away_by_hand(
    make_napari_viewer_proxy: Make, qtbot: Any, jpg: Path, slow: threading.Event
) -> None:
    viewer = make_napari_viewer_proxy()
    session = session_of(viewer)
    session.open(SlideRef(path=jpg, mpp=MPP))
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=60_000)
    viewer.layers.clear()
    slow.set()
    qtbot.waitUntil(lambda: session.opening == 0, timeout=60_000)
    assert [layer.name for layer in viewer.layers] == ["he_full_image", "he_tissue", "he"]


def test_the_viewer_may_be_closed_meanwhile(
    make_napari_viewer: Make, qtbot: Any, jpg: Path, slow: threading.Event
) -> None:
    viewer = make_napari_viewer()
    session = session_of(viewer)
    session.open(SlideRef(path=jpg, mpp=MPP))
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=60_000)
    viewer.close()
    slow.set()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=60_000)
    qtbot.wait(50)  # what goes wrong in a slot fails the test
    assert len(viewer.layers) == 0
    assert session.opening == 0


def test_an_opening_that_napari_ends_is_over(qtbot: Any, jpg: Path, slow: threading.Event) -> None:
    viewer = ViewerModel()
    session = session_of(viewer)
    session.open(SlideRef(path=jpg, mpp=MPP))
    assert session.opening == 1
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=60_000)
    threading.Timer(0.5, slow.set).start()
    WorkerBase.await_workers(60_000)  # as napari does when it quits
    qtbot.waitUntil(lambda: session.opening == 0, timeout=60_000)
    assert len(viewer.layers) == 0


def test_a_viewer_that_is_gone_gets_no_picture_and_is_not_kept() -> None:
    viewer = ViewerModel()
    there = weakref.ref(viewer)
    coarse = CoarseLayer(there, SlideRef(path=Path("he.jpg"), mpp=MPP))
    coarse.show(PICTURE)
    layer = weakref.ref(viewer.layers[0])
    coarse.remove()
    assert len(viewer.layers) == 0
    coarse.remove()
    gone = CoarseLayer(lambda: None, SlideRef(path=Path("he.jpg"), mpp=MPP))  # type: ignore[arg-type]
    gone.show(PICTURE)
    gone.remove()
    del viewer
    gc.collect()
    assert layer() is None
    assert there() is None


def test_without_a_scale_it_is_in_px_and_never_among_layers_in_um() -> None:
    viewer = ViewerModel()
    coarse = CoarseLayer(weakref.ref(viewer), SlideRef(path=Path("section")))
    coarse.show(PICTURE)
    (layer,) = viewer.layers
    assert [str(unit) for unit in layer.units] == ["pixel", "pixel"]
    np.testing.assert_allclose(extent(layer), [[0, 0], [237, 320]])
    coarse.remove()
    viewer.add_image(np.zeros((4, 4)), units=("um", "um"))
    coarse.show(PICTURE)
    assert len(viewer.layers) == 1
