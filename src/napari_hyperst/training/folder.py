"""The folder of a training run: its settings, its events, the last state and the weights that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_hyperst.errors import StoreError
from napari_hyperst.files import hold_folder, recover, write_whole
from napari_hyperst.nouns.events import EventLog, EventReader
from napari_hyperst.nouns.tasks import TrainTask, read_task
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.received import read_received

CONFIG, EVENTS, LAST, BEST = "config.json", "events.jsonl", "last", "best"
_MOST_SETTINGS = 4 * 2**20


def resumable(out: Path) -> TrainConfig:
    """Return the settings of a run that is to be resumed, with its folder as it is now called.

    Raises
    ------
    StoreError
        If there is no run, or it is done.
    """
    task = _task(out)
    if task is None:
        raise StoreError("is no training run", where=out, do="give the folder of a run")
    if is_done(out):
        raise StoreError("is done", where=out, do=f"use the checkpoint in {BEST}, or train anew in another folder")
    return task.config.model_copy(update={"out": out})


def check_settings(config: TrainConfig) -> TrainTask:
    """Return the task in the folder of some settings.

    Raises
    ------
    StoreError
        If there is none, or it has other settings.
    """
    task = _task(config.out)
    if task is None:
        raise StoreError("is there already", where=config.out, do="name a new folder for the run")
    if task.config.model_copy(update={"out": config.out}) != config:
        raise StoreError("is a run with other settings", where=config.out, do="name a new folder for the run")
    return task


def is_done(out: Path) -> bool:
    """Tell whether the run in a folder has come to its end."""
    return any(event.kind == "done" for event in _events(out))


class RunFolder:
    """The folder of a run while this process trains; nobody else can then.

    Parameters
    ----------
    config
        The run's settings; ``config.out`` is the folder, made if it is not there.
    resume
        Go on with the run that is there. Otherwise the folder must be new, or that of a job that asks for this run.

    Raises
    ------
    StoreError
        If the folder holds something else, another process trains in it, or it cannot be written.
    """

    def __init__(self, config: TrainConfig, resume: bool = False) -> None:
        self.path = config.out
        task = check_settings(config) if self.path.exists() else None
        if task is not None and not resume and any(event.kind == "start" for event in _events(self.path)):
            raise StoreError("is there already", where=self.path, do="resume the run, or name a new folder")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._held = hold_folder(self.path)
            if task is None:
                write_whole(self.path / CONFIG, TrainTask(config=config).model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise StoreError(
                f"cannot be written ({error.strerror})", where=self.path, do="choose another folder"
            ) from error
        self._log = EventLog(self.path / EVENTS)
        recover(self.path / LAST)
        recover(self.path / BEST)

    def tell(self, kind: str, content: dict[str, Any]) -> None:
        """Append an event."""
        self._log.append(kind, content)

    def close(self) -> None:
        """Let others have it."""
        self._held.release()


def _task(out: Path) -> TrainTask | None:
    try:
        task = read_task(read_received(out / CONFIG, _MOST_SETTINGS).decode("utf-8"))
    except (OSError, ValueError):
        return None
    return task if isinstance(task, TrainTask) else None


def _events(out: Path) -> list[Any]:
    return EventReader(out / EVENTS).new()
