"""A run that is stopped, killed or starved of memory ends as it would have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from napari_hyperst.errors import ConfigError, HyperSTError, StoreError
from napari_hyperst.jobs.foreground import train_here
from napari_hyperst.jobs.job import Job
from napari_hyperst.models.encoders import encoder_spec
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training import resume, train
from napari_hyperst.training.trainer import train_once

TRAINER = Path(__file__).with_name("trainer_process.py")


class Stop(BaseException):
    """Asked by a test."""


@pytest.fixture(scope="module")
def settings(tiny_section: Path, tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """Return settings of a run of some 30 steps, with dropout, symmetries and LoRA."""
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=2, dim=16)
    return TrainConfig(
        slides=(tiny_section,), out=tmp_path_factory.mktemp("runs") / "run", method=method, genes=20, epochs=10,
        batch_size=16, symmetries=2, save_steps=2, precision="float32", device="cpu",
    )  # fmt: skip


@pytest.fixture
def config(settings: TrainConfig, tmp_path: Path) -> TrainConfig:
    """Return those settings, for a run in a folder of the test's own."""
    return settings.model_copy(update={"out": tmp_path / "run"})


@pytest.fixture(scope="module")
def in_sixes(settings: TrainConfig) -> TrainConfig:
    """Return the settings of a run that went through in pieces of six spots."""
    whole = elsewhere(settings, "in sixes", micro_batch=6)
    train(whole)
    return whole


def elsewhere(config: TrainConfig, name: str, **changes: Any) -> TrainConfig:
    return config.model_copy(update={"out": config.out.parent / name, **changes})


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(config.out / "best" / "model.safetensors")


def events(config: TrainConfig, kind: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (config.out / "events.jsonl").read_text().splitlines()]
    return [event for event in told if event["kind"] == kind]


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def run_process(config: TrainConfig, *words: str, launcher: tuple[str, ...] = (), **environment: str) -> None:
    file = config.out.parent / f"{config.out.name}.json"
    file.write_text(config.model_dump_json())
    command = [sys.executable, *launcher, str(TRAINER), str(encoder_spec("tiny").weights), str(file), *words]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_killed_at_ten_random_points_it_ends_as_if_it_had_not_been(config: TrainConfig) -> None:
    longer = elsewhere(config, "killed", epochs=40)
    run_process(longer, "10", "0")
    assert len(events(longer, "start")) == 11
    assert len(events(longer, "done")) == 1
    whole = elsewhere(longer, "whole")
    run_process(whole)
    assert len(events(longer, "step")) > len(events(whole, "step")) == 120
    assert_same(weights(longer), weights(whole))


@pytest.mark.parametrize("when", ["within a batch", "after a step", "at the end of an epoch"])
def test_stopped_and_resumed_it_ends_as_if_it_had_not_been(
    config: TrainConfig, in_sixes: TrainConfig, when: str
) -> None:
    polls = 0

    def check() -> None:
        nonlocal polls
        polls += 1
        if when == "within a batch" and polls == 9:
            raise Stop

    def progress(kind: str, told: dict[str, Any]) -> None:
        if (kind, told.get("step")) == ("step", 7) and when == "after a step":
            raise Stop
        if (kind, told.get("epoch")) == ("epoch", 2) and when == "at the end of an epoch":
            raise Stop

    stopped = elsewhere(config, "stopped", micro_batch=6)
    with pytest.raises(Stop):
        train(stopped, progress, check)
    taken = len(events(stopped, "step"))
    assert 0 < taken < 10
    resume(stopped.out)
    assert [e["step"] for e in events(stopped, "step")] == list(range(1, 31))
    assert_same(weights(stopped), weights(in_sixes))
    losses, wanted = ([{**e, "waiting": 0, "time": 0} for e in events(c, "epoch")] for c in (stopped, in_sixes))
    assert losses == wanted


