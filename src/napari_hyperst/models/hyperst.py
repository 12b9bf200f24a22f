"""HyperST (CVPR 2026, arXiv 2511.22107): architecture and objective as in METHODS 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_hyperst.models.alignment import Alignment
from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.models.method import Batch, Embeddings
from napari_hyperst.nouns.hierarchy import Embedding
from napari_hyperst.nouns.methods import HyperSTConfig

_SCALES = ("spot", "niche")


class ResidualMLP(nn.Module):
    """LN, Linear, two residual blocks of LN and a two-layer GELU network of twice the width, LN.

    Parameters
    ----------
    inputs, width
        Sizes of input and output.
    dropout
        Dropout within the residual blocks.
    """

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width),
                nn.Linear(width, 2 * width),
                nn.GELU(),
                nn.Dropout(dropout),
                nn.Linear(2 * width, width),
                nn.Dropout(dropout),
            )
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs) to (B, width)."""
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.norm(x)


class HyperST(nn.Module):
    """HyperST over a gene panel.

    Parameters
    ----------
    config
        Its settings.
    genes
        Size G of the gene panel.
    """

    def __init__(self, config: HyperSTConfig, genes: int) -> None:
        super().__init__()
        self.config = config
        d, drop = config.dim, config.dropout
        self.encoder = Encoder(
            encoder_spec(config.encoder), config.lora_blocks, config.lora_rank, config.lora_alpha, config.lora_dropout
        )
        width = self.encoder.width
        self.aligned = config.alignment.weight > 0
        self.image_projectors = nn.ModuleDict({scale: nn.Linear(width, d) for scale in _SCALES})
        if self.aligned:
            self.gene_projectors = nn.ModuleDict({scale: nn.Linear(genes, d) for scale in _SCALES})
            self.alignment_encoders = nn.ModuleDict(
                {f"{scale}_{modality}": ResidualMLP(d, d, drop) for scale in _SCALES for modality in ("image", "gene")}
            )
            projections = {modality: nn.Linear(d, d, bias=False) for modality in ("image", "gene")}
            for projection in projections.values():
                nn.init.normal_(projection.weight, std=d**-0.5)
            self.alignment_projections = nn.ModuleDict(projections)
            self.alignment = Alignment(config.alignment, d)
        self.decoder = ResidualMLP(len(config.decoder_inputs) * d, d, drop)
        self.output = nn.Linear(d, genes)
        if config.linear_path:
            self.linear_path = nn.Linear(len(config.decoder_inputs) * width, genes)

    def forward(self, batch: Batch) -> Embeddings:
        """Return prediction and, where the method aligns, hyperbolic embeddings of a micro-batch.

        Gene embeddings exist only where the batch has measured expression.
        """
        features = {"spot": self.encoder(batch.spot).float(), "niche": self.encoder(batch.niche).float()}
        return self.from_features(features, batch.spot_genes, batch.niche_genes)

    def from_features(
        self, features: dict[str, Tensor], spot_genes: Tensor | None = None, niche_genes: Tensor | None = None
    ) -> Embeddings:
        """Do as ``forward`` from (B, width) encoder features of spot and niche tiles."""
        images = {scale: self.image_projectors[scale](features[scale]) for scale in _SCALES}
        points: dict[Embedding, Tensor] = {}
        if self.aligned:
            for scale in _SCALES:
                images[scale] = self._align(images[scale], scale, "image")
                points[f"{scale}_image"] = self.alignment.lift(images[scale], "image")  # type: ignore[index]
            for scale, genes in (("spot", spot_genes), ("niche", niche_genes)):
                if genes is not None:
                    aligned = self._align(self.gene_projectors[scale](genes), scale, "gene")
                    points[f"{scale}_gene"] = self.alignment.lift(aligned, "gene")  # type: ignore[index]
        inputs = self.config.decoder_inputs
        prediction = self.output(self.decoder(torch.cat([images[scale] for scale in inputs], dim=1)))
        if self.config.linear_path:
            prediction = prediction + self.linear_path(torch.cat([features[scale] for scale in inputs], dim=1))
        return Embeddings(prediction, points)

    def _align(self, x: Tensor, scale: str, modality: str) -> Tensor:
        return self.alignment_projections[modality](self.alignment_encoders[f"{scale}_{modality}"](x))

    def objective(self, embeddings: Embeddings, target: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss over the whole batch (METHODS 2.2).

        Parameters
        ----------
        embeddings
            Of the whole batch.
        target
            (B, G) measured expression of the spots.

        Returns
        -------
        dict
            ``prediction``, the alignment's terms, and ``total``, the one to minimise.
        """
        terms = {"prediction": F.mse_loss(embeddings.prediction.float(), target.float())}
        if self.aligned:
            aligned = self.alignment(embeddings.points)
            terms["total"] = terms["prediction"] + aligned.pop("total")
            return terms | aligned
        return terms | {"total": terms["prediction"]}

    def predict(self, batch: Batch) -> Tensor:
        """Return (B, G) predicted expression."""
        return self.forward(batch).prediction
