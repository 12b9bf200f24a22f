from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_hyperst.errors import ConfigError, HyperSTWarning, SlideError
from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.lattice import lattice_from_centres
from napari_hyperst.slides.tiles import read_tiles
from napari_hyperst.training.dataset import Fetched, TrainingSet, build_training_set, trainable_spots
from napari_hyperst.training.encoding import encode_tiles, state_gib, state_shape, turn_each

CPU = torch.device("cpu")
SPEC = TileSpec(pixels=32)
PANEL = GenePanel(("FASN", "ACTB"))


@pytest.fixture(scope="module")
def slide(tiny_section: Path) -> Slide:
    return open_slide(tiny_section)


@pytest.fixture(scope="module")
def encoder(tiny_encoder: str) -> Encoder:
    return Encoder(encoder_spec(tiny_encoder), 1).eval()


@pytest.fixture(scope="module")
def pixels(slide: Slide, encoder: Encoder) -> TrainingSet:
    """Return the tiles of two slides, the second the first again, uncached, their stains to be changed."""
    return build_training_set([slide, slide], PANEL, encoder, SPEC, cache="off", stain_jitter=0.1)


def test_tiles_come_row_by_row_whatever_slide_they_are_on(slide: Slide, pixels: TrainingSet) -> None:
    spots = trainable_spots(slide, SPEC)
    n = len(spots)
    rows = torch.tensor([n + 3, 7, 0, n + 3, 2 * n - 1, 7])
    fetched = pixels.fetch(rows, torch.zeros(6, dtype=torch.long))
    assert fetched.states.dtype == torch.uint8
    assert fetched.slide.tolist() == [1, 0, 0, 1, 1, 0]
    for row, tile in zip(rows.tolist(), fetched.states, strict=True):
        (wanted,) = read_tiles(slide, SPEC, spots[[row % n]])
        np.testing.assert_array_equal(tile[0], wanted.spot[0])
        np.testing.assert_array_equal(tile[1], wanted.niche[0])
    assert torch.equal(fetched.spot_genes, pixels.spot_genes[rows])
    assert torch.equal(fetched.niche_genes, pixels.niche_genes[rows])
    assert torch.equal(fetched.detected, pixels.detected[rows])


def test_stains_are_normalised_as_prediction_will(slide: Slide, encoder: Encoder) -> None:
    spec = SPEC.model_copy(update={"stain": "white_balance"})
    pixels = build_training_set([slide], PANEL, encoder, spec, cache="off")
    spots = trainable_spots(slide, spec)
    fetched = pixels.fetch(torch.tensor([5, 2]), torch.zeros(2, dtype=torch.long))
    for row, tile in zip((5, 2), fetched.states, strict=True):
        (wanted,), (plain,) = (list(read_tiles(slide, one, spots[[row]])) for one in (spec, SPEC))
        np.testing.assert_array_equal(tile[0], wanted.spot[0])
        np.testing.assert_array_equal(tile[1], wanted.niche[0])
        assert not np.array_equal(wanted.niche, plain.niche)


def test_both_tiles_of_a_spot_are_turned_alike_as_numpy_turns_them(pixels: TrainingSet) -> None:
    rows, symmetry = torch.arange(8), torch.tensor([3, 0, 7, 1, 5, 2, 6, 4])
    upright = pixels.batch(rows, torch.zeros_like(rows), CPU)
    turned = pixels.batch(rows, symmetry, CPU)
    for name in ("spot", "niche"):
        for before, after, how in zip(getattr(upright, name), getattr(turned, name), symmetry.tolist(), strict=True):
            wanted = np.rot90(before.numpy(), how % 4)
            np.testing.assert_array_equal(after, np.fliplr(wanted) if how >= 4 else wanted)


def test_stains_change_by_seed_and_row_and_alike_on_both_tiles(pixels: TrainingSet) -> None:
    rows, symmetry = torch.arange(4), torch.arange(4)
    plain, changed, again = (pixels.fetch(rows, symmetry, seed).to(CPU) for seed in (None, 5, 5))
    assert torch.equal(changed.spot, again.spot)
    assert torch.equal(changed.niche, again.niche)
    assert not torch.equal(changed.spot, plain.spot)
    assert not torch.equal(pixels.fetch(rows, symmetry, 6).to(CPU).spot, changed.spot)
    part = pixels.fetch(rows[2:], symmetry[2:], 5).to(CPU)
    assert torch.equal(part.spot, changed.spot[2:])
    fetched = pixels.fetch(rows, symmetry, 5)
    alike = replace(fetched, states=fetched.states[:, :1].repeat(1, 2, 1, 1, 1)).to(CPU)
    assert torch.equal(alike.spot, alike.niche)
    assert not torch.equal(pixels.batch(rows, symmetry, CPU).spot, changed.spot)
    still = replace(pixels, stain_jitter=0.0).fetch(rows, symmetry, 5)
    assert still.stain is None


