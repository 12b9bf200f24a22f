"""What a run works on, before anything is computed: its spots, its genes, and the checkpoint it starts from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_hyperst.errors import ConfigError, SlideError
from napari_hyperst.models.checkpoint import Checkpoint, load_checkpoint
from napari_hyperst.models.transfer import check_encoders
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide
from napari_hyperst.slides.expression import measured_genes, select_hmhvg
from napari_hyperst.slides.tiles import niche_um
from napari_hyperst.training.blocks import hold_out_block
from napari_hyperst.training.dataset import trainable_spots

#: Indices of some of a slide's spots.
Spots = NDArray[np.intp]


def divide_spots(
    config: TrainConfig, slides: Sequence[Slide], validation: Sequence[Slide]
) -> tuple[list[Spots], list[Spots]]:
    """Return which spots of each slide a run trains on and validates on; the latter of the former, where held out.

    Parameters
    ----------
    config
        The run's settings.
    slides, validation
        Its slides.

    Raises
    ------
    SlideError
        If a slide has no spot to train on, or too few for a held-out block.
    """
    kept = [trainable_spots(slide, config.tiles, config.complete_niches_only) for slide in (*slides, *validation)]
    if config.holdout == 0:
        return kept[: len(slides)], kept[len(slides) :]
    divided = [
        hold_out_block(slide, spots, config.holdout, niche_um(slide, config.tiles))
        for slide, spots in zip(slides, kept, strict=True)
    ]
    return [rest for rest, _ in divided], [block for _, block in divided]


def choose_panel(config: TrainConfig, slides: Sequence[Slide], kept: Sequence[Spots]) -> GenePanel:
    """Return the genes that a run predicts: those listed in its settings, or those that HMHVG chooses.

    Parameters
    ----------
    config
        The run's settings.
    slides, kept
        Its training slides, and the spots of each that it trains on. What HMHVG chooses is chosen on whole slides, as
        published, but for a block that is held out: it is not looked at.

    Raises
    ------
    SlideError
        If a training slide lacks a listed gene, or too few can be chosen.
    """
    if not config.gene_list:
        return select_hmhvg(slides, config.genes, kept if config.holdout > 0 else None)
    for slide in slides:
        there = measured_genes(slide, config.gene_list)
        if not there.all():
            lacks = np.array(config.gene_list)[~there]
            raise SlideError(
                f"lacks {len(lacks)} of the {len(there)} genes that are listed ({', '.join(lacks[:5])})",
                where=slide.path,
                do="leave them out of gene_list, or train without this slide",
            )
    return GenePanel(config.gene_list, "listed")


def starting_point(config: TrainConfig, held_out: Sequence[Slide]) -> Checkpoint | None:
    """Return the checkpoint that the encoder starts from, if there is to be one.

    Raises
    ------
    ConfigError
        If the encoders do not fit, or it was trained on a slide that is held out.
    CheckpointError
        If there is no such checkpoint.
    """
    if config.init_from is None:
        return None
    start = load_checkpoint(config.init_from, config.method.encoder)
    check_encoders(config.method, start.card.method)
    for slide in held_out:
        if start.card.has_seen(slide.fingerprint):
            raise ConfigError(
                f"was trained on by {start.card.name}, which the encoder starts from",
                where=slide.path,
                do="validate on a section that neither has seen",
            )
    return start


def check_apart(slides: Sequence[Slide], held_out: Sequence[Slide]) -> None:
    """Refuse a section that is given twice, however it is called.

    Raises
    ------
    ConfigError
        If there is one.
    """
    seen: dict[str, Slide] = {}
    for slide in [*slides, *held_out]:
        other = seen.get(slide.fingerprint)
        if other is not None:
            raise ConfigError(
                f"is the same section as {other.path}", where=slide.path, do="give each section once, for one purpose"
            )
        seen[slide.fingerprint] = slide
