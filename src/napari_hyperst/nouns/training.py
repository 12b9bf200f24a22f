"""Settings of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from napari_hyperst.nouns.methods import HyperSTConfig, MethodConfig
from napari_hyperst.nouns.slide_ref import SlideRef
from napari_hyperst.nouns.tiles import TileSpec


class TrainConfig(BaseModel):
    """Everything that a training run depends on.

    Attributes
    ----------
    slides, validation
        Paths of the training and the validation slides; without these and ``holdout`` the last epoch is kept.
    opened
        Those of them that do not tell all that is needed by themselves, and what to open them with.
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
    gene_list
        Genes to predict, by symbol or Ensembl id, in the place of that panel; all training slides must have them.
    holdout
        Share of the spots of each training slide that is held out as one block, to validate on where there are no
        validation slides; spots within a niche of the block are left out. Optimistic: it is of the same sections.
    epochs, batch_size
        How long, and the most spots a step, over all processes.
    micro_batch
        The most spots at once on one device; None for all of them. It bounds memory and changes no loss: the
        objective is always that of the whole batch. Where memory runs out it is halved.
    learning_rate, lora_learning_rate
        AdamW's, for the heads and for LoRA; a tenth of the epochs warms up, a cosine goes down to zero.
    weight_decay
        AdamW's, on all but biases, norms and the scalars of the alignment.
    clip
        The gradient's norm is clipped to this.
    average
        Decay of the exponential moving average of the weights that is kept; 0 keeps the weights themselves.
    symmetries
        How many of the eight symmetries of the square to train on; each is cached for every tile.
    stain_jitter
        Standard deviation of the random change of haematoxylin, eosin and DAB in optical density; 0 for none. It
        changes pixels, so it is off where the states of the encoder are cached.
    balance_slides
        Show as many spots of each slide in an epoch, those of small slides repeatedly; two of a kind in one batch are
        negatives of each other.
    cache
        Where to keep the states that enter the first block that learns, so that nothing before it is computed twice:
        in files that later runs find again (``"disk"``), in ``"memory"``, or nowhere (``"off"``).
    cache_gib
        The most that they may take, in GiB; of files, those of all runs together.
    workers
        Threads that read ahead of the device.
    monitor
        What early stopping and the choice of the epoch go by on the validation slides: the prediction's squared error,
        its PCC, or the ``"total"`` loss.
    keep
        Which epoch to keep: the best one, or the last. The published rule is ``monitor="total", keep="last"``.
    patience
        Epochs without a better one after which to stop.
    save_steps
        Steps after which the run's state is saved, for it to be resumed from.
    trackers
        Experiment trackers that the run is logged to as well.
    processes
        How many processes there must be; the run ends at once where there are more or fewer.
    complete_niches_only
        Train on spots with a complete niche only, as published: its tile lies in the image, and all of the ring of
        neighbours have counts.
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
    opened: tuple[SlideRef, ...] = ()
    out: Path
    name: str = "checkpoint"
    method: MethodConfig = HyperSTConfig()
    init_from: str | None = None
    tiles: TileSpec = TileSpec()
    genes: PositiveInt = 200
    gene_list: tuple[str, ...] = ()
    holdout: float = Field(default=0.0, ge=0, le=0.5)
    epochs: PositiveInt = 30
    batch_size: int = Field(default=128, ge=2)
    micro_batch: PositiveInt | None = None
    learning_rate: PositiveFloat = 1e-3
    lora_learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    clip: PositiveFloat = 1.0
    average: float = Field(default=0.98, ge=0, lt=1)
    symmetries: int = Field(default=8, ge=1, le=8)
    stain_jitter: NonNegativeFloat = 0.0
    balance_slides: bool = False
    cache: Literal["disk", "memory", "off"] = "disk"
    cache_gib: PositiveFloat = 8.0
    workers: PositiveInt = 4
    monitor: Literal["mse", "pcc", "total"] = "mse"
    keep: Literal["best", "last"] = "best"
    patience: PositiveInt = 10
    save_steps: PositiveInt = 50
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    processes: PositiveInt | None = None
    complete_niches_only: bool = False
    ridge: PositiveFloat = 1000.0
    seed: NonNegativeInt = 42
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @model_validator(mode="after")
    def _validates_one_way(self) -> TrainConfig:
        if self.holdout > 0 and self.validation:
            raise ValueError("holdout is for runs without validation slides; leave one of the two out")
        if len(set(self.gene_list)) < len(self.gene_list):
            raise ValueError("gene_list names a gene twice")
        others = {ref.path.absolute() for ref in self.opened}
        others -= {path.absolute() for path in (*self.slides, *self.validation)}
        if others:
            raise ValueError(f"opened names {min(others)}, which is neither in slides nor in validation")
        return self

    def absolute(self) -> TrainConfig:
        """Return these settings with absolute paths of slides and run, good in any working directory."""
        slides, validation = (tuple(path.absolute() for path in paths) for paths in (self.slides, self.validation))
        opened = tuple(ref.model_copy(update={"path": ref.path.absolute()}) for ref in self.opened)
        paths = {"slides": slides, "validation": validation, "opened": opened, "out": self.out.absolute()}
        return self.model_copy(update=paths)

    def ref(self, path: Path) -> SlideRef:
        """Return how one of the slides is opened."""
        told = (ref for ref in self.opened if ref.path.absolute() == path.absolute())
        return next(told, SlideRef(path=path))
