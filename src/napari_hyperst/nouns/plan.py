"""What a training run would take, told before it starts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class PlannedSlide(BaseModel):
    """A slide of a planned run.

    Attributes
    ----------
    path, name
        Where it is, and its name.
    spots, held_out
        Spots that are trained on, and those that are validated on.
    patient
        Whose it is, where its table tells; empty where not.
    missing
        Genes that were asked for, and that it lacks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    name: str
    spots: int
    held_out: int
    patient: str = ""
    missing: tuple[str, ...] = ()


class TrainingPlan(BaseModel):
    """A run before it starts.

    Attributes
    ----------
    slides
        Its slides, those to train on first.
    genes
        The panel: genes that were asked for and that all training slides have, or that HMHVG chose.
    settings
        Values of the settings that were free to be worked out.
    reasons
        For each of them, why.
    device
        Where it would compute, and what that is.
    devices
        Of each kind, what was found and why not, one of which is empty.
    prepare_s, epoch_s
        Seconds to encode the tiles, and for an epoch.
    memory_gib, memory_free_gib
        The most memory of the device that it takes, by arithmetic, and how much of it is free.
    cache_gib
        Of disk or memory for the encoder's states.
    basis
        What the estimate is based on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slides: tuple[PlannedSlide, ...]
    genes: tuple[str, ...]
    settings: dict[str, Any]
    reasons: dict[str, str]
    device: str
    devices: dict[str, tuple[str, str]]
    prepare_s: float
    epoch_s: float
    memory_gib: float
    memory_free_gib: float
    cache_gib: float
    basis: str

    def total_s(self, epochs: int) -> float:
        """Return the seconds that a run of so many epochs takes."""
        return self.prepare_s + epochs * self.epoch_s
