"""The whole way, for real and with the mouse: start, watch, pause, resume, kill, resume, finish, load, predict."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import cut_section
from qtpy.QtCore import Qt

from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.nouns.metrics import pearson_by_gene
from napari_hyperst.nouns.snapshot import ValidationSnapshot
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.expression import log2_counts, spot_counts
from napari_hyperst.viewer.training_map import TRAINING
from napari_hyperst.widgets.finetune_dock import FinetuneDock

#: Two parts of section C2 that share no spot: (left, top, right, bottom) in px.
LEARN, CHECK = (2800, 4400, 5400, 7300), (5400, 4400, 7000, 7300)
GENES = 30


def measured(slide: Slide, genes: tuple[str, ...]) -> np.ndarray:
    return log2_counts(spot_counts(slide, genes))


def click(qtbot: Any, button: Any) -> None:
    qtbot.waitUntil(button.isEnabled, timeout=200_000)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by signal")
def test_a_model_is_fine_tuned_with_the_mouse_and_predicts_better_than_before(
    qtbot: Any,
    make_napari_viewer_proxy: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("NAPARI_HYPERST_JOBS", str(tmp_path / "jobs"))
    viewer = make_napari_viewer_proxy(show=True)
    _, found = viewer.window.add_plugin_dock_widget("napari-hyperst", "Fine-tune")
    panel = getattr(found, "__wrapped__", found)
    assert isinstance(panel, FinetuneDock)
    session = panel.session
    learn, check = (open_slide(cut_section(tmp_path / n, crop)) for n, crop in (("learn", LEARN), ("check", CHECK)))
    session.add(learn)
    entry = session.add(check)  # the second slide is for validation
    setup, page = panel.setup, panel.page
    assert (setup.slides.training, setup.slides.validation) == ([learn.path], [check.path])
    values = {"name": "proof", "symmetries": 1, "batch_size": 24, "method.dim": 32, "save_steps": 2, "epochs": 16}
    for name, value in {**values, "patience": 16, "device": "cpu", "precision": "float32"}.items():
        setup.form.fields[name].value = value
    setup.form.fields["average"].value = "0.8"
    setup.genes.count.setValue(GENES)
    qtbot.waitUntil(lambda: setup.plan is not None and len(setup.plan.genes) == GENES, timeout=600_000)
    assert "of your tiles, read, encoded and trained on just now" in setup.estimate.text()

    click(qtbot, setup.button)
    run = panel.run
    assert run is not None
    request.addfinalizer(lambda: run.end(kill=True))  # where the test fails
    told = run.progress
    qtbot.waitUntil(lambda: told.epoch >= 1 or told.state in ("failed", "crashed"), timeout=600_000)
    assert told.live, told.what
    first = ValidationSnapshot.read(run.job.folder)
    assert {layer.metadata[TRAINING]["kind"] for layer in viewer.layers if TRAINING in layer.metadata} <= {
        "measured", "predicted",
    }  # fmt: skip
    click(qtbot, page.pause)
    qtbot.waitUntil(lambda: told.state == "paused", timeout=200_000)
    step = told.step
    qtbot.wait(500)
    assert told.step == step
    click(qtbot, page.resume)
    qtbot.waitUntil(lambda: told.step > step, timeout=200_000)

    status = run.job.status()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: told.state == "crashed", timeout=200_000)
    assert viewer.layers
    click(qtbot, page.resume)
    qtbot.waitUntil(lambda: told.state in ("done", "failed", "crashed"), timeout=600_000)
    assert told.state == "done", told.what
    assert len(told.curves["validation/pcc"]) == told.epoch
    assert {"total", "curvature", "temperature"} <= set(told.curves)
    assert any(name.startswith("contrastive/") for name in told.curves)
    qtbot.waitUntil(lambda: not psutil.pid_exists(status.pid), timeout=20_000)

    session.activate(entry.key)
    click(qtbot, page.load)
    qtbot.waitUntil(lambda: entry.table is not None, timeout=600_000)
    table = entry.table
    assert table is not None
    assert session.layer_of(entry, "predicted") is not None
    assert run.job.folder.joinpath("best", "README.md").is_file()
    assert page.card.isEnabled()

    genes = load_checkpoint(run.job.folder / "best").panel.genes
    order = [check.spots.ids.tolist().index(name) for name in table.obs_names]
    truth = measured(check, genes)[order]
    after, before = np.asarray(table[:, list(genes)].X), first.predicted.astype(np.float32)
    start = np.nanmean(measured(learn, genes), axis=0)  # what every spot is predicted before the first step
    assert np.nanmean((after - truth) ** 2) < np.nanmean((start - truth) ** 2)
    assert np.mean((after - truth) ** 2) < np.mean((before - first.measured.astype(np.float32)) ** 2)
    assert np.nan_to_num(pearson_by_gene(after, truth)).mean() > 0.1
