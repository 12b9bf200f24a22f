"""The fine-tune panel in any order of things, with a child and a trainer that play scenes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import psutil
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_hyperst.jobs import runs
from napari_hyperst.jobs.job import Job
from napari_hyperst.nouns.slide_ref import SlideRef
from napari_hyperst.nouns.tasks import ShareTask, TrainTask
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import open_slide
from napari_hyperst.viewer.session import session_of
from napari_hyperst.viewer.training_map import TRAINING
from napari_hyperst.widgets import finetune_panel, training_help, training_pages, training_results
from napari_hyperst.widgets.finetune_dock import FinetuneDock
from napari_hyperst.widgets.finetune_panel import FinetunePanel
from napari_hyperst.widgets.process import Child
from napari_hyperst.widgets.training_slides import LEAVE, TRAIN, VALIDATE
from napari_hyperst.widgets.workbench import Workbench

Make = Callable[..., Any]
TRAINER, SCRIPT = (Path(__file__).with_name(name) for name in ("scripted_trainer.py", "scripted_child.py"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep runs to this test."""
    monkeypatch.setenv("NAPARI_HYPERST_JOBS", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


@pytest.fixture(autouse=True)
def trainers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Have runs played by a trainer without torch; none outlives the test."""
    made: list[subprocess.Popen[bytes]] = []

    def start(job: Job) -> subprocess.Popen[bytes]:
        job.take_back()
        made.append(subprocess.Popen([sys.executable, str(TRAINER), str(job.folder)], start_new_session=True))
        return made[-1]

    monkeypatch.setattr(runs, "start_detached", start)
    yield made
    for process in made:
        process.kill()
        process.wait(10)


@pytest.fixture
def viewer(make_napari_viewer_proxy: Make) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def panel(qtbot: Any, viewer: Any, child: Child) -> FinetunePanel:
    made = FinetunePanel(session_of(viewer), child)
    viewer.window.add_dock_widget(made, name="Fine-tune")
    notification_manager.records.clear()
    return made


@pytest.fixture
def ready(qtbot: Any, panel: FinetunePanel, section: Path) -> FinetunePanel:
    """Return the panel with a slide, and a plan for it."""
    panel.session.add(open_slide(section))
    qtbot.waitUntil(lambda: panel.setup.plan is not None, timeout=20_000)
    return panel


def click(qtbot: Any, button: Any) -> None:
    assert button.isEnabled(), button.toolTip()
    assert not button.isHidden()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def begin(qtbot: Any, panel: FinetunePanel, name: str = "goes-on") -> None:
    panel.setup.form.fields["name"].value = name
    qtbot.waitUntil(lambda: panel.setup.plan is not None, timeout=20_000)
    click(qtbot, panel.setup.button)
    assert panel.run is not None


def until(qtbot: Any, panel: FinetunePanel, state: str) -> None:
    def there() -> None:
        assert panel.run is not None
        assert panel.run.progress.state == state

    qtbot.waitUntil(there, timeout=20_000)


def maps(viewer: Any) -> dict[str, Any]:
    return {layer.metadata[TRAINING]["kind"]: layer for layer in viewer.layers if TRAINING in layer.metadata}


def test_it_opens_on_an_empty_viewer_and_says_what_to_do(panel: FinetunePanel) -> None:
    assert "Open slides with counts" in panel.setup.slides.note.text()
    assert not panel.setup.button.isEnabled()
    assert panel.setup.button.toolTip() == "Choose a slide with counts to train on"
    assert panel.page.isHidden()
    assert panel.runs.count() == 1


def test_one_slide_is_split_in_blocks_and_said_to_be_optimistic_and_the_plan_fills_the_form_in(
    qtbot: Any, ready: FinetunePanel
) -> None:
    setup = ready.setup
    assert "This is optimistic" in setup.slides.note.text()
    assert setup.slides.holdout == 0.25
    assert setup.form.fields["epochs"].value == 33
    assert "Worked out: few spots" in setup.form.fields["epochs"].tooltip
    told = setup.estimate.text()
    assert "About 5 min at most: 2 min to encode tiles" in told
    assert "6 s an epoch" in told
    assert "1.3 GiB of memory, 9.0 are free" in told
    assert "measured on nothing" in told
    assert "CUDA: no GPU here" in setup.form.devices.text()
    assert setup.genes.summary.text().startswith("200 genes: G0, G1")
    setup.form.fields["epochs"].value = 7  # the user's stays
    qtbot.waitUntil(lambda: setup.plan is not None, timeout=20_000)
    assert setup.form.fields["epochs"].value == 7
    click(qtbot, setup.form.again)
    qtbot.waitUntil(lambda: setup.form.fields["epochs"].value == 33, timeout=20_000)
    setup.slides.hold_out.setChecked(False)
    assert "Nothing is held out" in setup.slides.note.text()
    assert setup.slides.holdout == 0


def test_slides_are_shared_out_by_patient(qtbot: Any, ready: FinetunePanel, tmp_path: Path) -> None:
    slides = ready.setup.slides
    first = slides.training[0]
    slides.add_folders([tmp_path / "b", tmp_path / "c"])
    assert slides.training == [first, tmp_path / "c"]
    assert slides.validation == [tmp_path / "b"]
    assert slides.holdout == 0
    assert "Say whose the sections are" in slides.note.text()
    for number, patient in enumerate("XXY"):
        slides.table.item(number, 2).setText(patient)
    assert "Sections of X are in both" in slides.note.text()
    click(qtbot, slides.split)
    assert slides.training == [first, tmp_path / "b"]
    assert slides.validation == [tmp_path / "c"]
    assert slides.note.text() == ""
    slides.set_patients({str(first): "Z"})  # what the user typed stays
    assert slides.table.item(0, 2).text() == "X"
    slides.set_use(tmp_path / "b", LEAVE)
    assert slides.training == [first]
    assert slides.table.cellWidget(1, 1).currentText() == LEAVE
    assert {TRAIN, VALIDATE} == {slides.table.cellWidget(row, 1).currentText() for row in (0, 2)}


def test_a_pasted_list_is_shown_with_what_is_missing_and_trained_without(qtbot: Any, ready: FinetunePanel) -> None:
    setup = ready.setup
    setup.genes.how.setCurrentIndex(1)
    assert not setup.button.isEnabled()
    assert setup.button.toolTip() == "Paste the genes to predict"
    setup.genes.text.setPlainText('FASN, "ACTB"; NOGENE\nFASN')
    qtbot.waitUntil(lambda: setup.plan is not None, timeout=20_000)
    assert setup.genes.summary.text().startswith("2 genes: FASN, ACTB")
    assert "1 left out, not measured on corner: NOGENE." in setup.genes.summary.text()
    assert "NOGENE" in setup.genes.all.toPlainText()
    config = setup.config()
    assert config.gene_list == ("FASN", "ACTB")
    setup.genes.how.setCurrentIndex(2)
    qtbot.waitUntil(lambda: setup.plan is not None, timeout=20_000)
    assert setup.config().gene_list == ("A1", "B2")


def test_settings_under_advanced_reach_the_run_and_a_wrong_one_is_told(qtbot: Any, ready: FinetunePanel) -> None:
    form = ready.setup.form
    assert form.rest.isHidden()
    click(qtbot, form.advanced)
    assert not form.rest.isHidden()
    form.fields["method.dim"].value = 64
    form.fields["tiles.niche_um"].value = "300"
    form.fields["method.alignment"].value = "paper"
    ready.setup.start_from.setCurrentIndex(1)
    config = ready.setup.config()
    assert (config.method.dim, config.tiles.niche_um) == (64, 300)
    assert config.method.alignment.entailment_scale == 0.25
    assert config.init_from == "her2st-dinov2s"
    form.fields["learning_rate"].value = "fast"
    told = "learning_rate: Input should be a valid number"
    qtbot.waitUntil(lambda: told in ready.setup.estimate.text(), timeout=20_000)
    assert not ready.setup.button.isEnabled()


def test_a_plan_that_fails_is_told(qtbot: Any, ready: FinetunePanel) -> None:
    ready.setup.form.fields["name"].value = "impossible"
    qtbot.waitUntil(lambda: "is no slide" in ready.setup.estimate.text(), timeout=20_000)
    assert not ready.setup.button.isEnabled()


def test_a_run_is_started_paused_resumed_and_stopped_with_the_mouse(
    qtbot: Any, ready: FinetunePanel, trainers: list[subprocess.Popen[bytes]], section: Path
) -> None:
    begin(qtbot, ready)
    page, run = ready.page, ready.run
    assert run is not None
    assert page.title.text() == "Starting: importing PyTorch…"
    task = run.job.task
    assert isinstance(task, TrainTask)
    assert task.config.holdout == 0.25
    assert task.config.epochs == 33
    qtbot.waitUntil(lambda: run.progress.epoch >= 2 and page.curves is not None, timeout=20_000)
    assert page.curves is not None
    qtbot.waitUntil(lambda: len(page.curves.plots[0].axes.lines) >= 2, timeout=20_000)
    assert "tiles/s" in page.detail.text()
    assert "left" in page.detail.text()
    assert page.title.text().startswith("Training: epoch")
    click(qtbot, page.pause)
    until(qtbot, ready, "paused")
    step = run.progress.step
    qtbot.wait(300)
    assert run.progress.step == step
    click(qtbot, page.resume)
    qtbot.waitUntil(lambda: run.progress.step > step, timeout=20_000)
    click(qtbot, page.stop)
    until(qtbot, ready, "stopped")
    trainers[0].wait(10)
    qtbot.waitUntil(page.resume.isEnabled, timeout=20_000)
    assert not page.ended.isHidden()
    assert not page.card.isEnabled()  # made at the end, or by the export
    with qtbot.waitSignal(ready.predict_asked) as asked:
        click(qtbot, page.load)
    assert asked.args == [str(run.job.folder / "best")]
    click(qtbot, page.resume)
    qtbot.waitUntil(lambda: run.progress.step > step + 5, timeout=20_000)
    assert len(trainers) == 2


def test_the_map_is_redrawn_beside_the_measured_one_after_every_epoch(
    qtbot: Any, ready: FinetunePanel, viewer: Any, section: Path
) -> None:
    slide = open_slide(section)
    begin(qtbot, ready)
    run = ready.run
    assert run is not None
    (run.job.folder / "spots").write_text(" ".join(slide.spots.ids[:12]))
    qtbot.waitUntil(lambda: run.progress.snapshot >= 2 and len(maps(viewer)) == 2, timeout=20_000)
    qtbot.waitUntil(lambda: len(maps(viewer)["predicted"].data) == 12, timeout=20_000)
    before, layer = maps(viewer)["predicted"].features["value"].to_numpy(), maps(viewer)["predicted"]
    measured = maps(viewer)["measured"]
    np.testing.assert_allclose(measured.data, slide.spots.centres_px[:12, ::-1])
    assert measured.features["label"].tolist().count("measured") == 1
    assert (layer.data[:, 1].min() > measured.data[:, 1].max()).all()
    assert tuple(layer.face_contrast_limits) == tuple(measured.face_contrast_limits)
    qtbot.waitUntil(lambda: not np.array_equal(layer.features["value"], before), timeout=20_000)
    assert maps(viewer)["predicted"] is layer
    ready.page.gene.setCurrentText("FASN")
    ready.page.gene.activated.emit(ready.page.gene.currentIndex())
    qtbot.waitUntil(lambda: layer.name.startswith("FASN predicted, epoch"), timeout=20_000)
    ready.page.shown.setChecked(False)
    assert maps(viewer) == {}
    ready.page.shown.setChecked(True)
    assert len(maps(viewer)) == 2
    viewer.window.remove_dock_widget(ready)
    assert maps(viewer) == {}


def test_a_crash_shows_its_last_lines_and_the_run_goes_on_from_there(qtbot: Any, ready: FinetunePanel) -> None:
    begin(qtbot, ready, "crash")
    until(qtbot, ready, "crashed")
    page, run = ready.page, ready.run
    assert run is not None
    assert "CUDA error: device-side assert" in page.lines.toPlainText()
    assert "Resume goes on from there" in page.note.text()
    steps = run.progress.step
    click(qtbot, page.resume)
    qtbot.waitUntil(lambda: run.progress.step > steps, timeout=20_000)
    assert page.lines.isHidden()


def test_a_run_goes_on_without_the_panel_and_is_found_again(
    qtbot: Any, ready: FinetunePanel, viewer: Any, other_child: Child, trainers: list[subprocess.Popen[bytes]]
) -> None:
    begin(qtbot, ready)
    run = ready.run
    assert run is not None
    qtbot.waitUntil(lambda: run.progress.step > 2, timeout=20_000)
    ready.let_go()
    assert trainers[0].poll() is None
    again = FinetunePanel(ready.session, other_child)
    qtbot.addWidget(again)
    assert again.run is not None
    assert again.run.job.folder == run.job.folder
    qtbot.waitUntil(lambda: again.run.progress.step > run.progress.step, timeout=20_000)
    assert again.runs.currentText() == run.job.folder.name
    click(qtbot, again.page.stop)
    until(qtbot, again, "stopped")
    again.let_go()


@pytest.mark.parametrize("answer", ["yes", "no"])
def test_throwing_a_run_away_asks_and_leaves_no_process(
    qtbot: Any,
    ready: FinetunePanel,
    trainers: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
) -> None:
    begin(qtbot, ready, "deaf")
    run = ready.run
    assert run is not None
    qtbot.waitUntil(lambda: run.progress.step > 2, timeout=20_000)
    monkeypatch.setattr(finetune_panel, "_CANCEL_MS", (100, 200))
    monkeypatch.setattr(finetune_panel, "ask_throw_away", lambda *_: answer == "yes")
    click(qtbot, ready.page.cancel)
    if answer == "no":
        assert ready.run is run
        click(qtbot, ready.page.stop)  # it does not hear
        click(qtbot, ready.page.stop)  # now
        until(qtbot, ready, "stopped")
        assert trainers[0].wait(10) == -signal.SIGKILL
        assert run.job.ending() is not None
        return
    qtbot.waitUntil(lambda: ready.run is None, timeout=20_000)
    assert not run.job.folder.exists()
    assert not psutil.pid_exists(trainers[0].pid) or trainers[0].poll() is not None
    assert ready.runs.count() == 1
    assert not ready.setup.isHidden()


def test_a_run_that_ends_is_loaded_shown_exported_and_pushed(
    qtbot: Any, ready: FinetunePanel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begin(qtbot, ready, "short")
    until(qtbot, ready, "done")
    page = ready.page
    assert page.title.text() == "Done: epoch 3 of 3 is kept"
    assert "best 0.300 in epoch 3" in page.detail.text()
    assert page.working.isHidden() or (page.stop.isHidden() and page.resume.isHidden() and page.cancel.isHidden())
    shown: list[Any] = []

    def dialog(_parent: Any, title: str, inside: Any, *_: int) -> Any:
        shown.append((title, inside))
        return MagicMock()

    monkeypatch.setattr(training_pages, "_dialog", dialog)
    click(qtbot, page.card)
    click(qtbot, page.picture)
    assert [title for title, _ in shown] == ["Model card", "Curves"]
    assert shown[0][1].toPlainText().strip() == "A card"
    said: list[str] = []
    monkeypatch.setattr(QMessageBox, "information", lambda *words: said.append(words[-1]))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "mine"), ""))
    click(qtbot, page.export)
    qtbot.waitUntil(lambda: len(said) == 1, timeout=20_000)
    assert str(tmp_path / "mine") in said[0]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    click(qtbot, page.push)
    assert "hf auth login" in said[1]
    monkeypatch.setattr(training_results, "ask_repository", lambda *_: ("me/mine", True))
    click(qtbot, page.push)
    qtbot.waitUntil(lambda: len(said) == 3, timeout=20_000)
    assert "hub/me/mine" in said[2]


def test_what_is_pushed_is_said_with_the_encoders_licence(tmp_path: Path) -> None:
    card = {"method": {"encoder": "uni"}, "training_slides": [{"name": "/data/C2"}]}
    (tmp_path / "card.json").write_text(json.dumps(card))
    told = training_pages.what_is_sent(tmp_path)
    assert "uni, licence: CC-BY-NC-ND-4.0) are never in it" in told
    assert "slides: C2." in told


def test_a_folder_that_is_no_run_is_refused(
    qtbot: Any, panel: FinetunePanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    click(qtbot, panel.folder)
    assert "is no training run" in str(notification_manager.records[-1].message)
    assert panel.run is None


def test_a_run_starts_from_a_checkpoint_that_was_looked_at(
    panel: FinetunePanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, chosen = panel.setup.start_from, tmp_path / "mine"

    def choose(row: int) -> None:
        start.setCurrentIndex(row)
        start.activated.emit(row)  # what a click does

    choose(1)
    bundled = start.currentData()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(chosen))
    choose(start.count() - 1)
    assert "no card.json, so this is no checkpoint" in str(notification_manager.records[-1].message)
    assert start.currentData() == bundled
    (chosen / "best").mkdir(parents=True)
    (chosen / "best" / "card.json").touch()
    for _ in range(2):
        choose(start.count() - 1)
        assert (start.currentText(), start.currentData()) == ("mine", str(chosen / "best"))
    assert [start.itemText(row) for row in range(start.count())].count("mine") == 1


def test_slides_opened_in_a_way_of_the_users_are_trained_on_as_they_were_opened(
    qtbot: Any, panel: FinetunePanel, section: Path
) -> None:
    panel.session.add(open_slide(section, mpp=0.7))
    slides = panel.setup.slides
    assert slides.training == [section]
    config = panel.setup.config()
    assert config.ref(section) == SlideRef(path=section, mpp=0.7)
    slides.set_use(section, LEAVE)
    assert slides.opened == []


def test_slides_without_counts_cannot_be_trained_on(panel: FinetunePanel, section: Path) -> None:
    panel.session.add(open_slide(section / "he.png", mpp=0.7))
    assert panel.setup.slides.training == []
    assert panel.setup.slides.table.item(0, 0).toolTip().endswith(": it has no counts")


def test_slides_are_split_by_the_patients_that_tables_tell_until_the_user_chooses(
    panel: FinetunePanel, tmp_path: Path
) -> None:
    slides = panel.setup.slides
    a, b, c = (tmp_path / name for name in "abc")
    slides.add_folders([a, b, c])
    assert (slides.training, slides.validation) == ([a, c], [b])
    assert "two patients at least" in slides.split.toolTip()
    slides.set_patients({str(a): "X", str(b): "X", str(c): "Y"})
    assert (slides.training, slides.validation) == ([a, b], [c])
    slides.set_use(b, VALIDATE)
    slides.set_patients({str(a): "X", str(b): "X", str(c): "Y"})
    assert (slides.training, slides.validation) == ([a], [b, c])
    assert "Sections of X are in both" in slides.note.text()


def test_a_start_does_not_wait_for_a_planner_that_does_not_hear(
    qtbot: Any, viewer: Any, section: Path, monkeypatch: pytest.MonkeyPatch, table_file: Path
) -> None:
    words = f"sys.argv[1:] = [{str(table_file)!r}]; runpy.run_path({str(SCRIPT)!r})"
    deaf = f"import runpy, sys, time; {words}; time.sleep(600)"
    monkeypatch.setattr(training_help, "Child", lambda: Child(["-c", deaf]))
    panel = FinetunePanel(session_of(viewer))
    viewer.window.add_dock_widget(panel, name="Fine-tune")
    panel.session.add(open_slide(section))
    qtbot.waitUntil(lambda: panel.setup.plan is not None, timeout=20_000)
    child = panel.helper._child
    assert child is not None
    pid = child.pid
    click(qtbot, panel.setup.button)
    assert panel.run is not None
    assert psutil.Process(pid).is_running()  # nobody has waited for its end
    qtbot.waitUntil(lambda: not psutil.pid_exists(pid), timeout=20_000)
    panel.let_go()


def test_the_window_is_not_held_up_by_a_plan_a_start_and_a_run(qtbot: Any, ready: FinetunePanel, section: Path) -> None:
    last, busy = [time.thread_time()], []

    def tick() -> None:
        busy.append(time.thread_time() - last[0])
        last[0] = time.thread_time()

    timer = QTimer()
    timer.timeout.connect(tick)
    timer.start(10)
    begin(qtbot, ready)
    run = ready.run
    assert run is not None
    qtbot.waitUntil(lambda: run.progress.epoch >= 4 and ready.page.curves is not None, timeout=20_000)
    qtbot.wait(500)
    timer.stop()
    assert len(busy) > 50
    assert max(busy) < 0.1


def test_the_map_lies_over_its_own_slide_and_hides_with_it(
    qtbot: Any, ready: FinetunePanel, viewer: Any, section: Path, tmp_path: Path
) -> None:
    own = ready.session.active
    assert own is not None
    other = ready.session.add(open_slide(Path(shutil.copytree(section, tmp_path / "other"))))
    ready.setup.slides.set_use(other.ref.path, LEAVE)
    begin(qtbot, ready)
    run, mine = ready.run, own.slide
    assert run is not None
    (run.job.folder / "spots").write_text(" ".join(mine.spots.ids[:12]))
    qtbot.waitUntil(lambda: len(maps(viewer)) == 2, timeout=20_000)
    assert ready.session.active is own
    assert viewer.layers["corner"].visible
    assert not viewer.layers["other"].visible
    beside = maps(viewer)["predicted"].data[:, 1].min()
    assert beside > mine.spots.centres_px[:, 0].max() + mine.spots.diameter_um / mine.mpp
    ready.session.activate(other.key)
    assert not any(layer.visible for layer in maps(viewer).values())
    ready.session.activate(own.key)
    assert all(layer.visible for layer in maps(viewer).values())


def test_the_workbench_leads_to_fine_tuning_and_back_with_the_new_checkpoint(
    qtbot: Any, viewer: Any, section: Path, child: Child, other_child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_help, "Child", lambda: other_child)
    bench = Workbench(viewer, child)
    viewer.window.add_dock_widget(bench, name="Workbench (HyperST)")
    bench.session.add(open_slide(section))
    predict = bench.predict_panel
    click(qtbot, predict.finetune)
    panel = viewer.window.dock_widgets["Fine-tune (HyperST)"]
    click(qtbot, predict.finetune)
    assert list(viewer.window.dock_widgets).count("Fine-tune (HyperST)") == 1
    qtbot.waitUntil(lambda: panel.setup.plan is not None, timeout=20_000)
    begin(qtbot, panel, "short")
    until(qtbot, panel, "done")
    best = panel.run.job.folder / "best"
    assert predict.checkpoint.value == str(best)
    assert (best.parent.name, str(best)) in predict._checkpoints()
    bench.parentWidget().hide()
    click(qtbot, panel.page.workbench)
    assert list(viewer.window.dock_widgets).count("Workbench (HyperST)") == 1
    assert not bench.parentWidget().isHidden()


def test_a_plan_is_made_for_slides_that_were_opened_while_a_run_was_followed(
    qtbot: Any, panel: FinetunePanel, section: Path, home: Path
) -> None:
    task = TrainTask(config=TrainConfig(slides=(section,), out=home / "runs" / "older"))
    panel.open_run(Job.create(home / "runs" / "older", task).folder)
    panel.session.add(open_slide(section))
    qtbot.wait(700)
    assert panel.setup.plan is None
    panel.runs.setCurrentIndex(0)
    panel.runs.activated.emit(0)
    assert not panel.setup.button.isEnabled()
    assert panel.setup.button.toolTip().startswith("Wait until genes")
    qtbot.waitUntil(panel.setup.button.isEnabled, timeout=20_000)


def test_a_new_run_does_not_show_the_curves_of_another(qtbot: Any, ready: FinetunePanel) -> None:
    begin(qtbot, ready, "short")
    until(qtbot, ready, "done")
    qtbot.waitUntil(lambda: ready.page.curves is not None, timeout=20_000)
    assert ready.page.curves is not None
    plot = ready.page.curves.plots[-1]
    qtbot.waitUntil(lambda: bool(plot.axes.lines), timeout=20_000)
    ready.show_new()
    begin(qtbot, ready, "silent")
    qtbot.waitUntil(lambda: [one.get_text() for one in plot.axes.texts] == ["after the first epoch"], timeout=20_000)


def test_a_run_that_was_to_be_thrown_away_is_gone_when_the_panel_is_closed_at_once(
    qtbot: Any, ready: FinetunePanel, trainers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(qtbot, ready, "deaf")
    run = ready.run
    assert run is not None
    qtbot.waitUntil(lambda: run.progress.step > 2, timeout=20_000)
    monkeypatch.setattr(finetune_panel, "ask_throw_away", lambda *_: True)
    click(qtbot, ready.page.cancel)
    ready.let_go()
    assert trainers[0].wait(10) == -signal.SIGKILL
    assert not run.job.folder.exists()


def test_a_prediction_comes_before_a_plan_and_neither_is_lost_and_its_file_outlives_the_dock(
    qtbot: Any, viewer: Any, section: Path, child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_help, "Child", lambda: child)
    dock = FinetuneDock(viewer)
    qtbot.addWidget(dock)
    entry = dock.session.add(open_slide(section))
    qtbot.waitUntil(lambda: dock.helper.busy, timeout=20_000)  # on a first plan
    dock.predict("any")
    dock.setup.form.fields["epochs"].value = 5
    qtbot.waitUntil(lambda: entry.result is not None and dock.setup.button.isEnabled(), timeout=20_000)
    assert entry.result is not None
    dock.let_go()
    assert entry.result.is_file()


def test_what_is_refused_of_a_checkpoint_is_no_trouble_of_the_next_run(qtbot: Any, ready: FinetunePanel) -> None:
    ready.helper.share(ShareTask(run=Path("nowhere"), out=Path("refused")))
    qtbot.waitUntil(lambda: len(notification_manager.records) > 0, timeout=20_000)
    assert "refused: is there already" in str(notification_manager.records[-1].message)
    assert ready.setup.button.isEnabled()


def test_what_the_trainer_warned_of_is_shown(qtbot: Any, ready: FinetunePanel) -> None:
    begin(qtbot, ready)
    run = ready.run
    assert run is not None
    less = "out of memory; from here on 16 spots at a time, which changes no loss"
    run.job.log.append("warning", {"message": less})
    qtbot.waitUntil(lambda: less in ready.page.note.text(), timeout=20_000)


def test_curves_take_the_colours_of_the_theme(qtbot: Any, ready: FinetunePanel, viewer: Any) -> None:
    begin(qtbot, ready)
    run = ready.run
    assert run is not None
    qtbot.waitUntil(lambda: run.progress.epoch >= 1 and ready.page.curves is not None, timeout=20_000)
    assert ready.page.curves is not None
    plot = ready.page.curves.plots[-1]
    qtbot.waitUntil(lambda: plot.axes.get_title("left") == "Temperature", timeout=20_000)
    dark = plot.figure.get_facecolor()
    viewer.theme = "light"
    qtbot.waitUntil(lambda: sum(plot.figure.get_facecolor()[:3]) > sum(dark[:3]), timeout=20_000)
    os.kill(run._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
