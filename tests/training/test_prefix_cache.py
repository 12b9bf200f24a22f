from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch

from napari_hyperst.errors import ConfigError
from napari_hyperst.models.build import build_method
from napari_hyperst.models.encoders import Encoder, encoder_spec
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.decoded import CACHE_VARIABLE
from napari_hyperst.slides.image import Pyramid
from napari_hyperst.slides.tiles import read_tiles
from napari_hyperst.training.dataset import TrainingSet, build_training_set, trainable_spots, turn
from napari_hyperst.training.encoding import encode_tiles, state_gib
from napari_hyperst.training.fit import Callbacks, Run, fit
from napari_hyperst.training.prefix_cache import FOLDER, prefix_key, slide_content
from napari_hyperst.training.processes import Processes

SPEC = TileSpec(pixels=64)
PANEL = GenePanel(("FASN", "ACTB", "B2M"))


@pytest.fixture(scope="module")
def slide(tiny_section: Path) -> Slide:
    return open_slide(tiny_section)


@pytest.fixture(scope="module")
def encoder(tiny_encoder: str) -> Encoder:
    return Encoder(encoder_spec(tiny_encoder), 1).eval()


@pytest.fixture
def states(tmp_path: Path, slide: Slide, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of states; decoded images stay in that of the session."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / FOLDER


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many tiles were encoded at a time, as it goes on."""
    counts: list[int] = []
    prefix = Encoder.prefix

    def counted(self: Encoder, tiles: torch.Tensor) -> torch.Tensor:
        counts.append(len(tiles))
        return prefix(self, tiles)

    monkeypatch.setattr(Encoder, "prefix", counted)
    return counts


def build(slide: Slide, encoder: Encoder, symmetries: int = 2, **options: Any) -> TrainingSet:
    return build_training_set([slide], PANEL, encoder, SPEC, **({"symmetries": symmetries, "cache": "disk"} | options))


def every_state(data: TrainingSet) -> torch.Tensor:
    rows = torch.arange(len(data))
    return torch.stack([data.fetch(rows, torch.full_like(rows, i)).states for i in range(data.symmetries)])


def files(states: Path) -> set[str]:
    return {file.name for file in states.iterdir()} - {".lock"}


@pytest.mark.parametrize("lora_blocks", [0, 1, 3])
def test_states_are_the_prefix_of_turned_tiles_bit_for_bit(
    slide: Slide, tiny_encoder: str, states: Path, lora_blocks: int
) -> None:
    encoder = Encoder(encoder_spec(tiny_encoder), lora_blocks).eval()
    data = build(slide, encoder, 6)
    found = every_state(data)
    spots = trainable_spots(slide, SPEC)
    row_of = {spot: row for row, spot in enumerate(spots.tolist())}
    for tiles in read_tiles(slide, SPEC, spots, batch=16):
        rows = [row_of[spot] for spot in tiles.spots.tolist()]
        both = torch.from_numpy(np.concatenate([tiles.spot, tiles.niche]))
        for symmetry in range(6):
            wanted = encoder.prefix(turn(both, symmetry)).half()
            assert torch.equal(found[symmetry, rows].transpose(0, 1).flatten(0, 1), wanted)
    assert torch.equal(found, encode_tiles([slide], [spots], encoder, SPEC, symmetries=6))
    assert len(files(states)) == 6


def test_rows_of_several_slides_are_found_in_their_files(slide: Slide, encoder: Encoder, states: Path) -> None:
    moved = replace(slide, spots=replace(slide.spots, centres_px=slide.spots.centres_px + 9))
    data = build_training_set([slide, moved], PANEL, encoder, SPEC, symmetries=2, cache="disk")
    first, second = (every_state(build(each, encoder)) for each in (slide, moved))
    n = first.shape[1]
    assert len(data) == n + second.shape[1]
    found = data.fetch(torch.tensor([5, n + 5, 2, n, n - 1]), torch.tensor([0, 1, 1, 0, 0]))
    wanted = [first[0, 5], second[1, 5], first[1, 2], second[0, 0], first[0, n - 1]]
    assert torch.equal(found.states, torch.stack(wanted))
    assert not torch.equal(first[0, 5], second[0, 5])
    assert found.slide.tolist() == [0, 1, 0, 1, 0]
    assert len(files(states)) == 4


def test_a_second_run_computes_nothing_and_a_larger_one_the_rest(
    slide: Slide, encoder: Encoder, states: Path, encoded: list[int]
) -> None:
    told: list[tuple[int, int]] = []
    first = every_state(build(slide, encoder, progress=lambda *numbers: told.append(numbers)))
    n = len(first[0])
    assert sum(encoded) == 2 * 2 * n
    assert told[-1] == (2 * 2 * n, 2 * 2 * n)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    encoded.clear(), told.clear()
    again = build(slide, encoder, progress=lambda *numbers: told.append(numbers))
    assert torch.equal(every_state(again), first)
    assert encoded == told == []
    third = build(slide, encoder, symmetries=3, progress=lambda *numbers: told.append(numbers))
    assert sum(encoded) == 2 * n
    assert told[-1] == (2 * n, 2 * n)
    assert torch.equal(every_state(third)[:2], first)


def test_the_key_hangs_on_all_that_a_state_does(slide: Slide, tiny_encoder: str, tmp_path: Path) -> None:
    spec = encoder_spec(tiny_encoder)

    def key(known: Any = spec, lora_blocks: int = 1, dtype: Any = torch.float32, tiles: TileSpec = SPEC,
            niche: float = 400.0, content: str = "content", symmetry: int = 0) -> str:  # fmt: skip
        encoder = Encoder(known, lora_blocks)
        encoder.dtype = dtype
        return prefix_key(encoder, tiles, niche, content, symmetry)

    copied = tmp_path / "copy.safetensors"
    copied.write_bytes(spec.weights.read_bytes())
    assert key() == key() == key(replace(spec, weights=copied, name="other", licence="other"))
    other = tmp_path / "other.safetensors"
    content = bytearray(spec.weights.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    keys = [
        key(),
        key(replace(spec, weights=other)),
        key(replace(spec, size=112)),
        key(replace(spec, mean=(0.5, 0.5, 0.5))),
        key(replace(spec, std=(0.5, 0.5, 0.5))),
        key(replace(spec, adds_patch_mean=True)),
        key(replace(spec, options={"act_layer": "silu"})),
        key(lora_blocks=0),
        key(lora_blocks=2),
        key(dtype=torch.bfloat16),
        key(tiles=TileSpec(pixels=32)),
        key(tiles=TileSpec(pixels=64, spot_um=100)),
        key(tiles=TileSpec(pixels=64, stain="macenko")),
        key(tiles=TileSpec(pixels=64, stain="white_balance")),
        key(niche=401.0),
        key(content="other"),
        key(symmetry=1),
    ]
    assert len(set(keys)) == len(keys)
    on_meta = Encoder(spec, 1).to("meta")
    assert prefix_key(on_meta, SPEC, 400.0, "content", 0) not in keys


def test_a_slide_is_known_by_its_pixels_and_spots_and_not_by_its_place(
    slide: Slide, section: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spots = trainable_spots(slide, SPEC)
    content = slide_content(slide, spots)
    assert slide_content(open_slide(section), spots) == content
    moved = replace(slide.spots, centres_px=slide.spots.centres_px + 1)
    lighter = replace(
        slide.image, levels=tuple(da.where(level < 250, level + 1, level) for level in slide.image.levels)
    )
    fewer = Pyramid(slide.image.levels[:1], "elsewhere")
    others = [
        slide_content(slide, spots[1:]),
        slide_content(replace(slide, spots=moved), spots),
        slide_content(replace(slide, mpp=slide.mpp * 1.01), spots),
        slide_content(replace(slide, image=lighter), spots),
        slide_content(replace(slide, image=fewer), spots),
    ]
    assert len({content, *others}) == 6
    monkeypatch.setattr("napari_hyperst.training.prefix_cache._HASHED_PX", 256)
    sampled = slide_content(slide, spots)
    assert sampled != content
    assert slide_content(open_slide(section), spots) == sampled
    assert slide_content(replace(slide, image=lighter), spots) != sampled


def test_a_broken_file_is_computed_anew(slide: Slide, encoder: Encoder, states: Path, encoded: list[int]) -> None:
    first = every_state(build(slide, encoder))
    encoded.clear()
    cut, flipped = sorted(states.glob("*.npy"))
    cut.write_bytes(cut.read_bytes()[:-100])
    content = bytearray(flipped.read_bytes())
    content[5000] ^= 1
    flipped.write_bytes(content)
    assert torch.equal(every_state(build(slide, encoder)), first)
    assert sum(encoded) == first.shape[1] * 2 * 2


def test_states_over_the_bound_are_refused(slide: Slide, encoder: Encoder, states: Path, encoded: list[int]) -> None:
    need = state_gib(encoder, 2 * len(trainable_spots(slide, SPEC)))
    with pytest.raises(
        ConfigError, match=f"{need:.3g} GiB, over .*fewer symmetries.*cache_gib.*cache=off.*lora_blocks=0"
    ):
        build(slide, encoder, cache_gib=0.99 * need)
    assert encoded == []


def test_another_run_makes_room_but_not_this_one(
    slide: Slide, encoder: Encoder, tiny_encoder: str, states: Path
) -> None:
    """Of training and validation set of one run, both stay; of a run before, what it takes goes."""
    gib = state_gib(encoder, len(trainable_spots(slide, SPEC)))
    training = build(slide, encoder, 2, cache_gib=2.1 * gib)
    before = files(states)
    validating = TileSpec(pixels=32)
    with pytest.raises(ConfigError, match=r"take .* GiB, and others in use .*, over the .* of cache_gib"):
        build_training_set([slide], PANEL, encoder, validating, symmetries=1, cache="disk", cache_gib=2.1 * gib)
    assert files(states) == before
    del training
    build_training_set([slide], PANEL, encoder, validating, symmetries=1, cache="disk", cache_gib=2.1 * gib)
    assert len(files(states)) == 2
    assert len(files(states) & before) == 1


def test_each_process_encodes_its_share(slide: Slide, encoder: Encoder, states: Path, encoded: list[int]) -> None:
    """The second process runs while the first one waits, and then for itself, on a disk that is not shared."""
    counts = []

    def second() -> None:
        counts.append(sum(encoded))
        theirs.append(build(slide, encoder, 5, share=(1, 2), wait=lambda: counts.append(sum(encoded))))

    theirs: list[TrainingSet] = []
    ours = build(slide, encoder, 5, share=(0, 2), wait=second)
    n = 2 * len(ours)
    assert counts == [3 * n, 5 * n]
    assert sum(encoded) == 5 * n
    assert torch.equal(every_state(ours), every_state(theirs[0]))
    encoded.clear()
    for file in states.glob("*.npy"):
        file.unlink()
    alone = build(slide, encoder, 5, share=(1, 2), wait=lambda: counts.append(sum(encoded)))
    assert counts[-1] == 2 * n
    assert torch.equal(every_state(alone), every_state(ours))


def test_what_stops_the_filling_leaves_nothing(slide: Slide, encoder: Encoder, states: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        build(slide, encoder, progress=stop)
    assert files(states) == set()


def test_losses_are_the_same_with_and_without(slide: Slide, tiny_encoder: str, states: Path) -> None:
    method = HyperSTConfig(encoder=tiny_encoder, lora_blocks=2, dim=16)
    config = TrainConfig(slides=(Path("unused"),), out=Path("unused"), method=method, epochs=3, batch_size=16)
    losses: dict[str, list[float]] = {}
    for cache in ("off", "disk", "memory"):
        torch.manual_seed(0)
        model = build_method(method, len(PANEL))
        data = build(slide, model.encoder, 4, cache=cache)
        told = losses.setdefault(cache, [])
        torch.manual_seed(1)
        run = Run.start(model, data, None, config, Processes(config))
        fit(run, Callbacks(lambda kind, e, to=told: to.append(e["total"]) if kind == "step" else None))
    assert len(losses["off"]) == 9
    assert losses["disk"] == losses["memory"]
    np.testing.assert_allclose(losses["disk"], losses["off"], rtol=1e-3)
    assert losses["disk"] != losses["off"]  # of rounding


#: Fills the cache as a run does; killed by itself once half is done, if it is told so.
CHILD = """
import os, signal, sys
from pathlib import Path
from napari_hyperst.models.encoders import Encoder, EncoderSpec
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import open_slide
from napari_hyperst.training.dataset import build_training_set

section, weights, how = sys.argv[1:]

def progress(done, total):
    if how == "kill" and done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)

