from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import spatialdata as sd
import torch
from anndata import read_h5ad
from PIL import Image

from napari_hyperst import files
from napari_hyperst.errors import StoreError
from napari_hyperst.models.checkpoint import Checkpoint
from napari_hyperst.nouns.checkpoint import Card
from napari_hyperst.nouns.hierarchy import EMBEDDINGS
from napari_hyperst.nouns.metrics import pearson_by_gene
from napari_hyperst.nouns.provenance import read_provenance
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.convert import convert
from napari_hyperst.slides.export import prediction_table, write_table
from napari_hyperst.slides.identity import counts_sha256, image_sha256
from napari_hyperst.slides.outputs.write import export


@pytest.fixture
def store(tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """Return a store that was predicted into."""
    return export(predict(open_slide(tiny_section), tiny_checkpoint), tmp_path / "corner.zarr", command="a test")


def test_spatialdata_alone_reads_all_that_was_predicted(
    store: Path, tiny_section: Path, tiny_checkpoint: Checkpoint
) -> None:
    prediction = predict(open_slide(tiny_section), tiny_checkpoint)
    sdata = sd.read_zarr(store)
    table = sdata.tables["table_hyperst"]
    np.testing.assert_array_equal(table.X, prediction.expression)
    np.testing.assert_array_equal(table.layers["measured"], prediction.measured)
    assert list(table.var_names) == list(tiny_checkpoint.panel.genes)
    np.testing.assert_allclose(table.var["pcc"], pearson_by_gene(prediction.expression, prediction.measured))
    assert table.uns["spatialdata_attrs"]["region"] == "corner"
    assert list(table.obs_names) == list(prediction.slide.spots.ids[prediction.spots])
    assert set(table.obs_names) < set(sdata.tables["table"].obs_names)  # a spot tile at the edge is left out
    matched = sd.match_table_to_element(sdata, "corner", "table_hyperst")
    assert matched.n_obs == table.n_obs
    card = Card.model_validate_json(table.uns["hyperst"]["card"])
    assert card == prediction.card
    assert table.uns["hyperst"]["command"] == "a test"
    for name in ("mpp", "spot_um", "niche_um", "curvature", "min_radius", "checkpoint_sha256", "run"):
        assert name in table.uns["hyperst"]


def test_norms_and_violations_follow_from_the_stored_embeddings(store: Path) -> None:
    """Recomputed in float64 by the textbook forms of METHODS 1, which lose nothing at these radii and in float64."""
    table = sd.read_zarr(store).tables["table_hyperst"]
    meta = table.uns["hyperst"]
    c, k = meta["curvature"], meta["min_radius"]
    assert len(meta["eta"]) == 4
    for name in ("spot_image", "niche_image", "spot_gene", "niche_gene"):
        x = table.obsm[f"hyperst_{name}"].astype(np.float64)
        norm = np.arccosh(np.sqrt(1 + c * (x**2).sum(axis=1))) / np.sqrt(c)
        np.testing.assert_allclose(table.obs[f"norm_{name}"], norm, rtol=1e-6)
        disk = table.obsm[f"hyperst_disk_{name}"]
        np.testing.assert_allclose(2 * np.arctanh(np.linalg.norm(disk, axis=1)) / np.sqrt(c), norm, rtol=1e-4)
    for relation, eta in meta["eta"].items():
        parent, child = relation.split("__")
        x, y = (table.obsm[f"hyperst_{name}"].astype(np.float64) for name in (parent, child))
        xt, yt = (np.sqrt(1 / c + (p**2).sum(axis=1)) for p in (x, y))
        product = c * ((x * y).sum(axis=1) - xt * yt)
        exterior = np.arccos((yt + xt * product) / (np.linalg.norm(x, axis=1) * np.sqrt(product**2 - 1)))
        aperture = np.arcsin(np.minimum(1, 2 * k / (np.sqrt(c) * np.linalg.norm(x, axis=1))))
        np.testing.assert_allclose(table.obs[f"exterior_angle_{relation}"], exterior, atol=2e-6)
        np.testing.assert_allclose(table.obs[f"half_aperture_{relation}"], aperture, atol=2e-6)
        np.testing.assert_allclose(
            table.obs[f"violation_{relation}"], np.maximum(0, exterior - eta * aperture), atol=2e-6
        )


def test_no_counts_leave_one_relation(tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    whole = sd.read_zarr(convert(open_slide(tiny_section), tmp_path / "counted.zarr"))
    bare = sd.SpatialData(images=dict(whole.images), shapes=dict(whole.shapes))
    bare.attrs = whole.attrs
    bare.write(tmp_path / "bare.zarr")
    slide = open_slide(tmp_path / "bare.zarr")
    assert slide.counts is None
    out = export(predict(slide, tiny_checkpoint), tmp_path / "out.zarr")
    table = sd.read_zarr(out).tables["hyperst"]
    assert [name for name in table.obs if name.startswith("violation")] == ["violation_spot_image__niche_image"]
    assert "measured" not in table.layers
    assert not {"pcc", "mse"} & set(table.var)
    assert {name for name in table.obsm if name.startswith("hyperst_disk")} == {
        "hyperst_disk_spot_image",
        "hyperst_disk_niche_image",
    }


def test_uncounted_spots_are_blank_where_counts_are_needed(
    section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    lines = (section / "corner.tsv").read_text().splitlines()
    dropped = lines.pop(5).split("\t")[0]
    (section / "corner.tsv").write_text("\n".join(lines) + "\n")
    out = export(predict(open_slide(section), tiny_checkpoint), tmp_path / "out.zarr")
    table = sd.read_zarr(out).tables["table_hyperst"]
    row = table.obs.loc[dropped]
    assert np.isfinite(table[dropped].X).all()
    assert np.isnan(row["violation_spot_image__spot_gene"])
    assert np.isfinite(row["violation_spot_image__niche_image"])
    assert np.isnan(table[dropped].layers["measured"]).all()
    assert table.obs["violation_spot_image__spot_gene"].isna().sum() == 1
    assert table.var["pcc"].notna().any()


def test_predicting_into_the_slides_own_store_adds_one_table_and_touches_nothing_else(
    tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = convert(open_slide(tiny_section), tmp_path / "own.zarr")
    before = _contents(path)
    slide = open_slide(path)
    export(predict(slide, tiny_checkpoint), path)
    after = _contents(path)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {Path("zarr.json"), Path("tables/zarr.json")} & changed
    assert all(name.parts[:2] == ("tables", "table_hyperst") for name in set(after) - set(before))
    assert set(sd.read_zarr(path).tables) == {"table", "table_hyperst"}
    # Again, with other numbers: the table is replaced as a whole.
    with torch.no_grad():
        tiny_checkpoint.model.output.bias += 1
    again = predict(open_slide(path), tiny_checkpoint)
    export(again, path)
    sdata = sd.read_zarr(path)
    assert set(sdata.tables) == {"table", "table_hyperst"}
    np.testing.assert_array_equal(sdata.tables["table_hyperst"].X, again.expression)
    assert not [p.name for p in tmp_path.iterdir() if p.name != "own.zarr"]


def test_table_has_a_name_of_its_choice(tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path) -> None:
    path = convert(open_slide(tiny_section), tmp_path / "own.zarr")
    prediction = predict(open_slide(path), tiny_checkpoint)
    export(prediction, path, table="second_model")
    assert set(sd.read_zarr(path).tables) == {"table", "second_model"}
    with pytest.raises(StoreError, match="'table' that is not ours"):
        export(prediction, path, table="table")
    with pytest.raises(StoreError, match="'corner' that is not ours"):
        export(prediction, path, table="corner")


def test_a_name_taken_a_missing_folder_and_a_file_in_the_way(
    tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    prediction = predict(open_slide(tiny_section), tiny_checkpoint)
    (tmp_path / "taken.zarr").mkdir()
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "taken.zarr", tmp_path / "file", tmp_path / "none" / "x.zarr", tmp_path / "file" / "x"):
        with pytest.raises(StoreError) as caught:
            export(prediction, path)
        assert str(tmp_path) in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.zarr"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_table_that_reads_back_wrong_is_not_kept(
    tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prediction = predict(open_slide(tiny_section), tiny_checkpoint)
    write = sd.SpatialData.write

    def flip(self: sd.SpatialData, path: Path, *args: object, **kwargs: object) -> None:
        ours = self.tables.get("table_hyperst")
        if ours is not None:
            ours.X[0, 0] += 1
        write(self, path, *args, **kwargs)
        if ours is not None:
            ours.X[0, 0] -= 1

    monkeypatch.setattr(sd.SpatialData, "write", flip)
    with pytest.raises(StoreError, match="did not read back"):
        export(prediction, tmp_path / "out.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("atomic", [True, False])
def test_folders_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: bool) -> None:
    if not atomic:
        monkeypatch.setattr(files, "exchange_at_once", lambda *_: False)
    new, old = tmp_path / "new", tmp_path / "old"
    new.mkdir()
    old.mkdir()
    (new / "n").touch()
    (old / "o").touch()
    files.exchange(new, old)
    assert [p.name for p in old.iterdir()] == ["n"]
    assert [p.name for p in new.iterdir()] == ["o"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old"]


def test_two_exports_are_the_same_to_the_byte_but_for_the_run(
    tiny_section: Path, tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    prediction = predict(open_slide(tiny_section), tiny_checkpoint)
    slower = replace(prediction, run={**prediction.run, "seconds": 99.0, "device": "another"})
    one = _contents(export(prediction, tmp_path / "one.zarr", command="a test"))
    other = _contents(export(slower, tmp_path / "other.zarr", command="a test"))
    assert one.keys() == other.keys()
    assert {path.as_posix() for path in one if one[path] != other[path]} == {"tables/table_hyperst/uns/hyperst/run/c"}
    # What a job wrote, and the viewer exports, is the same too.
    h5ad = tmp_path / "prediction.h5ad"
    prediction_table(prediction, "a test").write_h5ad(h5ad)
    third = _contents(write_table(prediction.slide, read_h5ad(h5ad), tmp_path / "third.zarr"))
    assert {path.as_posix() for path in one if one[path] != third.get(path)} <= {
        "tables/table_hyperst/uns/hyperst/run/c"
    }


def test_all_columns_are_there_and_a_table_tells_how_it_was_made(
    store: Path, tiny_section: Path, tiny_checkpoint: Checkpoint
) -> None:
    table = sd.read_zarr(store).tables["table_hyperst"]
    slide, relations = open_slide(tiny_section), tiny_checkpoint.card.method.alignment.relations
    columns = {f"norm_{name}" for name in EMBEDDINGS}
    for kind in ("violation", "exterior_angle", "half_aperture"):
        columns |= {f"{kind}_{relation.name}" for relation in relations}
    columns |= {"region", "spot_id", "complete_niche", "inside_image", "in_training"}
    assert set(table.obs) == columns
    assert set(table.obsm) == {"spatial"} | {
        f"{kind}_{name}" for kind in ("hyperst", "hyperst_disk") for name in EMBEDDINGS
    }
    assert set(table.var) == {"pcc", "mse"}
    assert set(table.layers) - {None} == {"measured"}  # anndata counts X among them
    assert table.X.dtype == np.float32
    assert all(table.obs[name].dtype == bool for name in ("complete_niche", "inside_image", "in_training"))
    assert not table.obs["in_training"].any()
    np.testing.assert_allclose(table.var["mse"], ((table.X - table.layers["measured"]) ** 2).mean(axis=0), rtol=1e-5)

    made = read_provenance(table.uns["hyperst"], store)
    assert made.card == tiny_checkpoint.card
    assert made.checkpoint_sha256 == tiny_checkpoint.sha256
    assert made.parent == {relation.name: relation.parent for relation in relations}
    assert made.eta == {relation.name: relation.eta for relation in relations}
    assert made.slide_fingerprint == slide.fingerprint
    assert made.image_sha256 == image_sha256(slide) == image_sha256(open_slide(store))
    assert made.counts_sha256 == counts_sha256(slide) == counts_sha256(open_slide(store))
    assert made.mpp == pytest.approx(slide.mpp)
    assert set(made.versions) == {"napari-hyperst", "torch", "timm", "anndata", "spatialdata", "numpy", "python"}
    assert datetime.fromisoformat(made.run.at).tzinfo is not None
    assert made.run.device == "cpu"


def test_hashes_tell_slides_apart(section: Path) -> None:
    slide = open_slide(section)
    counts, image = counts_sha256(slide), image_sha256(slide)
    slide.counts.X = slide.counts.X.toarray().astype(np.int32)
    assert counts_sha256(slide) == counts
    slide.counts.X[3, 4] += 1
    assert counts_sha256(slide) != counts
    with Image.open(section / "he.png") as opened:
        opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(section / "he.png")
    assert image_sha256(open_slide(section)) != image


def _contents(path: Path) -> dict[Path, bytes]:
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
