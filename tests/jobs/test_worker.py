from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from anndata import AnnData, read_h5ad
from filelock import FileLock
from pandas import read_parquet
from spatialdata import read_zarr

from napari_hyperst.errors import HyperSTWarning, SlideError, StoreError
from napari_hyperst.jobs import Job, worker
from napari_hyperst.jobs.detached import start_detached
from napari_hyperst.jobs.job import STATUS
from napari_hyperst.jobs.worker import run
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.nouns.events import Event
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.tasks import ConvertTask, ExportTask, PredictTask, SlideRef, TrainTask
from napari_hyperst.nouns.training import TrainConfig

Report = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job.create(tmp_path / "job", PredictTask(slide=SlideRef(path=tmp_path / "slide"), checkpoint="c"))


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.follow().new()]


def test_a_job_tells_what_happens(job: Job) -> None:
    def perform(_task: object, folder: Path, report: Report) -> None:
        report("progress", {"what": "spots", "done": 1, "total": 1})
        warnings.warn("look out", HyperSTWarning, stacklevel=1)
        (folder / "result").write_text("x")
        report("done", {"result": "result"})

    seen: list[str] = []
    ending = run(job, lambda kind, content: seen.append(kind), perform)
    assert ending.kind == "done"
    assert kinds(job) == ["start", "progress", "warning", "done"]
    assert seen == kinds(job)
    status = job.status()
    assert status is not None
    assert not status.running


def test_a_training_run_that_does_not_hear_that_it_is_to_stop_ends_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, seen = threading.Event(), []
    monkeypatch.setattr(worker, "BEAT_S", 0.02)
    monkeypatch.setattr(worker, "DEAF_S", 0.1)
    monkeypatch.setattr(os, "_exit", lambda status: (seen.append(status), ended.set()))
    job = Job.create(tmp_path / "run", TrainTask(config=TrainConfig(slides=(tmp_path,), out=tmp_path / "run")))

    def perform(*_: object) -> None:
        assert not ended.wait(0.3)  # nobody has asked
        job.ask("stop")
        assert ended.wait(20)
        raise worker.Stopped

    assert run(job, perform=perform).kind == "stopped"
    assert set(seen) == {1}


def test_an_error_of_the_user_is_told_in_its_words(job: Job) -> None:
    def perform(*_: object) -> None:
        raise SlideError("is broken", where="slide.tif", do="mend it")

    ending = run(job, perform=perform)
    assert ending.content == {"message": "slide.tif: is broken; mend it", "expected": True}


@pytest.mark.parametrize(
    ("error", "told"), [(ValueError("seven"), "ValueError: seven"), (MemoryError(), "out of memory; close other")]
)
def test_an_error_of_ours_is_told_and_printed(
    job: Job, capfd: pytest.CaptureFixture[str], error: Exception, told: str
) -> None:
    def perform(*_: object) -> None:
        raise error

    ending = run(job, perform=perform)
    assert ending.kind == "error"
    assert ending.content["message"].startswith(told)
    assert not ending.content["expected"]
    assert "Traceback" in capfd.readouterr().err


def test_a_job_stops_at_the_next_report(job: Job) -> None:
    done = []

    def perform(_task: object, _folder: Path, report: Report) -> None:
        for i in range(100):
            report("progress", {"what": "spots", "done": i, "total": 100})
            done.append(i)
            if i == 2:
                job.ask("stop")

    assert run(job, perform=perform).kind == "stopped"
    assert done == [0, 1, 2]


def test_a_job_that_has_ended_keeps_its_record(job: Job) -> None:
    def perform(_task: object, _folder: Path, report: Report) -> None:
        job.ask("stop")
        report("done", {"result": "x"})  # what is done is done, also when a stop comes late

    assert run(job, perform=perform).kind == "done"
    with pytest.raises(StoreError, match="has ended"):
        run(job, perform=perform)
    assert kinds(job) == ["start", "done"]


def test_a_job_at_work_elsewhere_is_left_alone(job: Job) -> None:
    said = {"pid": os.getppid(), "host": "another", "beat": time.time(), "running": True}
    (job.folder / STATUS).write_text(json.dumps(said))
    with pytest.raises(StoreError, match="at work on another"):
        run(job, perform=lambda *_: None)
    (job.folder / STATUS).unlink()
    with FileLock(job.folder / ".lock"), pytest.raises(StoreError, match="another process"):
        run(job, perform=lambda *_: None)
    assert kinds(job) == []


