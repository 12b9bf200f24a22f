"""µm per px of a slide, settled between those who claim to know it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_hyperst.errors import HyperSTWarning, ScaleError, SlideError

#: A scale in µm/px, or None where nothing is claimed, and whose claim it is.
Claim = tuple[float | None, str]
#: Whose claim a stated scale is.
STATED = "what was stated"
#: Scales that differ by more than this are reported.
_TOLERANCE = 0.05


def settle_scale(claims: Sequence[Claim], where: Path, also: str = "") -> float:
    """Settle on the first of some claims; those that contradict it by more than 5 % are reported.

    Parameters
    ----------
    claims
        The surest first.
    where
        The slide, for messages.
    also
        What else to check where claims contradict each other.

    Returns
    -------
    float
        µm per px.

    Raises
    ------
    ScaleError
        If nothing is claimed.
    SlideError
        If the first claim is no positive number.
    """
    told = [(value, whose) for value, whose in claims if value is not None]
    if not told:
        raise ScaleError("nothing tells how many µm a px is", where=where, do="state it (--mpp, or mpp=)")
    scale, chosen = told[0]
    if not np.isfinite(scale) or scale <= 0:
        raise SlideError(f"{scale} is no scale in µm/px", where=where, do="state a positive number")
    do = "check what you state (--mpp, or mpp=)" if chosen == STATED else "state the right one (--mpp, or mpp=)"
    for other, whose in told[1:]:
        if abs(other / scale - 1) > _TOLERANCE:
            warnings.warn(
                f"{where}: {scale:.4g} µm/px is used, by {chosen}, which contradicts the {other:.4g} µm/px by "
                f"{whose}; {do}{also}",
                HyperSTWarning,
                stacklevel=4,
            )
    return float(scale)
