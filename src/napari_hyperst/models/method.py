"""What all methods share: the batch they take, the embeddings they return, and the interface itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn

from napari_hyperst.models.alignment import Alignment
from napari_hyperst.models.encoders import Encoder
from napari_hyperst.nouns.hierarchy import Embedding
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig


@dataclass(frozen=True)
class Batch:
    """Some spots as a method sees them.

    Attributes
    ----------
    spot, niche
        (B, size, size, 3) uint8 tiles, or (B, tokens, width) float states from ``Encoder.prefix``.
    spot_genes, niche_genes
        (B, G) measured expression on the panel's scale; None at prediction.
    slide
        (B,) which slide a spot is on, for objectives that compare spots of one slide; None at prediction.
    detected
        (B,) how many genes were found in a spot, of all that were measured; None at prediction.
    """

    spot: Tensor
    niche: Tensor
    spot_genes: Tensor | None = None
    niche_genes: Tensor | None = None
    slide: Tensor | None = None
    detected: Tensor | None = None


@dataclass(frozen=True)
class Embeddings:
    """What a method makes of a batch.

    Attributes
    ----------
    prediction
        (B, G) predicted expression of the spots.
    points
        (B, d) points in the method's space, on the hyperboloid their space components, for each embedding that
        exists.
    slide, detected
        The batch's, where the method's objective compares spots of one slide.
    """

    prediction: Tensor
    points: dict[Embedding, Tensor] = field(default_factory=dict)
    slide: Tensor | None = None
    detected: Tensor | None = None


class Method(nn.Module, ABC):
    """The interface of all methods.

    ``forward`` and ``objective`` are apart because contrastive negatives must be those of the whole batch, also
    when it is split over micro-batches or processes.

    Attributes
    ----------
    config
        Its settings.
    encoder
        The image encoder.
    alignment
        The alignment of images with genes, with its learnt scalars; None where the method has none.
    output
        The last layer of what predicts expression.
    """

    config: HyperSTConfig | DELSTConfig
    encoder: Encoder
    alignment: Alignment | None
    output: nn.Linear

    @property
    def aligned(self) -> bool:
        """Whether the method has embeddings."""
        return self.alignment is not None

    @abstractmethod
    def forward(self, batch: Batch) -> Embeddings:
        """Return features, embeddings and prediction of a micro-batch."""

    @abstractmethod
    def objective(self, embeddings: Embeddings, target: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss over the whole batch; ``total`` is the one to minimise."""

    def predict(self, batch: Batch) -> Tensor:
        """Return (B, G) predicted expression."""
        return self.forward(batch).prediction

    def clamp_(self) -> None:
        """Bring the learnt scalars back within their bounds; to be called after each step of the optimiser."""
        if self.alignment is not None:
            self.alignment.clamp_()

    def scalars(self) -> dict[str, float]:
        """Return the learnt scalars, for the log."""
        return {} if self.alignment is None else self.alignment.scalars()
