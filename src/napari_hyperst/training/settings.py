"""A training run's settings from files and from words on a command line."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.ablations import ablation
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig
from napari_hyperst.nouns.training import TrainConfig


def read_config(
    slides: Sequence[Path], validation: Sequence[Path], out: Path, file: Path | None, assignments: Sequence[str]
) -> TrainConfig:
    """Put a training run's settings together.

    Parameters
    ----------
    slides, validation, out
        As in ``TrainConfig``; they override the file's.
    file
        Settings as JSON, or None.
    assignments
        ``key=value`` words; dots lead into nested settings, values are JSON or plain text. They override the file.
        ``method.alignment`` may be the name of a preset, and ``method.ablation`` that of an ablation, which then
        changes the other settings of the method.

    Raises
    ------
    ConfigError
        If a setting is unknown (the nearest is named), has a wrong value, or the file is broken.
    """
    content = {} if file is None else _read(file)
    for assignment in assignments:
        _assign(content, assignment)
    content |= {"slides": [str(s) for s in slides], "validation": [str(s) for s in validation], "out": str(out)}
    method = content.get("method")
    name = None
    if isinstance(method, dict):
        name = method.pop("ablation", None)
        if isinstance(method.get("alignment"), str):
            method["alignment"] = _preset(method["alignment"])
    try:
        config = TrainConfig.model_validate(content)
        return config if name is None else _ablated(config, str(name))
    except ValidationError as error:
        raise _explain(error, file) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({error})", where=file, do="give settings as a JSON object") from error
    if not isinstance(content, dict):
        raise ConfigError("is no JSON object", where=file, do="give settings as a JSON object")
    return content


def _assign(content: dict[str, Any], assignment: str) -> None:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise ConfigError(f"{assignment!r} assigns nothing", where="--set", do="write key=value")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *outer, last = path.strip().split(".")
    for key in outer:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{path!r} leads into {key!r}, which has no settings of its own", where="--set")
    content[last] = value


def _preset(name: str) -> dict[str, Any]:
    from napari_hyperst.nouns.hierarchy import AlignmentConfig

    if name not in ("code", "paper"):
        raise ConfigError(f"there is no alignment preset {name!r}", do="use code or paper")
    return AlignmentConfig.preset(name).model_dump(mode="json")  # type: ignore[arg-type]


def _ablated(config: TrainConfig, name: str) -> TrainConfig:
    if not isinstance(config.method, HyperSTConfig):
        raise ConfigError(
            f"{name!r} is an ablation of hyperst, not of {config.method.kind}", do="leave one of them out"
        )
    return config.model_copy(update={"method": ablation(name, config.method)})


def _explain(error: ValidationError, file: Path | None) -> ConfigError:
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    fields = _fields_at(location[:-1])
    # Between a choice of methods and its settings, pydantic puts the name of the method.
    shown = [part for before, part in zip([None, *location], location, strict=False) if before != "method"]
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(location[-1], fields, n=1)
        do = f"did you mean {'.'.join([*shown[:-1], *near])}?" if near else f"known are {', '.join(fields)}"
        return ConfigError(f"there is no setting {'.'.join(shown)!r}", where=file, do=do)
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # settings that do not go together; each alone might do
        return ConfigError(": ".join([*filter(None, [".".join(shown)]), message]), where=file, do="correct it")
    return ConfigError(f"{'.'.join(shown)}: {message} (it is {first['input']!r})", where=file, do="correct it")


def _fields_at(location: Sequence[str]) -> list[str]:
    known: dict[str, Any] = {"": TrainConfig}
    for key in ["", *location]:
        model = known.get(key)
        if key == "method":
            known = {"hyperst": HyperSTConfig, "delst": DELSTConfig}
        elif isinstance(model, type) and issubclass(model, BaseModel):
            known = {name: field.annotation for name, field in model.model_fields.items()}
        else:
            return []
    return list(known)
