from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from napari_hyperst.errors import CheckpointError, ConfigError, HyperSTError, HyperSTWarning, SlideError, StoreError
from napari_hyperst.jobs.foreground import train_here
from napari_hyperst.jobs.job import Job
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.ridge import fit_ridge
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tasks import TrainTask, read_task
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.tiles import read_tiles
from napari_hyperst.training import processes, train
from napari_hyperst.training.dataset import SYMMETRIES, build_training_set, trainable_spots, turn
from napari_hyperst.training.encoding import state_gib
from napari_hyperst.training.fit import start_from_data
from napari_hyperst.training.optimiser import build_optimiser, set_learning_rate
from napari_hyperst.training.settings import read_config
from napari_hyperst.training.validate import encoder_features, validate


def config(section: Path, out: Path, encoder: str, **changes: object) -> TrainConfig:
    method = HyperSTConfig(encoder=encoder, lora_blocks=2, dim=16)
    fields = {"method": method, "genes": 20, "epochs": 3, "batch_size": 16, "symmetries": 2, "precision": "float32"}
    return TrainConfig(slides=(section,), out=out, **(fields | changes))


def test_a_run_ends_in_a_checkpoint_that_predicts(tiny_section: Path, tmp_path: Path, tiny_encoder: str) -> None:
    settings = config(tiny_section, tmp_path / "run", tiny_encoder, epochs=12, name="mine", average=0.5)
    checkpoint = train(settings)
    assert checkpoint == tmp_path / "run" / "best"
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["kind"] for event in events][0] == "start"
    assert [event["kind"] for event in events][-1] == "done"
    epochs = [event for event in events if event["kind"] == "epoch"]
    assert len(epochs) == 12
    assert epochs[-1]["total"] < epochs[0]["total"]
    assert epochs[-1]["prediction"] < epochs[0]["prediction"]
    assert {"hca", "hea", "curvature", "temperature", "alpha_image"} <= set(epochs[0])
    assert read_task((tmp_path / "run" / "config.json").read_text()) == TrainTask(config=settings)
    loaded = load_checkpoint(checkpoint)
    slide = open_slide(tiny_section)
    assert loaded.card.name == "mine"
    assert loaded.card.panel_method == "hmhvg"
    assert [known.fingerprint for known in loaded.card.training_slides] == [slide.fingerprint]
    assert [known.picture for known in loaded.card.training_slides] == [slide.picture_fingerprint]
    assert slide.picture_fingerprint is not None
    assert predict(slide, loaded).in_training.all()


def test_the_same_run_twice_gives_the_same_weights(tiny_section: Path, tmp_path: Path, tiny_encoder: str) -> None:
    runs = [train(config(tiny_section, tmp_path / name, tiny_encoder)) for name in ("one", "two")]
    first, second = (load_checkpoint(run).model.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_best_epoch_is_chosen_on_the_validation_slide(
    tiny_section: Path, shared_data: Path, tmp_path: Path, tiny_encoder: str
) -> None:
    settings = config(
        tiny_section, tmp_path / "run", tiny_encoder, validation=(shared_data / "her2st" / "C4",), learning_rate=0.05
    )
    train(settings)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    errors = [event["validation/mse"] for event in events if event["kind"] == "epoch"]
    assert events[-1]["epoch"] == int(np.argmin(errors)) + 1
    card = load_checkpoint(tmp_path / "run" / "best").card
    assert card.validation_slides == ("C4",)
    assert card.metrics["validation"]["mse"] == pytest.approx(min(errors))


def test_states_are_what_the_encoder_makes_of_turned_tiles(tiny_section: Path, tiny_encoder: str) -> None:
    slide = open_slide(tiny_section)
    encoder = Encoder(encoder_spec(tiny_encoder), 2).eval()
    data = build_training_set([slide], GenePanel(("FASN", "ACTB")), encoder, TileSpec(), symmetries=6)
    spots = trainable_spots(slide, TileSpec())
    assert data.states.shape[:3] == (6, len(spots), 2)
    (tiles,) = read_tiles(slide, TileSpec(), spots[[4]])
    upright = torch.from_numpy(np.concatenate([tiles.spot, tiles.niche]))
    for symmetry in range(6):
        wanted = encoder.prefix(turn(upright, symmetry))
        torch.testing.assert_close(data.states[symmetry, 4].float(), wanted, rtol=2e-3, atol=2e-3)


def test_symmetries_are_the_eight_of_the_square() -> None:
    tile = torch.arange(9).reshape(1, 3, 3, 1).repeat(1, 1, 1, 3)
    turned = {tuple(turn(tile, symmetry)[0, :, :, 0].flatten().tolist()) for symmetry in range(SYMMETRIES)}
    assert len(turned) == 8
    assert torch.equal(turn(tile, 0), tile)


def test_linear_path_starts_at_the_ridge_solution(tiny_section: Path, tmp_path: Path, tiny_encoder: str) -> None:
    slide = open_slide(tiny_section)
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=16, linear_path=True)
    settings = config(tiny_section, tmp_path / "run", tiny_encoder, method=method, ridge=10.0)
    torch.manual_seed(0)
    model = HyperST(method, 2)
    data = build_training_set([slide], GenePanel(("FASN", "ACTB")), model.encoder, TileSpec(), symmetries=1)
    start_from_data(model, data, settings)
    features = encoder_features(model, data).reshape(len(data), -1)
    wanted = fit_ridge(features, data.spot_genes.numpy(), 10.0)(features)
    np.testing.assert_allclose(validate(model, data, 16).prediction, wanted, rtol=1e-3, atol=1e-3)


