"""Contrastive and entailment objectives, on the hyperboloid and on what it is compared with (METHODS 1 and 2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_hyperst.models.geometry import HYPERBOLIC, Geometry, geometry
from napari_hyperst.nouns.hierarchy import (
    CURVATURE_BOUNDS,
    MIN_TEMPERATURE,
    AlignmentConfig,
    Embedding,
    Modality,
    Relation,
)


def contrastive_loss(
    query: Tensor, key: Tensor, logit_scale: Tensor, c: Tensor, space: Geometry = HYPERBOLIC
) -> Tensor:
    """Cross-entropy of each query against all keys, by negative distance; the diagonal is right.

    Parameters
    ----------
    query, key
        (B, d) space components; row i of both is spot i.
    logit_scale
        Logarithm of the inverse temperature.
    c
        The space has curvature -c.
    space
        The geometry; on the unit sphere it is by cosine instead.

    Returns
    -------
    Tensor
        0-dimensional, in nats.
    """
    with torch.autocast(query.device.type, enabled=False):
        logits = logit_scale.exp() * space.similarity(query, key, c)
        return F.cross_entropy(logits, torch.arange(len(query), device=query.device))


def entailment_loss(
    parent: Tensor, child: Tensor, c: Tensor, eta: float, min_radius: float, space: Geometry = HYPERBOLIC
) -> Tensor:
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
    space
        The geometry.

    Returns
    -------
    Tensor
        0-dimensional, in radians.
    """
    return cones(parent, child, c, eta, min_radius, space)[2].mean()


def cones(
    parent: Tensor, child: Tensor, c: Tensor, eta: float, min_radius: float, space: Geometry = HYPERBOLIC
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (B,) exterior angles, half-apertures and violations in radians; arguments as in ``entailment_loss``."""
    with torch.autocast(parent.device.type, enabled=False):
        exterior = space.exterior_angle(parent, child, c)
        aperture = space.half_aperture(parent, c, min_radius)
        return exterior, aperture, F.relu(exterior - eta * aperture)


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
        self.space = geometry(config.geometry)
        curved, scaled = config.geometry == "hyperbolic", config.geometry != "cosine"
        self.log_curvature = nn.Parameter(
            torch.tensor(math.log(config.curvature)), requires_grad=config.learn_curvature and curved
        )
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.log_alpha = nn.ParameterDict(
            {
                modality: nn.Parameter(torch.tensor(math.log(dim**-0.5)), requires_grad=scaled)
                for modality in ("image", "gene")
            }
        )

    @property
    def curvature(self) -> Tensor:
        """The number c > 0, 0-dimensional; the space has curvature -c."""
        return self.log_curvature.exp()

    def tangent(self, features: Tensor, modality: Modality) -> Tensor:
        """Scale Euclidean features by their modality's alpha: the tangent vectors at the origin that are lifted.

        Parameters
        ----------
        features
            (B, d) features, of any floating type.
        modality
            Which alpha to use.

        Returns
        -------
        Tensor
            (B, d) in float32, under autocast too.
        """
        with torch.autocast(features.device.type, enabled=False):
            return features.float() * self.log_alpha[modality].exp()

    def lift(self, features: Tensor, modality: Modality) -> Tensor:
        """Scale Euclidean features by their modality's alpha and lift them onto the hyperboloid.

        Parameters
        ----------
        features
            (B, d) features, of any floating type.
        modality
            Which alpha to use.

        Returns
        -------
        Tensor
            (B, d) space components in float32, under autocast too; in the flat counterpart the scaled features
            themselves, and on the sphere their directions.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.space.lift(self.tangent(features, modality), self.curvature)

    def forward(self, points: Mapping[Embedding, Tensor]) -> dict[str, Tensor]:
        """Return every term over the whole batch.

        Parameters
        ----------
        points
            (B, d) space components of each embedding that the terms name.

        Returns
        -------
        dict
            0-dimensional tensors: ``contrastive/<query>__<key>``, ``entailment/<parent>__<child>``, their combinations
            ``hca`` and ``hea``, and the weighted ``total``. To be looked at, without a gradient: ``norm/<embedding>``,
            the mean distance from the origin, and ``satisfied/<parent>__<child>``, the share of the children that lie
            in their parents' cones, widened by eta.
        """
        c, config = self.curvature, self.config
        contrastive = {
            f"contrastive/{query}__{key}": contrastive_loss(points[query], points[key], self.logit_scale, c, self.space)
            for query, key in config.contrastive
        }
        violations = {relation.name: self.violation(points, relation)[2] for relation in config.relations}
        entailment = {f"entailment/{name}": violation.mean() for name, violation in violations.items()}
        nothing = self.logit_scale.new_zeros(())
        hca = sum(contrastive.values(), nothing) / max(len(contrastive), 1)
        hea = config.entailment_scale * sum(entailment.values(), nothing)
        total = config.weight * (hca + config.entailment_weight * hea)
        with torch.no_grad():
            looked_at = {f"satisfied/{name}": (v == 0).float().mean() for name, v in violations.items()}
            if config.geometry != "cosine":
                looked_at |= {f"norm/{name}": self.space.norm(points[name], c).mean() for name in config.embeddings}
        return {**contrastive, **entailment, **looked_at, "hca": hca, "hea": hea, "total": total}

    def violation(self, points: Mapping[Embedding, Tensor], relation: Relation) -> tuple[Tensor, Tensor, Tensor]:
        """Return how far each child lies outside its parent's cone.

        Parameters
        ----------
        points
            (B, d) space components of the relation's two embeddings.
        relation
            Which of them is the parent, and eta.

        Returns
        -------
        tuple
            (B,) exterior angles, half-apertures and violations ``max(0, exterior - eta * aperture)``, in radians.
        """
        parent, child = points[relation.parent], points[relation.child]
        return cones(parent, child, self.curvature, relation.eta, self.config.min_radius, self.space)

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the learnt scalars back within their bounds; to be called after each step of the optimiser.

        A curvature that is not learnt stays what the config says.
        """
        if self.log_curvature.requires_grad:
            low, high = (math.log(bound) for bound in CURVATURE_BOUNDS)
            self.log_curvature.clamp_(low, high)
        self.logit_scale.clamp_(max=-math.log(MIN_TEMPERATURE))
        for log_alpha in self.log_alpha.values():
            log_alpha.clamp_(max=0.0)

    def scalars(self) -> dict[str, float]:
        """Return as numbers, for the log, those of the scalars that the geometry has.

        ``curvature`` (hyperbolic only), ``temperature``, and ``alpha_image`` and ``alpha_gene`` (not on the sphere).
        """
        numbers = {"temperature": math.exp(-self.logit_scale.item())}
        if self.config.geometry == "hyperbolic":
            numbers["curvature"] = self.curvature.item()
        if self.config.geometry != "cosine":
            numbers |= {f"alpha_{name}": log_alpha.exp().item() for name, log_alpha in self.log_alpha.items()}
        return numbers
