"""The folder of a job: what was asked, what happened, what is asked of it while it runs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from platformdirs import user_state_path

from napari_hyperst.errors import HyperSTError, StoreError
from napari_hyperst.files import write_whole
from napari_hyperst.nouns.events import Event, EventLog, EventReader
from napari_hyperst.nouns.tasks import AnyTask, read_task
from napari_hyperst.received import parse_json, read_received

CONFIG, EVENTS, STATUS, REQUEST, LOG = "config.json", "events.jsonl", "status.json", "request.json", "log"
JOBS_VARIABLE = "NAPARI_HYPERST_JOBS"
#: Seconds between heartbeats, and after how many without one a job's process is taken for dead.
BEAT_S, DEAD_S = 1.0, 15.0
#: Settings, requests and heartbeats are read up to here; they take a few KiB.
_MOST_BYTES = 4 * 2**20
#: Days after which the folder of a prediction that nobody took away is deleted.
_KEPT_DAYS = 7


@dataclass(frozen=True)
class Status:
    """What a job's process says of itself.

    Attributes
    ----------
    pid, host
        Its process, and the machine that it is on.
    beat
        Its last heartbeat, in seconds since the epoch.
    running
        Whether the job is at work, so far as is known.
    """

    pid: int
    host: str
    beat: float
    running: bool


@dataclass(frozen=True)
class Job:
    """A long task, as a folder.

    Attributes
    ----------
    folder
        Holds ``config.json`` (the task), ``events.jsonl``, ``status.json`` (process and heartbeat), ``request.json``
        (what is asked of it), ``log`` (what its process printed) and its results.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path, task: AnyTask) -> Job:
        """Make the folder of a new job.

        Raises
        ------
        StoreError
            If the folder is there already, or cannot be made.
        """
        if folder.exists():
            raise StoreError("is there already", where=folder, do="name a new folder for the job")
        try:
            folder.mkdir(parents=True)
            write_whole(folder / CONFIG, task.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise StoreError(f"cannot be made ({error.strerror})", where=folder, do="choose another folder") from error
        return cls(folder)

    @cached_property
    def task(self) -> AnyTask:
        """What the job is to do.

        Raises
        ------
        StoreError
            If the folder is no job's.
        """
        try:
            return read_task(read_received(self.folder / CONFIG, _MOST_BYTES).decode("utf-8"))
        except (OSError, ValueError) as error:
            if isinstance(error, FileNotFoundError):
                raise StoreError("is no job's folder", where=self.folder, do="check the path") from error
            raise StoreError(
                f"is no job's folder ({' '.join(str(error).split())[:200]})", where=self.folder, do="check the path"
            ) from error

    @property
    def log(self) -> EventLog:
        """Where its events are told."""
        return EventLog(self.folder / EVENTS)

    def follow(self) -> EventReader:
        """Return a reader of its events, from the first on."""
        return EventReader(self.folder / EVENTS)

    def ending(self) -> Event | None:
        """Return the event that ended the job, if it has ended and was not resumed since."""
        last = next((event for event in reversed(self.follow().new()) if event.ends or event.kind == "start"), None)
        return last if last is not None and last.ends else None

    def ask(self, request: str) -> None:
        """Ask something of the process that runs it: ``"stop"``, or of a training run ``"pause"``."""
        write_whole(self.folder / REQUEST, json.dumps({"request": request}) + "\n")

    def asked(self, request: str) -> bool:
        """Tell whether that is asked of it."""
        try:
            return bool(parse_json(read_received(self.folder / REQUEST, _MOST_BYTES))["request"] == request)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def take_back(self) -> None:
        """Forget what was asked of the process that ran it before."""
        (self.folder / REQUEST).unlink(missing_ok=True)

    def beat(self, running: bool = True) -> None:
        """Say that this process is at work on it, or no longer."""
        status = {"pid": os.getpid(), "host": platform.node(), "beat": time.time(), "running": running}
        with contextlib.suppress(OSError):  # a full disk must not end the work itself
            write_whole(self.folder / STATUS, json.dumps(status) + "\n")

    def status(self) -> Status | None:
        """Return what its process last said, or None if it never started. One that fell silent or is gone runs not."""
        try:
            said = parse_json(read_received(self.folder / STATUS, _MOST_BYTES))
            beat = float(said["beat"])
            pid, silent = int(said["pid"]), time.time() - beat > DEAD_S
            host = str(said.get("host", ""))
            gone = host == platform.node() and not _is_alive(pid)
            return Status(pid, host, beat, bool(said["running"]) and not silent and not gone)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def last_lines(self, count: int = 12) -> str:
        """Return the end of what its process printed."""
        try:
            with (self.folder / LOG).open("rb") as file:
                file.seek(max(0, (self.folder / LOG).stat().st_size - 8192))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join([line for line in lines if line.strip()][-count:])


def jobs_folder() -> Path:
    """Return a new place for a job, in the user's state folder (``NAPARI_HYPERST_JOBS`` names another).

    Folders of predictions that were left behind are deleted after a week.
    """
    named = os.environ.get(JOBS_VARIABLE)
    parent = Path(named) if named else user_state_path("napari-hyperst") / "jobs"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for folder in parent.glob("job-*"):
            if time.time() - folder.stat().st_mtime > _KEPT_DAYS * 86400 and not _works(folder):
                shutil.rmtree(folder, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix="job-", dir=parent)) / "job"
    except OSError as error:
        raise HyperSTError(
            f"cannot be written ({error.strerror})", where=parent, do=f"set {JOBS_VARIABLE} to a folder that can"
        ) from error


def _is_alive(pid: int) -> bool:
    """Tell whether there is a process of this machine; True where that cannot be told."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def _works(folder: Path) -> bool:
    status = Job(folder / "job").status()
    return status is not None and status.running
