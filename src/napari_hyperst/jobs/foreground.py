"""A job in the process of a terminal."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.job import Job
from napari_hyperst.jobs.worker import run
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import ConvertTask, TrainTask
from napari_hyperst.nouns.training import TrainConfig


def train_here(
    config: TrainConfig | None, folder: Path, watch: Callable[[str, dict[str, Any]], None] | None = None
) -> Event:
    """Train in this process, as a job that others can watch and stop.

    Ctrl-C, or what a cluster sends before it takes a machine away, asks it to stop, so that its state is saved; the
    second time it ends at once.

    Parameters
    ----------
    config
        Settings of a new run; None resumes the one in the folder.
    folder
        The folder of the run.
    watch
        Called with each event's kind and content.

    Returns
    -------
    Event
        ``done`` or ``stopped``.

    Raises
    ------
    HyperSTError
        What a user can mend. A new run that had not begun leaves no folder behind.
    """
    job = Job(folder) if config is None else Job.create(folder, TrainTask(config=config))
    with _asked_by_signals(job):
        ending = run(job, watch)
    if ending.kind == "error":
        if config is not None and all(event.kind != "start" for event in job.follow().new()):
            shutil.rmtree(folder, ignore_errors=True)
        raise HyperSTError(str(ending.content["message"]))
    return ending


def convert_here(task: ConvertTask, watch: Callable[[str, dict[str, Any]], None] | None = None) -> Event:
    """Convert a slide in this process, as the job that the viewer would start; its folder is gone afterwards.

    Ctrl-C asks it to stop, the second time it ends at once; either way it goes on where it stood when asked again.

    Parameters
    ----------
    task
        What to convert, and where to.
    watch
        Called with each event's kind and content.

    Returns
    -------
    Event
        ``done`` or ``stopped``.

    Raises
    ------
    HyperSTError
        What a user can mend.
    """
    with tempfile.TemporaryDirectory(prefix="hyperst-", ignore_cleanup_errors=True) as scratch:
        job = Job.create(Path(scratch) / "job", task)
        with _asked_by_signals(job):
            ending = run(job, watch)
    if ending.kind == "error":
        raise HyperSTError(str(ending.content["message"]))
    return ending


class _asked_by_signals:
    """While it lasts, the first signal to end asks a job to stop."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, self._before[signal.Signals(number)])
        self._job.ask("stop")
