"""The child process that predicts, and the jobs that it is given, one at a time."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import QCoreApplication, QObject, QProcess, QProcessEnvironment, QTimer, Signal

from napari_hyperst.jobs.job import Job
from napari_hyperst.nouns.events import Event, EventReader
from napari_hyperst.nouns.tasks import ExportTask
from napari_hyperst.widgets import collector

#: How often the events of the job at work are looked for, in ms.
_POLL_MS = 40
#: After these times, in ms, a job that was asked to stop is terminated, and killed.
_TERMINATE_MS, _KILL_MS = 400, 700
#: How long a child that was told to end is waited for, in ms, and how long one that is writing a store.
_GRACE_MS, _WRITING_MS = 1000, 120_000
_COMMAND = ("-m", "napari_hyperst.jobs", "--wait")


class Child(QObject):
    """A warm child process: it has imported torch before the first click, and ends with napari.

    Parameters
    ----------
    command
        Arguments to this Python; those of the real child, unless a test gives its own.
    parent
        Qt parent: with it, and not before, Qt destroys this where Python ends without napari's event loop.
    """

    #: The child is there: what kinds of device it found, each with an empty string or the reason why not.
    ready = Signal(dict)
    #: Something happened in the job at work.
    told = Signal(object, object)
    #: The job is over: its ``done``, ``stopped`` or ``error`` event.
    ended = Signal(object, object)
    #: The child could not be started, or ended without having been ready: why.
    broken = Signal(str)

    def __init__(self, command: Sequence[str] = _COMMAND, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._command = list(command)
        self._process: QProcess | None = None
        self._job: Job | None = None
        self._reader: EventReader | None = None
        self._devices: dict[str, str] | None = None
        self._said = b""
        self._closing = False
        self._begun = self._stopping = False
        self._timer = QTimer(self)
        self._timer.setInterval(_POLL_MS)
        self._timer.timeout.connect(self._poll)

    @property
    def job(self) -> Job | None:
        """The job at work."""
        return self._job

    @property
    def pid(self) -> int:
        """Process id of the child; 0 where there is none."""
        return 0 if self._process is None else int(self._process.processId())

    @property
    def devices(self) -> dict[str, str] | None:
        """What the child found to compute on; None before it is ready."""
        return self._devices

    def start(self) -> None:
        """Start the child, unless it is there."""
        if self._process is not None or self._closing:
            return
        process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        environment.insert("PYTHONUTF8", "1")  # a user's name may be in the path of the job's folder
        process.setProcessEnvironment(environment)
        process.setProcessChannelMode(QProcess.ProcessChannelMode.MergedChannels)
        process.readyReadStandardOutput.connect(self._read)
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        self._process, self._said, self._devices = process, b"", None
        process.start(sys.executable, self._command)

    def submit(self, job: Job, *, begin: bool = True) -> None:
        """Give the child a job; it begins at once, or when ``begin`` is called, or as soon as the child is ready."""
        if self._job is not None:
            raise RuntimeError("the child is at work")
        self._job, self._reader = job, job.follow()
        self.start()
        if self._process is None:  # it could not be started, which has been told
            return
        collector.hold_back(self)
        self._timer.start()
        if begin:
            self.begin(job)

    def begin(self, job: Job) -> None:
        """Let a job begin that the child was given, unless it is over already."""
        if self._job is job and self._process is not None:
            self._begun = True
            self._process.write(f"{job.folder}\n".encode())

    def stop(self) -> None:
        """Ask the job at work to stop; within a second it has, or its process is gone."""
        job = self._job
        if job is None or self._stopping:
            return
        if not self._begun:  # the child knows nothing of it
            self._end(job, _tell(job, "stopped", {}))
            return
        self._stopping = True
        QTimer.singleShot(_TERMINATE_MS, lambda: self._end_process(job, "terminate"))
        QTimer.singleShot(_KILL_MS, lambda: self._end_process(job, "kill"))
        with contextlib.suppress(OSError):  # a folder that was taken away, a full disk: the process is ended anyway
            job.ask("stop")

    def close(self) -> None:
        """End the child, and wait until it is gone; what it is writing is written to its end."""
        writes = self._job is not None and isinstance(self._job.task, ExportTask)
        process = self._hand_over()
        if process is None:
            return
        grace = _WRITING_MS if writes else _GRACE_MS
        if process.state() != QProcess.ProcessState.NotRunning and not process.waitForFinished(grace):
            process.kill()
            process.waitForFinished(_GRACE_MS)
        process.deleteLater()

    def leave(self) -> None:
        """End the child, which is writing nothing, and go on at once; if it does not hear it is killed."""
        process = self._hand_over()
        if process is None:
            return
        process.setParent(QCoreApplication.instance())  # which waits for it where napari is closed meanwhile
        process.finished.connect(process.deleteLater)
        patience = QTimer(process)
        patience.setSingleShot(True)
        patience.timeout.connect(process.kill)
        patience.start(_GRACE_MS)

    # -- within

    def _hand_over(self) -> QProcess | None:
        """Let go of the process, told that there is nothing more for it to do; return it, if there is one."""
        if self._closing:  # with its parent Qt may have destroyed what is used here
            return None
        self._closing = True
        self._timer.stop()
        collector.let_go(self)
        process, self._process, self._job = self._process, None, None
        if process is not None:
            process.finished.disconnect(self._on_finished)
            process.errorOccurred.disconnect(self._on_error)
            process.readyReadStandardOutput.disconnect(self._read)
            process.closeWriteChannel()
        return process

    def _poll(self) -> None:
        """Tell what happened in the job since the last look."""
        job, reader = self._job, self._reader
        if job is None or reader is None:
            return
        for event in reader.new():
            if event.ends:
                self._end(job, event)
                return
            self.told.emit(job, event)

    def _end(self, job: Job, event: Event) -> None:
        self._job = self._reader = None
        self._begun = self._stopping = False
        self._timer.stop()
        collector.let_go(self)
        self.ended.emit(job, event)

    def _end_process(self, job: Job, how: str) -> None:
        if self._job is job and self._process is not None:
            getattr(self._process, how)()

    def _read(self) -> None:
        """Take in what the child prints: a line of JSON when it is ready, and what libraries say."""
        if self._process is None:
            return
        self._said = (self._said + bytes(self._process.readAllStandardOutput().data()))[-8192:]
        for line in self._said.splitlines() if self._devices is None else ():
            try:
                self._devices = dict(json.loads(line)["devices"])
            except (ValueError, KeyError, TypeError):
                continue
            self._said = b""
            self.ready.emit(self._devices)
            return

    def _on_error(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            why = self._process.errorString()
            self._process.deleteLater()
            self._process = None
            self._gone(f"Python could not be started ({why})")

    def _on_finished(self, code: int, status: QProcess.ExitStatus) -> None:
        """Find out how the child ended, settle its job, and have a new one ready."""
        self._poll()
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
        self._gone(_how(code, status))

    def _gone(self, how: str) -> None:
        job, was_ready = self._job, self._devices is not None
        self._devices = None
        if job is not None:
            stopping = self._stopping
            if stopping:
                ending = _tell(job, "stopped", {})
            else:
                said = job.last_lines() or _tail(self._said)
                lines = f"; its last lines:\n{said}" if said else ""
                message = f"the process that predicts {how}{lines}"
                ending = _tell(job, "error", {"message": message, "expected": False})
            was_ready = was_ready or stopping
            self._end(job, ending)
        elif not was_ready:
            self.broken.emit(f"the process that predicts {how}; its last lines:\n{_tail(self._said)}")
        if was_ready:
            self.start()


def _tell(job: Job, kind: str, content: dict[str, object]) -> Event:
    """Add an event to a job's, or only make it where the folder is gone or full."""
    try:
        return job.log.append(kind, dict(content))
    except OSError:
        return Event(kind, time.time(), dict(content))


def _how(code: int, status: QProcess.ExitStatus) -> str:
    if status == QProcess.ExitStatus.NormalExit:
        return f"ended with status {code}"
    if os.name == "posix" and code == signal.SIGKILL:
        return "was killed, as happens when memory runs out"
    name = signal.Signals(code).name if os.name == "posix" and code in list(signal.Signals) else str(code)
    return f"crashed ({name})"


def _tail(said: bytes, lines: int = 12) -> str:
    return "\n".join(said.decode(errors="replace").splitlines()[-lines:])


def result_of(job: Job, event: Event) -> Path:
    """Return the file that a job's ``done`` event names."""
    return job.folder / str(event.content["result"])
