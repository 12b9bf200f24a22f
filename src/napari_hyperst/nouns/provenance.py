"""How a table of a prediction was made: what its ``uns["hyperst"]`` says, written by us and read from anybody."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator

from napari_hyperst.errors import SlideError, plain
from napari_hyperst.nouns.checkpoint import Card

#: Bounds on what is read of a table that anybody may have written.
_LONGEST_CARD, _LONGEST_COMMAND, _LONGEST_WORD, _MOST = 10_000_000, 100_000, 1000, 200
Word = Annotated[str, Field(max_length=_LONGEST_WORD)]


class Run(BaseModel):
    """What differs from one run to the next that make the same table: the only part of a table that does.

    Attributes
    ----------
    at
        When the table was made, in UTC, as ISO 8601.
    device, precision
        What the model ran on, and what its encoder computed in.
    seconds
        How long that took.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: Word = ""
    device: Word = ""
    precision: Word = ""
    seconds: float | None = None


class Provenance(BaseModel):
    """What made a table.

    Attributes
    ----------
    schema_version
        Version of this layout.
    card
        The checkpoint's card.
    checkpoint, checkpoint_sha256
        Its name, and the hash of its weights.
    curvature
        c of the hyperbolic space; NaN where the method has none.
    min_radius
        K of the half-aperture.
    eta, parent
        Of each relation, by its name: the factor on the half-aperture, and which of the two embeddings is the parent.
    transform
        Scale of the expression.
    mpp
        µm per px of the H&E.
    spot_um, niche_um
        Sides of the tiles in µm.
    slide_fingerprint, image_sha256, counts_sha256
        Hashes of the spots, the H&E and the counts; empty where there are none, or an earlier version did not say.
    measured_table
        Name of the table of counts; empty where there is none.
    versions
        Of the packages, and of Python.
    command
        What was asked for; empty where Python was.
    run
        What differs from run to run.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = Field(default=1, ge=1, le=1)
    card: Card
    checkpoint: Word
    checkpoint_sha256: Word
    curvature: float
    min_radius: PositiveFloat
    eta: dict[Word, float] = Field(max_length=_MOST)
    parent: dict[Word, Word] = Field(max_length=_MOST)
    transform: Word
    mpp: PositiveFloat
    spot_um: PositiveFloat
    niche_um: PositiveFloat
    slide_fingerprint: Word = ""
    image_sha256: Word = ""
    counts_sha256: Word = ""
    measured_table: Word = ""
    versions: dict[Word, Word] = Field(default={}, max_length=_MOST)
    command: Annotated[str, Field(max_length=_LONGEST_COMMAND)] = ""
    run: Run = Run()

    @field_validator("card", "run", mode="before")
    @classmethod
    def _parse(cls, told: Any) -> Any:
        """Take what is stored as a string for the JSON that it is."""
        if not isinstance(told, str):
            return told
        if len(told) > _LONGEST_CARD:
            raise ValueError("too long")
        from pydantic_core import from_json

        return from_json(told)

    def to_uns(self) -> dict[str, Any]:
        """Return what is written under ``uns["hyperst"]``: strings, numbers and dictionaries of them."""
        told = self.model_dump()
        return {**told, "card": self.card.model_dump_json(), "run": self.run.model_dump_json()}

    def sentences(self) -> list[str]:
        """Tell in plain words how the table was made."""
        method, run = self.card.method, self.run
        made = [f"by {self.checkpoint} ({method.kind}, weights {self.checkpoint_sha256[:12]})"]
        made += [f"at {run.at}"] if run.at else []
        made += [f"on {run.device} in {run.precision}"] if run.device else []
        told = [f"predicted {', '.join(made)}"]
        told.append(f"as {self.transform}, {self._comparison()}")
        told.append(f"from tiles of {self.spot_um:.4g} and {self.niche_um:.4g} µm, the H&E at {self.mpp:.4g} µm/px")
        if self.curvature == self.curvature:
            told.append(f"in hyperbolic space of curvature -{self.curvature:.4g}, K {self.min_radius:g}")
        for name, parent in self.parent.items():
            child = name.replace(parent, "", 1).strip("_")
            told.append(f"{parent} entails {child}, eta {self.eta.get(name, float('nan')):g}")
        slides = ", ".join(slide.name for slide in self.card.training_slides)
        told.append(f"by a model trained on {slides}" if slides else "by a model whose training slides are not told")
        if self.image_sha256:
            told.append(f"of the H&E {self.image_sha256[:12]}, spots {self.slide_fingerprint[:12]}")
        told.append("with " + ", ".join(f"{name} {version}" for name, version in sorted(self.versions.items())))
        told += [f"asked for by: {self.command}"] if self.command else []
        return [plain(sentence, 2000) for sentence in told]

    def _comparison(self) -> str:
        if not self.measured_table:
            return "with nothing measured to compare with"
        hashed = f" ({self.counts_sha256[:12]})" if self.counts_sha256 else ""
        return f"compared with table {self.measured_table}{hashed}"


def read_provenance(told: object, where: str | Path) -> Provenance:
    """Read what a table says of how it was made; the table may be anybody's, and say anything.

    Parameters
    ----------
    told
        The table's ``uns["hyperst"]``.
    where
        The store and the table, for the error.

    Raises
    ------
    SlideError
        If it is no record of ours. What it holds is not repeated.
    """
    try:
        if not isinstance(told, Mapping):
            raise ValueError("it is no dictionary")
        return Provenance.model_validate({key: _simple(value) for key, value in told.items()})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        why = str(error)
    raise SlideError(
        f"what it says of how it was made cannot be read ({plain(why, 200)})", where=where, do="predict again"
    )


def _simple(value: Any) -> Any:
    """Turn numpy's scalars, which stores give back, into Python's."""
    if isinstance(value, Mapping):
        return {key: _simple(inner) for key, inner in value.items()}
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
