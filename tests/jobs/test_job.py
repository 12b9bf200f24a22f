from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from napari_hyperst.errors import StoreError
from napari_hyperst.jobs import Job, jobs_folder
from napari_hyperst.jobs.job import DEAD_S, LOG, STATUS
from napari_hyperst.nouns.tasks import PredictTask, SlideRef

TASK = PredictTask(slide=SlideRef(path=Path("slide"), mpp=0.5), checkpoint="her2st-dinov2s")


def test_a_job_is_made_whole_and_read_again(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", TASK)
    assert Job(job.folder).task == TASK
    assert [file.name for file in job.folder.iterdir()] == ["config.json"]
    assert TASK.command == (
        "napari-hyperst predict slide --mpp 0.5 --checkpoint her2st-dinov2s --device auto --batch-size 32 "
        "--precision auto"
    )
    with pytest.raises(StoreError, match="is there already"):
        Job.create(job.folder, TASK)


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "dance"}', '{"kind": "predict", "slide": {"path": "a"}}', "\xff"])
def test_what_is_no_job_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(StoreError, match="no job's folder"):
        Job(tmp_path).task  # noqa: B018


def test_requests_are_asked_and_heard(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", TASK)
    assert not job.asked("stop")
    job.ask("stop")
    assert job.asked("stop")
    assert not job.asked("pause")


def test_a_process_that_fell_silent_is_not_running(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", TASK)
    assert job.status() is None
    job.beat()
    status = job.status()
    assert status is not None
    assert status.running
    assert status.pid == os.getpid()
    (job.folder / STATUS).write_text(json.dumps({"pid": 1, "beat": time.time() - 2 * DEAD_S, "running": True}))
    status = job.status()
    assert status is not None
    assert not status.running


def test_the_last_lines_of_the_log(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", TASK)
    assert job.last_lines() == ""
    (job.folder / LOG).write_text("\n".join(f"line {i}\n" for i in range(100)))
    assert job.last_lines(2) == "line 98\nline 99"


def test_folders_left_behind_are_deleted_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_HYPERST_JOBS", str(tmp_path))
    old, new = jobs_folder().parent, jobs_folder().parent
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    jobs_folder()
    assert not old.exists()
    assert new.exists()
