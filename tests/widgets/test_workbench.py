"""The workbench in any order of things, with a child that plays scenes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from anndata import AnnData
from napari.settings import get_plugin_settings
from napari.utils import progress
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSpinBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QTabBar,
)

from napari_hyperst.jobs.filling import Filling
from napari_hyperst.jobs.job import Job
from napari_hyperst.models.checkpoint_files import read_genes
from napari_hyperst.nouns.bundled import DEFAULT_CHECKPOINT
from napari_hyperst.nouns.tasks import ExportTask
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.export import write_table
from napari_hyperst.viewer.contract import layers_of, ours
from napari_hyperst.viewer.entry import Entry
from napari_hyperst.viewer.filling import filling_table
from napari_hyperst.viewer.markers import MarkerSet
from napari_hyperst.viewer.session import session_of
from napari_hyperst.widgets.export_panel import ExportPanel
from napari_hyperst.widgets.gene_model import NAME
from napari_hyperst.widgets.genes_panel import GenesPanel
from napari_hyperst.widgets.hierarchy_panel import HierarchyPanel
from napari_hyperst.widgets.panel import literal
from napari_hyperst.widgets.process import Child
from napari_hyperst.widgets.workbench import Workbench

Make = Callable[..., Any]


@pytest.fixture
def viewer(make_napari_viewer_proxy: Make) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def bench(viewer: Any, child: Child) -> Iterator[Workbench]:
    made = Workbench(viewer, child)
    viewer.window.add_dock_widget(made, name="Workbench")
    notification_manager.records.clear()
    return made


def messages() -> list[str]:
    return [str(record.message) for record in notification_manager.records]


def open_(qtbot: Any, bench: Workbench, path: Path) -> None:
    before = len(bench.session.entries)
    bench.open(path)
    qtbot.waitUntil(lambda: len(bench.session.entries) > before, timeout=30_000)


def scene(bench: Workbench, name: str) -> None:
    bench.predict_panel.add_checkpoint(Path(name))


def click(qtbot: Any, button: Any) -> None:
    assert button.isEnabled(), button.toolTip()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def predict(qtbot: Any, bench: Workbench, name: str = "ok") -> None:
    scene(bench, name)
    with qtbot.waitSignal(bench.work.rested, timeout=20_000):
        click(qtbot, bench.predict_panel.button)


def fill(qtbot: Any, bench: Workbench, entry: Entry, spots: int) -> None:
    """Predict a slide until more than so many of its spots are shown."""
    scene(bench, "fills")
    click(qtbot, bench.predict_panel.button)
    qtbot.waitUntil(lambda: entry.filled > spots, timeout=30_000)


def test_it_opens_on_an_empty_viewer_and_says_what_to_do(bench: Workbench) -> None:
    assert "Drop a Space Ranger folder" in bench.slide_panel.status.text()
    assert not bench.predict_panel.button.isEnabled()
    assert bench.predict_panel.button.toolTip() == "Open a slide first"
    assert bench.panel(ExportPanel).new.toolTip() == "Predict genes first"
    assert not bench.panel(GenesPanel).genes.isEnabled()
    bench.predict()  # from a script: nothing to predict, nothing happens
    bench.export(Path("nowhere"))
    assert bench.child.job is None


def test_it_opens_on_a_slide_that_is_there(viewer: Any, child: Child, section: Path) -> None:
    session_of(viewer).add(open_slide(section))
    bench = Workbench(viewer, child)
    viewer.window.add_dock_widget(bench)
    assert bench.predict_panel.button.isEnabled()
    assert "48 spots" in bench.slide_panel.status.text()
    assert bench.slide_panel.slides.currentText() == next(iter(bench.session.entries))


def test_each_section_says_its_state_and_the_next_step_is_open(qtbot: Any, bench: Workbench, section: Path) -> None:
    states = {title: one.panel.state for title, one in bench.sections.items()}
    assert states["Slide"] == "Open one to begin"
    assert states["Predict"] == "Open a slide first"
    assert {states[title] for title in ("Genes", "Hierarchy", "Export")} == {"Predict genes first"}
    assert [title for title, one in bench.sections.items() if one.is_open] == ["Slide", "Predict"]
    open_(qtbot, bench, section)
    assert bench.sections["Predict"].panel.state == "Ready"
    predict(qtbot, bench)
    assert bench.sections["Genes"].is_open
    assert str(bench.session.gene) in bench.sections["Genes"].state.text()
    genes = bench.sections["Genes"]
    qtbot.mouseClick(genes.button, Qt.MouseButton.LeftButton)
    assert genes.body.isHidden()
    assert str(bench.session.gene) in genes.state.text()


def test_whatever_takes_input_has_a_tooltip(qtbot: Any, bench: Workbench, section: Path) -> None:
    kinds = (QAbstractButton, QLineEdit, QPlainTextEdit, QComboBox, QAbstractSpinBox, QAbstractItemView, QProgressBar)
    for ready in (False, True):
        if ready:
            open_(qtbot, bench, section)
            predict(qtbot, bench)
        for widget in (found for kind in kinds for found in bench.findChildren(kind)):
            parts = (QComboBox, QAbstractSpinBox, QLineEdit, QAbstractItemView, QTabBar)
            if not isinstance(widget.parent(), parts) and not isinstance(widget.parent().parent(), parts):
                assert widget.toolTip(), widget


def test_keys_step_through_genes_and_maps_and_are_free_again_when_the_dock_is_closed(
    qtbot: Any, viewer: Any, child: Child, section: Path
) -> None:
    bench = Workbench(viewer, child)
    dock = viewer.window.add_dock_widget(bench)
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    session, listed = bench.session, bench.panel(GenesPanel).genes.listed
    keys = {str(key): act for key, act in session.viewer.keymap.items()}
    for key, found in (("N", 1), ("N", 2), ("Shift+N", 1), ("Shift+N", 0), ("Shift+N", -1)):
        keys[key](session.viewer)
        assert session.gene == listed[found]
    for key, shown in (("T", "measured"), ("D", "difference"), ("D", "measured"), ("T", "predicted")):
        keys[key](session.viewer)
        assert session.map == shown
    model = session.viewer
    dock.destroyOnClose()
    assert not {str(key) for key in model.keymap} & {"N", "Shift+N", "T", "D"}


def test_a_map_that_is_hidden_or_taken_away_by_hand_is_not_marked(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    entry, session = bench.session.active, bench.session
    assert entry is not None
    genes, hierarchy = bench.panel(GenesPanel), bench.findChild(HierarchyPanel).list

    def marked() -> list[str]:
        row = hierarchy.currentItem()
        pressed = [key for key, button in genes.maps.buttons.items() if button.isChecked()]
        return pressed if row is None else [*pressed, row.text(0)]

    layer = session.layer_of(entry, "predicted")
    assert layer is not None
    assert marked() == ["predicted"]
    layer.visible = False
    assert marked() == []
    assert bench.sections["Genes"].state.text().startswith(f"{session.gene} · not shown")
    genes.swap()  # what is hidden is shown first
    assert layer.visible
    assert marked() == ["predicted"]
    genes.toggle_difference()
    session.viewer.layers.remove(session.layer_of(entry, "difference"))
    assert marked() == []
    genes.toggle_difference()
    assert marked() == ["difference"]
    genes.toggle_difference()
    assert marked() == ["predicted"]
    session.show("norm_spot_image")
    assert len(marked()) == 1
    session.layer_of(entry, "norm_spot_image").visible = False
    assert marked() == []
    session.show("predicted")
    session.show_side_by_side(True)
    session.layer_of(entry, "predicted").visible = False
    assert marked() == []


def test_names_are_shown_as_they_are(qtbot: Any, bench: Workbench, section: Path) -> None:
    named = section.rename(section.with_name("b"))
    (named / "corner_selection.tsv").rename(named / "<b>x<b>_selection.tsv")
    (named / "corner.tsv").rename(named / "<b>x<b>.tsv")
    open_(qtbot, bench, named)
    for label in bench.findChildren(QLabel):
        assert label.textFormat() == Qt.TextFormat.PlainText or "<b>" not in label.text()
    assert Qt.mightBeRichText(literal("<b>x</b>"))
    assert "&lt;b&gt;x" in literal("<b>x</b>")
    assert literal("plain & simple") == "plain & simple"


def test_thumbnails_follow_the_gene(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    entry = bench.session.active
    assert entry is not None
    assert entry.table is not None
    layer = bench.session.layer_of(entry, "predicted")
    assert layer is not None
    first, second = (str(gene) for gene in entry.table.var_names[:2])
    for gene, values in ((first, np.linspace(0, 1, entry.table.n_obs)), (second, np.linspace(1, 0, entry.table.n_obs))):
        entry.table.X[:, entry.table.var_names.get_loc(gene)] = values
        before = np.array(layer.thumbnail)
        bench.session.show("predicted", gene)
        qtbot.waitUntil(lambda before=before: (layer.thumbnail != before).any(), timeout=5000)


def test_the_tiles_footprints_are_toggled(qtbot: Any, bench: Workbench, section: Path) -> None:
    box = bench.slide_panel.footprints
    assert box.isHidden()
    open_(qtbot, bench, section)
    assert not box.isHidden()
    assert not box.isChecked()
    assert box.text() == "Tile footprints: spot 112 µm, niche 500 µm"
    layers = bench.session.viewer.layers
    before = list(layers)
    box.click()
    assert box.isChecked()
    assert [layer for layer in layers if layer not in before][0].name.endswith(box.text()[1:])
    box.click()
    assert list(layers) == before
    box.click()
    layers.remove(layers[-1])  # by hand
    assert not box.isChecked()


def test_open_predict_look_export(qtbot: Any, bench: Workbench, section: Path, tmp_path: Path) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    assert bench.predict_panel.status.text() == "8 genes predicted at 47 spots in 0 s."
    assert len(bench.panel(GenesPanel).genes.genes) == 8
    entry = bench.session.active
    assert entry is not None
    where = bench.panel(GenesPanel).genes.view.visualRect(bench.panel(GenesPanel).genes.model.index(2, NAME)).center()
    qtbot.mouseClick(bench.panel(GenesPanel).genes.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert bench.session.gene == bench.panel(GenesPanel).genes.listed[2]
    hierarchy = bench.findChild(HierarchyPanel).list
    hierarchy.setCurrentItem(hierarchy.item_of("violation_spot_image__niche_image"))
    layer = bench.session.layer_of(entry, "violation_spot_image__niche_image")
    assert layer is not None
    assert layer.visible
    out = tmp_path / "out.zarr"
    export = bench.panel(ExportPanel)
    bench.sections["Export"].set_open(True)
    bench.export(out)
    assert export.progress.cancel.isVisibleTo(export)
    assert export.progress.cancel.isEnabled()
    assert bench.sections["Export"].state.text() == "Writing out.zarr…"
    assert not bench.predict_panel.cancel.isVisibleTo(bench.predict_panel)
    assert not bench.predict_panel.button.isEnabled()
    assert bench.predict_panel.button.toolTip() == "wait until out.zarr is written"
    qtbot.waitUntil(lambda: bench.child.job is None, timeout=10_000)
    assert (out / "table").read_text() == "table_hyperst"
    assert str(out) in export.progress.status.text()
    assert not export.progress.bar.isVisibleTo(export)
    assert bench.predict_panel.status.text() == "8 genes predicted at 47 spots in 0 s."
    assert messages() == []


def test_progress_cancel_and_again(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    scene(bench, "slow")
    click(qtbot, bench.predict_panel.button)
    assert not bench.predict_panel.button.isEnabled()
    qtbot.waitUntil(lambda: bench.predict_panel.bar.value() > 5, timeout=20_000)
    assert "of 40 spots, about" in bench.predict_panel.status.text()
    with qtbot.waitSignal(bench.child.ended, timeout=1500):
        click(qtbot, bench.predict_panel.cancel)
    assert bench.predict_panel.status.text() == "Stopped."
    assert not bench.predict_panel.bar.isVisible()
    assert bench.session.active is not None
    assert bench.session.active.table is None
    predict(qtbot, bench)
    assert bench.session.active.table is not None


@pytest.mark.parametrize(
    ("name", "told"), [("crash", "Segmentation fault"), ("killed", "memory runs out"), ("broken", "is broken; mend it")]
)
def test_what_goes_wrong_is_told_and_the_next_click_works(
    qtbot: Any, bench: Workbench, section: Path, name: str, told: str
) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench, name)
    assert told in messages()[-1]
    assert told in bench.predict_panel.status.toolTip()
    predict(qtbot, bench)
    assert bench.session.active is not None
    assert bench.session.active.table is not None


def test_a_process_that_is_killed_while_napari_draws_its_bar_is_told(
    qtbot: Any, bench: Workbench, section: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_(qtbot, bench, section)
    update, drawn = progress.update, []

    def killed_in_it(bar: progress, n: int = 1) -> None:
        if bench.child.job is not None:
            psutil.Process(bench.child.pid).kill()
            qtbot.waitUntil(lambda: bench.child.job is None, timeout=20_000)  # as napari lets the event loop go round
        update(bar, n)
        drawn.append(n)

    monkeypatch.setattr(progress, "update", killed_in_it)
    predict(qtbot, bench, "slow")
    qtbot.waitUntil(lambda: bool(drawn), timeout=5000)
    assert "memory runs out" in messages()[-1]
    assert bench.predict_panel.status.toolTip() == messages()[-1]
    assert not bench.predict_panel.bar.isVisible()


def test_an_error_begins_with_the_slides_name_and_not_with_its_folders(
    qtbot: Any, bench: Workbench, section: Path
) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench, "misfit")
    told = f"{section.name}: does not fit; use another"  # of a long path a narrow window shows nothing else
    assert messages() == [told]
    assert bench.predict_panel.state == told


def test_a_prediction_is_shown_as_it_fills_in_and_taken_away_when_it_is_stopped(
    qtbot: Any, bench: Workbench, section: Path
) -> None:
    open_(qtbot, bench, section)
    entry = bench.session.active
    assert entry is not None
    fill(qtbot, bench, entry, 20)
    layer = bench.session.layer_of(entry, "predicted")
    assert layer is not None
    values = layer.features["value"].to_numpy()
    assert np.isfinite(values[: entry.filled]).all()
    assert np.isnan(values[-1])
    assert layer.face_color[-1, 3] == 0
    assert not layer.face_colorbar.visible  # its limits change with the spots that come in
    assert "wait until all spots" in bench.panel(GenesPanel).maps.buttons["measured"].toolTip()
    assert not bench.panel(ExportPanel).new.isEnabled()
    for title in bench.sections:
        bench.sections[title].set_open(False)
    for title in ("Predict", "Genes"):  # on a small screen the first has been closed
        bench.sections[title].set_open(True)
    bench._room.stop()  # it has room
    with qtbot.waitSignal(bench.child.ended, timeout=5000):
        click(qtbot, bench.predict_panel.cancel)
    assert entry.table is None
    assert len(bench.session.viewer.layers) == 2
    assert bench._opened[-1] is bench.sections["Predict"]  # and so closed last for want of room
    predict(qtbot, bench)
    assert entry.table is not None
    assert bench.session.layer_of(entry, "measured") is not None
    assert bench.session.layer_of(entry, "predicted").face_colorbar.visible
    assert messages() == []


def test_what_a_prediction_fills_is_there_before_it_begins(
    qtbot: Any, bench: Workbench, section: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_(qtbot, bench, section)
    entry, viewer = bench.session.active, bench.session.viewer
    assert entry is not None
    assert viewer.canvas.overlays.text.text == f"{entry.key} · 48 spots\nNo genes predicted yet\nFor research use only"
    bars, begun = set(progress._all_instances), []
    begin = bench.child.begin

    def note(job: Job) -> None:
        layer = bench.session.layer_of(entry, "predicted")
        blank = entry.table is not None and np.isnan(entry.table.X).all()
        said = f"{bench.session.gene} predicted" in viewer.canvas.overlays.text.text
        told = set(progress._all_instances) > bars
        begun.append((layer is not None and layer.visible, blank, entry.genes.names, said, told))
        begin(job)

    monkeypatch.setattr(bench.child, "begin", note)
    with qtbot.waitSignal(bench.work.rested, timeout=20_000):
        click(qtbot, bench.predict_panel.button)
        assert not bench.predict_panel.button.isEnabled()
    assert begun == [(True, True, read_genes(DEFAULT_CHECKPOINT), True, True)]
    assert not entry.filling


def test_a_prediction_that_is_stopped_before_it_begins_leaves_nothing(
    qtbot: Any, bench: Workbench, section: Path, tiny_checkpoint_folder: Path, tmp_path: Path
) -> None:
    open_(qtbot, bench, section)
    entry = bench.session.active
    assert entry is not None
    shutil.copytree(tiny_checkpoint_folder, tmp_path / "slow")
    bench.predict_panel.add_checkpoint(tmp_path / "slow")
    with qtbot.waitSignal(bench.work.rested, timeout=5000):
        click(qtbot, bench.predict_panel.button)
        bench.work.stop()
    assert bench.predict_panel.status.text() == "Stopped."
    assert entry.table is None
    assert len(bench.session.viewer.layers) == 2
    click(qtbot, bench.predict_panel.button)
    with qtbot.waitSignal(bench.work.rested, timeout=5000):
        bench.session.viewer.layers.clear()  # the slide is closed before its layer is added
    assert len(bench.session.viewer.layers) == 0
    assert messages() == []


def test_closing_the_dock_before_a_prediction_begins_leaves_nothing(
    qtbot: Any, make_napari_viewer_proxy: Make, child: Child, section: Path
) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    bench = Workbench(viewer, child)
    dock = viewer.window.add_dock_widget(bench)
    open_(qtbot, bench, section)
    entry, before, begun = bench.session.active, set(progress._all_instances), []
    assert entry is not None
    bench.child.told.connect(lambda _job, event: begun.append(event))
    click(qtbot, bench.predict_panel.button)
    qtbot.waitUntil(lambda: entry.filling, timeout=5000)
    dock.destroyOnClose()
    qtbot.wait(500)  # what was still to be done before it is over
    assert begun == []
    assert entry.table is None
    assert len(viewer.layers) == 2
    assert set(progress._all_instances) == before


def test_what_is_hidden_and_selected_before_the_first_spots_stays_so(
    bench: Workbench, tiny_slide: Slide, tiny_table: AnnData, tmp_path: Path
) -> None:
    session = bench.session
    other, entry, genes = session.add(tiny_slide), session.add(tiny_slide), list(tiny_table.var_names)
    session.set_prediction(entry.key, filling_table(tiny_slide, genes), "")
    session.show(gene=genes[3])
    layer = session.layer_of(entry, "predicted")
    assert layer is not None
    layer.visible = False
    session.select([2, 5])
    filling = Filling(tmp_path, genes, len(tiny_slide.spots))
    session.set_prediction(entry.key, filling_table(tiny_slide, genes, tmp_path / str(filling.told["file"])), "")
    filling.put(np.arange(20), np.arange(20 * len(genes), dtype=np.float32).reshape(20, -1))
    session.fill(entry.key, 20)
    assert not layer.visible
    assert genes[3] not in session.viewer.canvas.overlays.text.text
    for one in layers_of(session.viewer, other.key):  # another slide is closed
        session.viewer.layers.remove(one)
    assert list(session.selection) == [2, 5]
    layer.visible = True
    np.testing.assert_array_equal(layer.features["value"][:20], np.arange(20) * len(genes) + 3)


def test_the_colour_bar_comes_with_the_last_spot(
    bench: Workbench, tiny_slide: Slide, tiny_table: AnnData, tmp_path: Path
) -> None:
    session = bench.session
    entry = session.add(tiny_slide)
    filling = Filling(tmp_path, list(tiny_table.var_names), len(tiny_slide.spots))
    filling.put(np.arange(20), np.ones((20, tiny_table.n_vars), np.float32))
    session.set_prediction(
        entry.key, filling_table(tiny_slide, list(tiny_table.var_names), tmp_path / str(filling.told["file"])), ""
    )
    layer = session.layer_of(entry, "predicted")
    assert layer is not None
    assert not layer.face_colorbar.visible
    session.set_prediction(entry.key, tiny_table.copy(), "table_hyperst")
    assert session.layer_of(entry, "predicted") is layer
    assert layer.face_colorbar.visible
    layer.face_colorbar.visible = False  # by hand
    session.show(gene=str(tiny_table.var_names[3]))
    session.set_prediction(entry.key, tiny_table.copy(), "table_hyperst")
    assert not layer.face_colorbar.visible


def test_napari_says_that_something_is_at_work_without_laying_the_window_out_anew(
    qtbot: Any, make_napari_viewer_proxy: Make, child: Child
) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.add_dock_widget(Workbench(viewer, child))
    status = viewer.window._qt_window.statusBar()
    (sign,) = [label for label in status.findChildren(QLabel) if label.movie() is not None]
    qtbot.wait(50)
    before = status.height()
    told = progress(total=0, desc="something")
    try:
        qtbot.waitUntil(sign.isVisible)
        qtbot.wait(50)
        assert status.height() == before
        assert sign.movie().speed() < 50
    finally:
        told.close()


def test_the_work_is_told_in_the_activity_dock(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    scene(bench, "slow")
    before = set(progress._all_instances)
    click(qtbot, bench.predict_panel.button)
    qtbot.waitUntil(lambda: set(progress._all_instances) > before)
    (told,) = set(progress._all_instances) - before
    qtbot.waitUntil(lambda: told.n > 5, timeout=20_000)
    assert told.total == 40
    with qtbot.waitSignal(bench.child.ended, timeout=1500):
        click(qtbot, bench.predict_panel.cancel)
    assert set(progress._all_instances) == before


def test_work_that_ends_as_the_activity_dock_is_told_of_it_leaves_nothing_there(
    qtbot: Any, bench: Workbench, section: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(**told: Any) -> progress:
        bench.work.stop()
        qtbot.waitUntil(lambda: bench.child.job is None, timeout=5000)
        return progress(**told)

    open_(qtbot, bench, section)
    scene(bench, "slow")
    before = set(progress._all_instances)
    monkeypatch.setattr("napari_hyperst.widgets.work.progress", late)
    with qtbot.waitSignal(bench.child.ended, timeout=5000):
        click(qtbot, bench.predict_panel.button)
    qtbot.wait(50)
    assert set(progress._all_instances) == before
    assert bench.predict_panel.button.isEnabled()


def test_warnings_of_a_job_are_shown(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench, "warns")
    assert messages() == ["out of memory; going on with 16 spots at a time"]


def test_a_slide_that_cannot_be_opened_is_told(qtbot: Any, bench: Workbench, tmp_path: Path) -> None:
    bench.open(tmp_path / "missing")
    assert bench.slide_panel.status.text() == "Opening a slide…"
    qtbot.waitUntil(lambda: bool(messages()), timeout=20_000)
    assert "there is nothing here" in messages()[-1]
    assert "No slide is open" in bench.slide_panel.status.text()


def test_two_slides_and_one_closed_while_it_is_predicted(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    open_(qtbot, bench, section)
    slides = bench.slide_panel.slides
    assert [slides.itemText(i) for i in range(2)] == list(bench.session.entries)
    first, second = bench.session.entries
    assert slides.currentText() == second
    slides.setCurrentIndex(0)
    slides.activated.emit(0)
    assert bench.session.active is bench.session.entries[first]
    scene(bench, "slow")
    click(qtbot, bench.predict_panel.button)
    viewer = bench.session.viewer
    for layer in [layer for layer in viewer.layers if layer.metadata["hyperst"]["slide"] == first]:
        viewer.layers.remove(layer)
    assert slides.currentText() == second
    qtbot.waitUntil(lambda: not bench.work.busy, timeout=20_000)
    assert list(bench.session.entries) == [second]
    assert bench.session.entries[second].table is None
    viewer.layers.clear()
    assert not bench.predict_panel.button.isEnabled()
    assert bench.panel(GenesPanel).genes.genes == []
    assert messages() == []


def test_a_slide_that_is_not_looked_at_is_predicted_without_a_jump(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    first = bench.session.active
    assert first is not None
    fill(qtbot, bench, first, 2)
    open_(qtbot, bench, section)
    second = bench.session.active
    qtbot.waitUntil(lambda: bench.predict_panel.status.text().startswith(f"{first.key}: "), timeout=10_000)
    with qtbot.waitSignal(bench.child.ended, timeout=5000):
        click(qtbot, bench.predict_panel.cancel)
    assert bench.session.active is second
    assert first.table is None
    bench.session.activate(first.key)
    scene(bench, "slow")
    click(qtbot, bench.predict_panel.button)
    bench.session.activate(second.key)
    qtbot.waitUntil(lambda: first.table is not None, timeout=20_000)
    assert bench.session.active is second
    assert messages() == [f"{first.key}: 8 genes predicted at 47 spots in 0 s. Choose it under Slide to see them."]
    assert not any(layer.visible for layer in bench.session.viewer.layers if ours(layer)["slide"] == first.key)
    assert bench.predict_panel.status.text().startswith(f"{first.key}: 8 genes predicted")
    bench.session.activate(first.key)
    assert bench.predict_panel.status.text() == ""
    shown = bench.session.layer_of(first, "predicted")
    assert shown is not None
    assert shown.visible
    assert np.isfinite(shown.features["value"]).all()


def test_a_prediction_ends_with_its_slide_and_can_be_cancelled_in_a_low_window(
    qtbot: Any, bench: Workbench, section: Path
) -> None:
    bench.resize(380, 400)
    open_(qtbot, bench, section)
    entry = bench.session.active
    assert entry is not None
    fill(qtbot, bench, entry, 2)
    qtbot.wait(50)
    assert bench.sections["Genes"].is_open
    assert bench.sections["Predict"].is_open  # where it is cancelled
    bench.session.viewer.layers.clear()
    qtbot.waitUntil(lambda: bench.child.job is None, timeout=5000)
    assert bench.session.entries == {}
    assert bench.work.busy == ""
    assert messages() == []


def test_predicting_twice_and_renaming(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    count = len(bench.session.viewer.layers)
    for layer in bench.session.viewer.layers:
        layer.name = f"renamed {layer.name}"
    predict(qtbot, bench)
    assert len(bench.session.viewer.layers) == count
    assert messages() == []


def test_a_store_can_be_written_into_itself(
    qtbot: Any, bench: Workbench, section: Path, tmp_path: Path, tiny_table: Any
) -> None:
    store = write_table(open_slide(section), tiny_table.copy(), tmp_path / "own.zarr")
    open_(qtbot, bench, section)
    assert not bench.panel(ExportPanel).own.isVisibleTo(bench.panel(ExportPanel))
    open_(qtbot, bench, store)
    assert bench.panel(ExportPanel).own.isVisibleTo(bench.panel(ExportPanel))
    assert bench.panel(ExportPanel).own.isEnabled()  # its prediction came with it
    assert len(bench.panel(GenesPanel).genes.genes) == 8
    bench.export(tmp_path / "copy.zarr")
    assert isinstance(bench.work.task, ExportTask)
    assert bench.work.task.result is None  # the child finds it in the store
    qtbot.waitUntil(lambda: bench.child.job is None, timeout=10_000)
    assert messages() == []


def test_of_several_predictions_in_a_store_one_is_chosen(
    qtbot: Any, bench: Workbench, section: Path, tmp_path: Path, tiny_table: Any
) -> None:
    store = write_table(open_slide(section), tiny_table.copy(), tmp_path / "own.zarr", table="first")
    open_(qtbot, bench, store)
    panel = bench.slide_panel
    assert panel.predictions.isHidden()  # there is nothing to choose
    write_table(open_slide(store), tiny_table.copy(), store, table="second")
    open_(qtbot, bench, store)
    entry = bench.session.active
    assert entry is not None
    assert not panel.predictions.isHidden()
    assert [panel.stored.itemText(i) for i in range(panel.stored.count())] == list(entry.stored)
    assert panel.stored.currentText() == entry.table_name
    other = next(name for name in ("first", "second") if name != entry.table_name)
    panel.stored.setCurrentText(other)
    panel.stored.activated.emit(panel.stored.currentIndex())  # what a click does
    assert entry.table is entry.stored[other]
    assert panel.stored.currentText() == other
    bench.session.activate(next(iter(bench.session.entries)))
    assert panel.predictions.isHidden()


def test_dialogs_name_what_is_opened_chosen_and_written(
    qtbot: Any, bench: Workbench, section: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(section))
    click(qtbot, bench.slide_panel.open)
    qtbot.waitUntil(lambda: bench.session.active is not None, timeout=20_000)
    checkpoint = bench.predict_panel.checkpoint
    before = checkpoint.value
    checkpoint.value = "Choose a folder…"
    assert "no card.json, so this is no checkpoint" in messages()[-1]
    assert checkpoint.value == before
    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    (run / "best" / "card.json").touch()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(run))
    checkpoint.value = "Choose a folder…"
    assert checkpoint.value == str(run / "best")
    predict(qtbot, bench)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "new"), ""))
    with qtbot.waitSignal(bench.child.ended, timeout=10_000):
        click(qtbot, bench.panel(ExportPanel).new)
    assert (tmp_path / "new.zarr").is_dir()
    suggested: list[str] = []
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *asked: (suggested.append(asked[2]), ("", ""))[1])
    click(qtbot, bench.panel(ExportPanel).new)
    assert bench.child.job is None
    assert Path(suggested[0]).parent == section.parent
    entry = bench.session.active
    assert entry is not None
    bench.session.show(markers=MarkerSet("T cells", tuple(entry.genes.names[:2])))
    bench.work.export(tmp_path / "map.png")
    assert messages()[-1] == "map.png would show one gene, not the set T cells; choose a gene first"
    assert bench.child.job is None
    assert not (tmp_path / "map.png").exists()


def test_checkpoints_of_one_name_are_told_apart(bench: Workbench, tmp_path: Path) -> None:
    bundled = bench.predict_panel.checkpoint.value
    folders = [tmp_path / "one" / "best", tmp_path / "two" / "best", tmp_path / bundled]
    for folder in folders:
        bench.predict_panel.add_checkpoint(folder)
    box = bench.predict_panel.checkpoint.native
    box = box if isinstance(box, QComboBox) else box.findChild(QComboBox)
    offered = [box.itemText(row) for row in range(box.count())]
    assert offered == [bundled, "one", "two", f"{tmp_path.name}/{bundled}", "Choose a folder…"]
    for name, value in zip(offered, [bundled, *map(str, folders)], strict=False):
        box.setCurrentText(name)
        assert bench.predict_panel.checkpoint.value == value


def test_devices_that_are_not_there_are_not_offered(qtbot: Any, bench: Workbench) -> None:
    qtbot.waitUntil(lambda: bench.child.devices is not None, timeout=20_000)
    assert bench.predict_panel.device.choices == ("auto", "cpu", "mps")
    assert "no CUDA device was found" in bench.predict_panel.device.tooltip


def test_another_preference_of_device_is_taken_over(qtbot: Any, bench: Workbench) -> None:
    settings = get_plugin_settings("napari-hyperst").prediction
    try:
        settings.device = "cpu"
        assert bench.predict_panel.device.value == "cpu"
    finally:
        settings.reset()
    assert bench.predict_panel.device.value == "auto"


def test_a_child_that_cannot_start_is_told(
    qtbot: Any, viewer: Any, child: Child, section: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERST_TEST_STILLBORN", "1")
    notification_manager.records.clear()
    bench = Workbench(viewer, child)
    viewer.window.add_dock_widget(bench)
    qtbot.waitUntil(lambda: bool(messages()), timeout=20_000)
    assert "no torch today" in messages()[-1]
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    assert "no torch today" in messages()[-1]
    assert bench.predict_panel.button.isEnabled()


def test_two_viewers_do_not_mix(
    qtbot: Any, make_napari_viewer_proxy: Make, section: Path, child: Child, other_child: Child
) -> None:
    benches = [Workbench(make_napari_viewer_proxy(), one) for one in (child, other_child)]
    for bench in benches:
        bench.session.viewer.window.add_dock_widget(bench)
    open_(qtbot, benches[0], section)
    assert not benches[1].predict_panel.button.isEnabled()
    assert benches[0].child.pid != benches[1].child.pid
    predict(qtbot, benches[0])
    assert benches[1].session.entries == {}
    assert len(benches[1].session.viewer.layers) == 0


def test_closing_the_dock_ends_the_child_and_its_folders(
    qtbot: Any, viewer: Any, child: Child, section: Path, jobs: Path
) -> None:
    before = set(jobs.iterdir())  # runs of other tests
    bench = Workbench(viewer, child)
    dock = viewer.window.add_dock_widget(bench)
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    assert set(jobs.iterdir()) > before
    pid = child.pid
    dock.destroyOnClose()  # what a click on its X does
    qtbot.waitUntil(lambda: child.pid == 0, timeout=5000)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert set(jobs.iterdir()) == before
    session_of(viewer).show("measured")  # what is shown stays, and nobody listens in vain


def test_napari_can_be_quit_when_the_dock_is_gone_with_its_own_child(qtbot: Any, viewer: Any) -> None:
    bench = Workbench(viewer)
    end, child = bench._end, bench.child
    qtbot.waitUntil(lambda: child.pid != 0, timeout=5000)
    bench.deleteLater()
    with qtbot.waitSignal(bench.destroyed, timeout=20_000):
        pass
    end()  # as napari's end calls it


def test_closing_the_dock_takes_away_what_the_job_at_work_has_shown(
    qtbot: Any, make_napari_viewer_proxy: Make, child: Child, section: Path
) -> None:
    viewer = make_napari_viewer_proxy(show=True)
    bench = Workbench(viewer, child)
    dock = viewer.window.add_dock_widget(bench)
    open_(qtbot, bench, section)
    scene(bench, "fills")
    before = set(progress._all_instances)
    click(qtbot, bench.predict_panel.button)
    entry = bench.session.active
    assert entry is not None
    qtbot.waitUntil(lambda: entry.filled > 5 and set(progress._all_instances) > before, timeout=20_000)
    dock.destroyOnClose()
    qtbot.waitUntil(lambda: set(progress._all_instances) == before, timeout=5000)
    assert entry.table is None
    assert len(viewer.layers) == 2


def test_closing_while_a_store_is_written_lets_it_be_written(
    qtbot: Any, viewer: Any, child: Child, section: Path, tmp_path: Path
) -> None:
    bench = Workbench(viewer, child)
    dock = viewer.window.add_dock_widget(bench)
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    bench.export(tmp_path / "out.zarr")
    qtbot.waitUntil((tmp_path / "out.zarr").is_dir, timeout=5000)
    dock.destroyOnClose()
    assert child.pid == 0
    assert (tmp_path / "out.zarr" / "table").is_file()


def test_a_click_on_what_is_marked_brings_its_layer_back(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    predict(qtbot, bench)
    entry = bench.session.active
    assert entry is not None
    bench.session.viewer.layers.remove(bench.session.layer_of(entry, "predicted"))
    click(qtbot, bench.panel(GenesPanel).maps.buttons["predicted"])
    assert bench.session.layer_of(entry, "predicted") is not None


def test_a_result_that_cannot_be_shown_leaves_the_workbench_at_work(
    qtbot: Any, bench: Workbench, section: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_(qtbot, bench, section)
    with monkeypatch.context() as patched:
        patched.setattr(bench.session, "set_prediction", lambda *_: 1 / 0)
        predict(qtbot, bench)
    assert "ZeroDivisionError" in messages()[-1]
    assert not bench.predict_panel.bar.isVisibleTo(bench.predict_panel)
    predict(qtbot, bench)
    assert bench.session.active is not None
    assert bench.session.active.table is not None


def test_a_job_whose_folder_is_taken_away_can_be_cancelled(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    scene(bench, "deaf")
    click(qtbot, bench.predict_panel.button)
    qtbot.waitUntil(lambda: bench.predict_panel.bar.maximum() == 40, timeout=20_000)
    assert bench.child.job is not None
    shutil.rmtree(bench.child.job.folder)
    with qtbot.waitSignal(bench.child.ended, timeout=5000):
        click(qtbot, bench.predict_panel.cancel)
    assert bench.predict_panel.status.text() == "Stopped."
    predict(qtbot, bench)


def test_the_sample_is_predicted_when_asked_and_nothing_else(qtbot: Any, bench: Workbench, section: Path) -> None:
    open_(qtbot, bench, section)
    scene(bench, "ok")
    bench.open_sample(then_predict=True)
    assert bench.child.job is None  # the slide that is there is not what was asked for
    with qtbot.waitSignal(bench.work.rested, timeout=60_000):
        pass
    assert bench.session.active is not None
    assert bench.session.active.slide.name == "C2"
    open_(qtbot, bench, section)
    assert bench.child.job is None
