"""How a slide is opened: by its path, and by what it does not tell itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat


class SlideRef(BaseModel):
    """A slide, as told to ``open_slide``.

    Attributes
    ----------
    path
        The folder or store.
    mpp
        µm per px of the H&E, where the user states it.
    image, table
        The H&E and the table of counts, where the user names them.
    pitch_um, spot_um
        Of the spots that are laid over an H&E without transcriptomics, where the user states them.
    tissue
        The mask of the tissue that they are laid over, where the user gives one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    mpp: PositiveFloat | None = None
    image: str | None = None
    table: str | None = None
    pitch_um: PositiveFloat | None = None
    spot_um: PositiveFloat | None = None
    tissue: Path | None = None

    @property
    def options(self) -> dict[str, Any]:
        """All but the path, as ``open_slide`` takes it."""
        return {name: value for name, value in self if name != "path"}

    @property
    def words(self) -> list[str]:
        """The slide as words of a command in a terminal."""
        names = {"mpp": "--mpp", "image": "--image", "table": "--table"}
        names |= {"pitch_um": "--pitch", "spot_um": "--spot", "tissue": "--tissue"}
        given = [(names[key], str(value)) for key, value in self.options.items() if value is not None]
        return [str(self.path), *(word for option in given for word in option)]
