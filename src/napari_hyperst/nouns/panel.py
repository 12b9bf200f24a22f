"""The genes a model predicts."""

from __future__ import annotations

from dataclasses import dataclass

#: The only target transform of HyperST: no library-size normalisation (METHODS 2.3).
LOG2_COUNT = "log2(count+1)"


@dataclass(frozen=True)
class GenePanel:
    """An ordered list of genes, how it was chosen, and on which slides.

    Attributes
    ----------
    genes
        Gene names, in the order of a model's outputs.
    method
        How the genes were chosen, for example ``"hmhvg"``.
    slides
        Names of the slides that the choice was made on.
    transform
        The target: expression is predicted on this scale.
    aliases
        The other name of each gene, its Ensembl id or its symbol; empty where it is not known, and no tuple at all
        (``()``) where none is.
    """

    genes: tuple[str, ...]
    method: str = "listed"
    slides: tuple[str, ...] = ()
    transform: str = LOG2_COUNT
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.genes)) != len(self.genes):
            raise ValueError("a gene panel names each gene once")
        if self.aliases and len(self.aliases) != len(self.genes):
            raise ValueError("a gene panel has another name for each gene or for none")

    def __len__(self) -> int:
        return len(self.genes)
