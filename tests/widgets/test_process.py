from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from napari_hyperst.jobs import Job
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import PredictTask, SlideRef
from napari_hyperst.widgets import collector
from napari_hyperst.widgets.process import Child, result_of


def job_of(tmp_path: Path, scene: str) -> Job:
    return Job.create(tmp_path / f"job-{scene}-{time.monotonic_ns()}", PredictTask(
        slide=SlideRef(path=tmp_path), checkpoint=scene,
    ))  # fmt: skip


def play(qtbot: Any, child: Child, job: Job, timeout: int = 20_000) -> Event:
    """Give the child a job and return how it ended."""
    with qtbot.waitSignal(child.ended, timeout=timeout) as ended:
        child.submit(job)
    assert ended.args[0] is job
    assert child.job is None
    return ended.args[1]


def test_a_child_says_what_it_found(qtbot: Any, child: Child) -> None:
    with qtbot.waitSignal(child.ready, timeout=20_000):
        child.start()
    assert child.devices == {"cpu": "", "cuda": "no CUDA device was found", "mps": ""}
    pid = child.pid
    child.start()
    assert child.pid == pid


def test_a_job_given_before_the_child_is_ready_is_done(qtbot: Any, child: Child, tmp_path: Path) -> None:
    told: list[Event] = []
    child.told.connect(lambda _job, event: told.append(event))
    job = job_of(tmp_path, "ok")
    ending = play(qtbot, child, job)
    assert ending.kind == "done"
    assert result_of(job, ending).is_file()
    assert [event.kind for event in told] == ["start", "progress"]
    pid = child.pid
    assert play(qtbot, child, job_of(tmp_path, "warns")).kind == "done"
    assert child.pid == pid  # the child is kept warm


def test_the_collector_passes_over_what_was_there_while_any_job_is_at_work(
    qtbot: Any, child: Child, tmp_path: Path
) -> None:
    another = Child()
    before = gc.get_freeze_count()
    job = job_of(tmp_path, "slow")
    with qtbot.waitSignal(child.told, timeout=20_000):
        child.submit(job)
    assert gc.get_freeze_count() > before
    collector.hold_back(another)
    with qtbot.waitSignal(child.ended, timeout=5000):
        child.stop()
    assert gc.get_freeze_count() > before
    another.close()
    assert gc.get_freeze_count() == 0
    child.submit(job_of(tmp_path, "slow"))
    child.close()
    assert gc.get_freeze_count() == 0


def test_one_job_at_a_time(qtbot: Any, child: Child, tmp_path: Path) -> None:
    child.submit(job_of(tmp_path, "slow"))
    with pytest.raises(RuntimeError, match="at work"):
        child.submit(job_of(tmp_path, "ok"))


def test_a_job_that_hears_stops_and_leaves_the_child(qtbot: Any, child: Child, tmp_path: Path) -> None:
    with qtbot.waitSignal(child.ready, timeout=20_000):
        child.start()
    pid = child.pid
    job = job_of(tmp_path, "slow")
    with qtbot.waitSignal(child.told, timeout=5000, check_params_cb=lambda _j, e: e.content.get("done", 0) > 1):
        child.submit(job)
    with qtbot.waitSignal(child.ended, timeout=1000) as ended:
        child.stop()
        child.stop()
    assert ended.args[1].kind == "stopped"
    assert child.pid == pid


def test_a_job_that_has_not_begun_is_stopped_at_once_and_leaves_the_child(
    qtbot: Any, child: Child, tmp_path: Path
) -> None:
    with qtbot.waitSignal(child.ready, timeout=20_000):
        child.start()
    pid, waiting, endings = child.pid, job_of(tmp_path, "slow"), []
    child.ended.connect(lambda job, event: endings.append((job, event.kind)))
    child.submit(waiting, begin=False)
    child.stop()
    assert endings == [(waiting, "stopped")]
    child.begin(waiting)  # comes too late
    assert play(qtbot, child, job_of(tmp_path, "ok")).kind == "done"
    qtbot.wait(800)  # by then one that is asked to stop has been killed
    assert child.pid == pid


def test_a_job_that_is_deaf_is_gone_within_a_second_and_a_new_child_is_there(
    qtbot: Any, child: Child, tmp_path: Path
) -> None:
    with qtbot.waitSignal(child.ready, timeout=20_000):
        child.start()
    pid = child.pid
    job = job_of(tmp_path, "deaf")
    with qtbot.waitSignal(child.told, timeout=5000, check_params_cb=lambda _j, e: e.kind == "progress"):
        child.submit(job)
    with qtbot.waitSignal(child.ended, timeout=2000) as ended:
        child.stop()
    assert ended.args[1].kind == "stopped"
    assert job.ending() == ended.args[1]  # the folder tells it too
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert play(qtbot, child, job_of(tmp_path, "ok")).kind == "done"
    assert child.pid != pid


@pytest.mark.parametrize(
    ("scene", "told"),
    [("crash", "ended with status 3; its last lines:\nTraceback\nSegmentation fault"), ("killed", "memory runs out")],
)
def test_a_crash_is_told_with_its_last_lines_and_a_new_child_is_there(
    qtbot: Any, child: Child, tmp_path: Path, scene: str, told: str
) -> None:
    with qtbot.waitSignal(child.ready, timeout=20_000):
        child.start()
    job = job_of(tmp_path, scene)
    ending = play(qtbot, child, job)
    assert ending.kind == "error"
    assert told in ending.content["message"]
    assert job.ending() == ending
    assert play(qtbot, child, job_of(tmp_path, "ok")).kind == "done"


def test_a_child_killed_from_outside_while_it_waits_is_replaced(qtbot: Any, child: Child, tmp_path: Path) -> None:
    with qtbot.waitSignal(child.ready, timeout=20_000):
        child.start()
    first = child.pid
    with qtbot.waitSignal(child.ready, timeout=20_000):
        os.kill(first, signal.SIGKILL)
    assert child.pid not in (0, first)
    assert play(qtbot, child, job_of(tmp_path, "ok")).kind == "done"


def test_a_child_that_cannot_start_is_told_once(
    qtbot: Any, child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERST_TEST_STILLBORN", "1")
    with qtbot.waitSignal(child.broken, timeout=20_000) as broken:
        child.start()
    assert "no torch today" in broken.args[0]
    with qtbot.assertNotEmitted(child.broken, wait=300):
        pass
    assert child.pid == 0
    monkeypatch.delenv("HYPERST_TEST_STILLBORN")
    assert play(qtbot, child, job_of(tmp_path, "ok")).kind == "done"  # a later click tries again


def test_python_that_is_not_there(qtbot: Any, child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with qtbot.waitSignal(child.broken, timeout=5000) as broken:
        child.start()
    assert "could not be started" in broken.args[0]


def test_closing_ends_the_child_whatever_it_does(qtbot: Any, child: Child, tmp_path: Path) -> None:
    with qtbot.waitSignal(child.told, timeout=20_000, check_params_cb=lambda _j, e: e.kind == "progress"):
        child.submit(job_of(tmp_path, "deaf"))
    pid = child.pid
    child.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    child.start()  # nothing starts once it is closed
    assert child.pid == 0
