"""The embeddings of a spot, and the relations of the hierarchy between them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

Embedding = Literal["spot_image", "niche_image", "spot_gene", "niche_gene"]
Modality = Literal["image", "gene"]
Geometry = Literal["hyperbolic", "euclidean", "cosine"]

#: Bounds of c where the curvature -c is learnt, and the least temperature.
CURVATURE_BOUNDS = (0.1, 10.0)
MIN_TEMPERATURE = 0.01

#: As many as there are ordered pairs of embeddings.
_MOST_TERMS = 16

EMBEDDINGS: tuple[Embedding, ...] = ("spot_image", "niche_image", "spot_gene", "niche_gene")


def modality(embedding: Embedding) -> Modality:
    """Return the modality of an embedding."""
    return "image" if embedding.endswith("image") else "gene"


class Relation(BaseModel):
    """The parent entails the child: the child should lie in the parent's cone.

    Attributes
    ----------
    parent, child
        Names of two embeddings of the same spot.
    eta
        The factor on the parent's half-aperture below which no violation is counted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    parent: Embedding
    child: Embedding
    eta: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _are_two(self) -> Relation:
        if self.parent == self.child:
            raise ValueError(f"{self.parent} cannot entail itself")
        return self

    @property
    def name(self) -> str:
        """``parent__child``, as written in tables."""
        return f"{self.parent}__{self.child}"

    @property
    def turned(self) -> Relation:
        """The same relation with parent and child swapped."""
        return Relation(parent=self.child, child=self.parent, eta=self.eta)

    @property
    def needs_counts(self) -> bool:
        """Whether one side is an embedding of measured expression."""
        return "gene" in (modality(self.parent), modality(self.child))


def _hyperst_relations(cross: float, intra: float) -> tuple[Relation, ...]:
    return (
        Relation(parent="spot_image", child="spot_gene", eta=cross),
        Relation(parent="niche_image", child="niche_gene", eta=cross),
        Relation(parent="spot_image", child="niche_image", eta=intra),
        Relation(parent="spot_gene", child="niche_gene", eta=intra),
    )


def check_curvature(curvature: float, learnt: bool) -> None:
    """Raise ValueError for a curvature that is learnt and starts out of its bounds."""
    low, high = CURVATURE_BOUNDS
    if learnt and not low <= curvature <= high:
        raise ValueError(f"a curvature that is learnt must start between {low:g} and {high:g}")


class AlignmentConfig(BaseModel):
    """The alignment objective of HyperST and of its ablations, as data (METHODS 1, 2.2 and 8).

    The loss is ``prediction + weight * (contrastive + entailment_weight * entailment)``, where ``contrastive`` is
    the mean of the contrastive terms and ``entailment`` is ``entailment_scale`` times the sum over the relations.

    Attributes
    ----------
    weight
        Weight of the whole alignment objective; 0 leaves it, and the networks that only it needs, out.
    entailment_weight
        Weight of entailment within the alignment.
    entailment_scale
        Factor on the sum over the relations: 0.5 in the authors' code, 1/4 in the paper.
    contrastive
        Pairs (query, key): rows of the query are classified against all keys of the batch.
    relations
        The entailment relations, parent first. To turn the direction round, swap parent and child.
    geometry
        The space of the embeddings: ``"hyperbolic"``; ``"euclidean"``, its flat counterpart with cones; or
        ``"cosine"``, CLIP's unit sphere, which has no origin and so no cones (METHODS 8, 18 and 19).
    min_radius
        K of the half-aperture.
    curvature
        Initial c (the curvature is -c); of no meaning where the geometry is not hyperbolic.
    learn_curvature
        Whether c is learnt, from 0.1 to 10 (``CURVATURE_BOUNDS``).
    temperature
        Initial temperature of the contrastive terms, learnt down to 0.01 (``MIN_TEMPERATURE``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: NonNegativeFloat = 0.2
    entailment_weight: NonNegativeFloat = 0.4
    entailment_scale: PositiveFloat = 0.5
    contrastive: tuple[tuple[Embedding, Embedding], ...] = Field(
        default=(
            ("spot_image", "spot_gene"),
            ("spot_gene", "spot_image"),
            ("niche_image", "spot_gene"),
            ("niche_gene", "spot_image"),
        ),
        max_length=_MOST_TERMS,
    )
    relations: tuple[Relation, ...] = Field(default=_hyperst_relations(cross=0.7, intra=1.2), max_length=_MOST_TERMS)
    geometry: Geometry = "hyperbolic"
    min_radius: PositiveFloat = 0.1
    curvature: PositiveFloat = 1.0
    learn_curvature: bool = True
    temperature: float = Field(default=0.07, ge=MIN_TEMPERATURE)

    @model_validator(mode="after")
    def _starts_within_bounds(self) -> AlignmentConfig:
        check_curvature(self.curvature, self.learn_curvature)
        return self

    @model_validator(mode="after")
    def _cones_need_an_origin(self) -> AlignmentConfig:
        if self.geometry == "cosine" and self.relations:
            raise ValueError("there are no cones on the unit sphere: relations must be empty with geometry cosine")
        return self

    @property
    def embeddings(self) -> tuple[Embedding, ...]:
        """The embeddings that some term names, in the order of ``EMBEDDINGS``; none where the weight is 0."""
        if self.weight == 0:
            return ()
        named = {name for pair in self.contrastive for name in pair}
        named |= {name for relation in self.relations for name in (relation.parent, relation.child)}
        return tuple(name for name in EMBEDDINGS if name in named)

    @classmethod
    def preset(cls, name: Literal["code", "paper"]) -> AlignmentConfig:
        """Return the objective of the authors' code, or the one that the paper prints."""
        if name == "code":
            return cls()
        return cls(entailment_scale=0.25, relations=_hyperst_relations(cross=1.0, intra=1.0))
