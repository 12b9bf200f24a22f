"""Slides and a config become a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from napari_hyperst.errors import ConfigError, StoreError
from napari_hyperst.models.build import build_method
from napari_hyperst.models.checkpoint import Checkpoint, load_checkpoint, package_versions, save_checkpoint
from napari_hyperst.models.device import choose_device, choose_dtype
from napari_hyperst.models.encoders import weights_sha256
from napari_hyperst.models.transfer import check_encoders, start_encoder
from napari_hyperst.nouns.checkpoint import Card, TrainingSlide
from napari_hyperst.nouns.events import EventLog, EventReader
from napari_hyperst.nouns.tasks import TrainTask, read_task
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.expression import select_hmhvg
from napari_hyperst.training.dataset import TrainingSet, build_training_set, trainable_spots
from napari_hyperst.training.fit import fit

CONFIG, EVENTS, BEST = "config.json", "events.jsonl", "best"


def train(config: TrainConfig, progress: Callable[[str, dict[str, Any]], None] | None = None) -> Path:
    """Train a method on some slides.

    Parameters
    ----------
    config
        Settings; ``config.out`` becomes the folder of the run.
    progress
        Called with each event's kind and content, as written to ``events.jsonl``.

    Returns
    -------
    Path
        The checkpoint, in ``config.out / "best"``.

    Raises
    ------
    StoreError
        If the folder of the run is there already, or cannot be written.
    ConfigError
        If a validation slide is a training slide too, or one of ``config.init_from``; or if the encoder cannot start
        from there.
    CheckpointError
        If there is no such encoder, or no such checkpoint to start from.
    SlideError
        If a slide cannot be opened or trained on.
    """
    slides = [open_slide(path) for path in config.slides]
    held_out = [open_slide(path) for path in config.validation]
    _check_apart(slides, held_out)
    start = None if config.init_from is None else load_checkpoint(config.init_from)
    if start is not None:
        check_encoders(config.method, start.card.method)
        _check_unseen(start, held_out)
    torch.manual_seed(config.seed)
    panel = select_hmhvg(slides, config.genes)
    device = choose_device(config.device)
    model = build_method(config.method, len(panel))
    if start is not None:
        start_encoder(model, start.model)
    events = _run_folder(config)

    def report(kind: str, content: dict[str, Any]) -> None:
        events.append(kind, content)
        if progress is not None:
            progress(kind, content)

    model.to(device)
    model.encoder.dtype = choose_dtype(config.precision, device)
    report("start", {"device": str(device), "genes": len(panel)})

    def read(part: list[Slide], symmetries: int) -> TrainingSet:
        return build_training_set(
            part,
            panel,
            model.encoder,
            config.tiles,
            symmetries=symmetries,
            complete_niches_only=config.complete_niches_only,
            cache_gib=config.cache_gib,
            progress=lambda done, total: report("progress", {"what": "tiles", "done": done, "total": total}),
        )

    training = read(slides, config.symmetries)
    validation = read(held_out, 1) if held_out else None
    result = fit(model, training, validation, config, report)
    card = Card(
        name=config.name,
        method=config.method,
        encoder_sha256=weights_sha256(model.encoder.spec.weights),
        tiles=config.tiles,
        panel_method=panel.method,
        panel_slides=panel.slides,
        training_slides=tuple(
            TrainingSlide(
                name=slide.name,
                fingerprint=slide.fingerprint,
                spots=len(trainable_spots(slide, config.tiles, config.complete_niches_only)),
                mpp=slide.mpp,
            )
            for slide in slides
        ),
        encoder_slides=() if start is None else (*start.card.training_slides, *start.card.encoder_slides),
        validation_slides=tuple(slide.name for slide in held_out),
        training=_settings(config, start),
        metrics={"validation": result.metrics} if result.metrics else {},
        versions=package_versions(),
    )
    save_checkpoint(config.out / BEST, result.model, panel, card)
    report("done", {"epoch": result.epoch, "checkpoint": BEST})
    return config.out / BEST


def _check_apart(slides: list[Slide], held_out: list[Slide]) -> None:
    seen: dict[str, Slide] = {}
    for slide in [*slides, *held_out]:
        other = seen.setdefault(slide.fingerprint, slide)
        if other is not slide:
            raise ConfigError(
                f"is the same section as {other.path}", where=slide.path, do="give each section once, for one purpose"
            )


def _check_unseen(start: Checkpoint, held_out: list[Slide]) -> None:
    for slide in held_out:
        if start.card.has_seen(slide.fingerprint):
            raise ConfigError(
                f"was trained on by {start.card.name}, which the encoder starts from",
                where=slide.path,
                do="validate on a section that neither has seen",
            )


def _settings(config: TrainConfig, start: Checkpoint | None) -> dict[str, Any]:
    """Return the settings that a card keeps: no paths, but the name and the hash of what the encoder started from."""
    elsewhere = {"slides", "validation", "out", "name", "method", "tiles", "init_from"}
    started = {} if start is None else {"init_from": start.card.name, "init_from_sha256": start.sha256}
    return config.model_dump(mode="json", exclude=elsewhere) | started


def _run_folder(config: TrainConfig) -> EventLog:
    """Make the folder of a run, or take over that of a job that is to be this run."""
    out = config.out
    begun = any(event.kind != "warning" for event in EventReader(out / EVENTS).new())
    if out.exists() and (begun or not (out / CONFIG).is_file()):
        raise StoreError("is there already", where=out, do="name a new folder for the run")
    if out.exists() and not _asks_for(out / CONFIG, config):
        raise StoreError("is a job's folder with other settings", where=out, do="name a new folder for the run")
    try:
        if not out.exists():
            out.mkdir(parents=True)
            (out / CONFIG).write_text(TrainTask(config=config).model_dump_json(indent=2) + "\n", encoding="utf-8")
        return EventLog(out / EVENTS)
    except OSError as error:
        raise StoreError(f"cannot be written ({error.strerror})", where=out, do="choose another folder") from error


def _asks_for(file: Path, config: TrainConfig) -> bool:
    try:
        asked = read_task(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(asked, TrainTask) and asked.config.model_copy(update={"out": config.out}) == config
