"""What a run is resumed from: tensors as safetensors, numbers as JSON. No pickle is written or read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from napari_hyperst.errors import StoreError
from napari_hyperst.models.method import Method
from napari_hyperst.models.tensor_file import read_header
from napari_hyperst.received import open_received, parse_json, read_received

TENSORS, NUMBERS = "state.safetensors", "state.json"
_MOST_NUMBERS = 4 * 2**20
#: Weights, their moving average, and the optimiser's two moments of them; a number a parameter for its steps.
_COPIES = 4


@dataclass
class Progress:
    """How far a run has come: with the weights, all that the rest of it depends on.

    Random numbers are none of it: they follow from the seed, the step and the place in the batch.

    Attributes
    ----------
    step
        Steps taken.
    epoch
        The epoch that is being trained, counted from 1.
    offset
        Steps of it that were taken.
    micro_batch
        The most spots at once on one device; None for no bound.
    sums, counts
        Of each number that is told as a mean over the epoch, the sum so far, and the steps that had it.
    best_epoch, best_value
        The best epoch so far, and the monitored value there.
    kept_epoch, kept_metrics
        The epoch whose weights are kept, and what was measured there.
    scaler
        The state of the gradient scaler, of float16.
    inputs
        What is trained on, with and where, by which it is known again.
    """

    step: int = 0
    epoch: int = 1
    offset: int = 0
    micro_batch: int | None = None
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    best_epoch: int = 0
    best_value: float | None = None
    kept_epoch: int = 0
    kept_metrics: dict[str, float] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    def count_step(self, numbers: dict[str, float], scaler: dict[str, Any]) -> None:
        """Count a step with its numbers, and remember the gradient scaler's state after it."""
        self.step, self.offset, self.scaler = self.step + 1, self.offset + 1, scaler
        for name, number in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + number
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the means over the steps of the epoch so far."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


_PROGRESS = TypeAdapter(Progress)


def write_state(
    folder: Path, progress: Progress, model: Method, averaged: Method, optimiser: torch.optim.Optimizer
) -> None:
    """Write a run's state into a folder that nobody reads yet."""
    tensors = {f"{kind}/{name}": tensor for kind, m in _both(model, averaged) for name, tensor in _learnt(m).items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    (folder / NUMBERS).write_text(json.dumps(vars(progress), indent=2) + "\n", encoding="utf-8")


def read_state(folder: Path, model: Method, averaged: Method, optimiser: torch.optim.Optimizer) -> Progress:
    """Restore a run's state into a model, its average and an optimiser as they are built anew.

    Raises
    ------
    StoreError
        If the state is broken, or that of another run.
    """
    try:
        progress = _PROGRESS.validate_json(_strict(read_received(folder / NUMBERS, _MOST_NUMBERS)), strict=True)
        tensors = _tensors(folder / TENSORS, model, averaged)
        for kind, m in _both(model, averaged):
            with torch.no_grad():
                for name, tensor in _learnt(m).items():
                    tensor.copy_(tensors.pop(f"{kind}/{name}"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise StoreError(
            f"holds no state of this run ({type(error).__name__}: {error})", where=folder, do="train in a new folder"
        ) from error
    return progress


def _strict(text: bytes) -> bytes:
    """Return JSON that means the same to every parser."""
    parse_json(text)
    return text


def _tensors(path: Path, model: Method, averaged: Method) -> dict[str, Tensor]:
    """Read the tensors of a state, no more and no larger ones than those of the model."""
    shapes = {f"{kind}/{name}": t.shape for kind, m in _both(model, averaged) for name, t in _learnt(m).items()}
    sizes = {math.prod(shape) for shape in shapes.values()} | {1}
    with open_received(path) as file:
        found = read_header(file)
        wrong = [name for name, shape in shapes.items() if name not in found or found[name].shape != tuple(shape)]
        wrong += [name for name in found if name not in shapes and not name.startswith("optimiser/")]
        wrong += [name for name, entry in found.items() if math.prod(entry.shape) not in sizes]
        if wrong or len(found) > _COPIES * len(shapes):
            raise ValueError(f"{len(wrong)} tensors are not those of this run, {', '.join(wrong[:1])[:100]} for one")
        file.seek(0)
        return load(file.read())


def _both(model: Method, averaged: Method) -> tuple[tuple[str, Method], tuple[str, Method]]:
    return ("model", model), ("averaged", averaged)


def _learnt(model: Method) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
