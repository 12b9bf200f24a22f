"""What is predicted can be read while the rest is being predicted."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from anndata import read_h5ad

from napari_hyperst.jobs.filling import FILLING, read_filling, show_meanwhile
from napari_hyperst.jobs.tasks import perform
from napari_hyperst.nouns.tasks import PredictTask, SlideRef
from napari_hyperst.slides import open_slide
from napari_hyperst.viewer.filling import filling_table, is_filling
from napari_hyperst.viewer.maps import maps_of

#: The corner has a spot at the image's edge, of which the prediction warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*reaches over the image's edge")


def test_a_prediction_fills_a_file_and_ends_as_it_was_filled(
    tiny_section: Path, tiny_checkpoint_folder: Path, tmp_path: Path
) -> None:
    slide = open_slide(tiny_section)
    task = PredictTask(
        slide=SlideRef(path=tiny_section), checkpoint=str(tiny_checkpoint_folder), batch_size=16, filling=True
    )
    filled: list[int] = []
    told: dict[str, Any] = {}

    def report(kind: str, content: dict[str, Any]) -> None:
        if kind == "filling":
            told.update(content)
        if kind == "progress" and content["what"] == "spots":
            values = read_filling(tmp_path / told["file"])
            filled.append(int(np.isfinite(values).all(axis=1).sum()))
            assert filled[-1] == content["done"]

    perform(task, tmp_path, report)
    assert filled == sorted(set(filled))
    assert len(filled) > 1
    table = filling_table(slide, told["genes"], tmp_path / FILLING)
    assert is_filling(table)
    assert [found.key for found in maps_of(table) if not found.reason] == ["predicted"]
    done = read_h5ad(tmp_path / "prediction.h5ad")
    assert not is_filling(done)
    np.testing.assert_array_equal(table[done.obs_names, done.var_names].X, done.X)
    left_out = table.obs_names.difference(done.obs_names)
    assert np.isnan(table[left_out].X).all()


def test_nothing_is_filled_where_nobody_looks(tiny_section: Path, tiny_checkpoint_folder: Path, tmp_path: Path) -> None:
    task = PredictTask(slide=SlideRef(path=tiny_section), checkpoint=str(tiny_checkpoint_folder))
    perform(task, tmp_path, lambda _kind, _content: None)
    assert not (tmp_path / FILLING).exists()


def test_a_prediction_that_is_watched_leaves_the_processor_to_the_window_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, slept, told = [100.0], [], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)

    def report(kind: str, content: dict[str, Any]) -> None:
        told.append((kind, content["spots"], len(slept)))

    tell = show_meanwhile(lambda done, _total: told.append(("progress", done, len(slept))), report, wait=True)
    for done in range(1, 5):  # a batch a second, the last one being the end
        now[0] += 1.0
        tell(done, 4)
    shown = [("filled", 1, 0), ("filled", 3, 1)]  # the first at once, then every two seconds; the window is told first
    assert [one for one in told if one[0] == "filled"] == shown
    assert [one[1] for one in told if one[0] == "progress"] == [1, 2, 3, 4]
    assert slept == [0.1, 0.1]


def test_only_what_computes_on_the_processor_of_the_window_pauses_for_it(
    tiny_section: Path, tiny_checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = MagicMock()
    monkeypatch.setattr("napari_hyperst.jobs.filling.time", SimpleNamespace(monotonic=time.monotonic, sleep=slept))
    task = PredictTask(slide=SlideRef(path=tiny_section), checkpoint=str(tiny_checkpoint_folder), device="cpu")
    told: list[str] = []

    def predict(task: PredictTask) -> int:
        slept.reset_mock()
        told.clear()
        perform(task, tmp_path, lambda kind, _content: told.append(kind))
        return slept.call_count

    assert predict(task.model_copy(update={"batch_size": 4})) == 0
    assert "filled" not in told
    watched = task.model_copy(update={"batch_size": 4, "filling": True})
    assert predict(watched) == told.count("filled") >= 1
    monkeypatch.setattr("napari_hyperst.models.device.choose_device", lambda _name: SimpleNamespace(type="cuda"))
    assert predict(watched) == 0
    assert told.count("filled") >= 1
