from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from napari_hyperst.errors import HyperSTWarning
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.lattice import Lattice, lattice_from_array, lattice_from_centres
from napari_hyperst.slides.slide import _scale
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


def thinned(kind: str, pitch: float, angle: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ideal places of a turned lattice of which 30 % are missing, and the same scattered by 2 % of the pitch."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:22, :22].reshape(2, -1).astype(float)
    if kind == "hex":
        row, column = row * np.sqrt(3) / 2, column + (row % 2) / 2
    ideal = turn(pitch * np.column_stack([column, row]), angle)[rng.permutation(22 * 22)[: int(0.7 * 22 * 22)]]
    return ideal, ideal + rng.normal(0, 0.02 * pitch, ideal.shape)


@settings(max_examples=30, deadline=None)
@given(pitch=st.floats(3, 600), angle=st.floats(0, 2 * np.pi), seed=st.integers(0, 10**6))
@pytest.mark.parametrize(("kind", "reach"), [("hex", 1.37), ("square", 1.7)])
def test_turned_thinned_scattered_lattices_have_the_neighbours_that_scikit_learn_finds(
    kind: str, reach: float, pitch: float, angle: float, seed: int
) -> None:
    ideal, centres = thinned(kind, pitch, angle, seed)
    lattice = lattice_from_centres(centres)
    assert lattice.kind == kind
    assert lattice.pitch_px == pytest.approx(pitch, rel=0.005)
    wanted = NearestNeighbors(radius=reach * pitch).fit(ideal).radius_neighbors(return_distance=False)
    for ring, neighbours in zip(lattice.ring, wanted, strict=True):
        assert set(ring[ring >= 0]) == set(neighbours)
        assert (ring >= 0).sum() == len(neighbours)
    np.testing.assert_array_equal(lattice.complete, [len(n) == lattice.ring.shape[1] for n in wanted])


@pytest.mark.parametrize("n", [9, 12, 20, 60])
def test_a_few_random_places_are_no_lattice_either(n: int) -> None:
    kinds = [lattice_from_centres(np.random.default_rng(i).uniform(0, 1000, (n, 2))).kind for i in range(50)]
    assert kinds.count("none") >= 48


def test_rows_points_twice_and_one_place_are_no_lattice() -> None:
    line = np.column_stack([np.arange(30.0), np.zeros(30)])
    assert lattice_from_centres(line).kind == "none"
    assert lattice_from_centres(np.zeros((30, 2))).kind == "none"
    assert lattice_from_centres(np.repeat(square_centres(10), 2, axis=0)).kind == "none"


def test_a_real_sections_lattice_is_found_without_its_array_coordinates(c2: Slide) -> None:
    """The median of nearest distances is 7 % short on it."""
    found = lattice_from_centres(c2.spots.centres_px)
    assert found.kind == "square"
    assert found.pitch_px == pytest.approx(c2.lattice.pitch_px, rel=0.005)
    np.testing.assert_array_equal(found.complete, c2.lattice.complete)
    for one, other in zip(found.ring, c2.lattice.ring, strict=True):
        assert set(one) == set(other)


def test_a_visium_slides_lattice_is_found_without_its_array_coordinates(shared_data: Path) -> None:
    with pytest.warns(HyperSTWarning):
        slide = open_slide(shared_data / "visium" / "V1_Adult_Mouse_Brain")
    found = lattice_from_centres(slide.spots.centres_px)
    assert found.kind == "hex"
    assert found.pitch_px == pytest.approx(slide.lattice.pitch_px, rel=0.002)
    for one, other in zip(found.ring, slide.lattice.ring, strict=True):
        assert set(one) == set(other)


def test_array_coordinates_may_be_negative_and_far_apart() -> None:
    array = square_array() - 40
    array[-1] += 10**6
    lattice = lattice_from_array(array[:, ::-1] * 10.0, array)
    assert lattice.complete.sum() == (SIZE - 2) ** 2 - 1
    assert (lattice.ring[-1] == -1).all()
    for spot, ring in enumerate(lattice.ring):
        assert (np.abs(array[ring[ring >= 0]] - array[spot]).max(axis=1) == 1).all()


SCALES = {
    # stated, by the lattice, by the image, settled before: what is used, what is told
    "all agree": ((0.5, 0.5, 0.51, False), 0.5, []),
    "the lattice goes before the image": ((None, 0.5, 0.25, False), 0.5, ["0.25 µm/px by the slide's metadata"]),
    "the user goes before both": ((1.0, 0.5, 0.25, False), 1.0, ["0.5 µm/px by the spots' pitch", "0.25 µm/px"]),
    "the image alone": ((None, None, 0.25, False), 0.25, []),
    "the user against the image": ((1.0, None, 0.25, False), 1.0, ["0.25 µm/px by the slide's metadata"]),
    "what was settled stays": ((None, 0.5, 0.25, True), 0.25, ["0.5 µm/px by the spots' pitch of 200 px = 100 µm"]),
    "four per cent are borne": ((0.52, 0.5, 0.5, False), 0.52, []),
}


@pytest.mark.parametrize("case", SCALES)
def test_contradicting_scales_are_told_with_both_numbers_and_which_is_used(c2: Slide, case: str) -> None:
    (stated, by_lattice, by_image, settled), used, told = SCALES[case]
    lattice = Lattice("hex" if by_lattice else "none", 200.0 if by_lattice else np.nan, np.empty((0, 0), np.intp))
    source = replace(c2.source, pitch_um=None, mpp=by_image, settled=settled)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert _scale(source, lattice, stated) == used
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == len(told)
    for message, part in zip(messages, told, strict=True):
        assert part in message
        assert f"{used:.4g} µm/px is used" in message
        assert "state" in message
        assert str(c2.path) in message


def _with_lattice(slide: Slide, lattice: Lattice, mpp: float, diameter_um: float) -> Slide:
    return replace(slide, lattice=lattice, mpp=mpp, spots=replace(slide.spots, diameter_um=diameter_um))
