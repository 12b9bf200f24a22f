"""SpatialData stores of any origin: any names, several that fit, and what is asked then."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import spatialdata as sd
from anndata import AnnData
from scipy import sparse
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.formats import format_of


def image(crop, transformations=None, pixels=None):
    pixels = crop.pixels if pixels is None else pixels
    return Image2DModel.parse(
        da.from_array(np.moveaxis(pixels, -1, 0), chunks=(-1, 512, 512)),
        dims=("c", "y", "x"),
        transformations=transformations or {"global": Identity()},
    )


def circles(crop, transformations=None, centres=None):
    centres = crop.centres if centres is None else centres
    index = pd.RangeIndex(100, 100 + len(centres))
    return ShapesModel.parse(
        centres, geometry=0, radius=44.7, index=index, transformations=transformations or {"global": Identity()}
    )


def table(crop, region: str | list[str] = "places", key: str = "element", **var) -> AnnData:
    regions = [region] if isinstance(region, str) else region
    n, times = len(crop.barcodes), len(regions)
    obs = pd.DataFrame(
        {
            key: pd.Categorical(np.repeat(regions, n)),
            "number": np.tile(np.arange(100, 100 + n), times),
            "array_row": np.tile(crop.array[:, 0], times),
            "array_col": np.tile(crop.array[:, 1], times),
        }
    )
    obs.index = pd.Index(crop.barcodes * times) if times == 1 else pd.Index([str(i) for i in range(n * times)])
    counts = sparse.csr_matrix(np.tile(crop.counts.astype(np.float32), (times, 1)))
    made = AnnData(counts, obs=obs, var=pd.DataFrame(var, index=pd.Index(crop.symbols)))
    return TableModel.parse(made, region=region, region_key=key, instance_key="number")


def store(path: Path, **elements) -> Path:
    sd.SpatialData(**elements).write(path)
    assert format_of(path) == "spatialdata"
    return path


def test_any_names(crop, tmp_path: Path) -> None:
    path = store(
        tmp_path / "any.zarr",
        images={"Slide-7.HE": image(crop)}, shapes={"places": circles(crop)}, tables={"genes": table(crop)},
    )  # fmt: skip
    slide = open_slide(path)
    assert (slide.source.image, slide.source.spots, slide.source.table) == ("Slide-7.HE", "places", "genes")
    crop.check(slide)


def test_spots_and_image_of_different_frames(crop, tmp_path: Path) -> None:
    """As sopa leaves them: an image scaled into µm, spots in a frame of their own, turned and moved."""
    turn = np.array([[0.0, -1.0, 500.0], [1.0, 0.0, 20.0], [0.0, 0.0, 1.0]])
    there = np.c_[crop.centres * 0.7246, np.ones(len(crop.centres))] @ np.linalg.inv(turn).T
    path = store(
        tmp_path / "sopa.zarr",
        images={"he": image(crop, {"um": Scale([0.7246, 0.7246], axes=("y", "x"))})},
        shapes={"places": circles(crop, {"um": Affine(turn, ("x", "y"), ("x", "y"))}, there[:, :2])},
        tables={"table": table(crop)},
    )  # fmt: skip
    crop.check(open_slide(path))


def test_of_several_images_one_is_asked_for(crop, tmp_path: Path) -> None:
    path = store(
        tmp_path / "two.zarr",
        images={"first": image(crop), "second": image(crop, pixels=255 - crop.pixels)},
        shapes={"places": circles(crop)}, tables={"table": table(crop)},
    )  # fmt: skip
    with pytest.raises(SlideError, match=r"2 images could be the H&E: first, second; name one \(--image, or image=\)"):
        open_slide(path)
    crop.check(open_slide(path, image="first"))
    with pytest.raises(SlideError, match="has no image 'third'; name one of first, second"):
        open_slide(path, image="third")


def test_fluorescence_beside_the_h_and_e_is_no_candidate(crop, tmp_path: Path) -> None:
    seven = np.repeat(crop.pixels[..., :1], 7, axis=2)
    path = store(
        tmp_path / "if.zarr",
        images={"morphology": image(crop, pixels=seven), "he": image(crop), "x_cytassist_image": image(crop)},
        shapes={"places": circles(crop)}, tables={"table": table(crop)},
    )  # fmt: skip
    crop.check(open_slide(path))


def test_of_several_tables_one_is_asked_for(crop, tmp_path: Path) -> None:
    path = store(
        tmp_path / "tables.zarr",
        images={"he": image(crop)}, shapes={"places": circles(crop)}, tables={"one": table(crop), "two": table(crop)},
    )  # fmt: skip
    with pytest.raises(SlideError, match=r"2 tables could be the counts: one, two; name one \(--table, or table=\)"):
        open_slide(path)
    slide = open_slide(path, table="two")
    assert slide.source.table == "two"
    crop.check(slide)
    with pytest.raises(SlideError, match="has no table 'three'; name one of one, two, places"):
        open_slide(path, table="three")


def test_a_table_of_several_sections(crop, tmp_path: Path) -> None:
    """One is asked for by its spots; the image is the one in their coordinate system."""
    path = store(
        tmp_path / "cohort.zarr",
        images={"he_a": image(crop, {"a": Identity()}), "he_b": image(crop, {"b": Identity()})},
        shapes={"a": circles(crop, {"a": Identity()}), "b": circles(crop, {"b": Identity()})},
        tables={"table": table(crop, ["a", "b"])},
    )
    with pytest.raises(SlideError, match=r"table 'table' is of 2 elements: a, b; name one \(--table, or table=\)"):
        open_slide(path)
    slide = open_slide(path, table="b")
    assert (slide.source.image, slide.source.spots, slide.source.table) == ("he_b", "b", "table")
    assert (slide.count_rows == np.arange(49, 98)).all()
    np.testing.assert_array_equal(slide.counts[slide.count_rows].X.toarray(), crop.counts)


def test_spots_without_counts(crop, tmp_path: Path) -> None:
    path = store(tmp_path / "none.zarr", images={"he": image(crop)}, shapes={"x": circles(crop), "y": circles(crop)})
    with pytest.raises(SlideError, match=r"2 elements of circles could be spots: x, y; name one \(--table"):
        open_slide(path)
    slide = open_slide(path, 100 / 138, table="y")
    assert slide.counts is None
    assert len(slide.spots) == 49


def test_a_table_of_labels_is_left_out_with_a_warning(crop, tmp_path: Path) -> None:
    labels = Labels2DModel.parse(np.zeros((40, 40), dtype=np.int32), dims=("y", "x"))
    path = store(
        tmp_path / "labels.zarr",
        images={"he": image(crop)}, shapes={"places": circles(crop)}, labels={"cells": labels},
        tables={"table": table(crop, "cells")},
    )  # fmt: skip
    with pytest.warns(HyperSTWarning, match=r"without counts, since no table annotates shapes \(table of cells\)"):
        slide = open_slide(path, 100 / 138)
    assert slide.counts is None


def test_names_of_genes_that_come_twice(crop, tmp_path: Path) -> None:
    twice = crop.renamed([crop.symbols[0], crop.symbols[0], *crop.symbols[2:]])
    path = store(
        tmp_path / "twice.zarr",
        images={"he": image(crop)}, shapes={"places": circles(crop)}, tables={"table": table(twice)},
    )  # fmt: skip
    before = sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*"))
    with pytest.warns(HyperSTWarning, match="1 genes bear the name of another"):
        slide = open_slide(path)
    assert list(slide.counts.var_names[:2]) == [crop.symbols[0], f"{crop.symbols[0]}-1"]
    assert sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*")) == before
