"""Settings of a training run that follow from its slides, its device and the memory there is."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from napari_hyperst.nouns.training import TrainConfig

_GIB = 2**30
#: Memory of a process with PyTorch in it, before there is a model.
_BASE = int(0.6 * _GIB)
#: Of what is free, the most to plan with.
_SHARE = 0.6
#: Tiles encoded at once while the cache is filled; a validation forward's share of a step's time.
_AT_ONCE, _FORWARD = 32, 0.35
#: The longest that the encoding of tiles may take before fewer symmetries are kept, in seconds.
_PATIENCE_S = 900.0
#: About how many steps a fine-tuning takes, and the bounds of its epochs.
_STEPS, _EPOCHS = 400, (8, 40)


@dataclass(frozen=True)
class Pace:
    """What one tile or one spot takes.

    Attributes
    ----------
    read_s, encode_s
        Seconds of one tile: to be read, and to go through the blocks that do not learn.
    step_s
        Seconds of one spot: to go through those that learn, with the gradient.
    weights, learnt
        Bytes of all weights, and of those that learn.
    state, kept
        Bytes of the states of a spot under one symmetry, and of what is kept of it for the gradient.
    passing
        Bytes of a spot while it is encoded.
    """

    read_s: float
    encode_s: float
    step_s: float
    weights: int
    learnt: int
    state: int
    kept: int
    passing: int


@dataclass(frozen=True)
class Cost:
    """What a run costs, by its settings.

    Attributes
    ----------
    spots, held_out
        Spots to train on and to validate on.
    pace
        Of one tile or spot.
    memory_free, disk_free
        Bytes.
    on_cpu
        Whether it computes on the CPU.
    """

    spots: int
    held_out: int
    pace: Pace
    memory_free: int
    disk_free: int
    on_cpu: bool

    def states_bytes(self, config: TrainConfig) -> int:
        """Return the bytes of the encoder's states that are kept."""
        return self.pace.state * (config.symmetries * self.spots + self.held_out)

    def prepare_s(self, config: TrainConfig) -> float:
        """Return the seconds until all tiles are encoded; 0 without a cache."""
        if config.cache == "off":
            return 0.0
        tiles = 2 * (config.symmetries * self.spots + self.held_out)
        return tiles * self.pace.encode_s + 2 * (self.spots + self.held_out) * self.pace.read_s

    def epoch_s(self, config: TrainConfig) -> float:
        """Return the seconds of an epoch with its validation."""
        again = 1 + _FORWARD if config.micro_batch and config.micro_batch < config.batch_size else 1.0
        learning = self.pace.step_s * (again * self.spots + _FORWARD * self.held_out)
        if config.cache != "off":
            return learning
        tiles = 2 * (again * self.spots + self.held_out)
        return learning + tiles * self.pace.encode_s + 2 * (self.spots + self.held_out) * self.pace.read_s

    def memory_bytes(self, config: TrainConfig) -> int:
        """Return the most bytes of the device's memory: weights and their average, AdamW's, a piece, and the cache."""
        piece = min(config.micro_batch or config.batch_size, config.batch_size, self.spots)
        passing = _AT_ONCE // 2 * self.pace.passing
        held = self.states_bytes(config) if config.cache == "memory" and self.on_cpu else 0
        return _BASE + 2 * self.pace.weights + 3 * self.pace.learnt + max(piece * self.pace.kept, passing) + held


def suggest(config: TrainConfig, cost: Cost, free: Collection[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Work settings out.

    Parameters
    ----------
    config
        The settings as they are.
    cost
        What they cost.
    free
        Names of those that may be another; the others are kept.

    Returns
    -------
    tuple
        Values by name, and for each why.
    """
    found: dict[str, tuple[Any, str]] = {}

    def settle(name: str, value: Any, why: str) -> None:
        nonlocal config
        if name in free:
            found[name] = (value, why)
            config = config.model_copy(update={name: value})

    settle("batch_size", *_batch(cost))
    settle("micro_batch", *_piece(config, cost))
    for name, value, why in _cache(config, cost):
        settle(name, value, why)
    steps = -(-cost.spots // config.batch_size)
    epochs = min(max(round(_STEPS / steps), _EPOCHS[0]), _EPOCHS[1])
    settle("epochs", epochs, f"{steps} steps in each, about {_STEPS} in all")
    settle("patience", max(4, config.epochs // 3), "a third of the epochs")
    return {name: value for name, (value, _) in found.items()}, {name: why for name, (_, why) in found.items()}


def suggest_lora(spots: int, on_cpu: bool) -> tuple[int, str]:
    """Return how many of the encoder's last blocks should learn from so many spots, and why."""
    if spots < 200:
        return 1, f"{spots} spots are few: one block is less to overfit with"
    if spots < 5000 or on_cpu:
        return 2, "two blocks, which a CPU trains in reasonable time" if on_cpu else f"for {spots:,} spots"
    return 4, f"{spots:,} spots can teach more blocks"


def _batch(cost: Cost) -> tuple[int, str]:
    size = 128
    while size > 8 and size * 4 > cost.spots:
        size //= 2
    why = "the contrastive terms learn from large batches" if size == 128 else f"at least four batches of {cost.spots}"
    return max(2, min(size, cost.spots)), why


def _piece(config: TrainConfig, cost: Cost) -> tuple[int | None, str]:
    room = _SHARE * cost.memory_free
    if cost.memory_bytes(config.model_copy(update={"micro_batch": None})) <= room:
        return None, "a whole batch fits into memory"
    size = config.batch_size
    while size > 1 and cost.memory_bytes(config.model_copy(update={"micro_batch": size})) > room:
        size //= 2
    return size, f"more do not fit into {cost.memory_free / _GIB:.1f} GiB; the loss is the same"


def _cache(config: TrainConfig, cost: Cost) -> list[tuple[str, Any, str]]:
    """Keep the states of as many symmetries as there is room and time for; of none where even one is too much."""
    room = min(config.cache_gib * _GIB, 0.5 * cost.disk_free)
    for symmetries in (8, 4, 2, 1):
        tried = config.model_copy(update={"symmetries": symmetries, "cache": "disk"})
        if cost.states_bytes(tried) <= room and (cost.prepare_s(tried) <= _PATIENCE_S or symmetries == 1):
            gib = cost.states_bytes(tried) / _GIB
            why = f"the encoder's states take {gib:.2g} GiB of disk and are computed once"
            return [("cache", "disk", why), ("symmetries", symmetries, "as many as there is room and time for")]
    why = f"the encoder's states would take more than {room / _GIB:.2g} GiB"
    return [("cache", "off", why), ("symmetries", 8, "without a cache they cost nothing")]
