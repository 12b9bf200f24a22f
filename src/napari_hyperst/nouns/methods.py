"""Settings of the methods: what is built, and with which objective."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from napari_hyperst.nouns.hierarchy import AlignmentConfig


class HyperSTConfig(BaseModel):
    """HyperST: an image encoder with LoRA, hyperbolic alignment with genes, and a decoder (METHODS 2.1).

    Attributes
    ----------
    encoder
        Name of the image encoder, one for spot and niche tiles.
    lora_blocks
        LoRA on the query-key-value projection of this many last blocks; 0 freezes the encoder.
    lora_rank, lora_alpha, lora_dropout
        LoRA's rank, scale and dropout.
    dim
        Width d of the heads. The paper's 1024 has some 53 million weights, far too many for a few sections.
    dropout
        Dropout in the residual MLPs.
    decoder_inputs
        The image features that are decoded: both scales, or one of them.
    linear_path
        Add a linear map of the encoder's features to the decoder's output. Not in the paper; it may start from
        the ridge solution.
    alignment
        The alignment objective.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["hyperst"] = "hyperst"
    encoder: str = "dinov2-vits14"
    lora_blocks: NonNegativeInt = 2
    lora_rank: PositiveInt = 8
    lora_alpha: PositiveInt = 16
    lora_dropout: NonNegativeFloat = Field(default=0.1, lt=1)
    dim: PositiveInt = 128
    dropout: NonNegativeFloat = Field(default=0.1, lt=1)
    decoder_inputs: tuple[Literal["spot", "niche"], ...] = Field(default=("spot", "niche"), min_length=1, max_length=2)
    linear_path: bool = False
    alignment: AlignmentConfig = AlignmentConfig()
