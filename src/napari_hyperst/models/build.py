"""A method from its settings."""

from __future__ import annotations

from napari_hyperst.models.delst import DELST
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.encoders import EncoderSpec
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig


def build_method(config: HyperSTConfig | DELSTConfig, genes: int, spec: EncoderSpec | None = None) -> Method:
    """Return a method with its weights as they start; within ``torch.device("meta")``, their shapes alone.

    Parameters
    ----------
    config
        Its settings.
    genes
        Size G of the gene panel.
    spec
        The encoder, its weights on this disk; what ``config`` names if not told.

    Raises
    ------
    CheckpointError
        If the encoder is unknown, or is not there.
    """
    return DELST(config, genes, spec) if isinstance(config, DELSTConfig) else HyperST(config, genes, spec)
