"""Settings of the methods: what is built, and with which objective."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from napari_hyperst.nouns.hierarchy import (
    MIN_TEMPERATURE,
    AlignmentConfig,
    Embedding,
    Modality,
    Relation,
    check_curvature,
)

Scale = Literal["spot", "niche"]
#: Bounds within which a model can be built: settings come from cards too, which anybody may have written.
MOST_DIM, MOST_LORA_RANK, MOST_BLOCKS, _LONGEST_NAME = 8192, 1024, 1000, 4096


class EncoderConfig(BaseModel):
    """The image encoder that a method stands on, and how much of it learns.

    Attributes
    ----------
    encoder
        Name of the image encoder, one for spot and niche tiles.
    lora_blocks
        LoRA on the query-key-value projection of this many last blocks; 0 freezes the encoder.
    lora_rank, lora_alpha, lora_dropout
        LoRA's rank, scale and dropout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    encoder: str = Field(default="dinov2-vits14", max_length=_LONGEST_NAME)
    lora_blocks: NonNegativeInt = Field(default=2, le=MOST_BLOCKS)
    lora_rank: PositiveInt = Field(default=8, le=MOST_LORA_RANK)
    lora_alpha: PositiveInt = Field(default=16, le=2**16)
    lora_dropout: NonNegativeFloat = Field(default=0.1, lt=1)


class HyperSTConfig(EncoderConfig):
    """HyperST: an image encoder with LoRA, hyperbolic alignment with genes, and a decoder (METHODS 2.1).

    Its ablations are settings of this class too; ``nouns.ablations`` knows them by name.

    Attributes
    ----------
    kind
        The method that these are settings of: ``hyperst``; ``delst`` has others.
    dim
        Width d of the heads. The paper's 1024 has some 53 million weights, far too many for a few sections.
    dropout
        Dropout in the residual MLPs.
    decoder_inputs
        The image features that are decoded: both scales, or one of them.
    decoder_features
        What is decoded of them: the ``"euclidean"`` features before they are scaled and lifted, or their
        ``"tangent"`` vectors at the origin, that is, after alpha (METHODS 2.1 and 8, 11). The decoder begins with a
        layer norm and both scales share alpha, so that in exact arithmetic the two predict the same.
    share_scales
        Whether spot and niche share projectors and alignment encoders; the authors' code has one of each for each
        (METHODS 8, 23).
    linear_path
        Add a linear map of the encoder's features to the decoder's output. Not in the paper; it may start from
        the ridge solution.
    alignment
        The alignment objective.
    """

    kind: Literal["hyperst"] = Field(default="hyperst", validation_alias=AliasChoices("kind", "method"))
    dim: PositiveInt = Field(default=128, le=MOST_DIM)
    dropout: NonNegativeFloat = Field(default=0.1, lt=1)
    decoder_inputs: tuple[Scale, ...] = Field(default=("spot", "niche"), min_length=1, max_length=2)
    decoder_features: Literal["euclidean", "tangent"] = "euclidean"
    share_scales: bool = False
    linear_path: bool = False
    alignment: AlignmentConfig = AlignmentConfig()

    @model_validator(mode="after")
    def _decoder_can_be_built(self) -> HyperSTConfig:
        if len(set(self.decoder_inputs)) < len(self.decoder_inputs):
            raise ValueError("decoder_inputs names a scale twice")
        if self.decoder_features == "tangent" and not (
            self.alignment.embeddings and self.alignment.geometry != "cosine"
        ):
            raise ValueError(
                "decoder_features=tangent needs an alignment with an origin: a weight above 0, terms, and not cosine"
            )
        return self


class DELSTConfig(EncoderConfig):
    """DELST (arXiv 2503.00804): a spot image encoder and a gene encoder under two kinds of entailment (METHODS 3).

    ``L = L_cont + lambda L_cross + beta L_intra``: a contrastive loss, entailment of each image by its gene profile,
    and entailment of spots in which many genes were found by spots of their slide in which few were. Only the
    paper's abstract and captions could be read, so **every default here is ours** (or MERU's), as are the gene
    encoder, the rank cut-off and the pairing; results are no reproduction of the paper's.

    Attributes
    ----------
    kind
        The method that these are settings of: ``delst``; ``hyperst`` has others.
    dim
        Dimension d of the hyperbolic space. Ours: MERU's 512.
    dropout
        Dropout in the gene encoder. Ours.
    parent
        The modality that entails the other. The paper's: gene, the opposite of HyperST's.
    cross_weight
        lambda. Ours: 0.2, MERU's entailment weight.
    intra_weight
        beta. Ours: 0.2.
    eta
        Factor on all half-apertures. Ours: 1, as in MERU.
    quantile
        The lowest and the highest part of a slide's spots in a batch, by number of genes found, that are paired.
        Ours: a quarter.
    min_radius
        K of the half-aperture. MERU's.
    curvature
        Initial c (the curvature is -c). MERU's.
    learn_curvature
        Whether c is learnt, from 0.1 to 10 (``CURVATURE_BOUNDS``).
    temperature
        Initial temperature of the contrastive loss, learnt down to 0.01 (``MIN_TEMPERATURE``). MERU's.
    """

    kind: Literal["delst"] = "delst"
    dim: PositiveInt = Field(default=512, le=MOST_DIM)
    dropout: NonNegativeFloat = Field(default=0.1, lt=1)
    parent: Modality = "gene"
    cross_weight: NonNegativeFloat = 0.2
    intra_weight: NonNegativeFloat = 0.2
    eta: PositiveFloat = 1.0
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    min_radius: PositiveFloat = 0.1
    curvature: PositiveFloat = 1.0
    learn_curvature: bool = True
    temperature: float = Field(default=0.07, ge=MIN_TEMPERATURE)

    @model_validator(mode="after")
    def _starts_within_bounds(self) -> DELSTConfig:
        check_curvature(self.curvature, self.learn_curvature)
        return self

    @property
    def alignment(self) -> AlignmentConfig:
        """The terms between the modalities of one spot: the contrastive loss, and lambda times the entailment."""
        image: Embedding = "spot_image"
        gene: Embedding = "spot_gene"
        parent, child = (image, gene) if self.parent == "image" else (gene, image)
        return AlignmentConfig(
            weight=1.0,
            entailment_weight=self.cross_weight,
            entailment_scale=1.0,
            contrastive=((image, gene), (gene, image)),
            relations=(Relation(parent=parent, child=child, eta=self.eta),),
            min_radius=self.min_radius,
            curvature=self.curvature,
            learn_curvature=self.learn_curvature,
            temperature=self.temperature,
        )


def _kind(value: Any) -> Any:
    """Tell the method of a config; the cards of our first checkpoints said ``method`` for ``kind``."""
    if isinstance(value, dict):
        return value.get("kind", value.get("method", "hyperst"))
    return getattr(value, "kind", None)


#: Settings of any method, told apart by ``kind``; without one they are HyperST's.
MethodConfig = Annotated[
    Annotated[HyperSTConfig, Tag("hyperst")] | Annotated[DELSTConfig, Tag("delst")],
    Discriminator(_kind, custom_error_type="method_kind", custom_error_message="there are hyperst and delst"),
]
