"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_hyperst.errors import ConfigError, HyperSTError
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.method import Method
from napari_hyperst.models.ridge import fit_ridge
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides.read_ahead import read_ahead
from napari_hyperst.training.dataset import Fetched, TrainingSet
from napari_hyperst.training.optimiser import average_into, build_optimiser, set_learning_rate, train_mode
from napari_hyperst.training.order import epoch_order
from napari_hyperst.training.processes import Processes
from napari_hyperst.training.state import Progress
from napari_hyperst.training.step import OutOfMemory, accumulate_gradient, divide, seed_of
from napari_hyperst.training.validate import encoder_features, validate

#: Called with what happened and its numbers.
Report = Callable[[str, dict[str, Any]], None]
#: Whether more of what is monitored is better.
_MORE_IS_BETTER = {"mse": False, "pcc": True, "total": False}
#: What a step's random numbers are for.
_OBJECTIVE, _PIECE, _JITTER = range(3)


@dataclass
class Run:
    """A training run: what it works on, and how far it has come.

    Attributes
    ----------
    model
        On its device; trained in place.
    averaged
        The moving average of its weights, which is what is validated and kept.
    optimiser
        Of the model.
    training, validation
        What to learn from and, optionally, what to choose the epoch on.
    config
        Settings.
    processes
        Those that train together.
    progress
        How far it has come.
    """

    model: Method
    averaged: Method
    optimiser: torch.optim.AdamW
    training: TrainingSet
    validation: TrainingSet | None
    config: TrainConfig
    processes: Processes
    progress: Progress

    @classmethod
    def start(
        cls,
        model: Method,
        training: TrainingSet,
        validation: TrainingSet | None,
        config: TrainConfig,
        processes: Processes,
    ) -> Run:
        """Return a run before its first step.

        Raises
        ------
        ConfigError
            If a batch has fewer spots than there are processes.
        """
        if min(len(training), config.batch_size) < 2 * processes.count:
            raise ConfigError(
                f"{processes.count} processes are too many for batches of {config.batch_size} out of "
                f"{len(training)} spots",
                do="set a larger batch_size, or start fewer processes",
            )
        progress = Progress(micro_batch=config.micro_batch)
        return cls(
            model, deepcopy(model), build_optimiser(model, config), training, validation, config, processes, progress
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return -(-len(self.training) // self.config.batch_size)

    @property
    def steps(self) -> int:
        """Optimiser steps in all epochs."""
        return self.config.epochs * self.steps_per_epoch

    @property
    def ended(self) -> bool:
        """Whether the last epoch is over, or what is monitored got no better for too long."""
        trained = self.progress.epoch - 1
        late = self.validation is not None and trained - self.progress.best_epoch >= self.config.patience
        return trained >= self.config.epochs or (trained > 0 and late)


@dataclass(frozen=True)
class Callbacks:
    """What a fit calls.

    Attributes
    ----------
    report
        With ``"step"`` and its numbers, ``"warning"``, and ``"epoch"`` with the mean of each loss term, the scalars
        and validation metrics.
    save
        When the state is to be saved.
    keep
        When the averaged weights are the best so far, or the last where those are kept.
    poll
        Before each piece of a batch.
    predicted
        With an epoch and the (n, G) prediction of the validation spots after it.
    """

    report: Report
    save: Callable[[], None] = lambda: None
    keep: Callable[[], None] = lambda: None
    poll: Callable[[], None] = lambda: None
    predicted: Callable[[int, NDArray[np.float32]], None] = lambda epoch, prediction: None


def fit(run: Run, calls: Callbacks) -> None:
    """Train to the end of the last epoch, or until what is monitored gets no better.

    What the callbacks raise ends the fit; the run then stands where its last step left it.

    Raises
    ------
    HyperSTError
        If a loss or the gradient is no finite number; the term and the step are named. Or if one spot at a time is too
        much for the device's memory.
    """
    scaler = torch.amp.GradScaler(run.processes.device.type, enabled=run.model.encoder.dtype == torch.float16)
    if run.progress.scaler:
        scaler.load_state_dict(run.progress.scaler)
    if run.progress.step == 0:
        start_from_data(run.model, run.training, config=run.config)
        run.averaged.load_state_dict(run.model.state_dict())
    while not run.ended:
        while run.progress.offset < run.steps_per_epoch:
            try:
                _train_epoch(run, scaler, calls)
            except OutOfMemory as error:
                _take_less(run, error, calls.report)
        _end_epoch(run, calls)
    calls.save()


def _train_epoch(run: Run, scaler: torch.amp.GradScaler, calls: Callbacks) -> None:
    """Take the steps that are left of an epoch, a batch in pieces of the size that is set."""
    progress, config, training = run.progress, run.config, run.training
    rank, count = run.processes.rank, run.processes.count
    order, symmetry = epoch_order(
        training.slide, training.symmetries, config.seed, progress.epoch, config.balance_slides
    )
    batches = order.tensor_split(run.steps_per_epoch)[progress.offset :]
    symmetries = symmetry.tensor_split(run.steps_per_epoch)[progress.offset :]
    divided = [divide(torch.arange(len(batch)), count, progress.micro_batch) for batch in batches]

    def tasks() -> Iterator[Callable[[], Fetched]]:
        for step, (batch, turns, pieces) in enumerate(
            zip(batches, symmetries, divided, strict=True), progress.step + 1
        ):
            jitter = seed_of(config.seed, step, _JITTER)
            for piece in _own(pieces, rank, count):
                rows = pieces[piece]
                yield partial(training.fetch, batch[rows], turns[rows], jitter)

    train_mode(run.model)
    ahead = read_ahead(tasks(), config.workers, depth=2 * config.workers)
    try:
        for batch, pieces in zip(batches, divided, strict=True):
            started = time.perf_counter()
            taken = [next(ahead) for _ in _own(pieces, rank, count)]
            waited = sum(seconds for _, seconds in taken)
            terms, norm = _step(run, scaler, batch, pieces, [fetched for fetched, _ in taken], calls.poll)
            numbers = {name: term.item() for name, term in terms.items()}
            numbers |= {"grad_norm": norm} if math.isfinite(norm) else {}
            numbers["waiting"] = waited / (time.perf_counter() - started)
            progress.count_step(numbers, scaler.state_dict())
            calls.report("step", {"step": progress.step, "of": run.steps, "spots": len(batch), **numbers})
            if progress.step % config.save_steps == 0:
                calls.save()
    finally:
        ahead.close()


def _own(pieces: list[Tensor], rank: int, count: int) -> list[int]:
    """Return the numbers of the pieces of a batch that are a process's, without empty ones."""
    each = len(pieces) // count
    return [i for i in range(rank * each, (rank + 1) * each) if len(pieces[i])]


def _take_less(run: Run, error: OutOfMemory, report: Report) -> None:
    """Halve the piece of a batch that is taken at once."""
    run.optimiser.zero_grad()
    if run.processes.device.type == "cuda":
        torch.cuda.empty_cache()
    share = -(-min(run.config.batch_size, len(run.training)) // run.processes.count)
    size = min(run.progress.micro_batch or share, share)
    if size == 1:
        raise HyperSTError(
            f"out of memory with one spot at a time ({error})", do="use the CPU, or a smaller encoder"
        ) from error
    run.progress.micro_batch = -(-size // 2)
    less = f"out of memory; from here on {run.progress.micro_batch} spots at a time, which changes no loss"
    report("warning", {"message": less})


def _step(
    run: Run,
    scaler: torch.amp.GradScaler,
    batch: Tensor,
    pieces: list[Tensor],
    fetched: list[Fetched],
    poll: Callable[[], None],
) -> tuple[dict[str, Tensor], float]:
    """Take one step; return the terms of its loss and the norm of its gradient before clipping."""
    config, training, processes, step = run.config, run.training, run.processes, run.progress.step + 1
    own = [_own(pieces, rank, processes.count) for rank in range(processes.count)]
    sizes = [sum(len(pieces[i]) for i in numbers) for numbers in own]
    targets = tuple(
        values[batch].to(processes.device) for values in (training.spot_genes, training.slide, training.detected)
    )
    seeds = [seed_of(config.seed, step, _OBJECTIVE)]
    seeds += [seed_of(config.seed, step, _PIECE, piece) for piece in own[processes.rank]]
    run.optimiser.zero_grad()
    terms = accumulate_gradient(
        run.model,
        [partial(part.to, processes.device) for part in fetched],
        sizes,
        targets,  # type: ignore[arg-type]
        seeds,
        processes,
        lambda loss: scaler.scale(loss).backward(),
        poll,
    )
    bad = [name for name, term in terms.items() if not torch.isfinite(term)]
    if bad:
        raise _not_finite(f"the loss term {bad[0]}", step)
    scaler.unscale_(run.optimiser)
    norm = float(nn.utils.clip_grad_norm_(run.model.parameters(), config.clip))
    if not math.isfinite(norm) and scaler.get_scale() <= 1:  # a gradient scaler leaves such a step out, and scales less
        raise _not_finite("the gradient", step)
    set_learning_rate(run.optimiser, step - 1, run.steps)
    scaler.step(run.optimiser)
    scaler.update()
    run.model.clamp_()
    average_into(run.averaged, run.model, config.average, step)
    return terms, norm


def _not_finite(what: str, step: int) -> HyperSTError:
    return HyperSTError(
        f"{what} is no finite number at step {step}",
        do="train in a new folder with a lower learning rate, or in float32",
    )


def _end_epoch(run: Run, calls: Callbacks) -> None:
    """Validate, tell, and keep the weights if they are to be kept."""
    progress, config = run.progress, run.config
    numbers: dict[str, Any] = progress.means()
    numbers |= run.model.scalars()
    set_learning_rate(run.optimiser, progress.step - 1, run.steps)  # of a run resumed here, they are not known yet
    for group in run.optimiser.param_groups:
        numbers[group["name"]] = group["lr"]
    metrics: dict[str, float] = {}
    if run.validation is not None:
        found = validate(run.averaged, run.validation, config.batch_size, calls.poll, progress.micro_batch)
        metrics = run.processes.agree(found.metrics)
        calls.predicted(progress.epoch, found.prediction)
    epoch = progress.epoch
    progress.epoch, progress.offset, progress.sums, progress.counts = epoch + 1, 0, {}, {}
    value = metrics.get(config.monitor)
    better = run.validation is None or (value is not None and _is_better(config.monitor, value, progress.best_value))
    if run.validation is not None and value is None:
        calls.report("warning", {"message": f"{config.monitor} is no finite number on the validation slides"})
    if better:
        progress.best_epoch, progress.best_value = epoch, value
    if better or config.keep == "last":
        progress.kept_epoch, progress.kept_metrics = epoch, metrics
        calls.keep()
    told = {f"validation/{name}": number for name, number in metrics.items()}
    calls.report("epoch", {"epoch": epoch, "of": config.epochs, **numbers, **told})


def _is_better(monitor: str, value: float, best: float | None) -> bool:
    if best is None:
        return True
    return value > best if _MORE_IS_BETTER[monitor] else value < best


@torch.no_grad()
def start_from_data(model: Method, data: TrainingSet, config: TrainConfig) -> None:
    """Start the output at the mean expression, or the linear path at the ridge solution and the decoder at zero."""
    if not (isinstance(model, HyperST) and model.config.linear_path):
        model.output.bias.copy_(data.spot_genes.mean(dim=0))
        return
    scales = [("spot", "niche").index(scale) for scale in model.config.decoder_inputs]
    features = np.concatenate([encoder_features(model, data, s)[:, scales] for s in range(data.symmetries)])
    expression = np.tile(data.spot_genes.numpy(), (data.symmetries, 1))
    linear = fit_ridge(features.reshape(len(features), -1), expression, config.ridge)
    model.linear_path.weight.copy_(torch.from_numpy(linear.weight))
    model.linear_path.bias.copy_(torch.from_numpy(linear.bias))
    nn.init.zeros_(model.output.weight)
    nn.init.zeros_(model.output.bias)
