"""The workbench with H&E of which nothing was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import painted
import pytest
from anndata import AnnData
from napari.utils.notifications import notification_manager
from PIL import Image
from qtpy.QtWidgets import QFileDialog, QInputDialog

from napari_hyperst.nouns.tasks import ExportTask, PredictTask
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.readers.whole_slide import lay_again
from napari_hyperst.viewer.session import session_of
from napari_hyperst.widgets.process import Child
from napari_hyperst.widgets.workbench import Workbench

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def png(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wsi") / "he.png"
    Image.fromarray(painted.paint()).save(path)
    return path


@pytest.fixture
def bench(make_napari_viewer_proxy: Make, child: Child) -> Workbench:
    viewer = make_napari_viewer_proxy()
    made = Workbench(viewer, child)
    viewer.window.add_dock_widget(made, name="Workbench")
    notification_manager.records.clear()
    return made


def messages() -> list[str]:
    return [str(record.message) for record in notification_manager.records]


def test_a_scale_that_no_file_tells_is_asked_for(
    qtbot: Any, bench: Workbench, png: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = [(0.5, False), (2.0, True)]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(png), ""))
    monkeypatch.setattr(QInputDialog, "getDouble", lambda *a, **k: (asked.append(a[2]), answers.pop(0))[1])
    bench.slide_panel.open_image.click()
    qtbot.waitUntil(lambda: len(asked) == 1, timeout=60_000)
    assert "px of he.png" in asked[0]
    assert bench.session.entries == {}  # it was cancelled
    assert bench.session.opening == 0
    bench.slide_panel.open_image.click()
    qtbot.waitUntil(lambda: bench.session.active is not None, timeout=60_000)
    assert bench.session.active is not None
    assert bench.session.active.slide.mpp == 2.0
    assert "H&E only, no counts" in bench.slide_panel.status.text()
    assert messages() == []


def test_without_a_workbench_it_is_told(qtbot: Any, make_napari_viewer_proxy: Make, png: Path) -> None:
    from napari_hyperst.nouns.tasks import SlideRef

    session = session_of(make_napari_viewer_proxy())
    notification_manager.records.clear()
    session.open(SlideRef(path=png))
    qtbot.waitUntil(lambda: session.opening == 0, timeout=60_000)
    assert len(messages()) == 1
    assert "nothing tells how many µm a px is" in messages()[0]
    assert "the workbench asks for it" in messages()[0]


def test_the_pitch_is_chosen_where_spots_were_laid(bench: Workbench, png: Path, section: Path) -> None:
    panel = bench.slide_panel
    entry = bench.session.add(open_slide(section))
    assert panel.laid.isHidden()
    entry = bench.session.add(open_slide(png, 2.0))
    assert not panel.laid.isHidden()
    assert panel.pitch.value() == 100
    whole = len(entry.slide.spots)
    panel.pitch.editingFinished.emit()  # left as it is
    assert len(entry.slide.spots) == whole
    panel.pitch.setValue(50)
    panel.pitch.editingFinished.emit()
    assert len(entry.slide.spots) > 3.5 * whole
    assert f"{len(entry.slide.spots):,} spots" in panel.status.text()
    panel.pitch.setValue(9000)
    panel.pitch.editingFinished.emit()  # lies on no tissue: told, and back to what is
    assert len(messages()) == 1
    assert "no spot of 55 µm on a 9000 µm pitch" in messages()[0]
    assert panel.pitch.value() == 50


def test_the_edited_mask_is_predicted_and_what_was_predicted_exported(
    qtbot: Any, bench: Workbench, png: Path, tiny_table: AnnData, tmp_path: Path
) -> None:
    entry = bench.session.add(open_slide(png, 2.0))
    mask = bench.session.viewer.layers[f"{entry.slide.name}_tissue"]
    columns = mask.data.shape[1] // 2
    mask.data_setitem(np.nonzero(mask.data[:, :columns]), 0)
    submitted: list[Any] = []
    submit = bench.child.submit
    bench.child.submit = lambda job, **how: (submitted.append(job.task), submit(job, **how))[1]  # type: ignore[method-assign]
    bench.predict_panel.add_checkpoint(Path("slow"))
    bench.predict_panel.button.click()
    (task,) = submitted
    assert isinstance(task, PredictTask)
    asked = open_slide(task.slide.path, **task.slide.options)
    assert asked.fingerprint == entry.slide.fingerprint
    assert (asked.spots.centres_px[:, 0] > painted.SHAPE[1] / 2 - 1).all()
    assert "--tissue" in task.command
    was = entry.slide
    bench.session.lay(50.0)  # while it is at work
    with qtbot.waitSignal(bench.work.rested, timeout=60_000):
        pass
    assert entry.predicted is was
    assert entry.slide.fingerprint == lay_again(was, pitch_um=50).fingerprint
    bench.export(tmp_path / "out.zarr")
    assert isinstance(submitted[-1], ExportTask)
    assert submitted[-1].slide == was.ref
    qtbot.waitUntil(lambda: bench.child.job is None, timeout=30_000)


def test_a_mask_without_tissue_is_not_predicted(bench: Workbench, png: Path) -> None:
    entry = bench.session.add(open_slide(png, 2.0))
    mask = bench.session.viewer.layers[f"{entry.slide.name}_tissue"]
    mask.data_setitem(np.nonzero(mask.data), 0)
    bench.predict_panel.button.click()
    assert bench.child.job is None
    assert "no tissue was found" in messages()[0]
