"""How weights change: AdamW with warm-up and cosine decay, clipping, and a moving average."""

from __future__ import annotations

import math

import torch
from torch import nn

from napari_hyperst.models.method import Method
from napari_hyperst.nouns.training import TrainConfig


def build_optimiser(model: Method, config: TrainConfig) -> torch.optim.AdamW:
    """Return AdamW: weights decay but for biases, norms and the alignment's scalars; LoRA has a rate of its own."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(("lora_" in name, parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "name": "lora_learning_rate" if is_lora else "learning_rate",
                "peak": config.lora_learning_rate if is_lora else config.learning_rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (is_lora, decays), parameters in groups.items()
        ]
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, step: int, steps: int) -> float:
    """Set the learning rates of a step, counted from 0: a tenth of all warms up, a cosine goes down to zero.

    Returns
    -------
    float
        The part of the peak.
    """
    warm = max(1, steps // 10)
    part = (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    for group in optimiser.param_groups:
        group["lr"] = part * group["peak"]
    return part


@torch.no_grad()
def average_into(averaged: Method, model: Method, most: float, step: int) -> None:
    """Move averaged weights towards the model's after a step, counted from 1; the decay grows to ``most``."""
    decay = min(most, (1 + step) / (10 + step))
    for kept, new in zip(averaged.parameters(), model.parameters(), strict=True):
        if new.requires_grad:
            kept.lerp_(new, 1 - decay)


def train_mode(model: Method) -> None:
    """Set a method to training; of the encoder, only LoRA's dropout is at work."""
    model.train()
    model.encoder.vit.eval()
    for name, module in model.encoder.vit.named_modules():
        if name.endswith("lora_dropout"):
            module.train()
