"""Settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from napari_hyperst.nouns.methods import HyperSTConfig, MethodConfig
from napari_hyperst.nouns.tiles import TileSpec


class TrainConfig(BaseModel):
    """Everything that a training run depends on.

    Attributes
    ----------
    slides, validation
        Paths of the training and the validation slides; without validation slides the last epoch is kept.
    out
        Folder of the run: ``config.json``, ``events.jsonl`` and the checkpoint in ``best/``.
    name
        Name of the checkpoint.
    method
        Settings of HyperST or, where its ``kind`` says so, of DELST.
    init_from
        A checkpoint, of any method, whose fine-tuned image encoder this run starts from: what ``load_checkpoint``
        takes. Both must stand on the same encoder, with LoRA of the same rank and scale; LoRA of this run must reach
        at least as many blocks.
    tiles
        Sizes of the tiles.
    genes
        Size of the HMHVG panel, chosen on the training slides.
    epochs, batch_size
        How long, and how many spots a step.
    learning_rate, lora_learning_rate
        AdamW's, for the heads and for LoRA; a tenth of the epochs warms up, a cosine goes down to zero.
    weight_decay
        AdamW's, on all but the scalars of the alignment.
    clip
        The gradient's norm is clipped to this.
    average
        Decay of the exponential moving average of the weights that is kept; 0 keeps the weights themselves.
    symmetries
        How many of the eight symmetries of the square to train on; each is held in memory for every tile.
    cache_gib
        The most memory, in GiB, for the states that enter the first block that learns.
    patience
        Epochs without a better validation loss after which to stop.
    complete_niches_only
        Train on spots with a whole ring of neighbours only, as published.
    ridge
        Penalty of the ridge solution that the linear path starts from (on standardised features).
    seed
        Of weights, batches and symmetries.
    device, precision
        Where and in what to compute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slides: tuple[Path, ...] = Field(min_length=1)
    validation: tuple[Path, ...] = ()
    out: Path
    name: str = "checkpoint"
    method: MethodConfig = HyperSTConfig()
    init_from: str | None = None
    tiles: TileSpec = TileSpec()
    genes: PositiveInt = 200
    epochs: PositiveInt = 30
    batch_size: int = Field(default=128, ge=2)
    learning_rate: PositiveFloat = 1e-3
    lora_learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    clip: PositiveFloat = 1.0
    average: float = Field(default=0.98, ge=0, lt=1)
    symmetries: int = Field(default=8, ge=1, le=8)
    cache_gib: PositiveFloat = 8.0
    patience: PositiveInt = 10
    complete_niches_only: bool = False
    ridge: PositiveFloat = 1000.0
    seed: NonNegativeInt = 42
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
