"""What a method makes of spots it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from numpy.typing import NDArray
from torch import Tensor

from napari_hyperst.models.method import Embeddings, Method
from napari_hyperst.nouns.metrics import summarise
from napari_hyperst.training.dataset import TrainingSet

#: Spots at a time where no gradient is needed.
_BATCH = 64


@dataclass(frozen=True)
class Validation:
    """Agreement of prediction and measurement on some spots.

    Attributes
    ----------
    prediction
        (n, G) predicted log2(count + 1).
    metrics
        As ``nouns.metrics.summarise`` gives them, over the genes that a slide has, and ``total``, the mean of the
        whole loss over batches, for which genes it lacks count as 0. What is no finite number is left out.
    """

    prediction: NDArray[np.float32]
    metrics: dict[str, float]


@torch.no_grad()
def validate(
    model: Method,
    data: TrainingSet,
    batch_size: int,
    poll: Callable[[], None] = lambda: None,
    at_once: int | None = None,
) -> Validation:
    """Measure a method on some spots, upright.

    Parameters
    ----------
    model
        On its device.
    data
        The spots.
    batch_size
        Spots in a batch of the objective, as in training: its contrastive terms depend on it.
    poll
        Called from time to time.
    at_once
        The most spots at once on the device; halved where its memory runs out.
    """
    model.eval()
    size = min(_BATCH, at_once or _BATCH)
    device = next(model.parameters()).device
    predictions, totals = [], []
    torch.manual_seed(0)  # for objectives that draw pairs
    for rows in torch.arange(len(data)).tensor_split(-(-len(data) // batch_size)):
        parts: list[Embeddings] = []
        while (left := rows[sum(len(part.prediction) for part in parts) :]).numel():
            poll()
            some = left[:size]
            try:
                parts.append(model(data.batch(some, torch.zeros_like(some), device)))
            except RuntimeError as error:
                if size == 1 or not should_reduce_batch_size(error):
                    raise
                size = size // 2
        prediction = torch.cat([part.prediction for part in parts])
        points = {name: torch.cat([part.points[name] for part in parts]) for name in parts[0].points}
        slide, detected = data.slide[rows].to(device), data.detected[rows].to(device)
        terms = model.objective(Embeddings(prediction, points, slide, detected), data.spot_genes[rows].to(device))
        predictions.append(prediction.float().cpu())
        totals.append(len(rows) * terms["total"].item())
    predicted = torch.cat(predictions).numpy()
    metrics = summarise(predicted, data.measured())
    numbers = metrics | {"total": sum(totals) / len(data)}
    return Validation(predicted, {name: number for name, number in numbers.items() if math.isfinite(number)})


@torch.no_grad()
def encoder_features(model: Method, data: TrainingSet, symmetry: int = 0) -> NDArray[np.float32]:
    """Return (n, 2, width) features of spot and niche tiles as the encoder stands."""
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for part in torch.arange(len(data)).split(_BATCH):
        batch = data.batch(part, torch.full_like(part, symmetry), device)
        both: list[Tensor] = [model.encoder(tiles).float() for tiles in (batch.spot, batch.niche)]
        parts.append(torch.stack(both, dim=1).cpu())
    return torch.cat(parts).numpy()