encoder = Encoder(EncoderSpec("tiny", "test_vit", Path(weights), licence="BSD-3-Clause"), 1).eval()
slide = open_slide(section)
if how == "together":
    print("ready", flush=True)
    sys.stdin.readline()
build_training_set(
    [slide], GenePanel(("FASN",)), encoder, TileSpec(pixels=64), symmetries=2, cache="disk", progress=progress
)
print("built", flush=True)
"""


@pytest.fixture
def start(slide: Slide, encoder: Encoder, states: Path) -> Iterator[Any]:
    """Return what starts a process that fills the cache."""
    begun: list[subprocess.Popen[str]] = []

    def started(how: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-W", "ignore", "-c", CHILD, str(slide.path), str(encoder.spec.weights), how]
        begun.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield started
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_process_leaves_nothing_that_is_used_or_stays(
    slide: Slide, encoder: Encoder, states: Path, start: Any, encoded: list[int]
) -> None:
    killed = start("kill")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert len(files(states)) == 2
    assert all(name.endswith(".part") for name in files(states))
    data = build(slide, encoder)
    assert sum(encoded) == 2 * 2 * len(data)
    assert len(files(states)) == 2
    assert all(name.endswith(".npy") for name in files(states))
    wanted = encode_tiles([slide], [trainable_spots(slide, SPEC)], encoder, SPEC, symmetries=2)
    assert torch.equal(every_state(data), wanted)


@pytest.mark.slow
def test_two_processes_at_once_both_end_with_the_same_files(
    slide: Slide, encoder: Encoder, states: Path, start: Any, encoded: list[int]
) -> None:
    both = [start("together") for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in both] == ["built\n"] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert len(files(states)) == 2
    data = build(slide, encoder)
    assert encoded == []
    wanted = encode_tiles([slide], [trainable_spots(slide, SPEC)], encoder, SPEC, symmetries=2)
    assert torch.equal(every_state(data), wanted)
    assert os.listdir(states).count(".lock") == 1
