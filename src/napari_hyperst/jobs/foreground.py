"""A job in the process of a terminal."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.job import Job
from napari_hyperst.jobs.tasks import Stopped
from napari_hyperst.jobs.worker import run
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import ConvertTask, TrainTask
from napari_hyperst.nouns.training import TrainConfig

#: Seconds within which a second signal is the first one sent on.
_SAME_S = 1.0


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
        What a user can mend. A new run that took no step leaves no folder behind.
    """
    if config is None:
        job = Job(folder)
        job.take_back()  # of a process that was killed before it obeyed
    else:
        job = Job.create(folder, TrainTask(config=config.absolute()))
    with _signals(lambda: job.ask("stop")):
        ending = run(job, watch)
    if ending.kind == "error":
        if config is not None and all(event.kind != "step" for event in job.follow().new()):
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
        with _signals(lambda: job.ask("stop")):
            ending = run(job, watch)
    if ending.kind == "error":
        raise HyperSTError(str(ending.content["message"]))
    return ending


def train_beside(config: TrainConfig | None, folder: Path) -> None:
    """Train in this process, as one of several of which another writes; signals to end ask all to stop.

    Parameters
    ----------
    config, folder
        As for ``train_here``.
    """
    from napari_hyperst import training

    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise Stopped

    with _signals(asked.set), contextlib.suppress(Stopped, KeyboardInterrupt):
        training.resume(folder, check=check) if config is None else training.train(config, check=check)


class _signals:
    """While it lasts, the first signal to end only asks, and those of the next second, which launchers send on."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._asks = ask
        self._asked_at: float | None = None

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._asks()
        elif time.monotonic() - self._asked_at > _SAME_S:
            signal.signal(number, self._before[signal.Signals(number)])
            signal.raise_signal(number)
