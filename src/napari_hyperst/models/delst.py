"""DELST (arXiv 2503.00804): dual entailment of images and genes, as far as it is published (METHODS 3).

A spot's image and its gene profile are lifted onto one hyperboloid. The loss is

    L = L_cont + lambda L_cross + beta L_intra

- ``L_cont``: symmetric cross-entropy over negative distances, as MERU's;
- ``L_cross``: the image lies in the cone of its gene profile (the parent is a setting, and the gene by default);
- ``L_intra``: of a slide's spots, one in which many genes were found lies in the cone of one in which few were, in
  both modalities.

What could not be read is ours, and said to be in ``DELSTConfig``. Three things of ours are here and not in a setting:
the image features' layer norm, so that tangent vectors start with a length of about 1 whatever the encoder; the gene
encoder, a residual MLP; and the *readout*, a linear map from the image's tangent
vector to expression, learnt beside the rest on detached features. It has no say in the embeddings (but that gradients
are clipped by one norm); it is what ``predict`` and the choice of the best epoch go by, since DELST itself predicts no
expression.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_hyperst.models.alignment import Alignment, cones
from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.models.hyperst import ResidualMLP
from napari_hyperst.models.method import Batch, Embeddings, Method
from napari_hyperst.nouns.encoders import EncoderSpec
from napari_hyperst.nouns.hierarchy import Embedding, Modality
from napari_hyperst.nouns.methods import DELSTConfig

_SPOT: dict[Modality, Embedding] = {"gene": "spot_gene", "image": "spot_image"}


class DELST(Method):
    """DELST over a gene panel; it looks at spot tiles only.

    Parameters
    ----------
    config
        Its settings.
    genes
        Size G of the gene panel.
    spec
        The encoder, its weights on this disk; what ``config`` names if not told.
    """

    config: DELSTConfig
    alignment: Alignment

    def __init__(self, config: DELSTConfig, genes: int, spec: EncoderSpec | None = None) -> None:
        super().__init__()
        self.config = config
        d = config.dim
        self.encoder = Encoder(
            spec or encoder_spec(config.encoder),
            config.lora_blocks,
            config.lora_rank,
            config.lora_alpha,
            config.lora_dropout,
        )
        self.image_norm = nn.LayerNorm(self.encoder.width)
        self.gene_encoder = ResidualMLP(genes, d, config.dropout)
        projections = {
            "image": nn.Linear(self.encoder.width, d, bias=False), "gene": nn.Linear(d, d, bias=False)
        }  # fmt: skip
        for projection in projections.values():
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        self.projections = nn.ModuleDict(projections)
        self.alignment = Alignment(config.alignment, d)
        self.output = nn.Linear(d, genes)

    def forward(self, batch: Batch) -> Embeddings:
        """Return the readout's prediction and the hyperbolic embeddings of a micro-batch.

        The gene embedding exists only where the batch has measured expression.
        """
        image = self.projections["image"](self.image_norm(self.encoder(batch.spot).float()))
        points: dict[Embedding, Tensor] = {"spot_image": self.alignment.lift(image, "image")}
        if batch.spot_genes is not None:
            gene = self.projections["gene"](self.gene_encoder(batch.spot_genes))
            points["spot_gene"] = self.alignment.lift(gene, "gene")
        prediction = self.output(self.alignment.tangent(image, "image").detach())
        return Embeddings(prediction, points, batch.slide, batch.detected)

    def objective(self, embeddings: Embeddings, target: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss over the whole batch (METHODS 3).

        Parameters
        ----------
        embeddings
            Of the whole batch, with ``slide`` and ``detected``.
        target
            (B, G) measured expression of the spots.

        Returns
        -------
        dict
            0-dimensional tensors: ``contrastive``, ``cross``, ``intra`` (the mean of ``intra/gene`` and
            ``intra/image``), the readout's ``prediction``, and ``total``, the one to minimise. To be looked at: the
            alignment's ``norm/`` and ``satisfied/``, with ``satisfied/low_<modality>__high_<modality>``, the share of
            pairs whose richer spot lies in the poorer one's cone; NaN never: a batch without pairs has 0 for a loss
            and no share.
        """
        if embeddings.slide is None or embeddings.detected is None:
            raise ValueError("DELST compares spots of one slide: its objective needs slide and detected")
        config, c = self.config, self.alignment.curvature
        terms = self.alignment(embeddings.points)
        total = terms.pop("total")
        terms["contrastive"], terms["cross"] = terms.pop("hca"), terms.pop("hea")
        low, high = pair_by_detected(embeddings.slide, embeddings.detected, config.quantile)
        for kind, name in _SPOT.items():
            points = embeddings.points[name]
            violation = cones(points[low], points[high], c, config.eta, config.min_radius)[2]
            # Without a pair the sum is 0, with a gradient of 0.
            terms[f"intra/{kind}"] = violation.sum() / max(len(low), 1)
            if len(low):
                terms[f"satisfied/low_{kind}__high_{kind}"] = (violation.detach() == 0).float().mean()
        terms["intra"] = (terms["intra/gene"] + terms["intra/image"]) / 2
        terms["prediction"] = F.mse_loss(embeddings.prediction.float(), target.float())
        terms["total"] = total + config.intra_weight * terms["intra"] + terms["prediction"]
        return terms


def pair_by_detected(slide: Tensor, detected: Tensor, quantile: float) -> tuple[Tensor, Tensor]:
    """Pair spots in which many genes were found with spots of the same slide in which few were (METHODS 3).

    Of each slide, the ``quantile`` of its spots with the most genes is each paired with one drawn, with torch's
    random numbers, from the ``quantile`` with the fewest; slides of one spot and pairs that are no better than even
    are left out.

    Parameters
    ----------
    slide
        (B,) which slide a spot is on.
    detected
        (B,) how many genes were found in a spot, of all that were measured.
    quantile
        The part of a slide's spots at either end, at most a half.

    Returns
    -------
    tuple of Tensor
        Rows of the low and of the high spots, (P,) each.
    """
    lows, highs = [], []
    for one in slide.unique():
        rows = torch.nonzero(slide == one).squeeze(1)
        if len(rows) < 2:
            continue
        ranked = rows[detected[rows].argsort(stable=True)]
        part = max(1, int(quantile * len(rows)))
        low, high = ranked[:part], ranked[-part:]
        low = low[torch.randint(part, (part,)).to(low.device)]
        richer = detected[high] > detected[low]
        lows.append(low[richer])
        highs.append(high[richer])
    nothing = torch.zeros(0, dtype=torch.long, device=slide.device)
    return torch.cat([nothing, *lows]), torch.cat([nothing, *highs])
