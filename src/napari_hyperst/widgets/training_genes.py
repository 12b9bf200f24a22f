"""Which genes a run learns to predict, shown before it starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QLabel,
    QPlainTextEdit,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.nouns.plan import TrainingPlan

VARIABLE, LISTED, OF_CHECKPOINT = "Highly variable genes", "A list of mine", "Those of a checkpoint"
#: How long the user's typing is waited for, in ms.
_TYPING_MS = 600
_NAMED = 6


class TrainingGenes(QWidget):
    """Three ways to choose a panel, and what came of it.

    Parameters
    ----------
    parent
        Qt parent.
    """

    #: Another panel is asked for.
    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.how = QComboBox()
        self.how.addItems([VARIABLE, LISTED, OF_CHECKPOINT])
        self.how.setToolTip("Highly-mean, highly-variable genes are chosen on the training slides alone")
        self.count = QSpinBox()
        self.count.setRange(1, 5000)
        self.count.setValue(200)
        self.count.setSuffix(" genes")
        self.text = QPlainTextEdit()
        self.text.setPlaceholderText("Symbols or Ensembl ids, in any way apart: FASN, ERBB2 COL1A1 …")
        self.text.setFixedHeight(64)
        self.text.setStyleSheet("QPlainTextEdit { border: 1px solid palette(mid); }")
        self.checkpoint = QComboBox()
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.summary.setTextFormat(Qt.TextFormat.PlainText)
        self.more = QToolButton()
        self.more.setText("Show them all")
        self.more.setAutoRaise(True)
        self.more.setArrowType(Qt.ArrowType.DownArrow)
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more.setCheckable(True)
        self.all = QPlainTextEdit()
        self.all.setReadOnly(True)
        self.all.setFixedHeight(110)
        self.all.hide()
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("Genes", self.how)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(form)
        for widget in (self.count, self.text, self.checkpoint, self.summary, self.more, self.all):
            layout.addWidget(widget)
        self._typing = QTimer(self)
        self._typing.setSingleShot(True)
        self._typing.setInterval(_TYPING_MS)
        self._typing.timeout.connect(self.changed)
        self.how.currentIndexChanged.connect(self._on_how)
        self.count.valueChanged.connect(lambda _: self._typing.start())
        self.text.textChanged.connect(self._typing.start)
        self.checkpoint.currentIndexChanged.connect(lambda _: self.changed.emit())
        self.more.toggled.connect(self.all.setVisible)
        self._on_how(0)
        self.say("")

    @property
    def listed(self) -> tuple[str, ...]:
        """The genes in the text, each once."""
        return tuple(dict.fromkeys(re.findall(r"[^\s,;\"']+", self.text.toPlainText())))

    @property
    def waits(self) -> bool:
        """Whether a list is asked for that holds nothing yet."""
        return self.how.currentText() == LISTED and not self.listed

    @property
    def chosen(self) -> bool:
        """Whether the genes are chosen by the run itself."""
        return bool(self.how.currentText() == VARIABLE)

    @property
    def from_checkpoint(self) -> str | None:
        """The checkpoint whose genes are asked for."""
        if self.how.currentText() != OF_CHECKPOINT or self.checkpoint.currentData() is None:
            return None
        return str(self.checkpoint.currentData())

    def asked(self) -> dict[str, Any]:
        """Return what is asked for, as settings of a run."""
        if self.how.currentText() == LISTED:
            return {"gene_list": self.listed}
        return {"genes": self.count.value()} if self.chosen else {}

    def settled(self, plan: TrainingPlan | None) -> dict[str, Any]:
        """Return what the run is to be given: a list without the genes that a training slide lacks."""
        if self.chosen:
            return self.asked()
        return {"gene_list": () if plan is None else plan.genes}

    def set_checkpoints(self, checkpoints: list[tuple[str, str]]) -> None:
        """List checkpoints, each by title and reference; the one that is chosen stays."""
        now = self.checkpoint.currentData()
        self.checkpoint.blockSignals(True)
        self.checkpoint.clear()
        for title, ref in checkpoints:
            self.checkpoint.addItem(title, ref)
        self.checkpoint.setCurrentIndex(max(0, self.checkpoint.findData(now)))
        self.checkpoint.blockSignals(False)

    def show_plan(self, plan: TrainingPlan) -> None:
        """Say which genes will be learnt, and which slides lack which."""
        lines = [f"{len(plan.genes)} genes: {_few(plan.genes, _NAMED)}"]
        details = [" ".join(plan.genes)]
        panel = set(plan.genes)
        out = sorted({gene for slide in plan.slides for gene in slide.missing} - panel)
        if out:
            where = ", ".join(slide.name for slide in plan.slides if slide.spots and slide.missing)
            lines.append(f"{len(out)} left out, not measured on {where}: {_few(out)}.")
        for slide in plan.slides:
            if lacks := [gene for gene in slide.missing if gene in panel]:
                lines.append(f"{slide.name} does not validate {len(lacks)}, not measured on it: {_few(lacks)}.")
            if slide.missing:
                details.append(f"\nMissing on {slide.name}:\n{' '.join(slide.missing)}")
        self.say("\n".join(lines))
        self.all.setPlainText("\n".join(details))
        self.more.show()
        for widget in (self.summary, self.more, self.all):
            widget.setEnabled(True)

    def age(self) -> None:
        """Show that what is said is of another choice."""
        for widget in (self.summary, self.more, self.all):
            widget.setEnabled(False)

    def say(self, text: str) -> None:
        """Show a line in the place of a panel."""
        self.summary.setText(text)
        self.summary.setVisible(bool(text))
        self.summary.setEnabled(True)
        self.more.hide()
        self.more.setChecked(False)

    def _on_how(self, index: int) -> None:
        for number, page in enumerate((self.count, self.text, self.checkpoint)):
            page.setVisible(number == index)
        self.changed.emit()


def _few(genes: Sequence[str], most: int = 3) -> str:
    return ", ".join(genes[:most]) + (", …" if len(genes) > most else "")
