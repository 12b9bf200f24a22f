"""Slides and a config become a checkpoint, in a folder that a run can be resumed from."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_hyperst.errors import StoreError
from napari_hyperst.models.build import build_method
from napari_hyperst.models.checkpoint import load_checkpoint, package_versions, save_checkpoint
from napari_hyperst.models.device import choose_dtype
from napari_hyperst.models.encoders import weights_sha256
from napari_hyperst.models.method import Method
from napari_hyperst.models.transfer import start_encoder
from napari_hyperst.nouns.checkpoint import Card, TrainingSlide
from napari_hyperst.nouns.metrics import pearson_by_gene
from napari_hyperst.nouns.snapshot import SNAPSHOT, ValidationSnapshot
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.tiles import niche_um
from napari_hyperst.training.card import write_model_card
from napari_hyperst.training.dataset import TrainingSet, build_training_set
from napari_hyperst.training.encoding import check_size
from napari_hyperst.training.fit import Callbacks, Run, fit
from napari_hyperst.training.folder import BEST, EVENTS, LAST, RunFolder, check_settings, is_done, resumable
from napari_hyperst.training.prefix_cache import slide_content
from napari_hyperst.training.preparation import Spots, check_apart, choose_panel, divide_spots, starting_point
from napari_hyperst.training.processes import Processes
from napari_hyperst.training.report import PICTURE, draw_run
from napari_hyperst.training.state import read_state, write_state
from napari_hyperst.training.validate import validate

#: Called with an event's kind and content.
Progress = Callable[[str, dict[str, Any]], None]
#: Says whether to wait; what it raises ends the run.
Check = Callable[[], bool | None]
#: Settings that a card does not keep: paths, what stands elsewhere in it, and how fast it went.
_NOT_ON_CARD = {
    "slides", "validation", "opened", "out", "name", "method", "tiles", "init_from", "micro_batch", "cache",
    "cache_gib", "workers", "save_steps", "trackers", "processes",
}  # fmt: skip


#: Seconds between two looks whether a run that waits is to go on.
_LOOK_S = 0.2
#: What may be another when a run is resumed.
_MAY_CHANGE = {"device", "precision", "processes"}


def train(config: TrainConfig, progress: Progress | None = None, check: Check | None = None) -> Path:
    """Train a method on some slides.

    With several processes, each calls this; the first one writes.

    Parameters
    ----------
    config
        Settings; ``config.out`` becomes the folder of the run.
    progress
        Called with each event's kind and content, as written to ``events.jsonl``.
    check
        Called often. What it raises ends the run, once its state has been saved; so does what ``progress`` raises.
        While it returns True the run waits, its state saved and nothing computed.

    Returns
    -------
    Path
        The checkpoint, in ``config.out / "best"``.

    Raises
    ------
    StoreError
        If the folder of the run is there already, or cannot be written.
    ConfigError
        If a validation slide is a training slide too, or one of ``config.init_from``; if the encoder cannot start
        from there; if the device, a tracker or a process is not there.
    CheckpointError
        If there is no such encoder, or no such checkpoint to start from.
    SlideError
        If a slide cannot be opened or trained on.
    HyperSTError
        If a loss is no finite number.
    """
    return _Training(config.absolute(), False, progress, check).run()


def resume(out: Path, progress: Progress | None = None, check: Check | None = None) -> Path:
    """Go on with a run that was stopped or killed, from the state that it saved last.

    On a CPU the weights become those of a run that was never interrupted, to the bit.

    Parameters
    ----------
    out
        The folder of the run.
    progress, check
        As in ``train``.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    StoreError
        If there is no run, it is done, or another process is at work on it.
    HyperSTError
        As ``train``.
    """
    return _Training(resumable(out), True, progress, check).run()


def train_once(config: TrainConfig) -> Path:
    """Train, go on with what was begun, or find what was made, whichever is left to do.

    Parameters
    ----------
    config
        Settings; where ``config.out`` is there, those of its run.

    Returns
    -------
    Path
        The checkpoint.

    Raises
    ------
    StoreError
        If the folder holds something else, or a run with other settings.
    HyperSTError
        As ``train``.
    """
    config = config.absolute()
    if not config.out.exists():
        return train(config)
    check_settings(config)
    return config.out / BEST if is_done(config.out) else resume(config.out)


class _Training:
    """A run in this process, from slides to checkpoint."""

    def __init__(self, config: TrainConfig, resumed: bool, progress: Progress | None, check: Check | None) -> None:
        self.config, self.resumed = config, resumed
        self.progress = progress or (lambda kind, content: None)
        self.check: Check = check or (lambda: None)
        self.processes = Processes(config)
        self.folder: RunFolder | None = None
        self.fitting: Run | None = None
        self.asked: BaseException | None = None
        self.told_of_waiting = False

    def run(self) -> Path:
        config = self.config
        try:
            with self.processes.main_first():  # which decodes images that the others then find
                self.slides = [open_slide(path, **config.ref(path).options) for path in config.slides]
                self.held_out = [open_slide(path, **config.ref(path).options) for path in config.validation]
            check_apart(self.slides, self.held_out)
            self.kept, self.held_out_kept = divide_spots(config, self.slides, self.held_out)
            if config.holdout > 0:
                self.held_out = self.slides
            self.start = starting_point(config, self.held_out)
            torch.manual_seed(config.seed)
            self.panel = choose_panel(config, self.slides, self.kept)
            model = build_method(config.method, len(self.panel))
            if self.start is not None:
                start_encoder(model, self.start.model)
            model.encoder.dtype = choose_dtype(config.precision, self.processes.device)
            model.to(self.processes.device)
            self._check_cache(model)
            if self.processes.is_main:
                self.folder = RunFolder(config, self.resumed)
            self._fit(model)
            return config.out / BEST
        finally:
            if self.folder is not None:
                self.folder.close()
            self.processes.close()

    def _fit(self, model: Method) -> None:
        config, processes = self.config, self.processes
        known = {"device": str(processes.device), "processes": processes.count, "genes": len(self.panel)}
        last = config.out / LAST if self.resumed and (config.out / LAST).is_dir() else None
        self._report("start", {**known, "resumed": last is not None})
        training = self._read(self.slides, self.kept, model, config.symmetries, config.stain_jitter)
        validation = self._read(self.held_out, self.held_out_kept, model, 1, 0.0) if self.held_out else None
        run = Run.start(model, training, validation, config, processes)
        self._restore(run, last)
        processes.start_trackers(config.name, config.model_dump(mode="json"), config.out)
        self.fitting = run
        fit(run, Callbacks(self._report, self._save, self._keep, self._poll, self._predicted))
        if processes.is_main:
            self._describe(run)
        self._report("done", {"epoch": run.progress.kept_epoch, "checkpoint": BEST, **run.progress.kept_metrics})

    def _read(
        self, slides: list[Slide], kept: list[Spots], model: Method, symmetries: int, stain_jitter: float
    ) -> TrainingSet:
        config, processes = self.config, self.processes

        def progress(done: int, total: int) -> None:
            self._report("progress", {"what": "tiles", "done": done, "total": total})
            self._poll()

        return build_training_set(
            slides,
            self.panel,
            model.encoder,
            config.tiles,
            symmetries=symmetries,
            complete_niches_only=config.complete_niches_only,
            cache=config.cache,
            cache_gib=config.cache_gib,
            stain_jitter=stain_jitter,
            progress=progress,
            share=(processes.rank, processes.count),
            wait=processes.wait,
            kept=kept,
        )

    def _check_cache(self, model: Method) -> None:
        """Refuse what all slides' states take, before any is computed."""
        config = self.config
        if config.cache != "off":
            states = config.symmetries * sum(map(len, self.kept)) + sum(map(len, self.held_out_kept))
            check_size(model.encoder, states, config.cache_gib)

    def _restore(self, run: Run, last: Path | None) -> None:
        """Take a run up where its saved state says; every process reads it."""
        inputs = self._inputs(run)
        if last is not None:
            run.progress = read_state(last, run.model, run.averaged, run.optimiser)
            changed = [name for name, value in inputs.items() if run.progress.inputs.get(name) != value]
            for name in changed:
                if name in _MAY_CHANGE:
                    was = run.progress.inputs.get(name)
                    message = f"resumed with {name} {inputs[name]}, begun with {was}: the same run, but not to the bit"
                    self._report("warning", {"message": message})
                else:
                    raise StoreError(f"was begun with other {name}", where=last, do="train in a new folder")
        run.progress.inputs = inputs

    def _inputs(self, run: Run) -> dict[str, str]:
        """Return hashes and names of what the run depends on, and the settings do not tell."""
        encoder = run.model.encoder
        digest = {name: hashlib.sha256() for name in ("slides", "counts")}
        kept = (*self.kept, *self.held_out_kept)
        for slide, spots in zip((*self.slides, *self.held_out), kept, strict=True):
            digest["slides"].update(slide_content(slide, spots).encode())
        for data in (run.training, run.validation):
            if data is not None:
                digest["counts"].update(data.spot_genes.numpy().tobytes() + data.niche_genes.numpy().tobytes())
        return {
            **{name: each.hexdigest() for name, each in digest.items()},
            "genes": " ".join(self.panel.genes),
            "encoder weights": weights_sha256(encoder.spec.weights),
            "device": self.processes.device.type,
            "precision": str(encoder.dtype).removeprefix("torch."),
            "processes": str(self.processes.count),
        }

    def _report(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "epoch":
            self.processes.log({k: v for k, v in content.items() if isinstance(v, float | int)}, int(content["epoch"]))
        if self.folder is not None:
            self.folder.tell(kind, content)
            self._or_save(lambda: self.progress(kind, content))
        if kind == "step" and self.processes.count > 1 and self.processes.any(self.asked is not None):
            self._save()
            raise self.asked or KeyboardInterrupt

    def _poll(self) -> None:
        self._or_save(self._wait)

    def _wait(self) -> None:
        """Wait for as long as is asked, with the state saved, so that nothing is lost where the process is ended."""
        if not self.check() or self.folder is None:
            return
        if self.processes.count > 1:  # the others would take one that waits for dead
            if not self.told_of_waiting:
                self._report("warning", {"message": "several processes can be stopped, not paused"})
                self.told_of_waiting = True
            return
        if self.fitting is not None:
            self._save()
        if self.processes.device.type == "cuda":
            torch.cuda.empty_cache()
        self.folder.tell("paused", {})
        while self.check():
            time.sleep(_LOOK_S)
        self.folder.tell("resumed", {})

    def _or_save(self, call: Callable[[], None]) -> None:
        """Call something that may end the run; where other processes must agree first, remember what it raised."""
        try:
            call()
        except BaseException as error:
            if self.processes.count > 1 and self.fitting is not None:
                self.asked = error
                return
            if self.fitting is not None:
                self._save()
            raise

    def _save(self) -> None:
        """Save the state to go on from, beside a checkpoint of the moving average."""
        run = self.fitting
        if self.folder is None or run is None:
            return
        save_checkpoint(
            self.folder.path / LAST,
            run.averaged,
            self.panel,
            self._card({}),
            also=lambda staged: write_state(staged, run.progress, run.model, run.averaged, run.optimiser),
        )
        self.folder.tell("checkpoint", {"checkpoint": LAST, "step": run.progress.step})

    def _keep(self) -> None:
        run = self.fitting
        if self.folder is not None and run is not None:
            save_checkpoint(self.folder.path / BEST, run.averaged, self.panel, self._card(run.progress.kept_metrics))
            self.folder.tell("checkpoint", {"checkpoint": BEST, "step": run.progress.step})

    def _predicted(self, epoch: int, prediction: NDArray[np.float32]) -> None:
        """Let others see what is predicted on the validation spots."""
        run = self.fitting
        if self.folder is None or run is None or run.validation is None:
            return
        ids = [slide.spots.ids[spots] for slide, spots in zip(self.held_out, self.held_out_kept, strict=True)]
        snapshot = ValidationSnapshot(
            epoch,
            tuple(str(path) for path in self.config.validation or self.config.slides),
            run.validation.slide.numpy().astype(np.int32),
            np.concatenate(ids),
            np.array(self.panel.genes),
            prediction.astype(np.float16),
            run.validation.measured().astype(np.float16),
        )
        try:
            snapshot.write(self.folder.path)
        except OSError as error:  # a picture is not worth a run
            self._report("warning", {"message": f"the validation map cannot be written ({error.strerror})"})
            return
        self.folder.tell("validation", {"epoch": epoch, "file": SNAPSHOT})

    def _describe(self, run: Run) -> None:
        """Put the picture and the model card of a run that has come to its end beside its checkpoint."""
        by_gene: NDArray[Any] | None = None
        best, kept = load_checkpoint(self.config.out / BEST, self.config.method.encoder), run.progress.kept_epoch
        if run.validation is not None:
            model = best.model.to(self.processes.device)
            model.encoder.dtype = run.model.encoder.dtype
            found = validate(model, run.validation, self.config.batch_size)
            by_gene = pearson_by_gene(found.prediction, run.validation.measured())
        picture = self.config.out / BEST / PICTURE
        draw_run(self.config.out / EVENTS, by_gene, self.panel.genes, picture, kept=kept, title=self.config.name)
        write_model_card(best.card, self.panel, self.config.out / BEST)

    def _card(self, metrics: dict[str, float]) -> Card:
        config, start = self.config, self.start
        started = {} if start is None else {"init_from": start.card.name, "init_from_sha256": start.sha256}
        assert self.fitting is not None
        return Card(
            name=config.name,
            method=config.method,
            encoder_sha256=weights_sha256(self.fitting.model.encoder.spec.weights),
            tiles=config.tiles,
            panel_method=self.panel.method,
            panel_slides=self.panel.slides,
            training_slides=tuple(
                TrainingSlide(
                    name=slide.name,
                    fingerprint=slide.fingerprint,
                    spots=len(spots),
                    mpp=slide.mpp,
                    niche_um=niche_um(slide, config.tiles),
                    picture=slide.picture_fingerprint,
                )
                for slide, spots in zip(self.slides, self.kept, strict=True)
            ),
            encoder_slides=() if start is None else (*start.card.training_slides, *start.card.encoder_slides),
            validation_slides=tuple(slide.name for slide in self.held_out if config.holdout == 0),
            training=config.model_dump(mode="json", exclude=_NOT_ON_CARD) | started,
            metrics={"validation": metrics} if metrics else {},
            versions=package_versions(),
        )
