"""What a new run is asked for: slides, genes, where to start from, settings; and what it would take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QGroupBox, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.job import Job
from napari_hyperst.jobs.progress import duration
from napari_hyperst.jobs.runs import best_of, list_runs, new_run_folder
from napari_hyperst.nouns.bundled import bundled_checkpoints
from napari_hyperst.nouns.plan import TrainingPlan
from napari_hyperst.nouns.tasks import PlanTask, TrainTask
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.widgets.checkpoint_folder import ask_for_checkpoint, told_apart
from napari_hyperst.widgets.training_form import TrainingForm
from napari_hyperst.widgets.training_genes import TrainingGenes
from napari_hyperst.widgets.training_slides import TrainingSlides

_BARE, _OTHER = "The bare encoder", "Another checkpoint…"
#: How long further changes are waited for before a plan is made, in ms.
_SETTLE_MS = 500


class TrainingSetup(QWidget):
    """The form of a new run.

    Parameters
    ----------
    device
        The device to begin with.
    parent
        Qt parent.

    Attributes
    ----------
    footer
        What the run would take, and the button that starts it: to be laid out where it is always seen.
    """

    #: The form has changed, and wants a plan made.
    plan_asked = Signal()
    #: The user wants the run started.
    started = Signal()

    def __init__(self, device: str = "auto", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.plan: TrainingPlan | None = None
        self._folders: list[str] = []
        self._started_from: str | None = None
        self._trouble = ""
        self._no_plans = False
        self.slides = TrainingSlides()
        self.genes = TrainingGenes()
        self.form = TrainingForm(device)
        self.start_from = QComboBox()
        self.start_from.setToolTip("Whose fine-tuned image encoder to begin with; heads always begin anew")
        self.start_from.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.estimate = QLabel()
        self.estimate.setWordWrap(True)
        self.estimate.setTextFormat(Qt.TextFormat.PlainText)
        self.button = QPushButton("Start fine-tuning")
        self.button.setDefault(True)
        start = QFormLayout()
        start.setContentsMargins(0, 0, 0, 0)
        start.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        start.addRow("Start from", self.start_from)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        layout.addWidget(_box("Slides", self.slides))
        model = QWidget()
        column = QVBoxLayout(model)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(start)
        column.addWidget(self.genes)
        layout.addWidget(_box("Model", model))
        layout.addWidget(_box("Settings", self.form))
        self.footer = QWidget()
        foot = QVBoxLayout(self.footer)
        foot.setContentsMargins(4, 0, 4, 4)
        foot.setSpacing(4)
        foot.addWidget(self.estimate)
        foot.addWidget(self.button)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_SETTLE_MS)
        self._timer.timeout.connect(self.plan_asked)
        for part in (self.slides, self.genes, self.form):
            part.changed.connect(self._on_changed)
        for part in (self.slides, self.genes):
            part.changed.connect(self.genes.age)
        self.start_from.activated.connect(self._on_start_from)
        self.button.clicked.connect(self.started)
        self.list_checkpoints()
        self._allow()

    def list_checkpoints(self) -> None:
        """List what a run can start from: the bundled checkpoints, those of runs, and those that were chosen."""
        found = [(name, name) for name in bundled_checkpoints()]
        runs = [(job.folder.name, best_of(job)) for job in list_runs()]
        found += [(f"{name} (run)", str(best)) for name, best in runs if best is not None]
        chosen = [folder for folder in self._folders if folder not in [ref for _, ref in found]]
        found += zip(told_apart(chosen, list(bundled_checkpoints())), chosen, strict=True)
        now = self.start_from.currentData()
        self.start_from.clear()
        self.start_from.addItem(_BARE, None)
        for title, ref in found:
            self.start_from.addItem(title, ref)
        self.start_from.addItem(_OTHER, _OTHER)
        self.start_from.setCurrentIndex(max(0, self.start_from.findData(now)) if now else 0)
        self.genes.set_checkpoints(found)

    def task(self) -> PlanTask | None:
        """Return what is to be planned; None where nothing can be, which is then said."""
        if not self.slides.training or self.genes.waits:
            return None
        try:
            config = self.form.config(self._given() | self.genes.asked() | {"out": Path("plan")})
        except HyperSTError as error:
            self.show_trouble(str(error))
            return None
        return PlanTask(config=config, genes_of=self.genes.from_checkpoint, free=self.form.free)

    def config(self) -> TrainConfig:
        """Return the settings of the run, with a folder of its own.

        Raises
        ------
        HyperSTError
            If a setting is none that it takes.
        """
        given = self._given() | self.genes.settled(self.plan)
        return self.form.config(given | {"out": new_run_folder(str(self.form.fields["name"].value))})

    def create(self) -> Job:
        """Make the folder of the run.

        Raises
        ------
        HyperSTError
            If a setting is none that it takes, or the folder cannot be made.
        """
        config = self.config().absolute()
        return Job.create(config.out, TrainTask(config=config))

    def ask_again(self) -> None:
        """Ask for a plan where there is none, as what was changed meanwhile has none."""
        if self.plan is None:
            self._timer.start()

    def planning(self, what: str) -> None:
        """Show that a plan is being made."""
        self._say(f"Working out settings, time and memory: {what}…")

    def show_plan(self, plan: TrainingPlan) -> None:
        """Fill in what was worked out, and say what the run would take."""
        self.plan, self._trouble, self._no_plans = plan, "", False
        self.form.fill(plan.settings, plan.reasons)
        self.form.show_devices(plan.devices)
        self.genes.show_plan(plan)
        self.slides.set_patients({slide.path: slide.patient for slide in plan.slides})
        self._say(describe_plan(plan, int(self.form.fields["epochs"].value)))
        self._allow()

    def show_trouble(self, message: str) -> None:
        """Say why the run cannot be started."""
        self.plan, self._trouble = None, message
        self.genes.say("")
        self._say(message)
        self._allow()

    def no_plan(self, why: str) -> None:
        """Say why no plan can be made; a run of highly variable genes may be started without."""
        self._no_plans = True
        self._say(f"Time and memory are not known: {why}")
        self._allow()

    # -- within

    def _given(self) -> dict[str, Any]:
        init = self.start_from.currentData()
        return {
            "slides": self.slides.training,
            "validation": self.slides.validation,
            "opened": self.slides.opened,
            "holdout": self.slides.holdout,
            "init_from": init if init != _OTHER else None,
        }

    def _on_changed(self) -> None:
        self.plan = None
        self._trouble = ""
        self._allow()
        self._timer.start()

    def _on_start_from(self, _index: int) -> None:
        if self.start_from.currentData() == _OTHER:
            folder = ask_for_checkpoint(self)
            if folder is not None:
                self._started_from = str(folder)
                self._folders = list(dict.fromkeys([*self._folders, self._started_from]))
                self.list_checkpoints()
            self.start_from.setCurrentIndex(max(0, self.start_from.findData(self._started_from)))
        self._started_from = self.start_from.currentData()
        self._on_changed()

    def _allow(self) -> None:
        why = self._trouble
        if not self.slides.training:
            why = "Choose a slide with counts to train on"
        elif self.genes.waits:
            why = "Paste the genes to predict"
        elif not why and self.plan is None and not (self._no_plans and self.genes.chosen):
            why = "Wait until genes, settings, time and memory are worked out"
        self.button.setEnabled(not why)
        self.button.setToolTip(why or "Train in a process of its own: napari stays free, and may be closed")
        if not self.slides.training:
            self._say("")
            self.genes.say("")

    def _say(self, text: str) -> None:
        self.estimate.setText(text)
        self.estimate.setVisible(bool(text))


def describe_plan(plan: TrainingPlan, epochs: int) -> str:
    """Say what a run would take, and what that is based on."""
    spots, held = sum(s.spots for s in plan.slides), sum(s.held_out for s in plan.slides)
    prepare = f"{duration(plan.prepare_s)} to encode tiles (less if done before), then " if plan.prepare_s else ""
    tight = (
        " That is tight: choose a smaller micro batch, under Advanced."
        if plan.memory_gib > 0.8 * plan.memory_free_gib
        else ""
    )
    disk = f" and {plan.cache_gib:.2g} GiB for the cache" if plan.cache_gib else ""
    total, epoch = duration(plan.total_s(epochs)), duration(plan.epoch_s)
    return (
        f"About {total} at most: {prepare}{epoch} an epoch, on {plan.device}.\n"
        f"{spots:,} spots to train on, {held:,} to validate on.\n"
        f"{plan.memory_gib:.1f} GiB of memory, {plan.memory_free_gib:.1f} are free{disk}.{tight}\n"
        f"({plan.basis[:1].upper()}{plan.basis[1:]}.)"
    )


def _box(title: str, inside: QWidget) -> QGroupBox:
    box = QGroupBox(title)
    layout = QVBoxLayout(box)
    layout.setContentsMargins(6, 4, 6, 6)
    layout.addWidget(inside)
    return box
