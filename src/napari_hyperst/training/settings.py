"""A training run's settings from files and from words on a command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from napari_hyperst.errors import ConfigError
from napari_hyperst.nouns.ablations import ablation
from napari_hyperst.nouns.hierarchy import AlignmentConfig
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.settings import describe_settings, settings_as_yaml
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.settings_file import Location, SettingsFile, read_settings_file, read_value

#: Settings that a command names by options of its own, and how; what is printed to be used again leaves them out.
OPTIONS = {"slides": "--slides A B", "validation": "--val C", "out": "--out FOLDER"}
#: Words that stand for other settings of the method, rather than being one.
_SHORTHANDS = {"ablation": HyperSTConfig}


def read_config(
    slides: Sequence[Path], validation: Sequence[Path], out: Path | None, file: Path | None, assignments: Sequence[str]
) -> TrainConfig:
    """Put a training run's settings together.

    Parameters
    ----------
    slides, validation, out
        As in ``TrainConfig``. Where given, they override the file's.
    file
        Settings as YAML (or JSON, which is YAML too), or None.
    assignments
        ``key=value`` words; dots lead into nested settings, values are YAML. They override the file.
        ``method.alignment`` may be the name of a preset, and ``method.ablation`` that of an ablation, which then
        changes the other settings of the method; in a file as well.

    Raises
    ------
    ConfigError
        If a setting is unknown (the nearest is named), has a wrong value, or the file is broken; with the line.
    """
    given: dict[str, Any] = {}
    if slides:
        given["slides"] = [str(slide) for slide in slides]
    if validation:
        given["validation"] = [str(slide) for slide in validation]
    if out is not None:
        given["out"] = str(out)
    return _Sources(file, assignments).config(given)


def settings_text(file: Path | None, assignments: Sequence[str]) -> str:
    """Return all settings of a run, each with what it is, as YAML that ``read_config`` reads.

    Parameters
    ----------
    file, assignments
        As in ``read_config``.

    Raises
    ------
    ConfigError
        As in ``read_config``.
    """
    sources = _Sources(file, assignments)
    left_out = {name: f"given with {how}" for name, how in OPTIONS.items() if name not in sources.content}
    stand_in = {"slides": ["slide"], "out": "out"}
    config = sources.config({name: value for name, value in stand_in.items() if name in left_out})
    return settings_as_yaml(
        config, heading="Settings of a training run: napari-hyperst train --config FILE", elsewhere=left_out
    )


class _Sources:
    """Settings from a file and from words over it, and which of them came from where.

    Parameters
    ----------
    file, assignments
        As in ``read_config``.
    """

    def __init__(self, file: Path | None, assignments: Sequence[str]) -> None:
        self.path = file
        self.file = SettingsFile({}) if file is None else read_settings_file(file)
        self.content = self.file.content
        self.assigned: dict[Location, str] = {_assign(self.content, word): word for word in assignments}

    def config(self, given: dict[str, Any]) -> TrainConfig:
        """Return the settings, those given over all others."""
        content = self.content | given
        name = None
        if isinstance(method := content.get("method"), dict):
            method = dict(method)
            name = method.pop("ablation", None)
            if isinstance(method.get("alignment"), str):
                method["alignment"] = self._preset(method["alignment"])
            content["method"] = method
        try:
            config = TrainConfig.model_validate(content)
            return config if name is None else self._ablated(config, str(name))
        except ValidationError as error:
            raise self._explain(error) from error

    def _preset(self, name: str) -> AlignmentConfig:
        if name not in ("code", "paper"):
            raise ConfigError(
                f"there is no alignment preset {name!r}",
                where=self._where(("method", "alignment")),
                do="use code or paper",
            )
        return AlignmentConfig.preset(name)  # type: ignore[arg-type]

    def _ablated(self, config: TrainConfig, name: str) -> TrainConfig:
        where = self._where(("method", "ablation"))
        if not isinstance(config.method, HyperSTConfig):
            raise ConfigError(
                f"{name!r} is an ablation of hyperst, not of {config.method.kind}",
                where=where,
                do="leave one of them out",
            )
        try:
            return config.model_copy(update={"method": ablation(name, config.method)})
        except ConfigError as error:
            raise ConfigError(error.what, where=where, do=error.do) from error

    def _explain(self, error: ValidationError) -> ConfigError:
        found = error.errors()
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
        # Between a choice of methods and its settings, pydantic puts the name of the method.
        location = tuple(
            part for before, part in zip([None, *first["loc"]], first["loc"], strict=False) if before != "method"
        )
        name, where = ".".join(map(str, location)), self._where(location)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            return ConfigError(f"there is no setting {name!r}", where=where, do=_nearest(first["loc"], location))
        if first["type"] == "missing":
            how = f"give {OPTIONS[name]}" if name in OPTIONS else "give it a value"
            return ConfigError(f"{name} is missing", where=where, do=how)
        if isinstance(first["input"], dict):  # settings that do not go together; each alone might do
            return ConfigError(": ".join([*filter(None, [name]), message]), where=where, do="correct it")
        do = "put it in quotes" if first["type"] == "string_type" else "correct it"
        return ConfigError(f"{name}: {message} (it is {first['input']!r})", where=where, do=do)

    def _where(self, location: Location) -> str | Path | None:
        """Return the word or the line of the file that a setting, or what it is within, is from."""
        for depth in range(len(location), 0, -1):
            if (word := self.assigned.get(location[:depth])) is not None:
                return f"--set {word}"
            if (line := self.file.lines.get(location[:depth])) is not None:
                return f"{self.path}:{line}"
        return self.path


def _assign(content: dict[str, Any], assignment: str) -> tuple[str, ...]:
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"{assignment!r} assigns nothing", where="--set", do="write key=value")
    *outer, last = (key.strip() for key in path.split("."))
    for key in outer:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{path!r} leads into {key!r}, which has no settings of its own", where="--set")
    content[last] = read_value(text)
    return *outer, last


def _nearest(path: Location, shown: Location) -> str:
    """Say which setting was meant by an unknown one, or which there are beside it."""
    fields = _names_at(path[:-1])
    if len(shown) < len(path) and path[-1] in _names_at(path[:-2]):
        return f"{path[-2]} has none, but another {path[-3]} has: leave it out, or set {path[-3]}.kind"
    near = difflib.get_close_matches(str(path[-1]), fields, n=1)
    return f"did you mean {'.'.join(map(str, [*shown[:-1], *near]))}?" if near else f"known are {', '.join(fields)}"


def _names_at(path: Location) -> list[str]:
    """Return the names of the settings within a setting; where there is a choice, its name comes after it."""
    models: tuple[type[BaseModel], ...] = (TrainConfig,)
    for part in path:
        if isinstance(part, int):
            continue
        named = [model for model in models if len(models) > 1 and model.model_fields["kind"].default == part]
        inner = {setting.name: setting.models for model in models for setting in describe_settings(model)}
        models = tuple(named) or inner[str(part)]
    names = [setting.name for model in models for setting in describe_settings(model)]
    return names + [word for word, model in _SHORTHANDS.items() if model in models]
