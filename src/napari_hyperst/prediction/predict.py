"""Slides and a checkpoint become a prediction."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_hyperst.errors import CheckpointError, HyperSTWarning
from napari_hyperst.models.checkpoint import Checkpoint, load_checkpoint
from napari_hyperst.models.device import Precision, choose_device, choose_dtype
from napari_hyperst.models.method import Batch, Method
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.hierarchy import EMBEDDINGS, Embedding, modality
from napari_hyperst.nouns.prediction import Prediction
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.prediction.maps import distances_from_origin, entailment_cones, poincare_disk
from napari_hyperst.slides.expression import (
    counts_are_raw,
    log2_counts,
    measured_genes,
    names_on,
    niche_counts,
    spot_counts,
)
from napari_hyperst.slides.genes import why_none_is_found
from napari_hyperst.slides.slide import Slide
from napari_hyperst.slides.tiles import TileBatch, complete_niches, niche_um, read_tiles, spots_with_tiles

#: Called with how many spots are done, and of how many.
Progress = Callable[[int, int], None]
#: Called with the places of spots in the slide, and their (n, G) expression.
Done = Callable[[NDArray[np.intp], NDArray[np.float32]], None]
#: (N, G) log2(count + 1) of all spots of a slide, and of their niches.
Measured = tuple[NDArray[np.float32], NDArray[np.float32]]
#: A slide whose px are more than this many times coarser than what tiles are sampled at is warned of.
_COARSE = 1.5


def predict(
    slide: Slide,
    checkpoint: Checkpoint | str | Path,
    device: str = "auto",
    progress: Progress | None = None,
    *,
    batch_size: int = 32,
    precision: Precision = "auto",
    done: Done | None = None,
) -> Prediction[Slide]:
    """Predict gene expression, and place each spot in the hierarchy.

    Spots whose spot tile reaches over the image's edge are left out. Those whose niche tile does see the image's
    reflection there and are flagged, as are those whose ring of neighbours is incomplete.

    Parameters
    ----------
    slide
        From ``open_slide``; counts are needed only for the relations with genes.
    checkpoint
        From ``load_checkpoint``, or what that takes.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
    progress
        Called with spots done and spots in all.
    batch_size
        Spots at a time; halved, with a warning, when the device runs out of memory.
    precision
        What the encoder computes in: ``"float32"``, ``"bfloat16"``, or bfloat16 where the hardware has it.
    done
        Called with the places of spots in the slide and their (n, G) expression, as soon as it is known.

    Returns
    -------
    Prediction
        For the spots whose tile lies in the image, in the slide's order.

    Raises
    ------
    CheckpointError
        If the slide has counts, but of none of the checkpoint's genes.
    ConfigError
        If the checkpoint's stain normalisation needs what is not installed.
    SlideError
        If no spot tile lies in the image, or pixels cannot be read.
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = load_checkpoint(checkpoint)
    spec, model = tile_sizes(slide, checkpoint.card), checkpoint.model
    _warn_of_scale(slide, checkpoint)
    if slide.source.laid and spec.niche_um == "ring":
        warnings.warn(
            f"{slide.path}: {checkpoint.card.name} does not tell how large the niches were that it was trained on; "
            f"those of Visium are taken, {niche_um(slide, spec):g} µm",
            HyperSTWarning,
            stacklevel=2,
        )
    spots = spots_with_tiles(slide, spec)
    if len(spots) < len(slide.spots):
        warnings.warn(
            f"{slide.path}: {len(slide.spots) - len(spots)} of {len(slide.spots)} spots have a {spec.spot_um:g} µm "
            "tile that reaches over the image's edge; they are left out",
            HyperSTWarning,
            stacklevel=2,
        )
    measured = _measured(slide, checkpoint)
    target = choose_device(device)
    started = time.perf_counter()
    try:
        model.to(target).eval()
        model.encoder.dtype = choose_dtype(precision, target)
        expression, points = _run(model, spec, slide, spots, measured, batch_size, progress, done)
    finally:
        model.to("cpu")
    seconds = time.perf_counter() - started
    alignment = checkpoint.card.method.alignment
    hyperbolic = model.alignment is not None and alignment.geometry == "hyperbolic"
    c = model.alignment.curvature.item() if model.alignment is not None and hyperbolic else float("nan")
    side = niche_um(slide, spec)
    return Prediction(
        slide=slide,
        spots=spots,
        panel=checkpoint.panel,
        expression=expression,
        measured=None if measured is None else measured[0][spots],
        embeddings=points,
        disk=poincare_disk(points, c) if hyperbolic else {},
        norms=distances_from_origin(points, c, alignment.geometry),
        cones=entailment_cones(points, alignment.relations, c, alignment.min_radius, alignment.geometry),
        complete_niche=complete_niches(slide, spec)[spots],
        inside_image=slide.inside(max(spec.spot_um, side))[spots],
        in_training=np.full(len(spots), _is_known(slide, checkpoint.card)),
        curvature=c,
        card=checkpoint.card,
        checkpoint_hash=checkpoint.sha256,
        run={
            "spot_um": spec.spot_um,
            "niche_um": side,
            "device": target.type,
            "precision": str(model.encoder.dtype).removeprefix("torch."),
            "seconds": seconds,
        },
    )


