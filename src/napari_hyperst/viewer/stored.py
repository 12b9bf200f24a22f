"""The predictions that a slide's store holds: read without the model, and believed only as far as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.provenance import read_provenance
from napari_hyperst.viewer.contract import OURS
from napari_hyperst.viewer.entry import annotates

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide

_NUMBERS = ("norm_", "violation_", "exterior_angle_", "half_aperture_")


def stored_predictions(slide: Slide, warn: Callable[[str], None]) -> dict[str, AnnData]:
    """Return the tables of predictions of a slide's spots in its store, by name, the one made last at the end.

    Parameters
    ----------
    slide
        The slide.
    warn
        Told of each that cannot be shown, and why.
    """
    found: list[tuple[str, str, AnnData]] = []
    for name, table in slide.sdata.tables.items():
        if not annotates(table, slide.source.spots):
            continue
        try:
            made = read_provenance(table.uns[OURS], f"{slide.path} ({name})")
            _check(table, f"{slide.path} ({name})")
        except SlideError as error:
            warn(f"the prediction {name} cannot be shown: {error}")
        else:
            found.append((made.run.at, name, table))
    return {name: table for _, name, table in sorted(found, key=lambda one: one[:2])}


def _check(table: AnnData, where: str) -> None:
    """Check that a table holds numbers where maps are drawn from.

    Raises
    ------
    SlideError
        If it does not.
    """
    columns = {name: table.obs[name] for name in table.obs if str(name).startswith(_NUMBERS)}
    columns |= {name: table.var[name] for name in ("pcc", "mse") if name in table.var}
    odd = [f"column {name}" for name, column in columns.items() if not _numeric(column)]
    odd += ["layer measured"] if "measured" in table.layers and not _numeric(table.layers["measured"]) else []
    odd += [] if _numeric(table.X) and 0 not in table.shape else ["X"]
    spatial = np.asarray(table.obsm.get("spatial", ()))
    if spatial.shape != (table.n_obs, 2) or not _numeric(spatial) or not np.isfinite(spatial).all():
        odd.append("obsm spatial")
    if not table.var_names.is_unique:
        odd.append("names of genes")
    if odd:
        raise SlideError(f"{odd[0]} does not hold what it should", where=where, do="predict again")


def _numeric(values: Any) -> bool:
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    return kind in ("f", "i", "u")
