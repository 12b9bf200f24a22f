"""Training runs followed by their events, with processes that play them, without torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from napari_hyperst.errors import StoreError
from napari_hyperst.jobs import runs
from napari_hyperst.jobs.job import Job
from napari_hyperst.jobs.progress import RunProgress, duration
from napari_hyperst.jobs.runs import RunFollower, is_run, list_runs, new_run_folder
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.tasks import PredictTask, SlideRef, TrainTask
from napari_hyperst.nouns.training import TrainConfig

SLEEPER = "import time\ntime.sleep(60)"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    out = tmp_path / "run"
    return Job.create(out, TrainTask(config=TrainConfig(slides=(tmp_path / "slide",), out=out, epochs=4)))


def told(*events: tuple[str, float, dict[str, Any]], epochs: int = 4) -> RunProgress:
    progress = RunProgress(epochs=epochs)
    for kind, when, content in events:
        progress.take(Event(kind, when, content))
    return progress


def step(number: int, when: float, loss: float = 1.0) -> tuple[str, float, dict[str, Any]]:
    return "step", when, {"step": number, "of": 8, "spots": 10, "total": loss}


def test_pace_and_time_left_follow_from_steps_and_leave_pauses_out() -> None:
    steps = [step(1, 0.0), step(2, 2.0), ("paused", 3.0, {}), ("resumed", 500.0, {}), step(3, 501.0), step(4, 503.0)]
    progress = told(("start", -9.0, {"device": "cpu"}), *steps)
    assert progress.state == "training"
    assert progress.tiles_per_s == pytest.approx(2 * 10 / 2.0)
    assert progress.seconds_left == pytest.approx(4 * 2.0)
    assert progress.share == 0.5
    assert progress.device == "cpu"


def test_what_is_done_again_after_a_resumption_replaces_what_was_told() -> None:
    first = [
        step(1, 0.0, 5.0),
        step(2, 1.0, 4.0),
        ("epoch", 2.0, {"epoch": 1, "of": 4, "total": 4.5}),
        step(3, 3.0, 9.0),
    ]
    again = [("stopped", 4.0, {}), ("start", 9.0, {}), step(3, 10.0, 3.0), step(4, 11.0, 2.0)]
    progress = told(*first, *again, ("epoch", 12.0, {"epoch": 2, "of": 4, "total": 2.5}))
    assert progress.curves["total"] == {1: 4.5, 2: 2.5}
    assert progress.losses == [(0.5, 5.0), (1.0, 4.0), (1.5, 3.0), (2.0, 2.0)]
    assert progress.live


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "new"),
        ([("start", 0.0, {})], "preparing"),
        ([("start", 0.0, {}), step(1, 1.0), ("paused", 2.0, {})], "paused"),
        ([("start", 0.0, {}), ("paused", 2.0, {}), ("resumed", 3.0, {})], "preparing"),
        ([("start", 0.0, {}), ("stopped", 1.0, {})], "stopped"),
        ([("start", 0.0, {}), ("error", 1.0, {"message": "no disk"})], "failed"),
        ([("start", 0.0, {}), ("done", 1.0, {"epoch": 3, "pcc": 0.5})], "done"),
    ],
)
def test_the_state_follows_from_the_last_events(events: list[tuple[str, float, dict[str, Any]]], state: str) -> None:
    assert told(*events).state == state


def test_losses_of_a_long_run_are_thinned() -> None:
    steps = [("step", float(i), {"step": i, "of": 10_000, "spots": 1, "total": 1.0}) for i in range(1, 10_001)]
    losses = told(*steps, epochs=10).losses
    assert 200 <= len(losses) <= 600
    assert losses[-1][0] == pytest.approx(10.0, abs=0.1)


def test_runs_are_listed_and_other_folders_passed_over(tmp_path: Path) -> None:
    for name in ("one", "two"):
        out = tmp_path / name
        Job.create(out, TrainTask(config=TrainConfig(slides=(tmp_path,), out=out)))
    Job.create(tmp_path / "other", PredictTask(slide=SlideRef(path=tmp_path), checkpoint="c"))
    (tmp_path / "empty").mkdir()
    Job(tmp_path / "one").log.append("start")
    later = time.time() + 5
    os.utime(tmp_path / "one" / "events.jsonl", (later, later))
    assert [job.folder.name for job in list_runs(tmp_path)] == ["one", "two"]
    assert not is_run(tmp_path / "other")


def test_a_new_run_has_a_folder_of_its_own_whatever_it_is_called() -> None:
    first = new_run_folder("My model / 2")
    assert first.parent == runs.runs_folder()
    assert first.name.startswith("My-model-2-")
    first.mkdir()
    assert new_run_folder("My model / 2") != first


def test_a_run_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no job"):
        RunFollower(Job(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_process_that_is_killed_is_told_with_its_last_lines(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "start_detached", lambda job: subprocess.Popen([sys.executable, "-c", SLEEPER]))
    run = RunFollower(job)
    assert run.poll() == []
    assert run.progress.state == "new"
    run.start()
    job.log.append("start", {"device": "cpu"})
    assert [event.kind for event in run.poll()] == ["start"]
    assert run.alive
    (job.folder / "log").write_text("Segmentation fault\n")
    assert run._process is not None
    os.kill(run._process.pid, signal.SIGKILL)
    run._process.wait(10)
    run.poll()
    assert run.progress.state == "crashed"
    assert run.progress.what == "Segmentation fault"
    run.start()
    assert run.progress.state == "starting"
    run.end(kill=True)
    run._process.wait(10)
    assert not run.alive


def test_somebody_elses_run_is_followed_by_its_heartbeat(job: Job) -> None:
    job.beat()
    run = RunFollower(job)
    run.poll()
    assert run.alive
    assert run.progress.state == "starting"
    job.log.append("start", {"device": "cpu"})
    run.poll()
    job.beat(running=False)
    run.poll()
    assert run.progress.state == "crashed"


def test_what_is_asked_is_read_and_taken_back(job: Job) -> None:
    run = RunFollower(job)
    run.ask("pause")
    assert job.asked("pause")
    run.ask("go on")
    assert not job.asked("pause")


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (200, "3 min"), (9000, "2.5 h")])
def test_times_are_said_as_one_says_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
