from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.lattice import lattice_from_centres
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.slides.tiles import complete_niches, niche_um, read_tiles, spots_with_tiles
from napari_hyperst.training.dataset import trainable_spots


@pytest.fixture(scope="module")
def whole_image() -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(next(sample_folder().glob("*.jpg"))) as image:
        return image.convert("RGB")


def test_tiles_equal_pillow_crops_of_the_whole_image(c2: Slide, whole_image: Image.Image) -> None:
    """Same pixels as cutting the decoded JPEG: in register to a fraction of a px at both scales."""
    spec = TileSpec()
    spots = spots_with_tiles(c2, spec)[::20]
    seen = []
    for tiles in read_tiles(c2, spec, spots):
        for spot, of_spot, of_niche in zip(tiles.spots, tiles.spot, tiles.niche, strict=True):
            seen.append(spot)
            for tile, side, bound in ((of_spot, spec.spot_um, 0.1), (of_niche, niche_um(c2, spec), 1.5)):
                box = c2.boxes_px(side)[spot]
                if min(box[:2]) < 0:
                    continue
                wanted = whole_image.resize((224, 224), Image.Resampling.LANCZOS, tuple(box))
                assert np.abs(np.asarray(wanted, float) - tile).mean() < bound
    assert sorted(seen) == sorted(spots)


def test_register_error_of_half_a_pixel_would_be_seen(c2: Slide, whole_image: Image.Image) -> None:
    spec = TileSpec()
    spots = spots_with_tiles(c2, spec)[[90]]
    (tiles,) = read_tiles(c2, spec, spots)
    box = c2.boxes_px(spec.spot_um)[spots[0]] + 0.5
    shifted = np.asarray(whole_image.resize((224, 224), Image.Resampling.LANCZOS, tuple(box)), float)
    assert np.abs(shifted - tiles.spot[0]).mean() > 0.5


def test_batches_are_bounded_and_cover_each_spot_once(tiny_section) -> None:
    slide = open_slide(tiny_section)
    spots = spots_with_tiles(slide, TileSpec())
    batches = list(read_tiles(slide, TileSpec(pixels=32), spots, batch=5))
    assert all(len(batch.spots) <= 5 for batch in batches)
    assert sorted(np.concatenate([batch.spots for batch in batches])) == sorted(spots)
    assert {batch.niche.shape[1:] for batch in batches} == {(32, 32, 3)}


def test_niche_tiles_over_the_edge_are_reflected(tiny_section) -> None:
    slide = open_slide(tiny_section)
    spec = TileSpec(pixels=64)
    side = niche_um(slide, spec)
    spots = spots_with_tiles(slide, spec)
    left = spots[slide.spots.centres_px[spots, 0].argmin()]
    box = slide.boxes_px(side)[left]
    assert box[0] < -10
    pad = 600
    with Image.open(tiny_section / "he.png") as image:
        padded = np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    wanted = Image.fromarray(padded).resize((64, 64), Image.Resampling.LANCZOS, tuple(box + pad))
    (tiles,) = read_tiles(slide, spec, np.array([left]))
    assert np.abs(np.asarray(wanted, float) - tiles.niche[0]).mean() < 3


def test_spot_tile_over_the_edge_leaves_the_spot_out(tiny_section) -> None:
    slide = open_slide(tiny_section)
    kept = spots_with_tiles(slide, TileSpec(spot_um=400))
    boxes = slide.boxes_px(400)[kept]
    height, width = slide.image.shape_px
    assert len(kept) < len(slide.spots)
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    with pytest.raises(SlideError, match="no spot tile"):
        spots_with_tiles(slide, TileSpec(spot_um=5000))


def test_a_niche_is_complete_with_its_tile_in_the_image_and_counts_of_all_its_ring(section) -> None:
    """Checked spot by spot; a slide without counts asks for none."""
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0)
    whole = open_slide(section)
    inner = np.flatnonzero(complete_niches(whole, TileSpec()))
    gone = whole.lattice.ring[inner[len(inner) // 2]][0]
    counts.drop(index=whole.spots.ids[gone]).to_csv(section / "corner.tsv", sep="\t")
    slide = open_slide(section)
    inside = slide.inside(niche_um(slide, TileSpec()))
    counted = slide.count_rows >= 0
    wanted = [
        inside[i] and counted[i] and all(j >= 0 and counted[j] for j in slide.lattice.ring[i])
        for i in range(len(slide.spots))
    ]
    found = complete_niches(slide, TileSpec())
    np.testing.assert_array_equal(found, wanted)
    assert 0 < found.sum() < len(inner)
    kept = trainable_spots(slide, TileSpec(), complete_niches_only=True)
    np.testing.assert_array_equal(kept, np.flatnonzero(found))
    bare = replace(slide, source=replace(slide.source, table=None))
    wide = complete_niches(bare, TileSpec(niche_um=1000))
    np.testing.assert_array_equal(wide, slide.lattice.complete & slide.inside(1000))
    assert wide.sum() < slide.lattice.complete.sum()


def test_without_a_lattice_no_niche_is_complete(c2: Slide) -> None:
    alone = replace(c2, lattice=lattice_from_centres(c2.spots.centres_px[:5]))
    assert not complete_niches(alone, TileSpec(niche_um=300)).any()


def test_niche_without_a_lattice_must_be_stated(c2: Slide) -> None:
    from dataclasses import replace

    from napari_hyperst.slides.lattice import lattice_from_centres

    scattered = replace(c2, lattice=lattice_from_centres(np.random.default_rng(0).uniform(0, 999, (187, 2))))
    with pytest.raises(SlideError, match="niche_um"):
        niche_um(scattered, TileSpec())
    assert niche_um(scattered, TileSpec(niche_um=300)) == 300
