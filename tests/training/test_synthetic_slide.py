"""The whole way on a slide whose answer is known: tiles, panel, training, prediction (METHODS 10, 13).

A made-up section has two independent latents: one is the texture of each spot's tile, the other, smooth over the
section, that of the ground between the spots, which only niche tiles show. Genes follow both. Nothing in a spot tile
tells of the second.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from napari_hyperst.nouns.ablations import ablation
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.metrics import summarise
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.training import train

SIDE, PITCH, GENES = 13, 64, 40
#: Side in px of the textured square at each spot: over the 112 µm of its tile, at 200 µm a pitch.
SQUARE = 40


def texture(latent: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return pink ground sown with dark grains of 2 x 2 px, the denser the higher the latent in [0, 1] of each px."""
    sown = np.kron(random.uniform(size=[side // 2 for side in latent.shape]), np.ones((2, 2))) < latent
    return np.where(sown[..., None], [70, 40, 110], [235, 190, 215]).astype(np.uint8)


def make_section(folder: Path, seed: int, shuffled: bool = False) -> Path:
    """Write a legacy ST section; ``shuffled`` deals each gene's counts to the spots at random."""
    random = np.random.default_rng(seed)
    row, column = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE])
    of_spot = random.uniform(size=SIDE**2)
    waves = random.uniform(0.5, 1.0, (3, 2)), random.uniform(0, 2 * np.pi, 3)
    smooth = sum(np.sin(w[0] * row + w[1] * column + p) for w, p in zip(*waves, strict=True))
    of_niche = np.argsort(np.argsort(smooth)) / (SIDE**2 - 1)
    ground = np.kron(np.pad(of_niche.reshape(SIDE, SIDE), 1, mode="edge"), np.ones((PITCH, PITCH)))
    centres = PITCH * np.stack([column + 1.5, row + 1.5], axis=1)
    for (x, y), level in zip(centres.astype(int), of_spot, strict=True):
        ground[y - SQUARE // 2 : y + SQUARE // 2, x - SQUARE // 2 : x + SQUARE // 2] = level
    folder.mkdir()
    Image.fromarray(texture(ground, random)).save(folder / "he.png")
    pd.DataFrame(
        {"x": column, "y": row, "new_x": column, "new_y": row, "pixel_x": centres[:, 0], "pixel_y": centres[:, 1]}
    ).to_csv(folder / "made_selection.tsv", sep="\t", index=False)
    tissue = np.random.default_rng(0)  # the same genes in every section
    base = tissue.uniform(2, 4, GENES)
    weight = tissue.uniform(1, 2, (2, GENES)) * tissue.choice([-1, 1], (2, GENES))
    rate = base + (of_spot[:, None] - 0.5) * weight[0] + (of_niche[:, None] - 0.5) * weight[1]
    counts = random.poisson(np.exp(rate))
    if shuffled:
        counts = random.permuted(counts, axis=0)
    names = [f"{x}x{y}" for x, y in zip(column, row, strict=True)]
    pd.DataFrame(counts, names, [f"GENE{i:02}" for i in range(GENES)]).to_csv(folder / "made.tsv", sep="\t")
    return folder


@pytest.fixture(scope="module")
def found(tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Train on one made-up section and predict another: the mean PCC of two variants, and on shuffled labels."""
    folder = tmp_path_factory.mktemp("made")
    pcc = {}
    for labels, variants in (("true", ("spot+niche", "spot-only")), ("shuffled", ("spot+niche",))):
        learnt, held_out = (
            make_section(folder / f"{labels}-{name}", seed, labels == "shuffled" and name == "learnt")
            for seed, name in enumerate(("learnt", "held"))
        )
        for variant in variants:
            method = ablation(variant, HyperSTConfig(encoder=tiny_encoder, lora_blocks=0, dim=32))
            out = folder / f"{labels}-{variant}"
            config = TrainConfig(
                slides=(learnt,), out=out, method=method, genes=30, epochs=12, batch_size=32, learning_rate=3e-3,
                symmetries=1, precision="float32",
            )  # fmt: skip
            prediction = predict(open_slide(held_out), train(config), precision="float32")
            assert prediction.measured is not None
            pcc[f"{labels} {variant}"] = summarise(prediction.expression, prediction.measured)["pcc"]
    return pcc


@pytest.mark.slow
def test_spot_and_niche_beat_the_spot_alone(found: dict[str, float]) -> None:
    """The spot's latent is half of the signal, so alone it cannot give more than a correlation of some 0.7."""
    assert 0.5 < found["true spot-only"] < 0.75
    assert found["true spot+niche"] > 0.8


@pytest.mark.slow
def test_shuffled_labels_teach_nothing(found: dict[str, float]) -> None:
    """The held-out labels are the true ones, so nothing but what was learnt can keep the two apart."""
    assert abs(found["shuffled spot+niche"]) < 0.15
