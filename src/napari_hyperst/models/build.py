"""A method from its settings."""

from __future__ import annotations

from napari_hyperst.models.delst import DELST
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.methods import DELSTConfig, HyperSTConfig


def build_method(config: HyperSTConfig | DELSTConfig, genes: int) -> Method:
    """Return a method with its weights as they start.

    Parameters
    ----------
    config
        Its settings.
    genes
        Size G of the gene panel.

    Raises
    ------
    CheckpointError
        If the encoder is unknown, or is not there.
    """
    return DELST(config, genes) if isinstance(config, DELSTConfig) else HyperST(config, genes)
