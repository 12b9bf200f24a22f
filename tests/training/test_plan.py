"""What a run would take, and what of it is shared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from napari_hyperst.errors import CheckpointError, ConfigError, SlideError, StoreError
from napari_hyperst.jobs import Job, worker
from napari_hyperst.jobs.tasks import PLAN
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.plan import TrainingPlan
from napari_hyperst.nouns.tasks import PlanTask, ShareTask
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import open_slide
from napari_hyperst.training import share, train
from napari_hyperst.training.plan import patient_of, plan_training
from napari_hyperst.training.share import SHARED, push_checkpoint, share_checkpoint
from napari_hyperst.training.suggest import Cost, Pace, suggest, suggest_lora

PACE = Pace(0.001, 0.01, 0.02, weights=80 * 2**20, learnt=2**20, state=400_000, kept=50_000_000, passing=10_000_000)
COST = Cost(spots=1000, held_out=200, pace=PACE, memory_free=16 * 2**30, disk_free=100 * 2**30, on_cpu=True)
FREE = ("batch_size", "micro_batch", "cache", "symmetries", "epochs", "patience")


def config(section: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(slides=(section,), out=Path("plan"), **changes)


def test_a_plan_says_what_a_run_takes(tiny_section: Path, tmp_path: Path, tiny_encoder: str) -> None:
    method = HyperSTConfig(encoder=tiny_encoder, dim=16)
    asked = config(tiny_section, method=method, holdout=0.25, gene_list=("FASN", "NOGENE", "ACTB"), device="cpu")
    job = Job.create(tmp_path / "job", PlanTask(config=asked, free=("batch_size", "epochs", "method.lora_blocks")))
    assert worker.run(job).kind == "done", job.ending()
    plan = TrainingPlan.model_validate_json((job.folder / PLAN).read_text())
    assert plan.genes == ("FASN", "ACTB")
    (slide,) = plan.slides
    assert slide.missing == ("NOGENE",)
    assert 0 < slide.held_out < slide.spots < 48
    assert plan.settings["method.lora_blocks"] == 1
    assert plan.settings["batch_size"] == 8
    assert set(plan.settings) == set(plan.reasons)
    assert plan.prepare_s > 0
    assert plan.total_s(10) == pytest.approx(plan.prepare_s + 10 * plan.epoch_s)
    assert 0.6 < plan.memory_gib < 2
    assert plan.devices["cpu"][0]
    assert all(bool(found) != bool(why) for found, why in plan.devices.values())
    assert "arithmetic" in plan.basis


def test_a_plan_of_a_checkpoint_takes_its_genes_and_its_encoder(
    tiny_section: Path, tiny_checkpoint_folder: Path, tiny_encoder: str
) -> None:
    asked = config(tiny_section, init_from=str(tiny_checkpoint_folder), genes=20, device="cpu")
    plan = plan_training(asked, genes_of=str(tiny_checkpoint_folder))
    assert plan.settings["method.encoder"] == tiny_encoder
    assert plan.settings["method.lora_blocks"] == 2
    assert set(plan.genes) <= {"FASN", "ERBB2", "KRT19", "COL1A1", "ACTB", "FN1", "B2M", "CD74"}


def test_what_would_keep_a_run_from_starting_is_told(tiny_section: Path) -> None:
    with pytest.raises(SlideError, match="has none of the 1 genes"):
        plan_training(config(tiny_section, gene_list=("NOGENE",)))
    with pytest.raises(ConfigError, match="the same section"):
        plan_training(config(tiny_section, validation=(tiny_section,)))


def test_the_patient_is_read_where_the_table_tells(tiny_section: Path) -> None:
    slide = open_slide(tiny_section)
    assert patient_of(slide) == ""
    assert slide.counts is not None
    slide.counts.obs["Patient"] = "P7"
    assert patient_of(slide) == "P7"
    slide.counts.obs["Patient"] = ["P7", *["P8"] * (slide.counts.n_obs - 1)]
    assert patient_of(slide) == ""


def test_settings_follow_from_spots_memory_and_disk() -> None:
    settings, reasons = suggest(config(Path("a")), COST, FREE)
    assert settings["batch_size"] == 128
    assert settings["micro_batch"] is None
    assert settings["cache"] == "disk"
    assert 8 <= settings["epochs"] <= 40
    assert set(reasons) == set(settings)
    tight, _ = suggest(config(Path("a")), replace(COST, memory_free=4 * 2**30), FREE)
    assert tight["micro_batch"] in (16, 32)
    full, _ = suggest(config(Path("a")), replace(COST, disk_free=2**20), FREE)
    assert full["cache"] == "off"
    few, _ = suggest(config(Path("a")), replace(COST, spots=40), FREE)
    assert few["batch_size"] == 8
    kept, _ = suggest(config(Path("a"), batch_size=64), COST, ("epochs",))
    assert set(kept) == {"epochs"}


def test_a_smaller_piece_takes_less_memory_and_more_time_and_a_cache_less_time() -> None:
    whole, pieces = config(Path("a"), micro_batch=None), config(Path("a"), micro_batch=16)
    assert COST.memory_bytes(pieces) < COST.memory_bytes(whole)
    assert COST.epoch_s(pieces) > COST.epoch_s(whole)
    assert COST.epoch_s(config(Path("a"), cache="off")) > COST.epoch_s(whole)
    assert COST.prepare_s(config(Path("a"), cache="off")) == 0


def test_more_spots_teach_more_blocks() -> None:
    assert [suggest_lora(spots, on_cpu=False)[0] for spots in (100, 1000, 10_000)] == [1, 2, 4]
    assert suggest_lora(10_000, on_cpu=True)[0] == 2


@pytest.fixture(scope="module")
def run(tiny_section: Path, tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=16)
    train(
        TrainConfig(
            slides=(tiny_section,), out=out, name="/home/me/secret/mine", method=method, genes=10, epochs=1,
            batch_size=48, symmetries=1, holdout=0.25, precision="float32", cache="memory",
        )
    )  # fmt: skip
    return out


def test_a_shared_checkpoint_holds_what_was_trained_and_no_path(run: Path, tmp_path: Path) -> None:
    job = Job.create(tmp_path / "job", ShareTask(run=run, out=tmp_path / "shared"))
    ending = worker.run(job)
    assert ending.content == {"folder": str(tmp_path / "shared")}
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == sorted(SHARED)
    names = load_file(tmp_path / "shared" / "model.safetensors")
    assert all("lora_" in name for name in names if name.startswith("encoder."))
    for text in ("card.json", "README.md"):
        assert "/home/me" not in (tmp_path / "shared" / text).read_text()
    with pytest.raises(StoreError, match="is there already"):
        share_checkpoint(run, tmp_path / "shared")


def test_a_run_that_was_stopped_is_shared_with_curves_and_card(run: Path, tmp_path: Path) -> None:
    stopped = Path(shutil.copytree(run, tmp_path / "stopped"))
    (stopped / "best" / "report.png").unlink()
    (stopped / "best" / "README.md").unlink()
    shared = share_checkpoint(stopped, tmp_path / "shared")
    assert (shared / "report.png").stat().st_size > 10_000
    assert "report.png" in (shared / "README.md").read_text()


def test_weights_of_the_base_encoder_are_never_shared(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path(shutil.copytree(run, tmp_path / "whole"))
    weights = load_file(whole / "best" / "model.safetensors")
    save_file(weights | {"encoder.vit.norm.weight": np.ones(3)}, whole / "best" / "model.safetensors")
    monkeypatch.setattr(share, "load_checkpoint", lambda folder: None)  # which would have refused it first
    with pytest.raises(CheckpointError, match="licence may forbid"):
        share_checkpoint(whole, tmp_path / "shared")
    assert not (tmp_path / "shared").exists()


def test_a_run_without_an_epoch_has_nothing_to_share(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint yet"):
        share_checkpoint(tmp_path, tmp_path / "shared")


class FakeHub:
    """Stands for the Hugging Face hub's API."""

    sent: dict[str, Any] = {}
    refuses = False

    def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> str:
        if self.refuses:
            raise huggingface_hub.errors.HFValidationError("no name")
        assert exist_ok
        self.sent.update(repository=repository, private=private)
        return f"https://hub/{repository}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> None:
        self.sent.update(files={path.name: path.read_bytes() for path in folder_path.iterdir()}, allowed=allow_patterns)
        self.sent.update(to=repo_id, message=commit_message)


def test_a_checkpoint_is_pushed_with_those_files_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    job = Job.create(tmp_path / "job", ShareTask(run=run, repository="me/mine"))
    assert worker.run(job).content == {"page": "https://hub/me/mine"}
    assert FakeHub.sent["private"]
    assert FakeHub.sent["to"] == FakeHub.sent["repository"] == "me/mine"
    assert set(FakeHub.sent["files"]) == set(FakeHub.sent["allowed"]) == set(SHARED)
    card = json.loads(FakeHub.sent["files"]["card.json"])
    assert card["name"] == "mine"
    monkeypatch.setattr(FakeHub, "refuses", True)
    with pytest.raises(CheckpointError, match="names no repository"):
        push_checkpoint(run, "me/mi ne")


def test_without_a_login_nothing_is_sent(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(CheckpointError, match="hf auth login"):
        push_checkpoint(run, "me/mine")
