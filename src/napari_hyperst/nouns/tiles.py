"""What square of tissue a model looks at."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class TileSpec(BaseModel):
    """Size of the spot tile and of the niche tile around each spot, and what is done to their colours.

    Attributes
    ----------
    spot_um
        Side of the spot tile in µm. HyperST's code and HEST use 112 µm (224 px at 0.5 µm/px).
    niche_um
        Side of the niche tile in µm, or ``"ring"``: twice the lattice pitch plus the spot radius, the square
        that holds the spot and its first ring of neighbours.
    pixels
        Side in px to which both tiles are resampled.
    stain
        How the colours of a slide are normalised: not at all, so that glass is white (``"white_balance"``), so that
        haematoxylin and eosin are those of a reference (``"macenko"``, which needs the extra ``stain``), or so that
        colours have the mean and the spread of a reference (``"reinhard"``). It is fitted to each slide as a whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    spot_um: PositiveFloat = 112.0
    niche_um: PositiveFloat | Literal["ring"] = "ring"
    pixels: PositiveInt = Field(default=224, ge=14, le=1024)
    stain: Literal["none", "white_balance", "macenko", "reinhard"] = "none"
