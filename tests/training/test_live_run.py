"""What a window needs of a run: pauses, the validation map, a held-out block, and a list of genes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_hyperst.errors import ConfigError, SlideError, StoreError
from napari_hyperst.jobs import Job, worker
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.slide_ref import SlideRef
from napari_hyperst.nouns.snapshot import MOST_NUMBERS, SNAPSHOT, ValidationSnapshot
from napari_hyperst.nouns.tasks import TrainTask
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.expression import select_hmhvg
from napari_hyperst.slides.tiles import niche_um
from napari_hyperst.training import train
from napari_hyperst.training.blocks import hold_out_block
from napari_hyperst.training.dataset import trainable_spots
from napari_hyperst.training.preparation import choose_panel, divide_spots
from napari_hyperst.training.settings import read_config


def config(section: Path, out: Path, encoder: str, **changes: Any) -> TrainConfig:
    method = HyperSTConfig(encoder=encoder, lora_blocks=2, dim=16)
    fields = {"method": method, "genes": 20, "epochs": 2, "batch_size": 8, "symmetries": 1, "precision": "float32"}
    return TrainConfig(slides=(section,), out=out, **(fields | changes))


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_block_is_at_one_end_and_no_tile_of_it_touches_another(tiny_section: Path) -> None:
    slide = open_slide(tiny_section)
    config_tiles = TrainConfig(slides=(tiny_section,), out=tiny_section).tiles
    spots = trainable_spots(slide, config_tiles)
    niche = niche_um(slide, config_tiles)
    rest, block = hold_out_block(slide, spots, 0.25, niche)
    assert set(rest).isdisjoint(block)
    assert len(block) == pytest.approx(0.25 * len(spots), abs=1)
    centres = slide.spots.centres_px * slide.mpp
    apart = np.abs(centres[rest][:, None] - centres[block][None]).max(axis=2)
    assert apart.min() >= niche - 1e-6
    assert len(rest) + len(block) < len(spots)  # what lies between is left out


def test_a_section_too_small_for_a_block_is_refused(tiny_section: Path) -> None:
    slide = open_slide(tiny_section)
    with pytest.raises(SlideError, match="too small for a held-out block"):
        hold_out_block(slide, np.arange(12), 0.5, 1500.0)


def test_a_run_with_a_block_and_a_list_says_so_on_its_card_and_shows_its_map(
    tiny_section: Path, tmp_path: Path, tiny_encoder: str
) -> None:
    genes = ("FASN", "COL1A1", "ACTB")
    out = tmp_path / "run"
    ref = SlideRef(path=tiny_section, mpp=0.69)
    best = train(config(tiny_section, out, tiny_encoder, holdout=0.25, gene_list=genes, opened=(ref,)))
    slide = open_slide(tiny_section, mpp=0.69)
    loaded = load_checkpoint(best)
    assert [one.mpp for one in loaded.card.training_slides] == [0.69]
    assert loaded.panel.genes == genes
    assert loaded.card.validation_slides == ()
    rest, block = hold_out_block(
        slide, trainable_spots(slide, loaded.card.tiles), 0.25, niche_um(slide, loaded.card.tiles)
    )
    assert [one.spots for one in loaded.card.training_slides] == [len(rest)]
    assert "optimistic" in (best / "README.md").read_text()
    told = events(out)
    assert [one["epoch"] for one in told if one["kind"] == "validation"] == [1, 2]
    assert all(one["spots"] == min(8, len(rest)) or one["spots"] > 0 for one in told if one["kind"] == "step")
    snapshot = ValidationSnapshot.read(out)
    assert snapshot.epoch == 2
    assert snapshot.slides == (str(tiny_section),)
    assert snapshot.ids.tolist() == slide.spots.ids[block].tolist()
    assert snapshot.values("FASN", "predicted").dtype == np.float32
    epoch = [one for one in told if one["kind"] == "epoch"][-1]
    error = np.mean((snapshot.predicted.astype(float) - snapshot.measured.astype(float)) ** 2)
    assert error == pytest.approx(epoch["validation/mse"], rel=1e-2)


def test_a_run_waits_while_it_is_asked_to_and_ends_as_if_it_had_not(
    tiny_section: Path, tmp_path: Path, tiny_encoder: str
) -> None:
    polls, waited = 0, []

    def check() -> bool:
        nonlocal polls
        polls += 1
        if 30 <= polls < 33:
            waited.append((tmp_path / "paused" / "last" / "state.json").is_file())
            return True
        return False

    train(config(tiny_section, tmp_path / "paused", tiny_encoder, micro_batch=4), check=check)
    kinds = [one["kind"] for one in events(tmp_path / "paused")]
    assert kinds.count("paused") == kinds.count("resumed") == 1
    assert waited == [False, True, True]  # its state is saved before it waits
    train(config(tiny_section, tmp_path / "whole", tiny_encoder, micro_batch=4))
    one, other = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("paused", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_job_hears_a_pause_and_then_a_stop(
    tiny_section: Path, tmp_path: Path, tiny_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    job = Job.create(out, TrainTask(config=config(tiny_section, out, tiny_encoder)))
    looks = 0

    def asked(self: Job, request: str) -> bool:
        nonlocal looks
        if request == "pause" and any(one["kind"] == "step" for one in events(out)):
            looks += 1
            return looks < 4
        return request == "stop" and looks >= 3

    monkeypatch.setattr(Job, "asked", asked)
    assert worker.run(job).kind == "stopped"
    kinds = [one["kind"] for one in events(out)]
    assert "paused" in kinds
    assert kinds[-1] == "stopped"
    assert (out / "last" / "state.json").is_file()


def test_listed_genes_that_a_training_slide_lacks_are_refused(c2: Slide, tmp_path: Path) -> None:
    settings = TrainConfig(slides=(c2.path,), out=tmp_path, gene_list=("FASN", "NOGENE"))
    with pytest.raises(SlideError, match=r"lacks 1 of the 2 genes that are listed \(NOGENE\)"):
        choose_panel(settings, [c2], [np.arange(len(c2.spots))])


def test_genes_are_chosen_without_a_look_at_the_block_that_is_held_out(tiny_section: Path, tmp_path: Path) -> None:
    slide = open_slide(tiny_section)
    settings = TrainConfig(slides=(tiny_section,), out=tmp_path, genes=20, holdout=0.4)
    (kept,), (block,) = divide_spots(settings, [slide], [])
    found = choose_panel(settings, [slide], [kept]).genes
    assert slide.counts is not None
    slide.counts.X[slide.count_rows[block]] = 0
    assert choose_panel(settings, [slide], [kept]).genes == found
    whole = settings.model_copy(update={"holdout": 0.0})
    assert choose_panel(whole, [open_slide(tiny_section)], [kept]) == select_hmhvg([open_slide(tiny_section)], 20)
    assert set(found) != set(select_hmhvg([open_slide(tiny_section)], 20).genes)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["holdout=0.2", "validation=[v]"], "leave one of the two out"), (["gene_list=[A, A]"], "names a gene twice"),
     (["opened=[{path: b, mpp: 0.5}]"], "which is neither in slides nor in validation")],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_config([Path("a")], [], Path("out"), None, words)


def test_a_snapshot_is_bounded_and_a_broken_one_is_told(tmp_path: Path) -> None:
    n = MOST_NUMBERS // 100 + 10
    values = np.zeros((n, 100), dtype=np.float16)
    genes = np.array([f"g{i}" for i in range(100)])
    ids = np.arange(n).astype(str)
    ValidationSnapshot(3, ("a",), np.zeros(n, np.int32), ids, genes, values, values).write(tmp_path)
    read = ValidationSnapshot.read(tmp_path)
    assert read.predicted.size <= MOST_NUMBERS
    assert read.ids.tolist() == ids[::2].tolist()
    assert [path.name for path in tmp_path.iterdir()] == [SNAPSHOT]
    (tmp_path / SNAPSHOT).write_bytes(b"PK half of it")
    with pytest.raises(StoreError, match="is no snapshot"):
        ValidationSnapshot.read(tmp_path)
