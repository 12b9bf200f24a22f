"""DELST is trained by the same trainer, on the same data, and HyperST starts from its encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_hyperst.errors import ConfigError
from napari_hyperst.models.build import build_method
from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.models.delst import DELST
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.expression import detected_genes
from napari_hyperst.training import train
from napari_hyperst.training.dataset import TrainingSet
from napari_hyperst.training.validate import encoder_features

LOOKED_AT = ("satisfied/low_gene__high_gene", "satisfied/low_image__high_image", "satisfied/spot_gene__spot_image")


@torch.no_grad()
def terms_of(model: Method, data: TrainingSet) -> dict[str, float]:
    """Return the terms of the loss over all spots at once, upright, without dropout."""
    model.eval()
    torch.manual_seed(0)
    batch = data.batch(torch.arange(len(data)), torch.zeros(len(data), dtype=torch.long), torch.device("cpu"))
    return {name: term.item() for name, term in model.objective(model(batch), data.spot_genes).items()}


@pytest.mark.slow
def test_losses_fall_and_rich_spots_enter_the_cones_of_poor_ones(
    c3_spots: TrainingSet, fitted: Callable[..., list[dict[str, Any]]]
) -> None:
    """On 48 spots of C3, with our default lambda and beta, on features of the frozen encoder for speed."""
    start = build_method(DELSTConfig(lora_blocks=1), c3_spots.spot_genes.shape[1])
    frozen = torch.from_numpy(encoder_features(start, c3_spots))[None].half()
    data = replace(c3_spots, states=frozen)
    config = DELSTConfig(lora_blocks=0, dim=32)
    settings = TrainConfig(
        slides=(Path("unused"),), out=Path("unused"), method=config, epochs=250, batch_size=48, learning_rate=0.01,
        average=0.8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_method(config, data.spot_genes.shape[1])
    before = terms_of(model, data)
    fitted(model, data, settings)
    after = terms_of(model, data)
    for term in ("total", "contrastive", "cross", "intra/gene", "intra/image", "prediction"):
        assert after[term] < 0.8 * before[term], term
    for share in LOOKED_AT:
        assert before[share] < 0.1, share
        assert after[share] > 0.5, share


def config(section: Path, out: Path, method: DELSTConfig | HyperSTConfig, **changes: object) -> TrainConfig:
    fields = {"genes": 20, "epochs": 3, "batch_size": 16, "symmetries": 2, "precision": "float32", "average": 0.0}
    return TrainConfig(slides=(section,), out=out, method=method, **(fields | changes))


@pytest.fixture(scope="module")
def delst(tiny_section: Path, tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a DELST checkpoint, trained with LoRA on the tiny section."""
    method = DELSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=16)
    return train(config(tiny_section, tmp_path_factory.mktemp("runs") / "delst", method, epochs=4))


def test_a_run_ends_in_a_checkpoint_that_predicts(delst: Path, tiny_section: Path) -> None:
    events = [json.loads(line) for line in (delst.parent / "events.jsonl").read_text().splitlines()]
    epochs = [event for event in events if event["kind"] == "epoch"]
    assert epochs[-1]["total"] < epochs[0]["total"]
    logged = {"contrastive", "cross", "intra", "prediction", "curvature", "temperature", "alpha_gene", *LOOKED_AT}
    assert logged <= set(epochs[0])
    checkpoint = load_checkpoint(delst)
    assert isinstance(checkpoint.model, DELST)
    assert isinstance(checkpoint.card.method, DELSTConfig)
    prediction = predict(open_slide(tiny_section), checkpoint)
    assert set(prediction.embeddings) == set(prediction.norms) == set(prediction.disk) == {"spot_image", "spot_gene"}
    assert [cones.relation.name for cones in prediction.cones] == ["spot_gene__spot_image"]
    assert np.isfinite(prediction.expression).all()
    assert prediction.in_training.all()


def test_hyperst_starts_from_delst(delst: Path, tiny_section: Path, tiny_encoder: str, tmp_path: Path) -> None:
    """With a learning rate of nothing for LoRA, the encoder ends where DELST left it."""
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=2, dim=16)
    run = train(
        config(tiny_section, tmp_path / "run", method, init_from=str(delst), epochs=1, lora_learning_rate=1e-30)
    )
    started, source = load_checkpoint(run), load_checkpoint(delst)
    learnt = {name: tensor for name, tensor in source.model.encoder.state_dict().items() if "lora_B" in name}
    assert len(learnt) == 1
    assert all(tensor.abs().max() > 0 for tensor in learnt.values())
    for name, tensor in learnt.items():
        torch.testing.assert_close(started.model.encoder.state_dict()[name], tensor)
    assert started.card.training["init_from"] == "checkpoint"
    assert started.card.training["init_from_sha256"] == source.sha256
    assert str(tmp_path) not in started.card.model_dump_json()
    assert started.card.encoder_slides == source.card.training_slides
    assert started.card.has_seen(open_slide(tiny_section).fingerprint)


@pytest.fixture
def other_section(section: Path) -> Path:
    """Return the tiny section without its first spots: another fingerprint."""
    spots = section / "corner_selection.tsv"
    first, *rest = spots.read_text().splitlines()
    spots.write_text("\n".join([first, *rest[4:]]) + "\n")
    return section


def test_a_section_that_the_encoder_has_seen_is_no_validation(
    delst: Path, tiny_section: Path, other_section: Path, tiny_encoder: str, tmp_path: Path
) -> None:
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, dim=16)
    out = tmp_path / "run"
    settings = config(other_section, out, method, init_from=str(delst), validation=(tiny_section,))
    with pytest.raises(ConfigError, match="was trained on by checkpoint, which the encoder starts from"):
        train(settings)
    assert not out.exists()
    card = load_checkpoint(train(settings.model_copy(update={"validation": ()}))).card
    fingerprints = [open_slide(path).fingerprint for path in (other_section, tiny_section)]
    assert [known.fingerprint for known in card.training_slides] == fingerprints[:1]
    assert all(card.has_seen(fingerprint) for fingerprint in fingerprints)


def test_an_encoder_that_does_not_fit_is_refused_before_anything_is_written(
    delst: Path, tiny_section: Path, tiny_encoder: str, tmp_path: Path
) -> None:
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=1, lora_rank=4, dim=16)
    with pytest.raises(ConfigError, match="set method.lora_rank=8"):
        train(config(tiny_section, tmp_path / "run", method, init_from=str(delst)))
    assert not (tmp_path / "run").exists()


def test_detected_genes_are_counted_over_all_that_were_measured(c3_spots: TrainingSet, shared_data: Path) -> None:
    slide = open_slide(shared_data / "her2st" / "C3")
    assert slide.counts is not None
    counts = slide.counts.X.toarray()
    detected = detected_genes(slide)
    counted = slide.count_rows >= 0
    assert (detected[~counted] == -1).all()
    assert (~counted).sum() == 2
    np.testing.assert_array_equal(detected[counted], (counts[slide.count_rows[counted]] > 0).sum(axis=1))
    assert c3_spots.detected.min() > c3_spots.spot_genes.shape[1]
