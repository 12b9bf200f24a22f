"""Windows of the fine-tune panel: a model card, the picture of a run, and questions."""

from __future__ import annotations

import json
from pathlib import Path

from qtpy.QtCore import Qt, QUrl
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QLineEdit,
    QMessageBox,
    QScrollArea,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_hyperst.nouns.encoders import ENCODERS

#: Width at which the picture of a run is shown.
_PICTURE_PX = 1000


def show_card(parent: QWidget, best: Path) -> None:
    """Show the model card of a checkpoint, without its front matter."""
    text = (best / "README.md").read_text(encoding="utf-8")
    if text.startswith("---"):
        text = text.split("---", 2)[-1]
    browser = QTextBrowser()
    browser.setSearchPaths([str(best)])
    browser.document().setBaseUrl(QUrl.fromLocalFile(f"{best}/"))
    browser.setOpenExternalLinks(True)
    browser.setMarkdown(text)
    _dialog(parent, "Model card", browser, 760, 720).show()


def show_picture(parent: QWidget, best: Path) -> None:
    """Show the picture of a run."""
    ratio = parent.devicePixelRatioF()
    width = round(_PICTURE_PX * ratio)
    picture = QPixmap(str(best / "report.png")).scaledToWidth(width, Qt.TransformationMode.SmoothTransformation)
    picture.setDevicePixelRatio(ratio)
    label = QLabel()
    label.setPixmap(picture)
    scroll = QScrollArea()
    scroll.setWidget(label)
    _dialog(parent, "Curves", scroll, _PICTURE_PX + 40, 720).show()


def ask_throw_away(parent: QWidget, name: str) -> bool:
    """Ask whether a run is to be thrown away."""
    answer = QMessageBox.question(
        parent,
        "Throw the run away?",
        f"{name} ends, and everything that it has learnt is deleted. (Stop keeps it.)",
        QMessageBox.StandardButton.Discard | QMessageBox.StandardButton.Cancel,
        QMessageBox.StandardButton.Cancel,
    )
    return bool(answer == QMessageBox.StandardButton.Discard)


def ask_repository(parent: QWidget, best: Path) -> tuple[str, bool] | None:
    """Ask where on the Hugging Face hub a checkpoint is to go.

    Parameters
    ----------
    parent
        The panel.
    best
        The checkpoint's folder.

    Returns
    -------
    tuple or None
        ``owner/name``, and whether it is to be private; None where the user is not logged in, or thinks better of it.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        QMessageBox.information(
            parent, "Hugging Face hub", "You are not logged in. Run this in a terminal, and try again:\n\nhf auth login"
        )
        return None
    dialog = RepositoryDialog(parent, best)
    if dialog.exec() != QDialog.DialogCode.Accepted or not dialog.name.text().strip():
        return None
    return dialog.name.text().strip(), dialog.private.isChecked()


class RepositoryDialog(QDialog):
    """Asks for a repository, and says what is sent to it.

    Parameters
    ----------
    parent
        The panel.
    best
        The checkpoint's folder.
    """

    def __init__(self, parent: QWidget, best: Path) -> None:
        super().__init__(parent)
        self.setWindowTitle("Push to the Hugging Face hub")
        self.name = QLineEdit()
        self.name.setPlaceholderText("owner/name")
        self.private = QCheckBox("Private: seen by its owner only")
        self.private.setChecked(True)
        self.told = QLabel(what_is_sent(best))
        self.told.setWordWrap(True)
        self.told.setTextFormat(Qt.TextFormat.PlainText)
        kinds = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(kinds.Ok | kinds.Cancel)
        buttons.button(kinds.Ok).setText("Push")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        for widget in (self.told, self.name, self.private, buttons):
            layout.addWidget(widget)
        self.resize(420, self.sizeHint().height())


def what_is_sent(best: Path) -> str:
    """Say what a shared checkpoint holds, what it does not, and whose terms hold for it."""
    card = json.loads((best / "card.json").read_text(encoding="utf-8"))
    encoder = str(card["method"]["encoder"])
    base, local, _ = encoder.partition("@")
    spec = next((one for one in ENCODERS if one.name == base), None)
    licence = "not known" if spec is None or local else spec.licence
    slides = ", ".join(Path(str(slide["name"])).name for slide in card["training_slides"])
    return (
        "Sent are the weights that were trained, the list of genes, the card and the curves. The image encoder's own "
        f"weights ({base}, licence: {licence}) are never in it, but its terms hold for what was trained on it: read "
        f"whether they let you share that. The card names the slides: {slides}."
    )


def _dialog(parent: QWidget, title: str, inside: QWidget, width: int, height: int) -> QDialog:
    dialog = QDialog(parent)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setWindowTitle(title)
    layout = QVBoxLayout(dialog)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(inside)
    dialog.resize(width, height)
    return dialog
