"""The checkpoints that the package ships."""

from __future__ import annotations

from pathlib import Path

BUNDLED_CHECKPOINTS = Path(__file__).parents[1] / "assets" / "checkpoints"
DEFAULT_CHECKPOINT = "her2st-dinov2s"


def bundled_checkpoints() -> tuple[str, ...]:
    """Return the names of the checkpoints that the package ships."""
    return tuple(sorted(card.parent.name for card in BUNDLED_CHECKPOINTS.glob("*/card.json")))


def is_checkpoint(ref: str) -> bool:
    """Tell whether something names a checkpoint, bundled, in a folder or on the hub, without looking into it."""
    there = Path(ref)
    return (
        ref.startswith("hf://")
        or (there / "card.json").is_file()
        or (not there.exists() and ref in bundled_checkpoints())
    )
