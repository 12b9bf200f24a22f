"""A form for the settings of a training run: ten that people change, the rest under "Advanced"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magicgui.widgets import CheckBox, ComboBox, LineEdit, SpinBox
from magicgui.widgets.bases import ValueWidget
from pydantic import BaseModel, ValidationError
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.settings import REQUIRED, Setting, as_yaml, describe_settings
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.settings_file import read_value

#: The settings that people change, by what they are called in the form.
MAIN = {
    "name": "Name",
    "epochs": "Epochs",
    "batch_size": "Batch size",
    "learning_rate": "Learning rate",
    "method.lora_blocks": "Blocks that learn",
    "symmetries": "Symmetries",
    "cache": "Cache",
    "monitor": "Choose epoch by",
    "patience": "Patience",
    "device": "Device",
}
_DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "NVIDIA GPU (CUDA)", "mps": "Apple GPU (MPS)"}
#: Settings that other parts of the panel ask for, or that are of no use from a window.
_ELSEWHERE = {
    "slides", "validation", "opened", "out", "init_from", "genes", "gene_list", "holdout", "method", "tiles",
    "processes", "trackers", "device",
}  # fmt: skip
_NESTED: dict[str, type[BaseModel]] = {"method": HyperSTConfig, "tiles": TileSpec}
_NOT_HERE = {"method.kind", "method.alignment"}
_ALIGNMENT = "method.alignment"
_MOST = 10**9


class TrainingForm(QWidget):
    """Fields of settings; those that the user has not touched may be filled in by what was worked out.

    Parameters
    ----------
    device
        The device to begin with.
    parent
        Qt parent.
    """

    #: The user changed a setting.
    changed = Signal()

    def __init__(self, device: str = "auto", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.touched: set[str] = set()
        self._filling = False
        self.settings = _settings()
        self.fields: dict[str, ValueWidget] = {name: self._field(name) for name in self.settings}
        self.fields["name"].value = "my-model"
        self.fields["device"] = ComboBox(choices=[(t, k) for k, t in _DEVICES.items()], value=device)
        self.fields[_ALIGNMENT] = ComboBox(choices=["code", "paper"], value="code")
        self.fields[_ALIGNMENT].tooltip = "Weights and terms of the alignment: as the authors' code has them, or paper"
        main, rest = QFormLayout(), QFormLayout()
        for name, title in MAIN.items():
            self._add(main, name, title)
        for name in [*self.settings, _ALIGNMENT]:
            if name not in MAIN:
                self._add(rest, name, name.replace("method.", "").replace(".", " ").replace("_", " ").capitalize())
        self.devices = QLabel()
        self.devices.setWordWrap(True)
        self.devices.setTextFormat(Qt.TextFormat.PlainText)
        self.devices.hide()
        self.advanced = QToolButton()
        self.advanced.setText(f"Advanced: {rest.rowCount()} more settings")
        self.advanced.setCheckable(True)
        self.advanced.setAutoRaise(True)
        self.advanced.setArrowType(Qt.ArrowType.RightArrow)
        self.advanced.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.again = QPushButton("Take back my changes")
        self.again.setToolTip("Let all settings follow from slides, device and memory again")
        self.again.hide()
        self.rest = QWidget()
        self.rest.setLayout(rest)
        self.rest.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for form in (main, rest):
            form.setContentsMargins(0, 0, 0, 0)
            form.setVerticalSpacing(4)
            form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout.addLayout(main)
        layout.addWidget(self.devices)
        layout.addWidget(self.again)
        layout.addWidget(self.advanced)
        layout.addWidget(self.rest)
        self.advanced.toggled.connect(self._on_advanced)
        self.again.clicked.connect(self._on_again)

    @property
    def free(self) -> tuple[str, ...]:
        """The settings that the user has not touched."""
        return tuple(name for name in self.fields if name not in self.touched)

    def config(self, given: Mapping[str, Any]) -> TrainConfig:
        """Return the run's settings.

        Parameters
        ----------
        given
            Settings that are asked for elsewhere, slides and folder among them.

        Raises
        ------
        ConfigError
            If a value is none of those it takes.
        """
        content: dict[str, Any] = dict(given)
        for name, field in self.fields.items():
            value = read_value(field.value) if isinstance(field, LineEdit) and name != "name" else field.value
            if name == _ALIGNMENT:
                value = AlignmentConfig.preset(value).model_dump()
            outer, _, inner = name.rpartition(".")
            (content.setdefault(outer, {}) if outer else content)[inner] = value
        try:
            return TrainConfig.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"] if part != "hyperst")
            raise ConfigError(f"{where}: {first['msg'].removeprefix('Value error, ')}", do="correct it") from error

    def fill(self, values: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
        """Fill in what was worked out, and say why in tooltips; it counts as untouched."""
        self._filling = True
        try:
            for name, value in values.items():
                if name in self.fields:
                    field = self.fields[name]
                    field.value = as_yaml(value) if isinstance(field, LineEdit) else value
                    field.tooltip = f"{self._tooltip(name)}\nWorked out: {reasons.get(name, '')}."
        finally:
            self._filling = False

    def show_devices(self, devices: Mapping[str, tuple[str, str]]) -> None:
        """Say what there is to compute on, and why not on the others."""
        there = [kind for kind, (_, why) in devices.items() if not why]
        picker = self.fields["device"]
        assert isinstance(picker, ComboBox)
        now = picker.value
        self._filling = True
        picker.choices = [(_DEVICES[k], k) for k in _DEVICES if k == "auto" or k in there or k == now]
        picker.value = now
        self._filling = False
        names = {"cpu": "CPU", "cuda": "CUDA", "mps": "MPS"}
        told = [f"{names[kind]}: {what or why}" for kind, (what, why) in devices.items() if kind in names]
        self.devices.setText("\n".join(told))
        self.devices.show()

    # -- within

    def _field(self, name: str) -> ValueWidget:
        setting = self.settings[name]
        schema, default = setting.schema, setting.default
        if "enum" in schema:
            return ComboBox(choices=list(schema["enum"]), value=default)
        if schema.get("type") == "boolean":
            return CheckBox(value=default, text="")
        if schema.get("type") == "integer":
            least = int(schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1))
            return SpinBox(value=default, min=least, max=int(schema.get("maximum", _MOST)))
        return LineEdit(value="" if default is REQUIRED else as_yaml(_plain(default)))

    def _tooltip(self, name: str) -> str:
        setting = self.settings.get(name)
        if setting is None:
            return self.fields[name].tooltip or ""
        return f"{setting.description} It takes: {setting.allowed}." if setting.allowed else setting.description

    def _add(self, form: QFormLayout, name: str, title: str) -> None:
        field = self.fields[name]
        field.tooltip = self._tooltip(name)
        field.native.setMinimumSize(60, field.native.sizeHint().height())
        label = QLabel(title)
        label.setToolTip(field.tooltip)
        form.addRow(label, field.native)
        field.changed.connect(lambda _value, name=name: self._on_changed(name))

    def _on_changed(self, name: str) -> None:
        if not self._filling:
            self.touched.add(name)
            self.again.setVisible(bool(self.touched - {"name", "device"}))
            self.changed.emit()

    def _on_again(self) -> None:
        self.touched &= {"name", "device"}
        self.again.hide()
        self.changed.emit()

    def _on_advanced(self, opened: bool) -> None:
        self.advanced.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.rest.setVisible(opened)


def _settings() -> dict[str, Setting]:
    """Return the settings of the form by name, dots leading inwards."""
    found = {one.name: one for one in describe_settings(TrainConfig) if one.name not in _ELSEWHERE}
    for outer, model in _NESTED.items():
        found |= {f"{outer}.{one.name}": one for one in describe_settings(model)}
    return {name: one for name, one in found.items() if name not in _NOT_HERE}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value
