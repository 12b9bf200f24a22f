"""Contrastive and entailment objectives on the hyperboloid: HCA and HEA of HyperST (METHODS 1 and 2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_hyperst.models import lorentz
from napari_hyperst.nouns.hierarchy import AlignmentConfig, Embedding, Modality, Relation

#: Bounds of the learnt curvature, and of the logarithm of the inverse temperature.
CURVATURE_BOUNDS = (0.1, 10.0)
MAX_LOGIT_SCALE = math.log(100.0)


def contrastive_loss(query: Tensor, key: Tensor, logit_scale: Tensor, c: Tensor) -> Tensor:
    """Cross-entropy of each query against all keys, by negative distance; the diagonal is right.

    Parameters
    ----------
    query, key
        (B, d) space components; row i of both is spot i.
    logit_scale
        Logarithm of the inverse temperature.
    c
        The space has curvature -c.
    """
    logits = -logit_scale.exp() * lorentz.pairwise_distance(query, key, c)
    return F.cross_entropy(logits, torch.arange(len(query), device=query.device))


def entailment_loss(parent: Tensor, child: Tensor, c: Tensor, eta: float, min_radius: float) -> Tensor:
    """Mean over the batch of ``max(0, exterior angle - eta * half-aperture)``, in radians.

    Parameters
    ----------
    parent, child
        (B, d) space components.
    c
        The space has curvature -c.
    eta
        Factor on the half-aperture.
    min_radius
        K of the half-aperture.
    """
    exterior = lorentz.exterior_angle(parent, child, c)
    return F.relu(exterior - eta * lorentz.half_aperture(parent, c, min_radius)).mean()


class Alignment(nn.Module):
    """The alignment objective with its learnt curvature, temperature and scales.

    Parameters
    ----------
    config
        Terms and weights, as data.
    dim
        Width d of the features; their scales start at ``d ** -0.5``, so that tangent vectors have length about 1.
    """

    def __init__(self, config: AlignmentConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.log_curvature = nn.Parameter(
            torch.tensor(math.log(config.curvature)), requires_grad=config.learn_curvature
        )
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.log_alpha = nn.ParameterDict(
            {modality: nn.Parameter(torch.tensor(math.log(dim**-0.5))) for modality in ("image", "gene")}
        )

    @property
    def curvature(self) -> Tensor:
        """C > 0; the space has curvature -c."""
        return self.log_curvature.exp()

    def lift(self, features: Tensor, modality: Modality) -> Tensor:
        """Scale (B, d) Euclidean features and lift them to (B, d) points, in float32 at least."""
        with torch.autocast(features.device.type, enabled=False):
            return lorentz.exp_map0(features.float() * self.log_alpha[modality].exp(), self.curvature)

    def forward(self, points: Mapping[Embedding, Tensor]) -> dict[str, Tensor]:
        """Return every term over the whole batch.

        Parameters
        ----------
        points
            (B, d) space components of each embedding that the terms name.

        Returns
        -------
        dict
            ``contrastive/<query>__<key>``, ``entailment/<parent>__<child>``, their combinations ``hca`` and ``hea``,
            and the weighted ``total``.
        """
        c, config = self.curvature, self.config
        contrastive = {
            f"contrastive/{query}__{key}": contrastive_loss(points[query], points[key], self.logit_scale, c)
            for query, key in config.contrastive
        }
        entailment = {
            f"entailment/{relation.name}": entailment_loss(
                points[relation.parent], points[relation.child], c, relation.eta, config.min_radius
            )
            for relation in config.relations
        }
        none = self.logit_scale.new_zeros(())
        hca = sum(contrastive.values(), none) / max(len(contrastive), 1)
        hea = config.entailment_scale * sum(entailment.values(), none)
        total = config.weight * (hca + config.entailment_weight * hea)
        return {**contrastive, **entailment, "hca": hca, "hea": hea, "total": total}

    def violation(self, points: Mapping[Embedding, Tensor], relation: Relation) -> tuple[Tensor, Tensor, Tensor]:
        """Return (B,) exterior angles, half-apertures and violations of a relation, in radians."""
        exterior = lorentz.exterior_angle(points[relation.parent], points[relation.child], self.curvature)
        aperture = lorentz.half_aperture(points[relation.parent], self.curvature, self.config.min_radius)
        return exterior, aperture, F.relu(exterior - relation.eta * aperture)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep the learnt scalars within their bounds; to be called after each step of the optimiser."""
        low, high = (math.log(bound) for bound in CURVATURE_BOUNDS)
        self.log_curvature.clamp_(low, high)
        self.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        for log_alpha in self.log_alpha.values():
            log_alpha.clamp_(max=0.0)

    def scalars(self) -> dict[str, float]:
        """Return curvature, temperature and the two scales, for the log."""
        return {
            "curvature": self.curvature.item(),
            "temperature": math.exp(-self.logit_scale.item()),
            **{f"alpha_{modality}": log_alpha.exp().item() for modality, log_alpha in self.log_alpha.items()},
        }
