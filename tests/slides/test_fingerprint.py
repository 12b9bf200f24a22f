"""What an H&E is known by."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest

from napari_hyperst.models.checkpoint_files import find_checkpoint, read_card
from napari_hyperst.nouns.bundled import DEFAULT_CHECKPOINT
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.fingerprint import picture_fingerprint
from napari_hyperst.slides.image import Pyramid

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 700, 900), dtype=np.uint8)


def known_by(pixels: np.ndarray) -> str | None:
    return picture_fingerprint(Pyramid((da.from_array(pixels, chunks=(3, 256, 256)),), "x"))


def test_copies_are_known_whatever_their_chunks_levels_and_padding() -> None:
    first = known_by(PIXELS)
    assert first is not None
    levels = tuple(da.from_array(PIXELS[:, ::step, ::step]) for step in (1, 2, 4))
    assert picture_fingerprint(Pyramid(levels, "y")) == first
    assert known_by(np.pad(PIXELS, ((0, 0), (0, 20), (0, 12)))) == first


def test_other_pictures_are_not() -> None:
    turned = [PIXELS[:, ::-1], PIXELS[:, :, 5:], PIXELS[:, ::2, ::2], PIXELS[::-1], np.clip(PIXELS, 1, 255)]
    assert len({known_by(PIXELS), *map(known_by, turned)}) == len(turned) + 1


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 3, 900), (3, 700, 900)])
def test_what_shows_nothing_is_not_known(shape: tuple[int, int, int]) -> None:
    assert known_by(np.full(shape, 255, np.uint8)) is None
    assert known_by(PIXELS[:, :4, :4]) is not None


@pytest.mark.slow
def test_the_bundled_checkpoint_knows_the_bare_picture_of_a_section_it_was_trained_on(shared_data) -> None:
    card = read_card(find_checkpoint(DEFAULT_CHECKPOINT))
    slide = open_slide(shared_data / "her2st" / "C4")  # its pixels are those of the file, decoded once for all tests
    assert card.has_seen("laid spots", slide.picture_fingerprint)
    assert len({known.picture for known in card.training_slides} - {None}) == 4
