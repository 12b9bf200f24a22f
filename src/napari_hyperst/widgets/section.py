"""A section of the workbench: a header that says what it is and how it stands, and a body that opens and closes."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QFrame, QHBoxLayout, QSizePolicy, QToolButton, QVBoxLayout, QWidget
from superqt import QElidingLabel

from napari_hyperst.widgets.panel import Panel, literal


class Section(QFrame):
    """A panel under a header; a click on the header opens or closes it.

    Parameters
    ----------
    panel
        What it holds.
    title
        Of the header.
    parent
        Qt parent.
    """

    #: It was opened (True) or closed, by a click or in code.
    toggled = Signal(bool)

    def __init__(self, panel: Panel, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.panel = panel
        self.title = title
        self.button = QToolButton()
        self.button.setText(title)
        self.button.setCheckable(True)
        self.button.setAutoRaise(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setStyleSheet(
            "QToolButton { border: none; background: transparent; font-weight: bold; padding: 2px; text-align: left; }"
        )
        self.button.setMinimumWidth(18 * self.fontMetrics().averageCharWidth())  # so that the states are in line
        self.state = QElidingLabel()
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.state.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        header = QHBoxLayout()
        header.setContentsMargins(0, 0, 4, 0)
        header.addWidget(self.button)
        header.addWidget(self.state, 1)
        self.body = QWidget()
        body = QVBoxLayout(self.body)
        body.setContentsMargins(8, 2, 6, 6)
        body.addWidget(panel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addLayout(header)
        layout.addWidget(self.body, 1)
        self.button.toggled.connect(self._on_toggled)
        panel.state_changed.connect(self._on_state)
        self._on_state(panel.state)
        self._on_toggled(False)

    @property
    def is_open(self) -> bool:
        """Whether the panel is seen."""
        return bool(self.button.isChecked())

    def least_height(self, width: int) -> int:
        """Return how many px it needs as it is, at a width."""
        header = max(self.button.sizeHint().height(), self.state.sizeHint().height())
        if not self.is_open:
            return header
        layout = self.body.layout()
        body = layout.minimumHeightForWidth(width) if layout.hasHeightForWidth() else layout.minimumSize().height()
        return header + int(body)

    def set_open(self, opened: bool) -> None:
        """Open or close it."""
        self.button.setChecked(opened)

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Take a click beside the title for one on it."""
        if event.position().y() < self.button.geometry().bottom() + 1:
            self.button.toggle()
        super().mousePressEvent(event)

    def _on_toggled(self, opened: bool) -> None:
        self.button.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.body.setVisible(opened)
        self._on_state(self.panel.state)
        self.toggled.emit(opened)

    def _on_state(self, line: str) -> None:
        self.state.setText(line)
        told = f"{'Close' if self.is_open else 'Open'} {self.title}"
        self.state.setToolTip(literal(f"{line}\n{told}" if line else told))
        self.button.setToolTip(told)
