from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from napari_hyperst.errors import CheckpointError, ConfigError, HyperSTWarning
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.models.hyperst import HyperST
from napari_hyperst.models.method import Batch
from napari_hyperst.nouns.checkpoint import TrainingSlide
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.tiles import niche_um, read_tiles, spots_with_tiles


def test_rows_belong_to_their_spots(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    """A spot predicted alone, from its own tiles, has the row that it has among all."""
    slide = open_slide(tiny_section)
    whole = predict(slide, tiny_checkpoint, "cpu", batch_size=7, precision="float32")
    for row in (0, len(whole.spots) // 2, len(whole.spots) - 1):
        (tiles,) = read_tiles(slide, TileSpec(), whole.spots[[row]])
        with torch.no_grad():
            alone = tiny_checkpoint.model(Batch(torch.from_numpy(tiles.spot), torch.from_numpy(tiles.niche)))
        np.testing.assert_allclose(whole.expression[[row]], alone.prediction, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(whole.embeddings["spot_image"][[row]], alone.points["spot_image"], rtol=1e-3)


def test_batch_size_does_not_matter(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    slide = open_slide(tiny_section)
    one, other = (predict(slide, tiny_checkpoint, batch_size=n, precision="float32") for n in (5, 64))
    np.testing.assert_allclose(one.expression, other.expression, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one.spots, other.spots)


def test_progress_counts_every_spot(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    seen: list[tuple[int, int]] = []
    prediction = predict(open_slide(tiny_section), tiny_checkpoint, progress=lambda *p: seen.append(p))
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (len(prediction.spots), len(prediction.spots))


def test_spots_at_the_edge_are_left_out_with_a_warning_and_incomplete_niches_flagged(
    tiny_section: Path, tiny_checkpoint: Checkpoint
) -> None:
    slide = open_slide(tiny_section)
    with pytest.warns(HyperSTWarning, match="reaches over the image's edge"):
        prediction = predict(slide, tiny_checkpoint)
    assert list(prediction.spots) == list(spots_with_tiles(slide, TileSpec()))
    assert 0 < prediction.complete_niche.sum() < len(prediction.spots)
    assert not prediction.complete_niche[~slide.lattice.complete[prediction.spots]].any()


def test_spots_that_see_a_reflection_are_flagged(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    slide = open_slide(tiny_section)
    prediction = predict(slide, tiny_checkpoint)
    assert 0 < prediction.inside_image.sum() < len(prediction.spots)
    inside = slide.inside(niche_um(slide, TileSpec()))
    assert np.array_equal(prediction.inside_image, inside[prediction.spots])
    assert prediction.inside_image[prediction.complete_niche].all()


def test_a_prediction_normalises_stains_as_training_did(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    slide = open_slide(tiny_section)
    spec = TileSpec(stain="white_balance")
    card = tiny_checkpoint.card.model_copy(update={"tiles": spec})
    balanced = predict(slide, replace(tiny_checkpoint, card=card), precision="float32")
    plain = predict(slide, tiny_checkpoint, precision="float32")
    (tiles,) = read_tiles(slide, spec, balanced.spots[[3]])
    with torch.no_grad():
        alone = tiny_checkpoint.model(Batch(torch.from_numpy(tiles.spot), torch.from_numpy(tiles.niche)))
    np.testing.assert_allclose(balanced.expression[[3]], alone.prediction, rtol=1e-4, atol=1e-5)
    assert np.abs(balanced.expression - plain.expression).max() > 1e-3


def test_spots_of_training_sections_are_flagged(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    slide = open_slide(tiny_section)
    assert not predict(slide, tiny_checkpoint).in_training.any()
    known = TrainingSlide(name="under another name", fingerprint=slide.fingerprint, spots=9, mpp=0.7)
    card = tiny_checkpoint.card.model_copy(update={"training_slides": (known,)})
    assert predict(slide, replace(tiny_checkpoint, card=card)).in_training.all()


def test_the_bare_picture_of_a_training_section_is_flagged(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    """By its pixels; a measured slide, of which several may share a picture, by its spots alone."""
    measured = open_slide(tiny_section)
    bare = open_slide(tiny_section / "he.png", measured.mpp, pitch_um=400)
    assert not predict(bare, tiny_checkpoint).in_training.any()
    known = TrainingSlide(name="x", fingerprint="other", spots=9, mpp=0.7, picture=measured.picture_fingerprint)
    checkpoint = replace(tiny_checkpoint, card=tiny_checkpoint.card.model_copy(update={"training_slides": (known,)}))
    assert predict(bare, checkpoint).in_training.all()
    assert not predict(measured, checkpoint).in_training.any()


def test_genes_that_are_all_missing_are_an_error(section: Path, tiny_checkpoint: Checkpoint) -> None:
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0).rename(columns=lambda gene: f"mouse-{gene}")
    counts.to_csv(section / "corner.tsv", sep="\t")
    with pytest.raises(CheckpointError, match="none of the checkpoint's 8 genes"):
        predict(open_slide(section), tiny_checkpoint)


def test_ids_and_symbols_are_matched_by_the_checkpoints_other_names_or_told(
    section: Path, tiny_checkpoint: Checkpoint
) -> None:
    genes = tiny_checkpoint.panel.genes
    ids = tuple(f"ENSG{i:011d}" for i in range(len(genes)))
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0)[list(genes)]
    counts.rename(columns=dict(zip(genes, ids, strict=True))).to_csv(section / "corner.tsv", sep="\t")
    slide = open_slide(section)
    with pytest.raises(CheckpointError, match=r"has symbols for names, the slide Ensembl ids.*a column gene_name"):
        predict(slide, tiny_checkpoint)
    both = replace(tiny_checkpoint, panel=replace(tiny_checkpoint.panel, aliases=ids))
    measured = predict(slide, both).measured
    assert measured.shape[1] == len(genes)
    assert np.isfinite(measured).all()


def test_genes_that_are_partly_missing_are_a_warning(section: Path, tiny_checkpoint: Checkpoint) -> None:
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0).drop(columns="FASN")
    counts.to_csv(section / "corner.tsv", sep="\t")
    with pytest.warns(HyperSTWarning, match=r"1 of the checkpoint's 8 genes were not measured \(FASN"):
        prediction = predict(open_slide(section), tiny_checkpoint)
    assert np.isfinite(prediction.expression).all()
    assert np.isnan(prediction.measured[:, tiny_checkpoint.panel.genes.index("FASN")]).all()
    assert np.isfinite(prediction.embeddings["spot_gene"]).all()


def test_normalised_counts_are_compared_with_nothing(section: Path, tiny_checkpoint: Checkpoint) -> None:
    counts = pd.read_csv(section / "corner.tsv", sep="\t", index_col=0)
    np.log1p(counts).to_csv(section / "corner.tsv", sep="\t")
    with pytest.warns(HyperSTWarning, match="normalised or scaled"):
        prediction = predict(open_slide(section), tiny_checkpoint)
    assert prediction.measured is None
    assert [cones.relation.name for cones in prediction.cones] == ["spot_image__niche_image"]


def test_coarse_slides_are_warned_of(shared_data: Path, tiny_checkpoint: Checkpoint) -> None:
    with pytest.warns(HyperSTWarning, match="no full-resolution image"):
        slide = open_slide(shared_data / "visium" / "V1_Adult_Mouse_Brain")
    with (
        pytest.warns(HyperSTWarning, match="4.26 µm/px the H&E is coarser"),
        pytest.raises(CheckpointError, match="none of"),
    ):
        predict(slide, tiny_checkpoint)


def test_out_of_memory_halves_the_batch(
    tiny_section: Path, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = open_slide(tiny_section)
    wanted = predict(slide, tiny_checkpoint, precision="float32")
    forward = HyperST.forward

    def small_memory(self: HyperST, batch: Batch) -> object:
        if len(batch.spot) > 4:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, batch)

    monkeypatch.setattr(HyperST, "forward", small_memory)
    with pytest.warns(HyperSTWarning, match="going on with 4 spots"):
        found = predict(slide, tiny_checkpoint, batch_size=16, precision="float32")
    np.testing.assert_allclose(found.expression, wanted.expression, rtol=1e-4, atol=1e-5)


def test_a_device_that_is_not_there(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="no device 'abacus'"):
        predict(open_slide(tiny_section), tiny_checkpoint, "abacus")


@pytest.mark.gpu
def test_cuda_gives_the_same_numbers(tiny_section: Path, tiny_checkpoint: Checkpoint) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    slide = open_slide(tiny_section)
    on_cpu, on_gpu = (predict(slide, tiny_checkpoint, device, precision="float32") for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_gpu.expression, on_cpu.expression, rtol=1e-3, atol=1e-4)
