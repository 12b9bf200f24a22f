"""With what to predict, and how far it has come."""

from __future__ import annotations

from pathlib import Path

from magicgui.widgets import ComboBox
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget
from superqt import QElidingLabel

from napari_hyperst.errors import unmarked
from napari_hyperst.nouns.bundled import DEFAULT_CHECKPOINT, bundled_checkpoints
from napari_hyperst.nouns.events import Event

_OTHER = "Choose a folder…"
_DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "NVIDIA GPU (CUDA)", "mps": "Apple GPU (MPS)"}


class PredictPanel(QWidget):
    """Pickers of checkpoint and device, the button, and a bar with what, how many and time left.

    Parameters
    ----------
    device
        The device to begin with.
    parent
        Qt parent.
    """

    #: The user wants genes predicted.
    asked = Signal()
    #: The user wants the work to stop.
    cancelled = Signal()

    def __init__(self, device: str = "auto", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._folders: list[str] = []
        self._last = DEFAULT_CHECKPOINT
        self._missing: dict[str, str] = {}
        self._began: tuple[float, int] | None = None
        self.checkpoint = ComboBox(
            label="Checkpoint", choices=self._checkpoints, value=DEFAULT_CHECKPOINT,
            tooltip="The trained model: one that is bundled, or the folder of your own",
        )  # fmt: skip
        self.device = ComboBox(
            label="Device", choices=self._devices, value=device,
            tooltip="Where to compute; Automatic takes the fastest there is",
        )  # fmt: skip
        form = QFormLayout()
        for picker in (self.checkpoint, self.device):
            form.addRow(picker.label, picker.native)
        self.button = QPushButton("Predict genes")
        self.button.setDefault(True)
        self.bar = QProgressBar()
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop within a second; what was there before stays")
        self.status = QElidingLabel()
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(2 * self.status.fontMetrics().height() + 4)
        for widget in (self.bar, self.cancel, self.status):  # what comes and goes must not move the rest
            policy = widget.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            widget.setSizePolicy(policy)
        working = QHBoxLayout()
        working.addWidget(self.bar, 1)
        working.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(form)
        layout.addWidget(self.button)
        layout.addLayout(working)
        layout.addWidget(self.status)
        self.checkpoint.changed.connect(self._on_checkpoint)
        self.button.clicked.connect(self.asked)
        self.cancel.clicked.connect(self.cancelled)
        self.rest("")

    def set_devices(self, missing: dict[str, str]) -> None:
        """Say which devices there are: each kind with an empty string, or the reason why not."""
        self._missing = {kind: why for kind, why in missing.items() if why}
        self.device.reset_choices()
        told = "; ".join(f"{_DEVICES[kind]}: {why}" for kind, why in self._missing.items())
        self.device.tooltip = "Where to compute; Automatic takes the fastest there is" + (f".\n{told}" if told else "")

    def allow(self, reason: str) -> None:
        """Allow the click, or say why not."""
        self.button.setEnabled(not reason)
        self.button.setToolTip(reason or "Predict the checkpoint's genes at every spot, in a process of its own")

    def work(self, what: str) -> None:
        """Show that work has begun."""
        self._began = None
        self.bar.setRange(0, 0)
        self.bar.show()
        self.cancel.setEnabled(True)
        self.cancel.show()
        self.say(what)

    def progress(self, event: Event) -> None:
        """Show how far the work has come."""
        what, done, total = str(event.content["what"]), int(event.content["done"]), int(event.content["total"])
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        if total == 0:
            self.say(f"{what[:1].upper()}{what[1:]}…")
            return
        self._began = self._began or (event.time, done)
        since, first = event.time - self._began[0], done - self._began[1]
        left = f", about {_duration(since / first * (total - done))} left" if first > 0 and done < total else ""
        self.say(f"{done} of {total} {what}{left}")

    def rest(self, message: str) -> None:
        """Show that nothing is at work, and how the last work ended."""
        self.bar.hide()
        self.cancel.hide()
        self.say(message)

    def say(self, message: str) -> None:
        """Show a line, cut short where it does not fit, whole in its tooltip."""
        self.status.setText(" ".join(message.split()))
        self.status.setToolTip(unmarked(message))
        self.status.setVisible(bool(message))

    def add_checkpoint(self, folder: Path) -> None:
        """Add the folder of a checkpoint, and choose it."""
        if str(folder) not in self._folders:
            self._folders.append(str(folder))
        self.checkpoint.reset_choices()
        self.checkpoint.value = str(folder)

    def _checkpoints(self, _widget: object = None) -> list[tuple[str, str]]:
        bundled = [(name, name) for name in bundled_checkpoints()]
        return [*bundled, *((Path(folder).name or folder, folder) for folder in self._folders), (_OTHER, _OTHER)]

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
