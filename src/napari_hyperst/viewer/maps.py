"""The maps of a prediction: which there are, their values at the spots, and limits for colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.nouns.hierarchy import EMBEDDINGS, modality
from napari_hyperst.viewer.filling import is_filling

if TYPE_CHECKING:
    from anndata import AnnData

Values = NDArray[np.float32]
#: Of more values than these, a sample of about so many tells where the percentiles are, give or take so many of it.
_MANY, _SAMPLE, _AROUND = 100_000, 10_000, 200
_UNFINISHED = "wait until all spots are predicted"
NO_COUNTS = "needs measured counts, and this slide has none that are raw"
#: What the maps are listed under.
_EXPRESSION, LOG2 = "Expression", "log2(count + 1)"
_NORMS, _VIOLATIONS = "Hyperbolic norm (depth)", "Entailment violation"
#: What the embeddings are called to the user.
EMBEDDING_TITLES = {
    "spot_image": "spot image",
    "niche_image": "niche image",
    "spot_gene": "spot genes",
    "niche_gene": "niche genes",
}


@dataclass(frozen=True)
class Map:
    """Something that can be laid over the H&E, a number a spot.

    Attributes
    ----------
    key
        Its name in ``metadata["hyperst"]["kind"]`` of its layer.
    title
        What the user reads.
    group
        What it is listed under.
    unit
        Of its values, as the status bar shows them.
    colormap
        A napari colormap; None stands for the user's choice.
    of_gene
        Whether it is one gene's.
    reason
        Why it cannot be shown; empty where it can.
    """

    key: str
    title: str
    group: str
    unit: str
    colormap: str | None = None
    of_gene: bool = False
    reason: str = ""


def maps_of(table: AnnData | None) -> tuple[Map, ...]:
    """List the maps of a prediction, those that cannot be shown with the reason.

    Parameters
    ----------
    table
        A prediction's table, as ``export`` writes it; None before there is one.
    """
    unpredicted = "" if table is not None else "predict genes first"
    unfinished = _UNFINISHED if table is not None and is_filling(table) else ""
    counted = unpredicted or unfinished or ("" if table is not None and "measured" in table.layers else NO_COUNTS)
    found = [
        Map("predicted", "Predicted", _EXPRESSION, LOG2, of_gene=True, reason=unpredicted),
        Map("measured", "Measured", _EXPRESSION, LOG2, of_gene=True, reason=counted),
        Map("difference", "Predicted − measured", _EXPRESSION, LOG2, "PiYG", of_gene=True, reason=counted),
    ]
    if table is None or unfinished:
        return tuple(found)
    norms = {key.removeprefix("norm_") for key in table.obs.columns if key.startswith("norm_")}
    for embedding in EMBEDDINGS if norms else ():
        reason = "" if embedding in norms else _why_missing(embedding)
        title = f"Norm of {EMBEDDING_TITLES[embedding]}"
        found.append(Map(f"norm_{embedding}", title, _NORMS, "from the origin", "magma", reason=reason))
    for name in relations_of(table):
        parent, child = name.split("__")
        reason = "" if f"violation_{name}" in table.obs else NO_COUNTS
        title = f"{EMBEDDING_TITLES[parent]} → {EMBEDDING_TITLES[child]} violation".capitalize()
        found.append(Map(f"violation_{name}", title, _VIOLATIONS, "° outside the cone", "I Bordeaux", reason=reason))
    return tuple(found)


def relations_of(table: AnnData) -> tuple[str, ...]:
    """Return the names of the relations of the checkpoint that made a table, also of those that lack counts here."""
    from napari_hyperst.nouns.checkpoint import Card

    alignment = Card.model_validate_json(table.uns["hyperst"]["card"]).method.alignment
    return tuple(relation.name for relation in alignment.relations) if alignment.weight > 0 else ()


def _why_missing(embedding: str) -> str:
    return NO_COUNTS if modality(embedding) == "gene" else "the checkpoint's method has no such embedding"  # type: ignore[arg-type]


def values_of(table: AnnData, key: str, genes: str | Sequence[str]) -> Values:
    """Return a map's values.

    Parameters
    ----------
    table
        A prediction's table.
    key
        Of the map.
    genes
        Whose, where the map is of genes: of several, the mean over those that are known at a spot.

    Returns
    -------
    NDArray
        (n,) float32; NaN where there is none. Violations are in degrees.
    """
    if key == "predicted":
        return _mean(_columns(table.X, table, genes))
    if key == "measured":
        return _mean(_columns(table.layers["measured"], table, genes))
    if key == "difference":
        return _mean(_columns(table.X, table, genes) - _columns(table.layers["measured"], table, genes))
    column = np.asarray(table.obs[key], dtype=np.float32)
    return np.degrees(column) if key.startswith("violation_") else column


def robust_limits(values: NDArray[Any], percentiles: tuple[float, float]) -> tuple[float, float]:
    """Return finite limits, the lower one less than the upper one, whatever the values.

    Parameters
    ----------
    values
        Any numbers; those that are not finite are passed over.
    percentiles
        Lower and upper percentile. Where they coincide, as for a gene that hardly a spot has, the extremes are taken,
        and where these do too, a unit from the value on.
    """
    finite = np.asarray(values)
    known = np.isfinite(finite)
    if not known.all():
        finite = finite[known]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = _percentiles(finite, percentiles)
    if np.float32(low) == np.float32(high):
        low, high = float(finite.min()), float(finite.max())
    if np.float32(low) == np.float32(high):
        high += max(1.0, 1e-3 * abs(low))
    return low, high


def _percentiles(values: NDArray[Any], percentiles: tuple[float, float]) -> list[float]:
    """Return percentiles; of very many values the nearest to them that there are, in less time than NumPy does."""
    if len(values) <= _MANY:
        return [float(one) for one in np.percentile(values, percentiles)]
    sample = np.sort(values[:: len(values) // _SAMPLE])
    return [_at(round(percentile / 100 * (len(values) - 1)), values, sample) for percentile in percentiles]


def _at(place: int, values: NDArray[Any], sample: NDArray[Any]) -> float:
    """Return what is at a place in the order of values; a sample in order tells which few of them need be sorted."""
    about = place * len(sample) // len(values)
    low = sample[about - _AROUND] if about >= _AROUND else -np.inf
    high = sample[about + _AROUND] if about + _AROUND < len(sample) else np.inf
    for bound in (low, high):  # which many may be equal to, as counts are
        if np.count_nonzero(values < bound) <= place < np.count_nonzero(values <= bound):
            return float(bound)
    before = int(np.count_nonzero(values <= low))
    if before <= place < np.count_nonzero(values < high):
        values, place = values[(values > low) & (values < high)], place - before
    return float(np.partition(values, place)[place])


def _columns(matrix: Any, table: AnnData, genes: str | Sequence[str]) -> Values:
    """Return (n, genes) values."""
    if not genes:
        raise ValueError("of which gene?")
    places = [table.var_names.get_loc(gene) for gene in ([genes] if isinstance(genes, str) else genes)]
    columns = matrix[:, places]
    return np.asarray(columns.toarray() if hasattr(columns, "toarray") else columns, dtype=np.float32)


def _mean(columns: Values) -> Values:
    """Average over genes, leaving out what is not known; NaN where nothing is."""
    if columns.shape[1] == 1:
        return columns[:, 0]
    known = np.isfinite(columns)
    count = known.sum(axis=1)
    total = np.where(known, columns, 0).sum(axis=1, dtype=np.float64)
    return np.divide(total, count, out=np.full(len(columns), np.nan), where=count > 0).astype(np.float32)
