"""Training runs as jobs: where they are kept, which there are, how one is followed and ended."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from platformdirs import user_state_path

from napari_hyperst.errors import HyperSTError
from napari_hyperst.jobs.detached import start_detached
from napari_hyperst.jobs.job import EVENTS, JOBS_VARIABLE, Job
from napari_hyperst.jobs.progress import RunProgress
from napari_hyperst.nouns.events import Event, EventReader
from napari_hyperst.nouns.tasks import TrainTask

BEST = "best"
#: Bytes of events that are read in one look, so that a window never waits for a long run's.
_AT_ONCE = 200_000


def runs_folder() -> Path:
    """Return the folder of the user's training runs, made if it is not there.

    ``runs`` in the user's state folder, or in the one that ``NAPARI_HYPERST_JOBS`` names; nothing in it is ever
    deleted unasked.

    Raises
    ------
    HyperSTError
        If it cannot be made.
    """
    folder = _runs_path()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HyperSTError(
            f"cannot be made ({error.strerror})", where=folder, do=f"set {JOBS_VARIABLE} to a folder that can"
        ) from error
    return folder


def _runs_path() -> Path:
    named = os.environ.get(JOBS_VARIABLE)
    return (Path(named) if named else user_state_path("napari-hyperst")) / "runs"


def new_run_folder(name: str) -> Path:
    """Return a folder for a new run, named after it and the time; not made yet."""
    word = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "run"
    base = runs_folder() / f"{word}-{time.strftime('%Y%m%d-%H%M%S')}"
    return next(path for i in range(10_000) if not (path := base if i == 0 else Path(f"{base}-{i}")).exists())


def list_runs(folder: Path | None = None) -> list[Job]:
    """Return the training runs in a folder, the one that told something last first; what is none is passed over.

    Parameters
    ----------
    folder
        Where to look; that of the user's runs by default, which is not made for it.
    """
    found = []
    try:
        paths = list((folder or _runs_path()).iterdir())
    except OSError:
        return []
    for path in paths:
        if is_run(path):
            told = path / EVENTS if (path / EVENTS).exists() else path
            found.append((told.stat().st_mtime, path.name, Job(path)))
    return [job for *_, job in sorted(found, key=lambda one: one[:2], reverse=True)]


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a training run."""
    try:
        return isinstance(Job(folder).task, TrainTask)
    except HyperSTError:
        return False


def best_of(job: Job) -> Path | None:
    """Return the folder of the checkpoint that a run keeps, if there is one yet."""
    folder = job.folder / BEST
    return folder if (folder / "card.json").is_file() else None


class RunFollower:
    """A training run, followed by its events, whoever started its process.

    Parameters
    ----------
    job
        The run.

    Attributes
    ----------
    progress
        What is known of it so far.

    Raises
    ------
    StoreError
        If the folder is no job's.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: EventReader = job.follow()
        task = job.task
        self.progress = RunProgress(epochs=task.config.epochs if isinstance(task, TrainTask) else 0)

    def start(self) -> None:
        """Start its process, or start one again that goes on where the last one saved its state.

        Raises
        ------
        OSError
            If no process can be started, or the folder cannot be written.
        """
        self._process = start_detached(self.job)
        self.progress.begin_again()

    def poll(self) -> list[Event]:
        """Take in what was told since the last look, a part at a time, and find out whether its process is there.

        Returns
        -------
        list of Event
            What was told; where there is any, there may be more to read at once.
        """
        alive = self.alive
        new = self._reader.new(_AT_ONCE)
        for event in new:
            self.progress.take(event)
        if not new and alive and self.progress.state == "new":  # somebody else has started it
            self.progress.begin_again()
        if not new and not alive and self.progress.live:
            self._settle()
        return new

    def _settle(self) -> None:
        """Find out what became of a process that is gone without a word."""
        if self.job.asked("stop"):  # and was ended, as it did not hear
            with contextlib.suppress(OSError):
                self.progress.take(self.job.log.append("stopped"))
                return
        self.progress.crash(self.job.last_lines())

    @property
    def alive(self) -> bool:
        """Whether a process is at work on it: the one that was started here, or somebody else's."""
        if self._process is not None and self._process.poll() is None:
            return True
        status = self.job.status()
        return status is not None and status.running

    def ask(self, request: str) -> None:
        """Ask it to ``"pause"`` or to ``"stop"``; ``"go on"`` takes that back."""
        self.job.take_back() if request == "go on" else self.job.ask(request)

    def end(self, kill: bool = False) -> None:
        """End its process at once; what it last saved stays.

        Parameters
        ----------
        kill
            Without another chance.
        """
        process, status = self._process, self.job.status()
        with contextlib.suppress(OSError):
            if process is not None and process.poll() is None:
                process.kill() if kill else process.terminate()
            elif status is not None and status.running and status.host == platform.node():
                os.kill(status.pid, signal.SIGKILL if kill and sys.platform != "win32" else signal.SIGTERM)

    def best(self) -> Path | None:
        """Return the folder of the checkpoint that is kept, if there is one yet."""
        return best_of(self.job)
