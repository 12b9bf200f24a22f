"""With what to predict, and how far it has come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QProgressBar, QPushButton
from superqt import QElidingLabel

from napari_hyperst.jobs.runs import BEST, best_of, list_runs
from napari_hyperst.nouns.bundled import DEFAULT_CHECKPOINT, bundled_checkpoints
from napari_hyperst.nouns.events import Event
from napari_hyperst.viewer import preferences
from napari_hyperst.widgets.docks import FINETUNE, open_dock
from napari_hyperst.widgets.panel import Panel, literal

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work

_OTHER = "Choose a folder…"
_CANCEL = "Stop within a second; what was there before stays"
_DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "NVIDIA GPU (CUDA)", "mps": "Apple GPU (MPS)"}


class PredictPanel(Panel):
    """Pickers of checkpoint and device, the button, and a bar with what, how many and time left.

    Parameters
    ----------
    session, work
        As for every panel.
    """

    title = "Predict"

    def __init__(self, session: Session, work: Work) -> None:
        super().__init__(session, work)
        self._folders: list[str] = []
        self._last = DEFAULT_CHECKPOINT
        self._missing: dict[str, str] = {}
        self._began: tuple[float, int] | None = None
        self._of: str | None = None
        self.checkpoint = ComboBox(
            label="Checkpoint", choices=self._checkpoints, value=DEFAULT_CHECKPOINT,
            tooltip="The trained model: one that is bundled, or the folder of your own",
        )  # fmt: skip
        self.device = ComboBox(
            label="Device", choices=self._devices, value=preferences.device(),
            tooltip="Where to compute; Automatic takes the fastest there is",
        )  # fmt: skip
        form = QFormLayout()
        for picker in (self.checkpoint, self.device):
            form.addRow(picker.label, picker.native)
        self.button = QPushButton("Predict genes")
        self.button.setDefault(True)
        self.bar = QProgressBar()
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip(_CANCEL)
        self.bar.setToolTip("How far the work has come")
        self.status = QElidingLabel()
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(2 * self.status.fontMetrics().height() + 4)
        working = QHBoxLayout()
        working.addWidget(self.bar, 1)
        working.addWidget(self.cancel)
        self.finetune = QPushButton("Fine-tune a model…")
        self.finetune.setToolTip("Open the panel that trains a checkpoint of your own on slides with counts")
        self.column.addLayout(form)
        self.column.addWidget(self.button)
        self.column.addWidget(self.finetune)
        self.column.addLayout(working)
        self.column.addWidget(self.status)
        self.checkpoint.changed.connect(self._on_checkpoint)
        self.button.clicked.connect(self.predict)
        self.finetune.clicked.connect(lambda: open_dock(session.viewer, FINETUNE))
        self.cancel.clicked.connect(self._on_cancel)
        self.listen(session.checkpoint_made, self.add_checkpoint)
        self.listen(session.slides_changed, self.allow)
        self.listen(session.opening_changed, self.allow)
        self.listen(preferences.events("prediction").device, self._on_device)
        work.began.connect(self._on_began)
        work.progressed.connect(self._on_progress)
        work.rested.connect(self._rest)
        work.changed.connect(self.allow)
        work.child.ready.connect(self._set_devices)
        self.allow()
        self._rest("")

    def predict(self, *_: object) -> None:
        """Predict the active slide's genes with the chosen checkpoint."""
        self.work.predict(self.checkpoint.value, self.device.value)

    def add_checkpoint(self, folder: Path) -> None:
        """Add the folder of a checkpoint, and choose it."""
        if str(folder) not in self._folders:
            self._folders.append(str(folder))
        with self.checkpoint.changed.blocked():
            self.checkpoint.choices = ()  # what is new would come last, after the choice of another folder
            self.checkpoint.choices = self._checkpoints
        self.checkpoint.value = str(folder)
        self._last = str(folder)

    def allow(self, *_: object) -> None:
        """Allow the click, or say why not."""
        reason = self.work.busy or ("" if self.session.active is not None else "Open a slide first")
        self.button.setEnabled(not reason)
        self.button.setToolTip(reason or "Predict the checkpoint's genes at every spot, in a process of its own")
        active = None if self.session.active is None else self.session.active.key
        if not self.work.busy and active != self._of:  # what was said is of another slide
            self._of = active
            self._say("")

    # -- within

    def _set_devices(self, missing: dict[str, str]) -> None:
        """Say which devices there are: each kind with an empty string, or the reason why not."""
        self._missing = {kind: why for kind, why in missing.items() if why}
        self.device.reset_choices()
        told = "; ".join(f"{_DEVICES[kind]}: {why}" for kind, why in self._missing.items())
        self.device.tooltip = "Where to compute; Automatic takes the fastest there is" + (f".\n{told}" if told else "")

    def _on_began(self, what: str) -> None:
        """Show that work has begun."""
        self._began = None
        self.bar.setRange(0, 0)
        self.bar.show()
        self.cancel.setEnabled(True)
        self.cancel.setToolTip(_CANCEL)
        self.cancel.show()
        self._say(what)

    def _on_progress(self, event: Event) -> None:
        """Show how far the work has come."""
        what, done, total = str(event.content["what"]), int(event.content["done"]), int(event.content["total"])
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        if total == 0:
            self._say(f"{what[:1].upper()}{what[1:]}…")
            return
        self._began = self._began or (event.time, done)
        since, first = event.time - self._began[0], done - self._began[1]
        left = f", about {_duration(since / first * (total - done))} left" if first > 0 and done < total else ""
        self._say(f"{done} of {total} {what}{left}")

    def _rest(self, message: str) -> None:
        """Show that nothing is at work, and how the last work ended."""
        self.bar.hide()
        self.cancel.hide()
        self._say(message)

    def _say(self, message: str) -> None:
        """Show a line, cut short where it does not fit, whole in its tooltip."""
        self.status.setText(" ".join(message.split()))
        self.status.setToolTip(literal(message))
        self.status.setVisible(bool(message))
        reason = "" if self.button.isEnabled() else self.button.toolTip()
        self.say_state(message or reason or "Ready")

    def _on_cancel(self) -> None:
        self.cancel.setEnabled(False)
        self._say("Stopping…")
        self.work.stop()

    def _on_device(self, *_: object) -> None:
        self.device.value = preferences.device()

    def _checkpoints(self, _widget: object = None) -> list[tuple[str, str]]:
        bundled = [(name, name) for name in bundled_checkpoints()]
        runs = [str(best) for job in list_runs() if (best := best_of(job)) is not None]
        folders = dict.fromkeys([*runs, *self._folders])
        return [*bundled, *((_title(Path(folder)), folder) for folder in folders), (_OTHER, _OTHER)]

    def _devices(self, _widget: object = None) -> list[tuple[str, str]]:
        return [(title, kind) for kind, title in _DEVICES.items() if kind not in self._missing]

    def _on_checkpoint(self, value: str) -> None:
        if value != _OTHER:
            self._last = value
            return
        self.checkpoint.value = self._last
        folder = QFileDialog.getExistingDirectory(self, "Folder of a checkpoint")
        if folder:
            self.add_checkpoint(Path(folder))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _title(checkpoint: Path) -> str:
    """Return what the folder of a checkpoint is called; that of a run is the run."""
    named = checkpoint.parent if checkpoint.name == BEST else checkpoint
    return named.name or str(checkpoint)