def test_threads_fetch_what_one_would(pixels: TrainingSet) -> None:
    parts = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0)).split(9)
    fetch = partial(pixels.fetch, seed=1)
    turns = [torch.full_like(rows, 1) for rows in parts]
    with ThreadPoolExecutor(4) as pool:
        found: list[Fetched] = list(pool.map(fetch, parts, turns))
    for rows, turned, fetched in zip(parts, turns, found, strict=True):
        assert torch.equal(fetched.states, fetch(rows, turned).states)


def test_kept_states_and_tiles_are_two_sights_of_the_same(slide: Slide, encoder: Encoder) -> None:
    kept = [trainable_spots(slide, SPEC)[:9]]
    states = encode_tiles([slide], kept, encoder, SPEC)
    assert states.shape == (8, 9, 2, *state_shape(encoder))
    assert states.nbytes / 2**30 == state_gib(encoder, 9 * 8)
    genes = torch.zeros(9, 2)
    data = TrainingSet(states, genes, genes, torch.zeros(9), torch.zeros(9))
    assert (len(data), data.symmetries) == (9, 8)
    rows, symmetry = torch.arange(9), torch.arange(9) % 8
    batch = data.batch(rows, symmetry, CPU)
    assert batch.spot.dtype == torch.float32
    (tiles,) = read_tiles(slide, SPEC, kept[0][[4]])
    both = torch.from_numpy(np.stack([tiles.spot[0], tiles.niche[0]]))[None]
    wanted = encoder.prefix(turn_each(both, torch.tensor([4]))[0])
    torch.testing.assert_close(torch.stack([batch.spot[4], batch.niche[4]]), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["tiny", "dinov2-vits14"])
@pytest.mark.parametrize("size", [224, 112])
@pytest.mark.parametrize("lora_blocks", [0, 1])
def test_shapes_of_states_are_known_without_computing(
    name: str, size: int, lora_blocks: int, tiny_encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder(replace(encoder_spec(name), size=size), lora_blocks)
    wanted = tuple(encoder.prefix(torch.zeros((1, size, size, 3), dtype=torch.uint8)).shape[1:])
    monkeypatch.setattr(Encoder, "prefix", None)
    assert state_shape(encoder) == wanted


def test_stain_jitter_with_a_cache_is_told_to_be_of_no_effect(slide: Slide, encoder: Encoder) -> None:
    with pytest.warns(HyperSTWarning, match="stain_jitter=0.1 has no effect .* cache=memory; set cache=off"):
        data = build_training_set([slide], PANEL, encoder, SPEC, symmetries=1, stain_jitter=0.1)
    rows = torch.arange(3)
    assert data.fetch(rows, torch.zeros_like(rows), seed=1).stain is None


def test_without_a_lattice_a_ring_is_refused_before_the_first_batch(slide: Slide, encoder: Encoder) -> None:
    scattered = np.random.default_rng(0).uniform(0, 1e4, (len(slide.spots), 2))
    loose = replace(slide, lattice=lattice_from_centres(scattered))
    assert loose.lattice.kind == "none"
    with pytest.raises(SlideError, match="no lattice"):
        build_training_set([loose], PANEL, encoder, SPEC, cache="off")


def test_states_beyond_half_precision_are_refused(
    slide: Slide, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = Encoder.prefix
    monkeypatch.setattr(Encoder, "prefix", lambda self, tiles: prefix(self, tiles) * 1e6)
    with pytest.raises(ConfigError, match="too large for half precision; set cache=off"):
        build_training_set([slide], PANEL, encoder, SPEC, symmetries=1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_batches_are_those_of_the_cpu(pixels: TrainingSet) -> None:
    """Its twins are the tests of turns and stains above."""
    rows, symmetry = torch.arange(16), torch.arange(16) % 8
    fetched = replace(pixels, pinned=True).fetch(rows, symmetry, 3)
    assert fetched.states.is_pinned()
    here, there = fetched.to(CPU), fetched.to(torch.device("cuda"))
    for name in ("spot", "niche"):
        ours, theirs = getattr(here, name).int(), getattr(there, name).cpu().int()
        assert (ours - theirs).abs().max() <= 1  # of rounding
    assert there.spot_genes is not None
    assert torch.equal(there.spot_genes.cpu(), fetched.spot_genes)
