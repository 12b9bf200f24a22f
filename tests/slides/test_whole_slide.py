"""H&E without transcriptomics: spots are laid over its tissue, predicted, written and opened again."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import painted
import pytest
import spatialdata as sd
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_hyperst.errors import HyperSTWarning, ScaleError, SlideError, StoreError
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.nouns.checkpoint import Card, TrainingSlide
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.prediction import predict
from napari_hyperst.prediction.predict import tile_sizes
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.convert import convert
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.lattice import lay_hexagonal
from napari_hyperst.slides.outputs.write import export
from napari_hyperst.slides.readers import whole_slide
from napari_hyperst.slides.readers.whole_slide import lay_again
from napari_hyperst.slides.tiles import niche_um


def everywhere(places: np.ndarray) -> np.ndarray:
    return np.ones(len(places), dtype=bool)


@pytest.fixture(scope="module")
def tif(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted.write_tif(tmp_path_factory.mktemp("wsi") / "painted.tif", painted.paint(), levels=3)


@pytest.fixture(scope="module")
def slide(tif: Path) -> Slide:
    return open_slide(tif)


@settings(max_examples=30, deadline=None)
@given(
    pitch=st.floats(3, 400), height=st.integers(1, 1500), width=st.integers(1, 1500),
    margin=st.integers(0, 400).map(lambda quarters: quarters / 4), data=st.data(),
)  # fmt: skip
def test_every_place_of_the_lattice_that_fits_is_laid_and_no_other(
    pitch: float, height: int, width: int, margin: float, data: st.DataObject
) -> None:
    centres, array = lay_hexagonal(everywhere, (height, width), pitch, margin)
    i, j = np.mgrid[0 : int(height / (pitch * 0.75**0.5)) + 2, 0 : int(2 * width / pitch) + 2]
    wanted = [
        (row, column)
        for row, column in zip(i.ravel().tolist(), j.ravel().tolist(), strict=True)
        if (row + column) % 2 == 0
        and margin <= row * pitch * 0.75**0.5 <= height - margin
        and margin <= column * pitch / 2 <= width - margin
    ]
    assert len(array) <= len(wanted) + 2  # a place on the very margin may fall to either side by rounding
    assert len(set(map(tuple, array.tolist())) ^ set(wanted)) <= 2
    np.testing.assert_allclose(centres[:, 0], array[:, 1] * pitch / 2)
    np.testing.assert_allclose(centres[:, 1], array[:, 0] * pitch * np.sqrt(0.75))
    if len(centres) > 1:
        one = data.draw(st.integers(0, len(centres) - 1))
        distances = np.delete(np.linalg.norm(centres - centres[one], axis=1), one)
        assert distances.min() > pitch * (1 - 1e-9)  # the nearest place of a strip may be further away


def test_spots_of_55_um_lie_on_a_hexagonal_lattice_of_100_um(slide: Slide) -> None:
    assert slide.lattice.kind == "hex"
    assert slide.pitch_um == pytest.approx(100, rel=1e-9)
    assert slide.spots.diameter_um == 55
    assert slide.mpp == pytest.approx(painted.MPP)
    assert slide.counts is None
    centres_um = slide.spots.centres_px * slide.mpp
    apart = np.linalg.norm(centres_um[:, None] - centres_um[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    assert apart.min() == pytest.approx(100, rel=1e-9)
    # a hexagonal lattice has a place for each pitch² * sqrt(3) / 2 of the tissue's area
    area_um2 = painted.true_tissue().sum() * painted.MPP**2
    assert len(slide.spots) == pytest.approx(area_um2 / (100**2 * np.sqrt(0.75)), rel=0.05)
    height, width = slide.image.shape_px
    assert slide.inside(55).all()
    truth = painted.true_tissue()
    x, y = slide.spots.centres_px.astype(int).T
    off = ~truth[y, x]
    assert off.sum() <= 0.02 * len(off)  # no more than the outline's few


def test_niches_are_complete_where_all_six_neighbours_were_laid(slide: Slide) -> None:
    apart = np.linalg.norm(slide.spots.centres_px[:, None] - slide.spots.centres_px[None], axis=2) * slide.mpp
    neighbours = ((apart > 1) & (apart < 101)).sum(axis=1)
    np.testing.assert_array_equal(slide.lattice.complete, neighbours == 6)
    assert 0 < slide.lattice.complete.sum() < len(slide.spots)
    assert niche_um(slide, TileSpec()) == pytest.approx(255)


def test_half_the_pitch_holds_every_spot_of_the_whole(slide: Slide, tif: Path) -> None:
    half = open_slide(tif, pitch_um=50)
    assert half.pitch_um == pytest.approx(50, rel=1e-9)
    assert len(half.spots) == pytest.approx(4 * len(slide.spots), rel=0.03)
    places = {tuple(place): i for i, place in enumerate(np.round(half.spots.centres_px, 6).tolist())}
    within = [places[tuple(place)] for place in np.round(slide.spots.centres_px, 6).tolist()]
    assert niche_um(half, TileSpec()) == niche_um(slide, TileSpec())  # the same tiles, more of them
    # and a spot of both has the same ring: the six places 100 µm around it
    kept = slide.lattice.complete
    np.testing.assert_array_equal(half.lattice.complete[within], kept)
    for one, other in zip(np.flatnonzero(kept), np.array(within)[kept], strict=True):
        ring, again = slide.lattice.ring[one], half.lattice.ring[other]
        np.testing.assert_allclose(
            sorted(map(tuple, slide.spots.centres_px[ring].round(6))),
            sorted(map(tuple, half.spots.centres_px[again].round(6))),
        )


@pytest.mark.parametrize(("pitch", "spot"), [(200.0, 100.0), (73.0, 20.0), (100.0, 100.0)])
def test_any_pitch_and_spot(tif: Path, pitch: float, spot: float) -> None:
    slide = open_slide(tif, pitch_um=pitch, spot_um=spot)
    assert slide.pitch_um == pytest.approx(pitch)
    assert slide.spots.diameter_um == spot
    assert (slide.sdata.shapes[slide.name]["radius"] == spot / 2 / slide.mpp).all()


def test_a_mask_of_the_users_decides_where_spots_are_laid(tif: Path, slide: Slide, tmp_path: Path) -> None:
    mask = np.zeros((150, 200), np.uint8)
    mask[:, 100:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for tissue in (tmp_path / "mask.png", str(tmp_path / "mask.png"), mask, mask.astype(bool)):
        masked = open_slide(tif, tissue=tissue)
        assert (masked.spots.centres_px[:, 0] >= painted.SHAPE[1] / 2).all()
        assert open_slide(masked.ref.path, **masked.ref.options).fingerprint == masked.fingerprint
    here = set(slide.spots.ids[slide.spots.centres_px[:, 0] >= painted.SHAPE[1] / 2])
    assert here < set(masked.spots.ids)  # a place has one name, whatever the mask


def test_laying_again_reads_no_pixels(slide: Slide, tif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.asarray(slide.sdata.labels[slide.source.tissue].data).copy()
    half, spots = open_slide(tif, pitch_um=50), open_slide(tif, spot_um=30)
    monkeypatch.setattr(Pyramid, "read", lambda *_: pytest.fail("pixels were read"))
    assert lay_again(slide).fingerprint == slide.fingerprint
    again = lay_again(slide, pitch_um=50)
    assert again.fingerprint == half.fingerprint
    assert again.ref == half.ref
    assert lay_again(again, pitch_um=100).fingerprint == slide.fingerprint
    assert lay_again(slide, spot_um=30).spots.diameter_um == spots.spots.diameter_um
    mask[: len(mask) // 2] = 0
    lower = lay_again(slide, mask)
    assert (lower.spots.centres_px[:, 1] >= painted.SHAPE[0] / 2).all()
    assert len(slide.sdata.tables) == len(lower.sdata.tables) == 0
    assert len(slide.spots) > len(lower.spots)  # the first is as it was
    with pytest.raises(SlideError, match="no tissue was found"):
        lay_again(slide, np.zeros_like(mask))


def test_what_was_measured_is_not_laid_over(tiny_section: Path, tif: Path) -> None:
    with pytest.raises(SlideError, match="has spots of its own"):
        open_slide(tiny_section, pitch_um=50)
    with pytest.raises(SlideError, match="has spots of its own"):
        lay_again(open_slide(tiny_section))


def test_a_scale_that_nothing_tells_is_asked_for(tmp_path: Path) -> None:
    pixels = painted.paint()
    png = tmp_path / "he.png"
    Image.fromarray(pixels).save(png)
    with pytest.raises(ScaleError, match=r"he\.png: nothing tells how many µm a px is; state it \(--mpp, or mpp=\)"):
        open_slide(png)
    assert open_slide(png, 2.0).mpp == 2.0
    for tif in (
        painted.write_tif(tmp_path / "none.tif", pixels, mpp=None),
        painted.write_tif(tmp_path / "screen.tif", pixels, mpp=25_400 / 96),  # 96 dots an inch
    ):
        with pytest.raises(ScaleError, match="--mpp"):
            open_slide(tif)
    with pytest.raises(SlideError, match="no scale in µm/px"):
        open_slide(png, -1.0)


def test_a_scale_that_contradicts_the_files_is_told_and_taken(tif: Path) -> None:
    with pytest.warns(
        HyperSTWarning,
        match=r"1 µm/px is used, by what was stated, which contradicts the 2 µm/px by what the file records; check",
    ):
        assert open_slide(tif, 1.0).mpp == 1.0


def test_another_image_beside_a_bare_one_is_refused(tif: Path) -> None:
    with pytest.raises(SlideError, match="is the H&E itself"):
        open_slide(tif, image="other.tif")


def test_slips_are_refused_with_what_to_do(tif: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glass = painted.write_tif(tmp_path / "glass.tif", np.full((600, 600, 3), 240, np.uint8))
    with pytest.raises(SlideError, match=r"glass\.tif: no tissue was found; give a mask of it \(--tissue"):
        open_slide(glass)
    monkeypatch.setattr(whole_slide, "MAX_SPOTS", 1000)
    with pytest.raises(SlideError, match=r"a pitch of 10 µm lays about [\d,]+ spots, over the 1,000"):
        open_slide(tif, pitch_um=10)
    with pytest.raises(SlideError, match="no spot of 5000 µm"):
        open_slide(tif, spot_um=5000)
    for pitch in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(SlideError, match="lays no lattice; state a positive number"):
            open_slide(tif, pitch_um=pitch)


def test_opening_reads_no_more_than_the_level_for_the_mask(tif: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, slice, slice]] = []
    read = Pyramid.read
    monkeypatch.setattr(Pyramid, "read", lambda self, *what: seen.append(what) or read(self, *what))
    slide = open_slide(tif)
    ((level, _, _),) = seen
    assert slide.image.factors[level][0] * slide.mpp >= 8
    seen.clear()
    open_slide(tif, tissue=np.ones((15, 20)))
    assert seen == []


# -- prediction


def test_the_same_tiles_give_the_same_numbers(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    """The H&E of a measured section, opened bare, predicts at the places of its spots what the section does."""
    measured = open_slide(tiny_section)
    bare = open_slide(tiny_section / "he.png", measured.mpp)
    assert bare.counts is None
    at_spots = replace(bare, spots=replace(measured.spots, ids=bare.spots.ids[:1].repeat(len(measured.spots))))
    at_spots = replace(at_spots, lattice=measured.lattice)
    trained = TrainingSlide(
        name="A", fingerprint="f", spots=1, mpp=measured.mpp, niche_um=niche_um(measured, TileSpec())
    )
    card = tiny_checkpoint.card.model_copy(update={"training_slides": (trained,)})
    checkpoint = replace(tiny_checkpoint, card=card)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HyperSTWarning)
        one, other = (predict(slide, checkpoint, precision="float32") for slide in (measured, at_spots))
    np.testing.assert_array_equal(one.spots, other.spots)
    np.testing.assert_allclose(other.expression, one.expression, atol=1e-5)
    assert one.run["niche_um"] == other.run["niche_um"]
    for name in ("spot_image", "niche_image"):
        np.testing.assert_allclose(other.norms[name], one.norms[name], atol=1e-5)
    assert other.measured is None
    assert set(other.embeddings) == {"spot_image", "niche_image"}


def test_the_niche_is_as_large_as_in_training(slide: Slide, c2: Slide) -> None:
    def card(*sides: float | None, niche: object = "ring") -> Card:
        slides = tuple(TrainingSlide(name="A", fingerprint="f", spots=1, mpp=0.5, niche_um=side) for side in sides)
        tiles = TileSpec(niche_um=niche)  # type: ignore[arg-type]
        return Card(name="a", method=HyperSTConfig(), training_slides=slides, tiles=tiles, encoder_sha256="")

    assert tile_sizes(slide, card(500.0, 500.0)).niche_um == 500
    assert tile_sizes(slide, card(500.0, niche=300.0)).niche_um == 300
    assert niche_um(slide, tile_sizes(slide, card(None))) == 255  # a card of before
    assert tile_sizes(c2, card(255.0)).niche_um == "ring"  # spots of an assay have a ring of their own


def test_twice_as_dense_keeps_the_numbers_of_the_spots_there_were(
    slide: Slide, tif: Path, tiny_checkpoint: Checkpoint
) -> None:
    masked = np.asarray(slide.sdata.labels[slide.source.tissue].data).copy()
    masked[:, : masked.shape[1] * 3 // 4] = 0  # the smaller piece, to be quick
    whole, half = (
        predict(lay_again(slide, masked, pitch_um=pitch), tiny_checkpoint, precision="float32") for pitch in (200, 100)
    )
    places = {tuple(p): i for i, p in enumerate(half.slide.spots.centres_px[half.spots].round(6).tolist())}
    within = [places[tuple(p)] for p in whole.slide.spots.centres_px[whole.spots].round(6).tolist()]
    assert len(half.spots) > 3 * len(whole.spots)
    np.testing.assert_allclose(half.expression[within], whole.expression, atol=1e-4)


def test_a_prediction_is_written_and_opened_again(slide: Slide, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    coarse = lay_again(slide, pitch_um=200)
    prediction = predict(coarse, tiny_checkpoint)
    store = export(prediction, tmp_path / "out.zarr")
    sdata = sd.read_zarr(store)
    assert set(sdata.tables) == {"hyperst"}
    table = sdata.tables["hyperst"]
    np.testing.assert_array_equal(table.X, prediction.expression)
    assert "measured" not in table.layers
    matched = sd.match_table_to_element(sdata, "painted", "hyperst")
    assert list(matched.obs_names) == list(table.obs_names)
    np.testing.assert_array_equal(sdata.labels["painted_tissue"], coarse.sdata.labels["painted_tissue"])
    # in register for whoever reads it with spatialdata alone: the mask covers the image
    extent = {kind: sd.get_extent(sdata[name], coordinate_system="painted") for kind, name in
              (("image", "painted_full_image"), ("mask", "painted_tissue"))}  # fmt: skip
    assert extent["image"] == extent["mask"]

    again = open_slide(store)
    assert again.source.laid
    assert again.mpp == pytest.approx(coarse.mpp)
    assert again.fingerprint == coarse.fingerprint
    assert niche_um(again, TileSpec()) == niche_um(coarse, TileSpec())
    np.testing.assert_allclose(predict(again, tiny_checkpoint).expression, prediction.expression, atol=1e-4)


def test_a_store_of_a_bare_slide_can_be_laid_anew(slide: Slide, tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    store = convert(slide, tmp_path / "he.zarr")
    assert open_slide(store).fingerprint == slide.fingerprint
    coarse = open_slide(store, pitch_um=200)
    assert coarse.fingerprint == lay_again(slide, pitch_um=200).fingerprint
    assert open_slide(coarse.ref.path, **coarse.ref.options).fingerprint == coarse.fingerprint
    with pytest.raises(StoreError, match="holds other spots"):
        export(predict(coarse, tiny_checkpoint), store)
    right = np.zeros((30, 40))
    right[:, 20:] = 1
    assert (open_slide(store, tissue=right).spots.centres_px[:, 0] >= 1000).all()


def test_spots_of_a_store_follow_a_scale_that_is_stated_anew(slide: Slide, tmp_path: Path) -> None:
    store = convert(slide, tmp_path / "he.zarr")
    with pytest.warns(HyperSTWarning, match=r"1 µm/px is used, by what was stated.* by what the store records") as told:
        again = open_slide(store, mpp=1.0)
    assert len(told) == 1
    assert (again.mpp, again.pitch_um, again.spots.diameter_um) == (1.0, pytest.approx(100), 55)
    assert again.lattice.pitch_px == pytest.approx(2 * slide.lattice.pitch_px)
    assert again.ref.options["mpp"] == 1.0
    assert open_slide(store, mpp=slide.mpp).fingerprint == slide.fingerprint


def test_cmu_1_of_an_aperio_scanner(shared_data: Path, tmp_path: Path, tiny_checkpoint: Checkpoint) -> None:
    """Real: a slide of which only an svs exists, its scale in the scanner's description."""
    svs = Path(shutil.copy(shared_data / "wsi" / "CMU-1-Small-Region.svs", tmp_path))
    slide = open_slide(svs)
    assert slide.mpp == pytest.approx(0.499)
    assert slide.image.shape_px == (2967, 2220)
    assert 50 < len(slide.spots) < 80
    middle = slide.image.read(0, slice(1400, 1500), slice(1000, 1100)).mean(axis=(0, 1))
    assert middle[1] < middle[0]  # pink, so channels are in order
    prediction = predict(slide, tiny_checkpoint)
    assert np.isfinite(prediction.expression).all()
    reopened = sd.read_zarr(export(prediction, tmp_path / "cmu.zarr"))
    assert reopened.tables["hyperst"].n_obs == len(prediction.spots)
