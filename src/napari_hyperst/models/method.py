"""What all methods share: the batch they take, the embeddings they return, and the interface itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel
from torch import Tensor

from napari_hyperst.nouns.hierarchy import Embedding


@dataclass(frozen=True)
class Batch:
    """Some spots as a method sees them.

    Attributes
    ----------
    spot, niche
        (B, size, size, 3) uint8 tiles, or (B, tokens, width) float states from ``Encoder.prefix``.
    spot_genes, niche_genes
        (B, G) measured expression on the panel's scale; None at prediction.
    """

    spot: Tensor
    niche: Tensor
    spot_genes: Tensor | None = None
    niche_genes: Tensor | None = None


@dataclass(frozen=True)
class Embeddings:
    """What a method makes of a batch.

    Attributes
    ----------
    prediction
        (B, G) predicted expression of the spots.
    points
        (B, d) space components of points on the hyperboloid, for each embedding that exists.
    """

    prediction: Tensor
    points: dict[Embedding, Tensor] = field(default_factory=dict)


class Method(Protocol):
    """The interface of all methods.

    ``forward`` and ``objective`` are apart because contrastive negatives must be those of the whole batch, also
    when it is split over micro-batches or processes.
    """

    config: BaseModel

    def forward(self, batch: Batch) -> Embeddings:
        """Return features, embeddings and prediction of a micro-batch."""

    def objective(self, embeddings: Embeddings, target: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss over the whole batch; ``total`` is the one to minimise."""

    def predict(self, batch: Batch) -> Tensor:
        """Return (B, G) predicted expression."""
