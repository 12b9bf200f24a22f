"""A training run as it goes: its state, its curves, what can be asked of it, and what there is at its end."""

from __future__ import annotations

from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.jobs.progress import duration
from napari_hyperst.jobs.runs import RunFollower
from napari_hyperst.nouns.tasks import TrainTask
from napari_hyperst.widgets.bar import Bar

if TYPE_CHECKING:
    from napari_hyperst.widgets.training_curves import TrainingCurves

_TITLES = {
    "new": "This run was never started",
    "paused": "Paused",
    "done": "Done",
    "stopped": "Stopped",
    "failed": "It ended with an error",
    "crashed": "The trainer crashed",
}
_CURVES = "napari_hyperst.widgets.training_curves"
_STARTING = "Starting: importing PyTorch…"
_SILENT = "It said nothing, as a process does not that is killed where memory has run out. "
_MEND = (
    "napari and your data are untouched, and what was saved last is kept. Resume goes on from there. If it crashes "
    "again: memory may have run out (start a new run with a smaller micro batch, or on the CPU)."
)
_SLOW_TO_STOP = (
    "Stopping, once the piece of a batch at work is over. Stop now ends it at once; what was saved last is kept."
)


class TrainingRun(QWidget):
    """Shows a run, and asks for things to be done with it.

    Parameters
    ----------
    parent
        Qt parent.
    """

    pause_asked = Signal()
    resume_asked = Signal()
    stop_asked = Signal()
    cancel_asked = Signal()
    load_asked = Signal()
    card_asked = Signal()
    curves_asked = Signal()
    export_asked = Signal()
    push_asked = Signal()
    workbench_asked = Signal()
    #: The user wants the validation map shown, of another gene, or no longer.
    map_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.curves: TrainingCurves | None = None
        self._import: Thread | None = None
        self._theme = ("#262930", "#f0f1f2", "#5a626c")
        self.title, self.detail, self.note = QLabel(), QLabel(), QLabel()
        self.title.setStyleSheet("font-weight: bold;")
        for label in (self.title, self.detail, self.note):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
        self.bar = Bar()
        self.lines = QPlainTextEdit()
        self.lines.setReadOnly(True)
        self.lines.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.lines.setFixedHeight(110)
        self.pause = _button("Pause", "Leave the processor to others; the run keeps its memory and its place")
        self.resume = _button("Resume", "Go on where the run stood")
        self.stop = _button("Stop", "End the run and keep its best epoch; it can be resumed")
        self.cancel = _button("Throw away…", "End the run and delete all that it has made")
        self.load = _button("Load and predict", "Predict the active slide with the best epoch of this run")
        self.load.setDefault(True)
        self.card = _button("Model card", "What the checkpoint is, what it was made of, how far to trust it")
        self.picture = _button("Curves", "The picture of the whole run")
        self.export = _button("Export…", "Write the checkpoint as a folder to share")
        self.workbench = _button("Workbench", "Predict other slides with it, look at genes, compare, export")
        self.push = _button("Push to the hub…", "Send the checkpoint to the Hugging Face hub")
        self.shown = QCheckBox("Map")
        self.shown.setChecked(True)
        self.shown.setToolTip("Show this gene on the validation slide after every epoch: measured, predicted beside it")
        self.gene = QComboBox()
        self.gene.setEditable(True)
        self.gene.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.gene.setToolTip("The gene of the validation map")
        self.map_row = QWidget()
        of_map = QHBoxLayout(self.map_row)
        of_map.setContentsMargins(0, 0, 0, 0)
        of_map.addWidget(self.shown)
        of_map.addWidget(self.gene, 1)
        self.working, self.ended = QWidget(), QWidget()
        row = QHBoxLayout(self.working)
        row.setContentsMargins(0, 0, 0, 0)
        for button in (self.pause, self.resume, self.stop, self.cancel):
            row.addWidget(button)
        grid = QGridLayout(self.ended)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.addWidget(self.load, 0, 0)
        grid.addWidget(self.workbench, 0, 1)
        for number, button in enumerate((self.card, self.picture, self.export, self.push)):
            grid.addWidget(button, 1 + number // 2, number % 2)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(5)
        for widget in (
            self.title, self.bar, self.detail, self.note, self.lines, self.working, self.ended, self.map_row
        ):  # fmt: skip
            self._column.addWidget(widget)
        for button, signal in (
            (self.pause, self.pause_asked), (self.resume, self.resume_asked), (self.stop, self.stop_asked),
            (self.cancel, self.cancel_asked), (self.load, self.load_asked), (self.card, self.card_asked),
            (self.picture, self.curves_asked), (self.export, self.export_asked), (self.push, self.push_asked),
            (self.workbench, self.workbench_asked),
        ):  # fmt: skip
            button.clicked.connect(signal)
        self.shown.toggled.connect(lambda _: self.map_asked.emit())
        self.gene.activated.connect(lambda _: self.map_asked.emit())

    def set_theme(self, background: str, text: str, line: str) -> None:
        """Draw curves in other colours."""
        self._theme = (background, text, line)
        if self.curves is not None:
            self.curves.set_theme(*self._theme)

    def set_genes(self, genes: list[str]) -> None:
        """List the genes of the map; the one that is chosen stays."""
        if [self.gene.itemText(i) for i in range(self.gene.count())] != genes:
            now = self.gene.currentText()
            self.gene.clear()
            self.gene.addItems(genes)
            self.gene.setCurrentIndex(max(0, self.gene.findText(now)))

    def draw(self, run: RunFollower, *, only_loss: bool = False) -> None:
        """Draw the curves of a run anew, or its loss only; ``curves`` is None until that can be done."""
        if self.curves is None:
            if not self._imported():
                return  # at one of the next looks
            from napari_hyperst.widgets.training_curves import TrainingCurves

            self.curves = TrainingCurves()
            self.curves.set_theme(*self._theme)
            self._column.addWidget(self.curves)
        self.curves.show_run(run.progress, only_loss=only_loss)

    def _imported(self) -> bool:
        """Tell whether matplotlib is there: its import takes a second, so a thread does it."""
        if self._import is None:
            self._import = Thread(target=import_module, args=(_CURVES,), name="hyperst-import", daemon=True)
            self._import.start()
        return not self._import.is_alive()

    def show_run(self, run: RunFollower, *, asked: str = "") -> None:
        """Show how a run stands.

        Parameters
        ----------
        run
            The run.
        asked
            What was asked of it that it has not done yet: ``"pause"``, ``"stop"`` or ``"cancel"``.
        """
        told, best = run.progress, run.best()
        live = told.live
        self.title.setText(_title(run, asked))
        self.detail.setText(_detail(run))
        self.detail.setVisible(bool(self.detail.text()))
        self._show_bar(run)
        notes = list(dict.fromkeys(told.warnings))[-2:]
        if asked == "stop" and live:
            notes = [_SLOW_TO_STOP]
        elif told.state == "crashed":
            notes = [_MEND if told.what else _SILENT + _MEND]
        elif told.state == "failed":
            notes = [told.what]
        self.note.setText("\n".join(notes))
        self.note.setVisible(bool(notes))
        self.lines.setPlainText(told.what)
        self.lines.setVisible(told.state == "crashed" and bool(told.what))
        self.pause.setVisible(live and told.state != "paused")
        self.pause.setEnabled(told.state in ("training", "preparing") and not asked)
        self.resume.setVisible(told.state in ("paused", "new", "stopped", "failed", "crashed"))
        self.resume.setText("Start" if told.state == "new" else "Resume")
        self.resume.setEnabled(not asked and (told.state == "paused" or not run.alive))
        self.stop.setVisible(live)
        self.stop.setText("Stop now" if asked == "stop" else "Stop")
        self.stop.setEnabled(asked != "cancel")
        self.cancel.setEnabled(asked != "cancel")
        self.cancel.setVisible(told.state != "done")
        self.ended.setVisible(not live and best is not None)
        for button, name in ((self.card, "README.md"), (self.picture, "report.png")):
            there = best is not None and (best / name).is_file()
            button.setEnabled(there)
            if not there:
                button.setToolTip("It is made when a run comes to its end; Export makes it now")
        self.map_row.setVisible(told.snapshot > 0)

    def _show_bar(self, run: RunFollower) -> None:
        told = run.progress
        self.bar.setVisible(told.live)
        if told.state in ("starting", "preparing"):
            self.bar.show_progress(told.done, told.total)
        else:
            self.bar.show_progress(round(1000 * told.share), 1000)


def _title(run: RunFollower, asked: str) -> str:
    told = run.progress
    if told.live and asked:
        return {"pause": "Pausing…", "stop": "Stopping…", "cancel": "Throwing it away…"}[asked]
    if told.state == "preparing":
        return f"Encoding {told.what}: {told.done:,} of {told.total:,}" if told.total else "Opening slides and encoder…"
    if told.state == "training" and told.epoch >= told.epochs:
        return "Trained: measuring, writing the model card…"
    if told.state == "training":
        return f"Training: epoch {min(told.epoch + 1, told.epochs)} of {told.epochs}"
    if told.state == "starting":
        return f"Going on after epoch {told.epoch}: importing PyTorch…" if told.epoch else _STARTING
    title = _TITLES[told.state]
    if told.state == "done":
        return f"{title}: epoch {told.best_epoch} of {told.epoch} is kept{_why_kept(run)}"
    return f"{title} after epoch {told.epoch} of {told.epochs}" if told.epoch else title


def _why_kept(run: RunFollower) -> str:
    """Say by what the epoch was chosen, where there was a choice."""
    task = run.job.task
    if not isinstance(task, TrainTask) or task.config.keep == "last" or not run.progress.curves.get("validation/mse"):
        return ""
    return {"mse": ", with the least squared error", "pcc": ", with the highest PCC", "total": ", with the least loss"}[
        task.config.monitor
    ]


def _detail(run: RunFollower) -> str:
    told = run.progress
    parts = []
    if told.live:
        left = told.seconds_left
        if told.tiles_per_s:
            parts.append(f"{told.tiles_per_s:,.0f} tiles/s")
        if left is not None:
            parts.append(f"about {duration(left)} left")
        if told.waiting is not None:
            parts.append(f"{told.waiting:.0%} of the time waiting for data")
        if told.device:
            parts.append(f"on {told.device}")
    pcc = told.curves.get("validation/pcc", {})
    if pcc:
        best = max(pcc, key=pcc.__getitem__)
        now = told.best_epoch if told.best_epoch in pcc else max(pcc)
        parts.append(f"validation PCC {pcc[now]:.3f} (best {pcc[best]:.3f} in epoch {best})")
    return " · ".join(parts)


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button
