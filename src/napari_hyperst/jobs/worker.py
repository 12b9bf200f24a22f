"""The process of a job: it works, tells, beats, and stops when asked.

``python -m napari_hyperst.jobs FOLDER`` runs one job. With ``--wait`` it imports what jobs need, prints one line of
JSON with the devices it found, and then runs the jobs whose folders come in on standard input, a line each; it ends
when that is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from napari_hyperst.errors import HyperSTError, HyperSTWarning, StoreError, plain, scrub
from napari_hyperst.files import hold_folder
from napari_hyperst.jobs.job import BEAT_S, LOG, Job
from napari_hyperst.jobs.tasks import Stopped, perform
from napari_hyperst.nouns.events import ENDINGS, Event
from napari_hyperst.nouns.tasks import ExportTask, TrainTask

#: After how many seconds a training run that was asked to stop, and has not, is ended.
DEAF_S = 120.0
#: How much later than the window's the work of a job comes, where priorities are numbers.
_NICE = 10
Perform = Callable[[Any, Path, Callable[[str, dict[str, Any]], None]], None]


def run(job: Job, watch: Callable[[str, dict[str, Any]], None] | None = None, perform: Perform = perform) -> Event:
    """Run a job in this process, to its end.

    Parameters
    ----------
    job
        The job.
    watch
        Called with each event as well.
    perform
        What does the work.

    Returns
    -------
    Event
        ``done``, ``stopped`` or ``error``; whatever goes wrong in the work is told, not raised.

    Raises
    ------
    StoreError
        If the folder is no job's, it is done, or another process is at work on it. What was stopped or failed cannot
        be run again either, but for a training run, which is resumed.
    """
    trains = isinstance(job.task, TrainTask)
    status, ending = job.status(), job.ending()
    if ending is not None and ending.kind == "done" and trains:
        raise StoreError("is done", where=job.folder, do="use its checkpoint, or train anew in another folder")
    if ending is not None and not trains:
        raise StoreError("has ended", where=job.folder, do="make a new job")
    if status is not None and status.running and status.host != platform.node():  # on this one, the lock tells
        raise StoreError(f"is at work on {status.host}", where=job.folder, do="wait for it, or ask it to stop")

    def report(kind: str, content: dict[str, Any]) -> None:
        if kind not in ENDINGS and job.asked("stop"):
            raise Stopped
        if not trains:  # the trainer tells its events itself, with a job or without
            job.log.append(kind, content)
        if watch is not None:
            watch(kind, content)

    with _held(job), _heartbeat(job), _warnings_told(job, watch):
        if ending is not None:
            job.take_back()
        try:
            if not trains:
                report("start", {"pid": os.getpid()})
            perform(job.task, job.folder, report)
        except Stopped:
            job.log.append("stopped")
        except KeyboardInterrupt:
            job.log.append("stopped")
            raise
        except HyperSTError as error:
            job.log.append("error", {"message": str(error), "expected": True})
        except BaseException as error:
            print(scrub(traceback.format_exc()), end="", file=sys.stderr)
            job.log.append("error", {"message": _explain(error), "expected": False})
            if not isinstance(error, Exception):
                raise
    ending = job.ending()
    assert ending is not None
    return ending


def serve(lines: Iterator[str]) -> None:
    """Run the jobs whose folders are told, one after the other, until there are no more lines."""
    folders: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
    gone = threading.Event()
    given: list[Job] = []

    def listen() -> None:
        for line in lines:
            if line.strip():
                given.append(Job(Path(line.strip())))
                folders.put(given[-1].folder)
        gone.set()  # whoever started this has gone: a store is written to its end, the rest is of no use
        if not any(_writes(job) and job.ending() is None for job in given):
            os._exit(0)
        folders.put(None)

    threading.Thread(target=listen, name="hyperst-listen", daemon=True).start()
    print(json.dumps({"ready": True, "devices": _devices()}), flush=True)
    while (folder := folders.get()) is not None:
        job = Job(folder)
        try:
            if not gone.is_set() or _writes(job):
                with _output_to(folder / LOG):
                    run(job)
        except (HyperSTError, OSError) as error:  # the folder is no job's, or has been taken away
            print(f"error: {error}", file=sys.stderr, flush=True)


def _writes(job: Job) -> bool:
    """Tell whether a job writes a store of the user's."""
    try:
        return isinstance(job.task, ExportTask)
    except HyperSTError:
        return False


def main(arguments: list[str]) -> int:
    """Run one job, or wait for jobs; return the exit status."""
    _give_way()
    if arguments == ["--wait"]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for napari, which then closes this
        serve(iter(sys.stdin.readline, ""))
        return 0
    if len(arguments) != 1:
        print("usage: python -m napari_hyperst.jobs FOLDER | --wait", file=sys.stderr)
        return 2
    try:
        job = Job(Path(arguments[0]))
        job.task  # noqa: B018  read it now: what is no job's folder gets no events
        return 0 if run(job).kind != "error" else 1
    except HyperSTError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _give_way() -> None:
    """Let windows go first, those that this process works for and others."""
    if sys.platform == "win32":
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(_NICE)


@contextlib.contextmanager
def _held(job: Job) -> Iterator[None]:
    """Keep other processes from the job."""
    lock = hold_folder(job.folder)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _heartbeat(job: Job) -> Iterator[None]:
    """Say every second that the job is at work, and end a training run that does not hear that it is to stop.

    A window that has asked does so as well, but it may have been closed since.
    """
    over = threading.Event()
    trains = isinstance(job.task, TrainTask)

    def beat() -> None:
        asked_for = 0.0
        job.beat()
        while not over.wait(BEAT_S):
            job.beat()
            asked_for = asked_for + BEAT_S if trains and job.asked("stop") else 0.0
            if asked_for > DEAF_S:
                print("asked to stop, it went on; ended, with what was saved last kept", file=sys.stderr, flush=True)
                os._exit(1)

    thread = threading.Thread(target=beat, name="hyperst-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        job.beat(running=False)


@contextlib.contextmanager
def _warnings_told(job: Job, watch: Callable[[str, dict[str, Any]], None] | None) -> Iterator[None]:
    """Tell our own warnings as events; those of libraries go to the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", category=HyperSTWarning)
        printed = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
            if issubclass(category, HyperSTWarning):
                job.log.append("warning", {"message": str(message)})
                if watch is not None:
                    watch("warning", {"message": str(message)})
            else:
                printed(message, category, *rest, **named)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process prints, down to its C libraries, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(file)


def _explain(error: BaseException) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; close other programs, choose a smaller batch size, or use the CPU"
    text = plain(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _devices() -> dict[str, str]:
    """Return each kind of device, with an empty string where it is there and else the reason why not."""
    import napari_hyperst.models.checkpoint
    import napari_hyperst.prediction
    import napari_hyperst.slides.export  # noqa: F401  what every prediction needs, imported before the first click
    from napari_hyperst.models.device import describe_devices

    return {kind: why for kind, (_, why) in describe_devices().items()}
