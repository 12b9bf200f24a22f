"""Sets of marker genes, and the genes that the user likes best; both are preferences, and so outlive the session."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from napari_hyperst.viewer import preferences

#: What stands between names in a list that somebody pastes: quotes and brackets of scripts are passed over.
_BETWEEN = re.compile(r"[\s,;|\"'`()\[\]{}]+")


@dataclass(frozen=True)
class MarkerSet:
    """Genes whose mean is looked at.

    Attributes
    ----------
    name
        What it is called.
    genes
        Their names, as they were given.
    """

    name: str
    genes: tuple[str, ...]

    @classmethod
    def named(cls, name: str, genes: tuple[str, ...]) -> MarkerSet:
        """Return a set under a name without what separates names where they are kept."""
        return cls(" ".join(re.sub("[:;]", " ", name).split()), genes)


def read_names(text: str) -> tuple[str, ...]:
    """Read a list of genes as it may be pasted: names between commas, semicolons, spaces or lines, each once."""
    return tuple(dict.fromkeys(name for name in _BETWEEN.split(text) if name))


def marker_sets() -> list[MarkerSet]:
    """Return the marker sets that are kept; what is not written as they are is passed over."""
    parts = (part.partition(":") for part in preferences.marker_sets().split(";"))
    found = [MarkerSet(" ".join(name.split()), read_names(genes)) for name, colon, genes in parts if colon]
    return [markers for markers in found if markers.name and markers.genes]


def keep_marker_sets(sets: Iterable[MarkerSet]) -> None:
    """Keep these marker sets, and no others; of a name that two have, the later."""
    by_name = {markers.name: markers.genes for markers in sets}
    preferences.keep("marker_sets", "; ".join(f"{name}: {', '.join(genes)}" for name, genes in by_name.items()))


def favourites() -> set[str]:
    """Return the user's favourite genes."""
    return set(read_names(preferences.favourites()))


def keep_favourites(genes: Iterable[str]) -> None:
    """Keep these genes as favourites, and no others."""
    preferences.keep("favourites", ", ".join(sorted(genes)))
