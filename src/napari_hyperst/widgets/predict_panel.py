"""With what to predict, and how far it has come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QFormLayout, QPushButton

from napari_hyperst.jobs.runs import best_of, list_runs
from napari_hyperst.nouns.bundled import DEFAULT_CHECKPOINT, bundled_checkpoints
from napari_hyperst.viewer import preferences
from napari_hyperst.widgets.checkpoint_folder import ask_for_checkpoint, told_apart
from napari_hyperst.widgets.docks import FINETUNE, open_dock
from napari_hyperst.widgets.links import hear
from napari_hyperst.widgets.panel import Panel, literal
from napari_hyperst.widgets.work_bar import WorkBar

if TYPE_CHECKING:
    from napari_hyperst.viewer.session import Session
    from napari_hyperst.widgets.work import Work

_OTHER = "Choose a folder…"
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
        self.progress = WorkBar(work, exports=False)
        self.bar, self.cancel, self.status = self.progress.bar, self.progress.cancel, self.progress.status
        self.finetune = QPushButton("Fine-tune a model…")
        self.finetune.setToolTip("Open the panel that trains a checkpoint of your own on slides with counts")
        self.column.addLayout(form)
        self.column.addWidget(self.button)
        self.column.addWidget(self.finetune)
        self.column.addWidget(self.progress)
        self.checkpoint.changed.connect(self._on_checkpoint)
        self.button.clicked.connect(self.predict)
        self.finetune.clicked.connect(lambda: open_dock(session.viewer, FINETUNE))
        self.progress.said.connect(self._on_told)
        hear(
            self,
            (session.checkpoint_made, self.add_checkpoint),
            (session.slides_changed, self.allow),
            (session.opening_changed, self.allow),
            (preferences.events("prediction").device, self._on_device),
        )
        work.changed.connect(self.allow)
        work.child.ready.connect(self._set_devices)
        self.allow()

    def predict(self, *_: object) -> None:
        """Predict the active slide's genes with the chosen checkpoint."""
        self.work.predict(self.checkpoint.value, self.device.value)

    def add_checkpoint(self, folder: Path) -> None:
        """Add the folder of a checkpoint, and choose it."""
        if str(folder) not in self._folders:
            self._folders.append(str(folder))
        with self.checkpoint.changed.blocked():
            self.checkpoint.choices = ()  # else what is new comes last, and names that have changed stay
            self.checkpoint.choices = self._checkpoints
        self.checkpoint.value = str(folder)
        self._last = str(folder)

    @property
    def at_work(self) -> bool:
        """Whether something goes on that it tells of, and that can be cancelled in it."""
        return self.progress.at_work

    def allow(self, *_: object) -> None:
        """Allow the click, or say why not."""
        reason = self._reason
        self.button.setEnabled(not reason)
        self.button.setToolTip(
            literal(reason or "Predict the checkpoint's genes at every spot, in a process of its own")
        )
        active = None if self.session.active is None else self.session.active.key
        if not self.work.busy and active != self._of:  # what was said is of another slide
            self._of = active
            self.progress.say("")
        self._on_said(self.progress.status.text())

    # -- within

    @property
    def _reason(self) -> str:
        """Why nothing can be predicted now; empty where it can."""
        return self.work.busy or ("" if self.session.active is not None else "Open a slide first")

    def _set_devices(self, missing: dict[str, str]) -> None:
        """Say which devices there are: each kind with an empty string, or the reason why not."""
        self._missing = {kind: why for kind, why in missing.items() if why}
        self.device.reset_choices()
        told = "; ".join(f"{_DEVICES[kind]}: {why}" for kind, why in self._missing.items())
        self.device.tooltip = "Where to compute; Automatic takes the fastest there is" + (f".\n{told}" if told else "")

    def _on_told(self, message: str) -> None:
        """Say what came of the work until another slide is looked at than now."""
        self._of = None if self.session.active is None else self.session.active.key
        self._on_said(message)

    def _on_said(self, message: str) -> None:
        reason = self._reason
        self.say_state(message or reason[:1].upper() + reason[1:] or "Ready")

    def _on_device(self, *_: object) -> None:
        self.device.value = preferences.device()

    def _checkpoints(self, _widget: object = None) -> list[tuple[str, str]]:
        bundled = list(bundled_checkpoints())
        runs = [str(best) for job in list_runs() if (best := best_of(job)) is not None]
        folders = list(dict.fromkeys([*runs, *self._folders]))
        named = zip(told_apart(folders, bundled), folders, strict=True)
        return [*zip(bundled, bundled, strict=True), *named, (_OTHER, _OTHER)]

    def _devices(self, _widget: object = None) -> list[tuple[str, str]]:
        return [(title, kind) for kind, title in _DEVICES.items() if kind not in self._missing]

    def _on_checkpoint(self, value: str) -> None:
        if value != _OTHER:
            self._last = value
            return
        self.checkpoint.value = self._last
        folder = ask_for_checkpoint(self)
        if folder is not None:
            self.add_checkpoint(folder)