def test_nothing_but_a_store_is_worked_on_once_whoever_asked_has_gone(
    job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worked: list[Path] = []
    monkeypatch.setattr(worker, "run", lambda job: worked.append(job.folder))
    exporting = ExportTask(slide=SlideRef(path=tmp_path), result=tmp_path / "r", out=tmp_path / "o")
    export = Job.create(tmp_path / "export", exporting)
    heard = threading.Event()

    def lines() -> Iterator[str]:
        yield f"{job.folder}\n"
        yield f"{tmp_path / 'no job'}\n"
        yield f"{export.folder}\n"
        heard.set()

    monkeypatch.setattr(worker, "_devices", lambda: (heard.wait(5), time.sleep(0.2), {})[-1])  # it still warms up
    worker.serve(lines())
    assert worked == [export.folder]


def test_a_conversion_is_a_job_that_stops_and_goes_on(tiny_section: Path, tmp_path: Path) -> None:
    task = ConvertTask(slide=SlideRef(path=tiny_section), out=tmp_path / "out.zarr")
    first = Job.create(tmp_path / "first", task)
    assert Job(first.folder).task == task
    assert task.command == f"napari-hyperst convert {tiny_section} --out {tmp_path / 'out.zarr'}"

    def stop_early(kind: str, content: dict[str, Any]) -> None:
        if kind == "progress" and content["what"] == "blocks of pixels" and content["done"] >= 2:
            first.ask("stop")

    assert run(first, stop_early).kind == "stopped"
    assert not task.out.exists()
    seen: list[tuple[int, int]] = []

    def watch(kind: str, content: dict[str, Any]) -> None:
        if kind == "progress" and content["what"] == "blocks of pixels":
            seen.append((content["done"], content["total"]))

    ending = run(Job.create(tmp_path / "second", task), watch)
    assert ending.kind == "done"
    assert ending.content == {"store": str(task.out), "spots": 48}
    assert seen[0][0] >= 2
    assert seen[-1] == (14, 14)
    assert set(read_zarr(task.out).tables) == {"table"}
    third = run(Job.create(tmp_path / "third", task))
    assert third.content["message"].endswith("is there already; name a new one")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start the child that waits for jobs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_hyperst.jobs", "--wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.stdin.close()  # type: ignore[union-attr]
    assert process.wait(20) == 0  # it ends with whoever started it


def give(process: Any, job: Job) -> Event:
    """Give the child a job, and wait for its end."""
    process.stdin.write(f"{job.folder}\n")
    process.stdin.flush()
    for _ in range(1200):
        ending = job.ending()
        if ending is not None:
            return ending
        time.sleep(0.1)
    raise AssertionError("the job did not end")


def test_the_warm_child_predicts_and_exports(warm: Any, tiny_section: Path, tmp_path: Path) -> None:
    said = json.loads(warm.stdout.readline())
    assert said["ready"]
    assert said["devices"]["cpu"] == ""
    own, its = psutil.Process().nice(), psutil.Process(warm.pid).nice()  # the window that asks goes first
    assert its == (min(19, own + 10) if sys.platform != "win32" else psutil.BELOW_NORMAL_PRIORITY_CLASS)
    slide = SlideRef(path=tiny_section)
    predicting = Job.create(tmp_path / "predict", PredictTask(slide=slide, checkpoint="her2st-dinov2s"))
    ending = give(warm, predicting)
    assert ending.kind == "done", ending
    told = predicting.follow().new()
    spots = [event.content["done"] for event in told if event.content.get("what") == "spots"]
    assert spots == sorted(spots)
    assert spots[-1] == ending.content["spots"] == 47
    result = predicting.folder / ending.content["result"]
    table = read_h5ad(result)
    assert table.shape == (47, 200)
    exporting = Job.create(tmp_path / "export", ExportTask(slide=slide, result=result, out=tmp_path / "out.zarr"))
    assert give(warm, exporting).kind == "done"
    written = read_zarr(tmp_path / "out.zarr").tables["table_hyperst"]
    assert (written.X == table.X).all()
    assert written.uns["hyperst"]["command"] == predicting.task.command  # type: ignore[union-attr]
    refused = give(warm, Job.create(tmp_path / "again", exporting.task))
    assert "is there already" in refused.content["message"]
    one = ExportTask(slide=slide, result=result, out=tmp_path / "one.parquet", gene=table.var_names[7], measured=True)
    assert give(warm, Job.create(tmp_path / "one", one)).content["store"] == str(one.out)
    columns = read_parquet(one.out).columns
    assert list(columns[-2:]) == [one.gene, f"{one.gene}_measured"]
    own = ExportTask(slide=SlideRef(path=tmp_path / "out.zarr"), table="table_hyperst", out=tmp_path / "own.h5ad")
    assert give(warm, Job.create(tmp_path / "own", own)).kind == "done"
    assert (read_h5ad(own.out).X == table.X).all()


def test_the_child_ends_with_whoever_started_it_also_while_it_works(tiny_section: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_hyperst.jobs", "--wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    slide = SlideRef(path=tiny_section)
    job = Job.create(tmp_path / "job", PredictTask(slide=slide, checkpoint="her2st-dinov2s", batch_size=1))
    process.stdin.write(f"{job.folder}\n")
    process.stdin.flush()
    reader, seen = job.follow(), []
    while not any(event.content.get("what") == "spots" for event in seen):
        time.sleep(0.05)
        seen += reader.new()
    process.stdin.close()
    assert process.wait(10) == 0
    assert job.ending() is None


def test_a_training_job_stops_at_once_and_is_resumed(tiny_section: Path, tiny_encoder: str, tmp_path: Path) -> None:
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=16)
    out = tmp_path / "run"
    config = TrainConfig(slides=(tiny_section,), out=out, method=method, genes=8, epochs=4, batch_size=24, symmetries=1)
    job = Job.create(out, TrainTask(config=config))
    steps: list[str] = []

    with job.log.path.open("w") as file:  # a warning of a slide comes before the run begins
        file.write('{"kind": "warning", "time": 0, "message": "the scales differ"}\n')

    def watch(kind: str, _content: dict[str, Any]) -> None:
        steps.append(kind)
        if kind == "step" and steps.count("step") == 3:
            job.ask("stop")

    assert run(job, watch).kind == "stopped"
    assert steps.count("step") == 3
    assert (out / "last" / "state.json").is_file()
    assert run(job, watch).kind == "done"  # what had been asked before is forgotten
    assert steps.count("step") == 8
    assert kinds(job).count("start") == 2
    with pytest.raises(StoreError, match="is done"):
        run(job)


def test_a_folder_that_is_no_job_ends_with_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "napari_hyperst.jobs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_training_job_runs_in_a_session_of_its_own(tiny_section: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = TrainConfig(slides=(tiny_section,), out=out, genes=10, epochs=2, batch_size=24, symmetries=1)
    job = Job.create(out, TrainTask(config=config))
    process = start_detached(job)
    if os.name == "posix":
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert process.wait(180) == 0, job.last_lines()
    assert kinds(job)[-1] == "done"
    assert kinds(job).count("epoch") == 2
    assert len(load_checkpoint(out / "best").panel) == 10


def test_an_export_tells_how_far_it_is_stops_and_goes_on(
    tiny_section: Path, tiny_table: AnnData, tmp_path: Path
) -> None:
    tiny_table.write_h5ad(tmp_path / "prediction.h5ad")
    task = ExportTask(slide=SlideRef(path=tiny_section), result=tmp_path / "prediction.h5ad", out=tmp_path / "out.zarr")
    first = Job.create(tmp_path / "first", task)

    def stop_early(kind: str, content: dict[str, Any]) -> None:
        if kind == "progress" and content["what"] == "blocks of pixels" and content["done"] >= 2:
            first.ask("stop")

    assert run(first, stop_early).kind == "stopped"
    assert not task.out.exists()
    seen: list[tuple[int, int]] = []

    def watch(kind: str, content: dict[str, Any]) -> None:
        if kind == "progress" and content["what"] == "blocks of pixels":
            seen.append((content["done"], content["total"]))

    assert run(Job.create(tmp_path / "second", task), watch).kind == "done"
    assert seen[0][0] >= 2
    assert seen[-1] == (14, 14)
    written = read_zarr(task.out).tables
    assert set(written) == {"table", "table_hyperst"}
    assert (written["table_hyperst"].X == tiny_table.X).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out.zarr", "prediction.h5ad", "second"]


def test_a_job_tells_that_it_decodes_and_stops_meanwhile(
    tiny_section: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_HYPERST_CACHE", str(tmp_path / "cache"))
    job = Job.create(tmp_path / "job", ConvertTask(slide=SlideRef(path=tiny_section), out=tmp_path / "out.zarr"))
    told: list[tuple[int, int]] = []

    def stop(kind: str, content: dict[str, Any]) -> None:
        if kind == "progress" and content["what"] == "decoding the image":
            told.append((content["done"], content["total"]))
            if content["done"] >= 3:
                job.ask("stop")

    assert run(job, stop).kind == "stopped"
    assert told[0] == (0, 0)
    assert told[-1][0] < told[-1][1] == 14
    assert not (tmp_path / "out.zarr").exists()
    assert not list((tmp_path / "cache").glob("*.zarr"))