def tile_sizes(slide: Slide, card: Card) -> TileSpec:
    """Return the sizes of the tiles that a checkpoint looks at on a slide.

    A niche of one ring is that of the slide's own lattice. On spots that were laid over an H&E, which have no assay, it
    is as large as in training, where the card tells that; else that of ``niche_um``.
    """
    trained = [known.niche_um for known in card.training_slides if known.niche_um is not None]
    if slide.source.laid and card.tiles.niche_um == "ring" and trained:
        return card.tiles.model_copy(update={"niche_um": float(np.median(trained))})
    return card.tiles


def _run(
    model: Method,
    spec: TileSpec,
    slide: Slide,
    spots: NDArray[np.intp],
    measured: Measured | None,
    batch_size: int,
    progress: Progress | None,
    told: Done | None,
) -> tuple[NDArray[np.float32], dict[Embedding, NDArray[np.float32]]]:
    """Run the model over the spots: (n, G) expression, and (n, d) points that are NaN where there are no counts."""
    row_of = np.full(len(slide.spots), -1)
    row_of[spots] = np.arange(len(spots))
    results: dict[str, NDArray[np.float32]] = {}
    done = 0
    for tiles in read_tiles(slide, spec, spots, batch_size):  # in threads, ahead of the model
        start = 0
        while start < len(tiles.spots):
            part = slice(start, start + batch_size)
            try:
                found = _forward(model, tiles, part, measured)
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    raise
                batch_size = batch_size // 2
                warnings.warn(
                    f"out of memory; going on with {batch_size} spots at a time", HyperSTWarning, stacklevel=3
                )
                torch.cuda.empty_cache()
                continue
            for name, values in found.items():
                whole = results.setdefault(name, np.full((len(spots), values.shape[1]), np.nan, np.float32))
                whole[row_of[tiles.spots[part]]] = values
            if told is not None:
                told(tiles.spots[part], found["expression"])
            start += batch_size
            done += len(found["expression"])
            if progress is not None:
                progress(done, len(spots))
    return results.pop("expression"), {name: results[name] for name in EMBEDDINGS if name in results}


def _forward(model: Method, tiles: TileBatch, part: slice, measured: Measured | None) -> dict[str, NDArray[np.float32]]:
    device = next(model.parameters()).device
    counted = np.zeros(len(tiles.spots[part]), dtype=bool)
    genes: list[torch.Tensor | None] = [None, None]
    if measured is not None:
        rows = [values[tiles.spots[part]] for values in measured]
        counted = np.isfinite(rows[0]).any(axis=1)
        genes = [torch.from_numpy(np.nan_to_num(row)).to(device) for row in rows]
    with torch.inference_mode():
        found = model(
            Batch(torch.from_numpy(tiles.spot[part]).to(device), torch.from_numpy(tiles.niche[part]).to(device), *genes)
        )
        result = {"expression": found.prediction.cpu().numpy()}
        for name, points in found.points.items():
            result[name] = points.float().cpu().numpy()
            if modality(name) == "gene":
                result[name][~counted] = np.nan
    return result


def _measured(slide: Slide, checkpoint: Checkpoint) -> Measured | None:
    """Return measured expression of spots and niches on the checkpoint's genes; None where there are no raw counts."""
    if slide.counts is None:
        return None
    genes = names_on(slide, checkpoint.panel)
    missing = sorted(gene for gene, there in zip(genes, measured_genes(slide, genes), strict=True) if not there)
    if len(missing) == len(genes):
        why = why_none_is_found(genes, list(slide.counts.var_names))
        raise CheckpointError(
            f"none of the checkpoint's {len(genes)} genes ({', '.join(genes[:3])}, …) is among the slide's "
            f"{slide.counts.n_vars} ({', '.join(slide.counts.var_names[:3])}, …)" + (f": {why[0]}" if why else ""),
            where=slide.path,
            do=why[1] if why else "use a checkpoint of this species",
        )
    if missing:
        warnings.warn(
            f"{slide.path}: {len(missing)} of the checkpoint's {len(genes)} genes were not measured ({missing[0]} for "
            "one); gene embeddings take them as zero",
            HyperSTWarning,
            stacklevel=3,
        )
    if not counts_are_raw(slide.counts):
        warnings.warn(
            f"{slide.path}: the counts are normalised or scaled, so nothing is compared with them",
            HyperSTWarning,
            stacklevel=3,
        )
        return None
    spot = spot_counts(slide, genes)
    return log2_counts(spot), log2_counts(niche_counts(slide, spot))


def _is_known(slide: Slide, card: Card) -> bool:
    """Tell whether a slide was trained on: by its spots, or by its H&E where they were laid over it."""
    return card.has_seen(slide.fingerprint, slide.picture_fingerprint if slide.source.laid else None)


def _warn_of_scale(slide: Slide, checkpoint: Checkpoint) -> None:
    spec = checkpoint.card.tiles
    sampled = spec.spot_um / spec.pixels
    if slide.mpp > _COARSE * max(sampled, *(known.mpp for known in checkpoint.card.training_slides), 0.0):
        warnings.warn(
            f"{slide.path}: at {slide.mpp:.2f} µm/px the H&E is coarser than what the checkpoint was trained on "
            f"({sampled:.2g} µm/px), so expect poor predictions",
            HyperSTWarning,
            stacklevel=3,
        )