def test_without_a_linear_path_the_output_starts_at_the_mean(
    tiny_section: Path, tmp_path: Path, tiny_encoder: str
) -> None:
    settings = config(tiny_section, tmp_path / "run", tiny_encoder)
    model = HyperST(settings.method, 2)
    data = build_training_set(
        [open_slide(tiny_section)], GenePanel(("FASN", "ACTB")), model.encoder, TileSpec(), symmetries=1
    )
    start_from_data(model, data, settings)
    torch.testing.assert_close(model.output.bias.detach(), data.spot_genes.mean(dim=0))


def test_scalars_of_the_alignment_do_not_decay(tiny_encoder: str, tiny_section: Path, tmp_path: Path) -> None:
    settings = config(tiny_section, tmp_path / "run", tiny_encoder, weight_decay=0.5, lora_learning_rate=0.123)
    model = HyperST(settings.method, 2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimiser = build_optimiser(model, settings)
    set_learning_rate(optimiser, 9, 100)
    decays = {names[id(p)]: group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    rates = {names[id(p)]: group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert decays["alignment.log_curvature"] == decays["alignment.logit_scale"] == 0
    assert decays["alignment.log_alpha.image"] == decays["output.bias"] == 0
    assert decays["output.weight"] == 0.5
    assert {rate for name, rate in rates.items() if "lora_" in name} == {0.123}  # the end of the warm-up
    assert set(decays) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_the_published_rule_keeps_the_last_epoch(
    tiny_section: Path, mirrored_section: Path, tmp_path: Path, tiny_encoder: str
) -> None:
    """Early stop on the total loss of validation, and the weights of where it stopped."""
    settings = config(
        tiny_section, tmp_path / "run", tiny_encoder, validation=(mirrored_section,), epochs=40, monitor="total",
        keep="last", patience=2, learning_rate=0.03, average=0.0,
    )  # fmt: skip
    train(settings)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    losses = [event["validation/total"] for event in events if event["kind"] == "epoch"]
    assert len(losses) < 40
    assert int(np.argmin(losses)) == len(losses) - 3
    assert events[-1]["epoch"] == len(losses)
    assert load_checkpoint(tmp_path / "run" / "best").card.metrics["validation"]["total"] == losses[-1]


def test_a_run_is_logged_to_its_trackers(tiny_section: Path, tmp_path: Path, tiny_encoder: str) -> None:
    settings = config(tiny_section, tmp_path / "run", tiny_encoder, trackers=("tensorboard",), name="mine")
    train(settings)
    found = EventAccumulator(str(tmp_path / "run" / "mine"))
    found.Reload()
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    wanted = [event["hea"] for event in events if event["kind"] == "epoch"]
    assert [scalar.value for scalar in found.Scalars("hea")] == pytest.approx(wanted)
    assert [scalar.step for scalar in found.Scalars("hea")] == [1, 2, 3]


def test_a_tracker_that_is_not_installed_is_named(
    tiny_section: Path, tmp_path: Path, tiny_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        train(config(tiny_section, tmp_path / "run", tiny_encoder, trackers=("wandb",)))


@pytest.mark.parametrize("term", ["prediction", "total"])
def test_a_loss_that_is_no_number_stops_the_run(
    tiny_section: Path, tmp_path: Path, tiny_encoder: str, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    objective = HyperST.objective

    def broken(self: HyperST, *args: object) -> dict[str, torch.Tensor]:
        return objective(self, *args) | {term: torch.tensor(float("nan"), requires_grad=True)}

    monkeypatch.setattr(HyperST, "objective", broken)
    with pytest.raises(HyperSTError, match=f"loss term {term} is no finite number at step 1"):
        train(config(tiny_section, tmp_path / "run", tiny_encoder))
    assert not (tmp_path / "run" / "best").exists()


def test_bad_requests(tiny_section: Path, section: Path, tmp_path: Path, tiny_encoder: str) -> None:
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="same section"):
        train(config(tiny_section, out, tiny_encoder, validation=(section,)))
    with pytest.raises(SlideError, match="nothing here"):
        train(config(tmp_path / "no", out, tiny_encoder))
    with pytest.raises(ConfigError, match="GiB"):
        train(config(tiny_section, tmp_path / "big", tiny_encoder, cache_gib=1e-6))
    with pytest.raises(CheckpointError, match="no encoder"):
        train(config(tiny_section, out, "tinny"))
    with pytest.raises(CheckpointError, match="blocks"):
        train(config(tiny_section, out, tiny_encoder, method=HyperSTConfig(encoder=tiny_encoder, lora_blocks=99)))
    (tmp_path / "there").mkdir()
    with pytest.raises(StoreError, match="is there already"):
        train(config(tiny_section, tmp_path / "there", tiny_encoder))
    assert not out.exists()


def test_states_of_all_slides_must_fit_before_any_is_computed(
    tiny_section: Path, mirrored_section: Path, tmp_path: Path, tiny_encoder: str
) -> None:
    slides = [open_slide(path) for path in (tiny_section, mirrored_section)]
    spots = [len(trainable_spots(slide, TileSpec())) for slide in slides]
    encoder = Encoder(encoder_spec(tiny_encoder), 2)
    gib = state_gib(encoder, 2 * spots[0]) + state_gib(encoder, spots[1]) / 2
    told: list[str] = []
    asked = config(tiny_section, tmp_path / "run", tiny_encoder, validation=(mirrored_section,), cache_gib=gib)
    with pytest.raises(ConfigError, match="all slides and symmetries"):
        train(asked, lambda kind, _: told.append(kind))
    assert told == []
    assert not asked.out.exists()


def test_genes_that_a_validation_slide_lacks_are_left_out_of_its_numbers(
    tiny_section: Path, mirrored_section: Path, tiny_encoder: str
) -> None:
    slide = open_slide(mirrored_section)
    panel = GenePanel(("FASN", "ACTB", "no such gene"))
    encoder = Encoder(encoder_spec(tiny_encoder), 0).eval()
    with pytest.warns(HyperSTWarning, match=r"lacks 1 of the 3 genes \(no such gene\)"):
        data = build_training_set([slide], panel, encoder, TileSpec(), symmetries=1)
    model = HyperST(HyperSTConfig(encoder=tiny_encoder, lora_blocks=0, dim=16), 3)
    found = validate(model, data, 16)
    measured = data.spot_genes.numpy()
    squared = (found.prediction[:, :2] - measured[:, :2]) ** 2
    assert found.metrics["mse"] == pytest.approx(squared.mean(), rel=1e-5)
    assert (measured[:, 2] == 0).all()


def test_memory_that_runs_out_in_validation_changes_no_number(
    tiny_section: Path, tiny_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = HyperST(HyperSTConfig(encoder=tiny_encoder, lora_blocks=0, dim=16), 2)
    data = build_training_set(
        [open_slide(tiny_section)], GenePanel(("FASN", "ACTB")), model.encoder, TileSpec(), symmetries=1
    )
    whole, forward = validate(model, data, 16), HyperST.forward

    def narrow(self: HyperST, batch: Any) -> Any:
        if len(batch.spot) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, batch)

    monkeypatch.setattr(HyperST, "forward", narrow)
    assert validate(model, data, 16).metrics == pytest.approx(whole.metrics, rel=1e-5)


def test_a_run_keeps_its_paths_for_whoever_resumes_it_from_another_folder(
    section: Path, tmp_path: Path, tiny_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(section.parent)
    train_here(config(Path(section.name), Path("run"), tiny_encoder, epochs=1), Path("run"))
    task = read_task((section.parent / "run" / "config.json").read_text())
    assert isinstance(task, TrainTask)
    assert task.config.slides == (section,)
    assert task.config.out == section.parent / "run"


def test_a_jobs_folder_is_taken_over_for_its_own_settings_only(
    tiny_section: Path, tmp_path: Path, tiny_encoder: str
) -> None:
    asked = config(tiny_section, tmp_path / "job", tiny_encoder, epochs=1)
    Job.create(tmp_path / "job", TrainTask(config=asked.model_copy(update={"out": tmp_path})))
    with pytest.raises(StoreError, match="other settings"):
        train(asked.model_copy(update={"epochs": 2}))
    assert train(asked).is_dir()


def test_settings_from_words_override_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"epochs": 5, "method": {"dim": 8}}')
    found = read_config(
        [Path("a")], [], Path("o"), tmp_path / "c.json", ["epochs=7", "method.lora_blocks=3", "method.alignment=paper"]
    )
    assert (found.epochs, found.method.dim, found.method.lora_blocks) == (7, 8, 3)
    assert found.method.alignment.entailment_scale == 0.25


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("epoch=3", "did you mean epochs?"),
        ("method.dimm=3", "did you mean method.dim?"),
        ("epochs=many", "epochs"),
        ("epochs=0", "greater than 0"),
        ("epochs", "assigns nothing"),
        ("epochs.x=1", "no settings of its own"),
        ("method.alignment=publisher", "no alignment preset"),
        ("learning_rate=Infinity", "finite number"),
        ('method={"decoder_features": "tangent", "alignment": {"weight": 0}}', "method: decoder_features=tangent"),
    ],
)
def test_wrong_settings(tmp_path: Path, word: str, told: str) -> None:
    (tmp_path / "c.json").write_text('{"epochs": 5}')
    with pytest.raises(ConfigError) as caught:
        read_config([Path("a")], [], Path("o"), tmp_path / "c.json", [word])
    assert told in str(caught.value)
