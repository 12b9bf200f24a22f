"""Real slides, and tiny ones cut from them."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from anndata import AnnData
from PIL import Image
from safetensors.torch import save_file

from napari_hyperst.errors import HyperSTWarning
from napari_hyperst.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from napari_hyperst.models.encoders import EncoderSpec, register_encoder, weights_sha256
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.panel import GenePanel
from napari_hyperst.prediction import predict
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.export import prediction_table
from napari_hyperst.slides.sample import sample_folder

#: Part of section C2 that the tiny section is cut from: (left, top, right, bottom) in px.
CROP = (4300, 4200, 6500, 6400)
TINY_GENES = ("FASN", "ERBB2", "KRT19", "COL1A1", "ACTB", "FN1", "B2M", "CD74")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files with slow tests first, so that no core waits for the other at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep decoded images out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["NAPARI_HYPERST_CACHE"] = str(folder)
    yield folder
    del os.environ["NAPARI_HYPERST_CACHE"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of shared real slides."""
    folder = Path(os.environ.get("HYPERST_SHARED", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the shared slides are not beside this checkout (HYPERST_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def c2() -> Slide:
    """Return the packaged section."""
    return open_slide(sample_folder())


@pytest.fixture(scope="session")
def tiny_section(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an ST folder with a corner of C2, to be read only: some 50 spots, real pixels and counts."""
    return cut_section(tmp_path_factory.mktemp("sections") / "corner", CROP)


def cut_section(folder: Path, crop: tuple[int, int, int, int]) -> Path:
    """Make an ST folder of a part of C2, (left, top, right, bottom) in px, and return it."""
    folder.mkdir()
    source = sample_folder()
    Image.MAX_IMAGE_PIXELS = None
    with Image.open(next(source.glob("*.jpg"))) as image:
        image.crop(crop).save(folder / "he.png")
    spots = pd.read_csv(source / "C2_selection.tsv", sep="\t")
    left, top, right, bottom = crop
    inside = spots.pixel_x.between(left + 20, right - 20) & spots.pixel_y.between(top + 20, bottom - 20)
    spots = spots[inside].assign(pixel_x=lambda s: s.pixel_x - left, pixel_y=lambda s: s.pixel_y - top)
    spots.to_csv(folder / "corner_selection.tsv", sep="\t", index=False)
    counts = pd.read_csv(source / "C2.tsv.gz", sep="\t", index_col=0)
    names = [f"{x}x{y}" for x, y in zip(spots.x, spots.y, strict=True)]
    variable = counts.var().sort_values(ascending=False).index[:300]
    kept = sorted({*variable, *TINY_GENES})
    counts.loc[names, kept].to_csv(folder / "corner.tsv", sep="\t")
    return folder


@pytest.fixture
def section(tiny_section: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny section that a test may change."""
    return Path(shutil.copytree(tiny_section, tmp_path / "corner"))


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Register a vision transformer of random weights, small enough for tests, and return its name."""
    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("encoders") / "tiny.safetensors"
    save_file(timm.create_model("test_vit", num_classes=0, img_size=224).state_dict(), weights)
    register_encoder(EncoderSpec("tiny", "test_vit", weights, licence="BSD-3-Clause"))
    return "tiny"


@pytest.fixture(scope="session")
def tiny_checkpoint_folder(tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an untrained checkpoint over the tiny encoder."""
    torch.manual_seed(1)
    config = HyperSTConfig(encoder=tiny_encoder, lora_blocks=2, dim=16)
    model = HyperST(config, len(TINY_GENES))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    card = Card(name="tiny", method=config, encoder_sha256=weights_sha256(model.encoder.spec.weights))
    save_checkpoint(folder, model, GenePanel(TINY_GENES), card)
    return folder


@pytest.fixture
def tiny_checkpoint(tiny_checkpoint_folder: Path) -> Checkpoint:
    """Return the untrained checkpoint over the tiny encoder."""
    return load_checkpoint(tiny_checkpoint_folder)


@pytest.fixture(scope="session")
def tiny_table(tiny_section: Path, tiny_checkpoint_folder: Path) -> AnnData:
    """Return the table of a prediction of the tiny section; tests that change it take a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HyperSTWarning)
        return prediction_table(predict(open_slide(tiny_section), load_checkpoint(tiny_checkpoint_folder)), "command")


@pytest.fixture(scope="session", autouse=True)
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the folders of jobs out of the user's."""
    folder = tmp_path_factory.mktemp("jobs")
    os.environ["NAPARI_HYPERST_JOBS"] = str(folder)
    yield folder
    del os.environ["NAPARI_HYPERST_JOBS"]
