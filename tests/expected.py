"""What must come of broken and odd slides: an error that tells, or a slide that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_slides import Truth

from napari_hyperst.errors import SlideError
from napari_hyperst.slides import Slide
from napari_hyperst.slides.expression import require_raw


@dataclass(frozen=True)
class Refused:
    """A slide that must end in a SlideError.

    Attributes
    ----------
    file
        What its text must name.
    told
        Regular expression that its text must match.
    """

    file: str
    told: str


@dataclass(frozen=True)
class Opens:
    """A slide that must open right.

    Attributes
    ----------
    warns
        Regular expression that a HyperSTWarning must match; none may come where it is None.
    check
        What must be right of it.
    """

    warns: str | None
    check: Callable[[Any, Truth], None] = lambda slide, truth: truth.check(slide)


@dataclass(frozen=True)
class Case:
    """A broken or odd slide: its name, the format it is of, how it is broken, and what must come of it."""

    name: str
    format: str
    damage: Callable[[Path], object]
    expected: Refused | Opens
    opened: str = "."
    options: dict[str, Any] = field(default_factory=dict)


def like_a_jpeg(slide: Slide, truth: Truth) -> None:
    truth.check(slide, tolerance=12)


def grey(slide: Slide, truth: Truth) -> None:
    truth.check(slide, tolerance=1, grey=True)


def one_off_the_image(slide: Slide, truth: Truth) -> None:
    assert (~slide.inside(1)).sum() == 1
    inside = slide.inside(1)
    places = {one: i for i, one in enumerate(truth.ids)}
    order = [places[one] for one in slide.spots.ids[inside]]
    np.testing.assert_allclose(slide.spots.centres_px[inside], truth.centres[order])
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.01)


def by_hires(slide: Slide, truth: Truth) -> None:
    assert slide.source.image.endswith("_hires_image")
    truth.check(slide, factor=0.5)


def first_without_counts(slide: Slide, truth: Truth) -> None:
    totals = np.asarray(slide.counts[slide.count_rows].X.sum(axis=1)).ravel()
    places = {one: i for i, one in enumerate(truth.ids)}
    ours = truth.counts.sum(axis=1)[[places[one] for one in slide.spots.ids]]
    emptied = slide.spots.ids == truth.ids[0]
    assert emptied.sum() == 1
    np.testing.assert_array_equal(totals, np.where(emptied, 0, ours))
    places_and_pixels(slide, truth)


def places_and_pixels(slide: Slide, truth: Truth) -> None:
    np.testing.assert_allclose(np.sort(slide.spots.centres_px, axis=0), np.sort(truth.centres, axis=0))
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.01)
    truth.check_pixels(slide)


def not_raw(slide: Slide, truth: Truth) -> None:
    places_and_pixels(slide, truth)
    with pytest.raises(SlideError, match=r"normalised or scaled.*train on raw counts"):
        require_raw(slide)


def no_counts(slide: Slide, truth: Truth) -> None:
    places_and_pixels(slide, truth)
    assert slide.counts is None


def laid(slide: Slide, truth: Truth) -> None:
    """Spots were laid over a bare H&E."""
    truth.check_pixels(slide)
    assert slide.counts is None
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.01)
    assert slide.pitch_um == pytest.approx(100)
    assert slide.inside(55).all()
    assert len(slide.spots) > 10


def as_swapped(slide: Slide, truth: Truth) -> None:
    """All but x and y, which were taken as they are told."""
    places = {one: i for i, one in enumerate(truth.ids)}
    order = [places[one] for one in slide.spots.ids]
    np.testing.assert_allclose(slide.spots.centres_px, truth.centres[order, ::-1])
    np.testing.assert_array_equal(slide.counts[slide.count_rows].X.toarray(), truth.counts[order])
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.02)


def as_stated(slide: Slide, truth: Truth) -> None:
    assert slide.mpp == slide.ref.mpp
    truth.check_pixels(slide)
