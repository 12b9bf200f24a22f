"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_hyperst.errors import HyperSTError
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.method import Method
from napari_hyperst.models.ridge import fit_ridge
from napari_hyperst.nouns.metrics import summarise
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.training.dataset import TrainingSet

#: Called with what happened and its numbers.
Report = Callable[[str, dict[str, Any]], None]
#: Spots at a time where no gradient is needed.
_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Fit:
    """What came of a training run.

    Attributes
    ----------
    model
        The weights kept: the best epoch's, or the last one's where there was nothing to validate on.
    epoch
        The epoch they are from, counted from 1.
    metrics
        Agreement on the validation spots; empty without them.
    """

    model: Method
    epoch: int
    metrics: dict[str, float]


def fit(
    model: Method, training: TrainingSet, validation: TrainingSet | None, config: TrainConfig, report: Report
) -> Fit:
    """Train, validating after each epoch on prediction error.

    Parameters
    ----------
    model
        On its device; changed in place.
    training, validation
        What to learn from and, optionally, what to choose the epoch on.
    config
        Settings.
    report
        Called with ``"step"`` and its loss, and with ``"epoch"`` and the mean of each loss term, the scalars and
        validation metrics. What it raises ends the fit.

    Raises
    ------
    HyperSTError
        If a loss is no finite number; the term and the step are named.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(config.seed)
    start_from_data(model, training, config)
    averaged = deepcopy(model)
    optimiser = _optimiser(model, config)
    steps_per_epoch = max(1, round(len(training) / config.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _warm_cosine(config.epochs * steps_per_epoch))
    best: Fit | None = None
    step = 0
    for epoch in range(1, config.epochs + 1):
        model.train()
        model.encoder.vit.eval()  # of the encoder, only LoRA's dropout is at work
        _train_lora_dropout(model.encoder.vit)
        history: dict[str, list[float]] = {}
        order = torch.randperm(len(training), generator=generator)
        for rows in order.tensor_split(steps_per_epoch):
            step += 1
            symmetry = torch.randint(len(training.states), (len(rows),), generator=generator)
            batch = training.batch(rows, symmetry, device)
            assert batch.spot_genes is not None
            terms = model.objective(model(batch), batch.spot_genes)
            _check_finite(terms, step)
            optimiser.zero_grad()
            terms["total"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimiser.step()
            schedule.step()
            model.clamp_()
            _average_into(averaged, model, min(config.average, (1 + step) / (10 + step)))
            for name, term in terms.items():
                history.setdefault(name, []).append(term.item())
            report("step", {"step": step, "of": config.epochs * steps_per_epoch, "total": terms["total"].item()})
        numbers: dict[str, Any] = {name: sum(values) / len(values) for name, values in history.items()}
        numbers |= model.scalars()
        metrics = {} if validation is None else evaluate_set(averaged, validation)
        report(
            "epoch",
            {"epoch": epoch, "of": config.epochs, **numbers, **{f"validation/{k}": v for k, v in metrics.items()}},
        )
        if best is None or not metrics or metrics["mse"] < best.metrics["mse"]:
            best = Fit(deepcopy(averaged), epoch, metrics)
        elif epoch - best.epoch >= config.patience:
            break
    assert best is not None  # there is at least one epoch
    return best


def evaluate_set(model: Method, data: TrainingSet) -> dict[str, float]:
    """Return the agreement of prediction and measurement on some spots, upright."""
    return summarise(predict_set(model, data).numpy(), data.spot_genes.numpy())


@torch.no_grad()
def predict_set(model: Method, data: TrainingSet) -> Tensor:
    """Return (n, G) predictions of the spots, upright, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    upright = torch.zeros(len(data), dtype=torch.long)
    rows = torch.arange(len(data)).split(_EVALUATION_BATCH)
    return torch.cat([model.predict(data.batch(part, upright[part], device)).float().cpu() for part in rows])


@torch.no_grad()
def encoder_features(model: Method, data: TrainingSet, symmetry: int = 0) -> np.ndarray:
    """Return (n, 2, width) features of spot and niche tiles as the encoder stands."""
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for part in torch.arange(len(data)).split(_EVALUATION_BATCH):
        batch = data.batch(part, torch.full_like(part, symmetry), device)
        parts.append(torch.stack([model.encoder(batch.spot).float(), model.encoder(batch.niche).float()], dim=1).cpu())
    return torch.cat(parts).numpy()


@torch.no_grad()
def start_from_data(model: Method, data: TrainingSet, config: TrainConfig) -> None:
    """Start the output at the mean expression, or the linear path at the ridge solution and the decoder at zero."""
    if not (isinstance(model, HyperST) and model.config.linear_path):
        model.output.bias.copy_(data.spot_genes.mean(dim=0))
        return
    scales = [("spot", "niche").index(scale) for scale in model.config.decoder_inputs]
    features = np.concatenate([encoder_features(model, data, s)[:, scales] for s in range(len(data.states))])
    expression = np.tile(data.spot_genes.numpy(), (len(data.states), 1))
    linear = fit_ridge(features.reshape(len(features), -1), expression, config.ridge)
    model.linear_path.weight.copy_(torch.from_numpy(linear.weight))
    model.linear_path.bias.copy_(torch.from_numpy(linear.bias))
    nn.init.zeros_(model.output.weight)
    nn.init.zeros_(model.output.bias)


def _optimiser(model: Method, config: TrainConfig) -> torch.optim.AdamW:
    """Weights decay but for biases, norms and the scalars of the alignment; LoRA has a learning rate of its own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(("lora_" in name, parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.lora_learning_rate if is_lora else config.learning_rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (is_lora, decays), parameters in groups.items()
        ]
    )


def _warm_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, steps // 10)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return factor


def _train_lora_dropout(encoder: nn.Module) -> None:
    for name, module in encoder.named_modules():
        if name.endswith("lora_dropout"):
            module.train()


@torch.no_grad()
def _average_into(averaged: Method, model: Method, decay: float) -> None:
    for kept, new in zip(averaged.parameters(), model.parameters(), strict=True):
        if new.requires_grad:
            kept.lerp_(new, 1 - decay)


def _check_finite(terms: dict[str, Tensor], step: int) -> None:
    bad = [name for name, term in terms.items() if not torch.isfinite(term)]
    if bad:
        raise HyperSTError(
            f"the loss term {bad[0]} is no finite number at step {step}", do="lower the learning rate, or use float32"
        )
