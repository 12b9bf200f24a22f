"""The packaged slide: section C2 of the HER2ST data set."""

from __future__ import annotations

from pathlib import Path


def sample_folder() -> Path:
    """Return the folder of the packaged legacy ST section (Andersson et al. 2021; see SOURCE.md in it)."""
    return Path(__file__).parents[1] / "assets" / "samples" / "C2"
