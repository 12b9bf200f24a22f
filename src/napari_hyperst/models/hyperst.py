"""HyperST (CVPR 2026, arXiv 2511.22107): architecture and objective as in METHODS 2."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_hyperst.models.alignment import Alignment
from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.models.method import Batch, Embeddings, Method
from napari_hyperst.nouns.encoders import EncoderSpec
from napari_hyperst.nouns.hierarchy import Embedding, Modality, modality
from napari_hyperst.nouns.methods import HyperSTConfig, Scale

_SCALES: tuple[Scale, ...] = ("spot", "niche")
_IMAGE: dict[Scale, Embedding] = {"spot": "spot_image", "niche": "niche_image"}
_GENE: dict[Scale, Embedding] = {"spot": "spot_gene", "niche": "niche_gene"}


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


class HyperST(Method):
    """HyperST over a gene panel. What no loss and no prediction needs is not built.

    Parameters
    ----------
    config
        Its settings.
    genes
        Size G of the gene panel.
    spec
        The encoder, its weights on this disk; what ``config`` names if not told.
    """

    config: HyperSTConfig

    def __init__(self, config: HyperSTConfig, genes: int, spec: EncoderSpec | None = None) -> None:
        super().__init__()
        self.config = config
        d, drop = config.dim, config.dropout
        self.encoder = Encoder(
            spec or encoder_spec(config.encoder),
            config.lora_blocks,
            config.lora_rank,
            config.lora_alpha,
            config.lora_dropout,
        )
        width = self.encoder.width
        aligned = config.alignment.embeddings
        self.gene_scales = tuple(scale for scale in _SCALES if f"{scale}_gene" in aligned)
        self.image_scales = tuple(
            scale for scale in _SCALES if scale in config.decoder_inputs or f"{scale}_image" in aligned
        )
        self.image_projectors = nn.ModuleDict({self._branch(scale): nn.Linear(width, d) for scale in self.image_scales})
        self.alignment = None
        if aligned:
            self.gene_projectors = nn.ModuleDict(
                {self._branch(scale): nn.Linear(genes, d) for scale in self.gene_scales}
            )
            built = [f"{self._branch(scale)}_image" for scale in self.image_scales]
            built += [f"{self._branch(scale)}_gene" for scale in self.gene_scales]
            self.alignment_encoders = nn.ModuleDict({name: ResidualMLP(d, d, drop) for name in dict.fromkeys(built)})
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
        """Return prediction and, where the method aligns, embeddings of a micro-batch.

        Gene embeddings exist only where the batch has measured expression; niche tiles are looked at only where
        something needs them.
        """
        tiles = {"spot": batch.spot, "niche": batch.niche}
        features = {scale: self.encoder(tiles[scale]).float() for scale in self.image_scales}
        return self.from_features(features, batch.spot_genes, batch.niche_genes)

    def from_features(
        self, features: Mapping[Scale, Tensor], spot_genes: Tensor | None = None, niche_genes: Tensor | None = None
    ) -> Embeddings:
        """Do as ``forward`` from (B, width) encoder features of spot and niche tiles."""
        images = {scale: self.image_projectors[self._branch(scale)](features[scale]) for scale in self.image_scales}
        points: dict[Embedding, Tensor] = {}
        if self.alignment is not None:
            images = {scale: self._align(image, scale, "image") for scale, image in images.items()}
            aligned: dict[Embedding, Tensor] = {_IMAGE[scale]: image for scale, image in images.items()}
            genes = {"spot": spot_genes, "niche": niche_genes}
            for scale in self.gene_scales:
                if (measured := genes[scale]) is not None:
                    projected = self.gene_projectors[self._branch(scale)](measured)
                    aligned[_GENE[scale]] = self._align(projected, scale, "gene")
            points = {name: self.alignment.lift(x, modality(name)) for name, x in aligned.items()}
            if self.config.decoder_features == "tangent":
                images = {scale: self.alignment.tangent(image, "image") for scale, image in images.items()}
        inputs = self.config.decoder_inputs
        prediction = self.output(self.decoder(torch.cat([images[scale] for scale in inputs], dim=1)))
        if self.config.linear_path:
            prediction = prediction + self.linear_path(torch.cat([features[scale] for scale in inputs], dim=1))
        return Embeddings(prediction, points)

    def _branch(self, scale: Scale) -> str:
        return "shared" if self.config.share_scales else scale

    def _align(self, x: Tensor, scale: Scale, modality: Modality) -> Tensor:
        return self.alignment_projections[modality](self.alignment_encoders[f"{self._branch(scale)}_{modality}"](x))

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
        if self.alignment is not None:
            aligned = self.alignment(embeddings.points)
            terms["total"] = terms["prediction"] + aligned.pop("total")
            return terms | aligned
        return terms | {"total": terms["prediction"]}