def test_validation_is_taken_up_where_it_was(config: TrainConfig, tiny_section: Path, mirrored_section: Path) -> None:
    """The best epoch so far is remembered, and so is how long it has been."""
    stopped = elsewhere(config, "stopped", validation=(mirrored_section,), patience=3, learning_rate=0.05)
    seen = []

    def progress(kind: str, told: dict[str, Any]) -> None:
        seen.append(kind)
        if seen.count("epoch") == 2:
            raise Stop

    with pytest.raises(Stop):
        train(stopped, progress)
    resume(stopped.out)
    whole = elsewhere(stopped, "whole")
    train(whole)
    assert [e["epoch"] for e in events(stopped, "epoch")] == [e["epoch"] for e in events(whole, "epoch")]
    assert events(stopped, "done")[0]["epoch"] == events(whole, "done")[0]["epoch"]
    assert_same(weights(stopped), weights(whole))


def test_only_what_can_be_resumed_is(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no training run"):
        resume(tmp_path)
    short = elsewhere(config, "short", epochs=1)
    train(short)
    with pytest.raises(StoreError, match="is done"):
        resume(short.out)
    with pytest.raises(StoreError, match="is there already"):
        train(short)
    with pytest.raises(StoreError, match="other settings"):
        train(elsewhere(config, "short", epochs=2))


def stop_after(step: int) -> Callable[[str, dict[str, Any]], None]:
    def progress(kind: str, told: dict[str, Any]) -> None:
        if told.get("step") == step:
            raise Stop

    return progress


def test_what_changed_meanwhile_is_refused(config: TrainConfig, section: Path, tmp_path: Path) -> None:
    begun = elsewhere(config, "begun", slides=(section,))
    with pytest.raises(Stop):
        train(begun, stop_after(3))
    state = begun.out / "last" / "state.safetensors"
    whole = state.read_bytes()
    state.write_bytes(whole[:-100])
    with pytest.raises(StoreError, match="no state of this run"):
        resume(begun.out)
    state.write_bytes(whole)
    spots = (section / "corner_selection.tsv").read_text().splitlines(keepends=True)
    (section / "corner_selection.tsv").write_text("".join(spots[:-1]))
    with pytest.raises(StoreError, match="other slides"):
        resume(begun.out)


def test_two_trainers_cannot_write_one_folder(config: TrainConfig) -> None:
    with pytest.raises(Stop):
        train(config, stop_after(3))
    told, status = (config.out / "events.jsonl").read_text(), config.out / "status.json"
    with FileLock(config.out / ".lock"):
        with pytest.raises(StoreError, match="at work in another process"):
            resume(config.out)
        with pytest.raises(StoreError, match="at work in another process"):
            train_here(None, config.out)
    assert (config.out / "events.jsonl").read_text() == told
    assert not status.exists()


def test_a_stop_that_a_killed_process_did_not_obey_is_forgotten(config: TrainConfig) -> None:
    with pytest.raises(Stop):
        train(config, stop_after(3))
    Job(config.out).ask("stop")
    assert train_here(None, config.out).kind == "done"


def test_what_depends_on_the_machine_may_change_and_is_told(config: TrainConfig) -> None:
    with pytest.raises(Stop):
        train(config, stop_after(3))
    numbers = config.out / "last" / "state.json"
    state = json.loads(numbers.read_text())
    numbers.write_text(json.dumps(state | {"inputs": state["inputs"] | {"device": "cuda"}}))
    resume(config.out)
    assert "device cpu, begun with cuda" in events(config, "warning")[0]["message"]
    begun = elsewhere(config, "begun")
    with pytest.raises(Stop):
        train(begun, stop_after(3))
    numbers = begun.out / "last" / "state.json"
    numbers.write_text(json.dumps(state | {"inputs": state["inputs"] | {"encoder weights": "others"}}))
    with pytest.raises(StoreError, match="other encoder weights"):
        resume(begun.out)


def test_learning_rates_are_told_right_after_a_resume_at_the_end_of_an_epoch(config: TrainConfig) -> None:
    killed, whole = (elsewhere(config, name, save_steps=3, epochs=3) for name in ("killed", "whole"))
    with pytest.raises(Stop):
        train(killed, stop_after(6))
    state = json.loads((killed.out / "last" / "state.json").read_text())
    assert (state["epoch"], state["offset"]) == (2, 3)
    resume(killed.out)
    train(whole)
    rates = [[(e["learning_rate"], e["lora_learning_rate"]) for e in events(c, "epoch")] for c in (killed, whole)]
    assert rates[0] == rates[1]
    assert rates[0][1][0] < config.learning_rate


def test_a_run_is_trained_once(config: TrainConfig) -> None:
    short = elsewhere(config, "short", epochs=1)
    with pytest.raises(Stop):
        train(short, stop_after(2))
    assert train_once(short) == short.out / "best"
    told = (short.out / "events.jsonl").read_text()
    assert train_once(short) == short.out / "best"
    assert (short.out / "events.jsonl").read_text() == told
    with pytest.raises(StoreError, match="other settings"):
        train_once(elsewhere(short, "short", genes=10))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_several_processes_stop_together_and_go_on(config: TrainConfig) -> None:
    asked = elsewhere(config, "asked", processes=2, epochs=200, save_steps=1000)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = [f"--set={s}" for s in ("genes=20", "epochs=200", "batch_size=16", "symmetries=2", "save_steps=1000")]
    method = [
        f"--set=method.{s}" for s in (f"encoder=test_vit@{encoder_spec('tiny').weights}", "lora_blocks=2", "dim=16")
    ]
    words = ["-m", "napari_hyperst.cli", "train", "--slides", str(config.slides[0]), "--out", str(asked.out)]
    together = subprocess.Popen(
        [*launcher, *words, *settings, *method, "--set=processes=2", "--set=device=cpu"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while together.poll() is None and not (asked.out.exists() and events_if_any(asked, "step")):
            time.sleep(0.05)
        os.killpg(together.pid, signal.SIGINT)
        said = together.communicate(timeout=100)[1]
    finally:
        together.kill()
    assert len(events(asked, "stopped")) == 1, said[-3000:]
    assert events(asked, "error") == []
    state = json.loads((asked.out / "last" / "state.json").read_text())
    assert state["step"] == len(events(asked, "step")) < 600


def events_if_any(config: TrainConfig, kind: str) -> list[dict[str, Any]]:
    return events(config, kind) if (config.out / "events.jsonl").exists() else []


def test_out_of_memory_halves_the_piece_and_changes_no_loss(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = config.method.model_copy(update={"dropout": 0.0, "lora_dropout": 0.0})
    whole, starved = (elsewhere(config, name, epochs=2, method=method) for name in ("whole", "starved"))
    train(whole)
    forward = HyperST.forward

    def narrow(self: HyperST, batch: Any) -> Any:
        if self.training and len(batch.spot) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, batch)

    monkeypatch.setattr(HyperST, "forward", narrow)
    train(starved)
    told = [event["message"] for event in events(starved, "warning")]
    assert [message.split("from here on ")[1].split()[0] for message in told] == ["8", "4"]
    for one, other in zip(events(starved, "step"), events(whole, "step"), strict=True):
        assert one["total"] == pytest.approx(other["total"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    monkeypatch.setattr(HyperST, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("CUDA out of memory. No.")))
    with pytest.raises(HyperSTError, match="one spot at a time"):
        train(elsewhere(config, "hopeless"))


def test_clipping_bounds_the_gradient_that_is_applied(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *words: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])).item())
        return step(self, *words)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    clipped = elsewhere(config, "clipped", epochs=1, clip=0.01)
    train(clipped)
    told = [event["grad_norm"] for event in events(clipped, "step")]
    assert min(told) > 0.1
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)


@pytest.mark.slow
def test_two_processes_have_the_loss_of_one(config: TrainConfig) -> None:
    """With dropout: its random numbers go by the piece of the batch, and one process takes the same pieces."""
    two = elsewhere(config, "two", processes=2, epochs=3)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run_process(two, launcher=launcher)
    one = elsewhere(config, "one", micro_batch=8, epochs=3)
    run_process(one)
    assert events(two, "start")[0]["processes"] == 2
    assert len(events(two, "step")) == len(events(one, "step")) == 9
    for ours, theirs in zip(events(two, "step"), events(one, "step"), strict=True):
        assert ours["total"] == pytest.approx(theirs["total"], rel=1e-4)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3)
    ours, theirs = weights(two), weights(one)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_launcher_that_starts_fewer_is_found_out(config: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="1 processes train together, not 2"):
        train(elsewhere(config, "two", processes=2))
    assert not (config.out.parent / "two").exists()
