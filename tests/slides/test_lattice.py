from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide
from napari_hyperst.slides.lattice import Lattice, lattice_from_array, lattice_from_centres
from napari_hyperst.slides.tiles import niche_um

SIZE = 9


def hex_array() -> np.ndarray:
    return np.array([(row, 2 * column + row % 2) for row in range(SIZE) for column in range(SIZE)])


def square_array() -> np.ndarray:
    return np.array([(row, column) for row in range(SIZE) for column in range(SIZE)])


def hex_centres(pitch: float, angle: float = 0.0) -> np.ndarray:
    row, column = hex_array().T
    return turn(np.column_stack([column * pitch / 2, row * pitch * np.sqrt(3) / 2]), angle)


def square_centres(pitch: float, angle: float = 0.0) -> np.ndarray:
    row, column = square_array().T
    return turn(np.column_stack([column * pitch, row * pitch]).astype(float), angle)


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, -s], [s, c]]) + 500


@settings(max_examples=25, deadline=None)
@given(pitch=st.floats(5, 500), angle=st.floats(0, 2 * np.pi))
def test_pitch_and_rings_of_ideal_lattices_at_any_angle(pitch: float, angle: float) -> None:
    for centres, array, kind, whole in (
        (hex_centres(pitch, angle), hex_array(), "hex", (SIZE - 2) * (SIZE - 2)),
        (square_centres(pitch, angle), square_array(), "square", (SIZE - 2) ** 2),
    ):
        for lattice in (lattice_from_array(centres, array), lattice_from_centres(centres)):
            assert lattice.kind == kind
            assert lattice.pitch_px == pytest.approx(pitch, rel=1e-6)
            assert lattice.complete.sum() == whole


def test_both_ways_find_the_same_neighbours() -> None:
    by_array = lattice_from_array(hex_centres(10), hex_array())
    by_centres = lattice_from_centres(hex_centres(10))
    for one, other in zip(by_array.ring, by_centres.ring, strict=True):
        assert set(one[one >= 0]) == set(other[other >= 0])


def test_checkerboard_is_a_square_lattice() -> None:
    row, column = np.array([(r, c) for r in range(12) for c in range(12) if (r + c) % 2]).T
    lattice = lattice_from_array(np.column_stack([column * 10.0, row * 10.0]), np.column_stack([row, column]))
    assert lattice.kind == "square"
    assert lattice.pitch_px == pytest.approx(10 * np.sqrt(2))
    assert lattice.complete.any()
    found = lattice.ring[lattice.complete][0]
    assert len(set(found)) == 8


def test_missing_spots_leave_gaps_in_rings() -> None:
    centres, array = hex_centres(10), hex_array()
    middle = SIZE * (SIZE // 2) + SIZE // 2
    kept = np.arange(len(centres)) != middle
    lattice = lattice_from_array(centres[kept], array[kept])
    assert lattice.pitch_px == pytest.approx(10)
    assert (lattice.ring == -1).any(axis=1).sum() > (~lattice_from_array(centres, array).complete).sum()


@pytest.mark.parametrize("n", [0, 1, 3, 8])
def test_too_few_spots_have_no_lattice(n: int) -> None:
    lattice = lattice_from_centres(hex_centres(10)[:n])
    assert lattice.kind == "none"
    assert np.isnan(lattice.pitch_px)
    assert not lattice.complete.any()
    assert len(lattice.ring) == n


def test_random_places_are_no_lattice() -> None:
    places = np.random.default_rng(0).uniform(0, 1000, (200, 2))
    assert lattice_from_centres(places).kind == "none"


def test_spots_in_one_row_have_no_lattice() -> None:
    row = np.column_stack([np.zeros(10, int), np.arange(10)])
    assert lattice_from_array(row * 10.0, row).kind == "none"


def test_niche_of_an_ideal_visium_lattice_is_255_um(c2: Slide) -> None:
    """METHODS 10.12: half-width is pitch + spot radius, and the square holds the seven members of the niche."""
    centres = hex_centres(pitch=200.0)  # px, so 0.5 µm/px
    visium = _with_lattice(c2, lattice_from_array(centres, hex_array()), mpp=0.5, diameter_um=55.0)
    side = niche_um(visium, TileSpec())
    assert side == pytest.approx(255.0)
    middle = SIZE * (SIZE // 2) + SIZE // 2
    within = np.abs(centres - centres[middle]).max(axis=1) * 0.5 + 27.5 <= side / 2 + 1e-9
    assert within.sum() == 7


def _with_lattice(slide: Slide, lattice: Lattice, mpp: float, diameter_um: float) -> Slide:
    from dataclasses import replace

    return replace(slide, lattice=lattice, mpp=mpp, spots=replace(slide.spots, diameter_um=diameter_um))
