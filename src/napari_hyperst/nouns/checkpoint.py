"""The card of a checkpoint: all that is needed to use it rightly and to make it again."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat

from napari_hyperst.errors import plain
from napari_hyperst.nouns.methods import MethodConfig
from napari_hyperst.nouns.panel import LOG2_COUNT
from napari_hyperst.nouns.tiles import TileSpec

_MOST_SLIDES, _LONGEST = 100_000, 4096


def _plain(value: Any) -> Any:
    """Return plain data with ``plain`` for each text in it."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


#: What a card says in words is shown as it is, whatever is in it: without control characters, and without tokens.
Words = Annotated[str, Field(max_length=_LONGEST), AfterValidator(plain)]


class TrainingSlide(BaseModel):
    """A slide that a checkpoint was trained on.

    Attributes
    ----------
    name
        Its name.
    fingerprint
        Hash of its spots, by which a prediction knows that it is looking at training data.
    spots
        How many of its spots were used.
    mpp
        µm per px of its H&E.
    niche_um
        Side of its niche tiles in µm; None where the version that trained on it did not write that down.
    picture
        Hash of px of its H&E, by which a prediction of the bare picture knows; None where it shows nothing, or the
        version that trained on it did not write that down.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Words
    fingerprint: Words
    spots: int
    mpp: float
    niche_um: PositiveFloat | None = None
    picture: str | None = None


class Card(BaseModel):
    """What is written in a checkpoint's ``card.json``.

    Attributes
    ----------
    name
        Name of the checkpoint.
    schema_version
        Version of this layout.
    method
        Settings of the method.
    encoder_sha256
        Hash of the weights of the encoder that the method stands on.
    tiles
        Sizes of the tiles it was trained on.
    transform
        Scale of the prediction.
    panel_method, panel_slides
        How and on which slides the genes were chosen.
    training_slides
        The slides it was trained on.
    encoder_slides
        The slides on which the checkpoint that its encoder started from had been trained.
    validation_slides
        Names of the slides on which settings or epoch were chosen.
    training
        The settings of the training run.
    metrics
        What was measured, by set and metric.
    versions
        Versions of the packages that made it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Words
    schema_version: int = Field(default=1, ge=1, le=1)
    method: MethodConfig
    encoder_sha256: Words
    tiles: TileSpec = TileSpec()
    transform: Words = LOG2_COUNT
    panel_method: Words = "listed"
    panel_slides: tuple[Words, ...] = Field(default=(), max_length=_MOST_SLIDES)
    training_slides: tuple[TrainingSlide, ...] = Field(default=(), max_length=_MOST_SLIDES)
    encoder_slides: tuple[TrainingSlide, ...] = Field(default=(), max_length=_MOST_SLIDES)
    validation_slides: tuple[Words, ...] = Field(default=(), max_length=_MOST_SLIDES)
    training: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(default_factory=dict)
    metrics: dict[Words, dict[Words, float]] = Field(default_factory=dict)
    versions: dict[Words, Words] = Field(default_factory=dict)

    def has_seen(self, fingerprint: str, picture: str | None = None) -> bool:
        """Return whether a slide was trained on, now or before by the encoder.

        Parameters
        ----------
        fingerprint
            Hash of its spots.
        picture
            Hash of its H&E, where its spots were laid and so tell nothing. Measured slides are told apart by their
            spots alone: several may share one picture.
        """
        known = (*self.training_slides, *self.encoder_slides)
        return any(fingerprint == slide.fingerprint or (picture and picture == slide.picture) for slide in known)
