"""A corpus of broken and odd slides of every format: how each is broken, and what must come of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import h5py
import numpy as np
import pandas as pd
import pytest
from broken import (
    Case,
    Opens,
    Refused,
    Truth,
    a_folder,
    a_loop,
    a_pipe,
    at,
    claim_png,
    claim_tiff,
    column,
    cut,
    cut_gzip,
    damaged_gzip,
    elements,
    garbage,
    h5,
    h5ad,
    lines,
    no_folder,
    picture,
    pixels,
    radius,
    remove,
    rename,
    said,
    set_values,
    several,
    swapped,
    table,
    write,
)
from PIL import Image

from napari_hyperst.errors import SlideError
from napari_hyperst.slides import Slide
from napari_hyperst.slides.expression import require_raw

H5, MTX = "filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix"
POSITIONS, SCALES = "spatial/tissue_positions.csv", "spatial/scalefactors_json.json"
TIF, HIRES = "tissue_image.tif", "spatial/tissue_hires_image.png"
HD = "binned_outputs/square_016um"
HD_POSITIONS, HD_SCALES = f"{HD}/spatial/tissue_positions.parquet", f"{HD}/spatial/scalefactors_json.json"
H5AD, WSI, METADATA = "st/TENX1.h5ad", "wsis/TENX1.tif", "metadata/TENX1.json"
COORD, COUNT, PNG = "coord/A_coord.csv", "gene_exp/A_count.csv", "image/A.png"
ST, SPOTS = "st.tsv", "st_selection.tsv"
X, Y = "pxl_col_in_fullres", "pxl_row_in_fullres"


# What must be right of slides that open.


def like_a_jpeg(slide: Slide, truth: Truth) -> None:
    truth.check(slide, tolerance=12)


def grey(slide: Slide, truth: Truth) -> None:
    truth.check(slide, tolerance=1, grey=True)


def one_off_the_image(slide: Slide, truth: Truth) -> None:
    assert (~slide.inside(1)).sum() == 1
    inside = slide.inside(1)
    places = {one: i for i, one in enumerate(truth.ids)}
    order = [places[one] for one in slide.spots.ids[inside]]
    np.testing.assert_allclose(slide.spots.centres_px[inside], truth.centres[order])
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.01)


def by_hires(slide: Slide, truth: Truth) -> None:
    assert slide.source.image.endswith("_hires_image")
    truth.check(slide, factor=0.5)


def first_without_counts(slide: Slide, truth: Truth) -> None:
    totals = np.asarray(slide.counts[slide.count_rows].X.sum(axis=1)).ravel()
    places = {one: i for i, one in enumerate(truth.ids)}
    ours = truth.counts.sum(axis=1)[[places[one] for one in slide.spots.ids]]
    emptied = slide.spots.ids == truth.ids[0]
    assert emptied.sum() == 1
    np.testing.assert_array_equal(totals, np.where(emptied, 0, ours))
    places_and_pixels(slide, truth)


def places_and_pixels(slide: Slide, truth: Truth) -> None:
    np.testing.assert_allclose(np.sort(slide.spots.centres_px, axis=0), np.sort(truth.centres, axis=0))
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.01)
    truth.check_pixels(slide)


def not_raw(slide: Slide, truth: Truth) -> None:
    places_and_pixels(slide, truth)
    with pytest.raises(SlideError, match=r"normalised or scaled.*train on raw counts"):
        require_raw(slide)


def no_counts(slide: Slide, truth: Truth) -> None:
    places_and_pixels(slide, truth)
    assert slide.counts is None


def laid(slide: Slide, truth: Truth) -> None:
    """Spots were laid over a bare H&E."""
    truth.check_pixels(slide)
    assert slide.counts is None
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.01)
    assert slide.pitch_um == pytest.approx(100)
    assert slide.inside(55).all()
    assert len(slide.spots) > 10


def as_swapped(slide: Slide, truth: Truth) -> None:
    """All but x and y, which were taken as they are told."""
    places = {one: i for i, one in enumerate(truth.ids)}
    order = [places[one] for one in slide.spots.ids]
    np.testing.assert_allclose(slide.spots.centres_px, truth.centres[order, ::-1])
    np.testing.assert_array_equal(slide.counts[slide.count_rows].X.toarray(), truth.counts[order])
    assert slide.mpp == pytest.approx(truth.mpp, rel=0.02)


def as_stated(slide: Slide, truth: Truth) -> None:
    assert slide.mpp == slide.ref.mpp
    truth.check_pixels(slide)


def without_first_row(file: h5py.File) -> None:
    """Take the counts of the first spot away, not the spot."""
    matrix = file["matrix"]
    first = int(matrix["indptr"][1])
    for key in ("data", "indices"):
        set_values(f"matrix/{key}", lambda values: values[first:])(file)
    set_values("matrix/indptr", lambda values: np.maximum(values - first, 0))(file)


def claim_counts(file: h5py.File) -> None:
    """Let the counts claim to be two billion, of which none is stored."""
    for key, kind in (("data", np.int32), ("indices", np.int64)):
        del file[f"matrix/{key}"]
        file.create_dataset(f"matrix/{key}", shape=(2_000_000_000,), dtype=kind, chunks=(1_000_000,))
    set_values("matrix/indptr", lambda values: np.r_[values[:-1], 2_000_000_000])(file)


def transparent(image: Image.Image) -> Image.Image:
    image.putalpha(255)
    return image


def flat(*colour: int) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.new("RGB", image.size, colour)


COPY = r"; copy it again"
#: Spots, positions and counts of Space Ranger.
VISIUM = [
    Case("h5 cut off", "visium", cut(H5), Refused(H5, "no whole h5 file.*copy it again")),
    Case("h5 empty", "visium", write(H5, ""), Refused(H5, COPY)),
    Case("h5 of garbage", "visium", garbage(H5), Refused(H5, COPY)),
    Case("h5 is a folder", "visium", a_folder(H5), Refused("", "no matrix of counts.*add")),
    Case("h5 links to itself", "visium", a_loop(H5), Refused("", "no matrix of counts.*add")),
    Case("h5 without features", "visium", h5(H5, lambda f: f.pop("matrix/features")), Refused(H5, COPY)),
    Case("h5 whose names are numbers", "visium",
         h5(H5, set_values("matrix/features/name", lambda v: np.arange(len(v)))), Refused(H5, COPY)),
    Case("h5 whose barcodes are numbers", "visium",
         h5(H5, set_values("matrix/barcodes", lambda v: np.arange(len(v)))), Refused(H5, COPY)),
    Case("h5 whose counts are a group", "visium",
         h5(H5, lambda f: (f.pop("matrix/data"), f.create_group("matrix/data"))), Refused(H5, COPY)),
    Case("h5 of another shape", "visium", h5(H5, set_values("matrix/shape", lambda v: v + 1)), Refused(H5, COPY)),
    Case("h5 of fewer genes than names", "visium",
         h5(H5, set_values("matrix/features/name", lambda v: v[:-1])), Refused(H5, COPY)),
    Case("h5 that claims two billion counts", "visium", h5(H5, claim_counts), Refused(H5, COPY)),
    Case("h5 with indices out of range", "visium",
         h5(H5, set_values("matrix/indices", lambda v: v + 1000)), Refused(H5, COPY)),
    Case("counts are NaN", "visium",
         h5(H5, set_values("matrix/data", lambda v: np.r_[np.nan, v[1:]])), Refused(H5, "negative or no numbers")),
    Case("counts are negative", "visium", h5(H5, set_values("matrix/data", lambda v: -v)), Refused(H5, "negative")),
    Case("counts are no whole numbers", "visium",
         h5(H5, set_values("matrix/data", lambda v: v / 2)), Opens(None, not_raw)),
    Case("a spot without counts", "visium", h5(H5, without_first_row), Opens(None, first_without_counts)),
    Case("a barcode twice in the h5", "visium",
         h5(H5, set_values("matrix/barcodes", lambda v: np.r_[v[1:2], v[1:]])), Refused(H5, "is there twice")),
    Case("genes that bear one name", "visium",
         h5(H5, set_values("matrix/features/name", lambda v: np.r_[v[1:2], v[1:]])),
         Opens("1 genes bear the name of another")),
    Case("barcodes of another slide", "visium",
         h5(H5, set_values("matrix/barcodes", lambda v: np.char.replace(v, b"-1", b"-2"))),
         Refused("tissue_positions.csv", "counts join no spot; give counts and positions of the same section")),
    Case("x and y swapped", "visium", swapped(POSITIONS, X, Y), Opens("x and y may be swapped", as_swapped)),
    Case("x and y swapped on a square image", "visium",
         several(pixels(TIF, lambda p: np.pad(p, [(0, 0), (0, p.shape[0] - p.shape[1]), (0, 0)], mode="edge"),
                        photometric="rgb", tile=(128, 128)), remove(HIRES),
                 remove("spatial/tissue_lowres_image.png"), swapped(POSITIONS, X, Y)),
         Opens("mirrored.*x and y", as_swapped)),
    Case("all coordinates negative", "visium", column(POSITIONS, X, lambda v: -v - 1),
         Refused("", "outside the .*; check that image, positions")),
    Case("one coordinate negative", "visium", column(POSITIONS, X, at(5, -40)),
         Opens("1 of 49 spots lie outside", one_off_the_image)),
    Case("spots far off the image", "visium", column(POSITIONS, Y, lambda v: v + 1e9), Refused("", "lie outside")),
    Case("positions in nanometres", "visium",
         several(column(POSITIONS, X, lambda v: v * 1e6), column(POSITIONS, Y, lambda v: v * 1e6)),
         Refused("", "lie outside")),
    Case("a position is NaN", "visium", column(POSITIONS, X, at(5, np.nan)),
         Refused("tissue_positions.csv", "no number for its place; mend")),
    Case("a position is infinite", "visium", column(POSITIONS, X, at(5, np.inf)),
         Refused("tissue_positions.csv", "no number for its place; mend")),
    Case("a position is text", "visium", column(POSITIONS, X, at(5, "left")),
         Refused("tissue_positions.csv", "no table of positions.*copy it again")),
    Case("array rows are fractions", "visium", column(POSITIONS, "array_row", lambda v: v + 0.5),
         Refused("tissue_positions.csv", "no whole number.*; ")),
    Case("no spot in tissue", "visium", column(POSITIONS, "in_tissue", lambda v: 0 * v),
         Refused("tissue_positions.csv", "no spot is in tissue; check")),
    Case("one spot in tissue", "visium", column(POSITIONS, "in_tissue", lambda v: (np.arange(len(v)) == 9).astype(int)),
         Refused("", r"how many µm a px is; state it \(--mpp")),
    Case("a barcode twice in the positions", "visium", table(POSITIONS, lambda t: pd.concat([t, t[-1:]])),
         Refused("tissue_positions.csv", "is named twice; keep one line")),
    Case("positions in another order", "visium", table(POSITIONS, lambda t: t[::-1]), Opens(None)),
    Case("positions lack a column", "visium", table(POSITIONS, lambda t: t.drop(columns=X)),
         Refused("tissue_positions.csv", COPY)),
    Case("positions of a header alone", "visium", table(POSITIONS, lambda t: t[:0]),
         Refused("tissue_positions.csv", "counts join no spot")),
    Case("positions empty", "visium", write(POSITIONS, ""), Refused("tissue_positions.csv", COPY)),
    Case("positions of garbage", "visium", garbage(POSITIONS), Refused("tissue_positions.csv", COPY)),
    Case("positions in UTF-16", "visium",
         lambda f: (f / POSITIONS).write_text((f / POSITIONS).read_text(), encoding="utf-16"),
         Refused("tissue_positions.csv", COPY)),
    Case("positions cut off", "visium", cut(POSITIONS),
         Refused("tissue_positions.csv", "no position|no number|; copy")),
    Case("positions are a folder", "visium", a_folder(POSITIONS), Refused("tissue_positions.csv", "; ")),
    Case("positions link to themselves", "visium", a_loop(POSITIONS), Refused("spatial", "no tissue_positions.*; add")),
    Case("no folder of positions", "visium", lambda f: shutil.rmtree(f / "spatial"), Refused("", "no slide.*give one")),
    Case("scale factors are cut off", "visium", cut(SCALES), Refused("scalefactors_json.json", COPY)),
    Case("scale factors are a list", "visium", write(SCALES, "[1, 2]"), Refused("scalefactors_json.json", COPY)),
    Case("scale factors nested too deep", "visium", write(SCALES, "[" * 100_000), Refused("scalefactors_json", COPY)),
    Case("a scale factor is text", "visium", said(SCALES, tissue_hires_scalef="0.5"),
         Refused("scalefactors_json.json", "no positive number")),
    Case("a scale factor is too long", "visium", write(SCALES, '{"tissue_hires_scalef": 1' + "0" * 400 + "}"),
         Refused("scalefactors_json.json", "; copy")),
    Case("a scale factor is negative", "visium", said(SCALES, tissue_lowres_scalef=-1),
         Refused("scalefactors_json.json", "no positive number")),
    Case("scale factors are a folder", "visium", a_folder(SCALES), Refused("scalefactors_json.json", "; copy|; add")),
    Case("scale factor of another run", "visium", several(remove(TIF), said(SCALES, tissue_hires_scalef=5.0)),
         Refused("", "outside the .*one resolution")),
    Case("image of another slide", "visium", picture(TIF, lambda i: i.resize((900, 500))),
         Opens("no full-resolution image", by_hires)),
    Case("image of another slide, named", "visium", picture(TIF, lambda i: i.resize((100, 90))),
         Refused("", "outside the .*of one section"), options={"image": TIF}),
    Case("image transposed", "visium", picture(TIF, lambda i: i.transpose(Image.Transpose.TRANSPOSE)),
         Opens("no full-resolution image", by_hires)),
    Case("image cut off", "visium", cut(TIF), Refused(TIF, "; copy")),
    Case("image empty", "visium", write(TIF, ""), Refused(TIF, COPY)),
    Case("image of garbage", "visium", garbage(TIF), Refused(TIF, COPY)),
    Case("image is a folder", "visium", a_folder(TIF), Opens("no full-resolution image", by_hires)),
    Case("image links to itself", "visium", a_loop(TIF), Opens("no full-resolution image", by_hires)),
    Case("hires image of garbage", "visium", garbage(HIRES), Opens(None)),
    Case("hires image of garbage, the only one", "visium", several(remove(TIF), garbage(HIRES)),
         Refused("tissue_hires_image.png", "; give")),
    Case("hires image is a folder", "visium", several(remove(TIF), a_folder(HIRES)),
         Opens("the lowres image", lambda slide, truth: truth.check(slide, factor=0.25))),
]  # fmt: skip

#: Matrices as text.
MTXS = [
    Case("mtx of other dimensions", "visium mtx",
         lines(f"{MTX}/matrix.mtx.gz", lambda ls: [*ls[:-1][:2], "7 9 0"]), Refused(MTX, COPY)),
    Case("mtx that claims four billion counts", "visium mtx",
         lines(f"{MTX}/matrix.mtx.gz", lambda ls: [*ls[:2], "100 49 4000000000", *ls[3:]]), Refused(MTX, COPY)),
    Case("mtx cut off", "visium mtx", cut(f"{MTX}/matrix.mtx.gz"), Refused(MTX, COPY)),
    Case("mtx with bytes flipped", "visium mtx", damaged_gzip(f"{MTX}/matrix.mtx.gz"), Refused(MTX, COPY)),
    Case("mtx empty", "visium mtx", write(f"{MTX}/matrix.mtx.gz", ""), Refused(MTX, COPY)),
    Case("mtx of garbage", "visium mtx", garbage(f"{MTX}/matrix.mtx.gz"), Refused(MTX, COPY)),
    Case("features of other length", "visium mtx", lines(f"{MTX}/features.tsv.gz", lambda ls: ls[:-3]),
         Refused(MTX, "beside names of 97 genes.*copy it again")),
    Case("barcodes empty", "visium mtx", write(f"{MTX}/barcodes.tsv.gz", ""), Refused(MTX, COPY)),
    Case("barcodes are no text", "visium mtx", garbage(f"{MTX}/barcodes.tsv.gz"), Refused(MTX, COPY)),
    Case("no barcodes", "visium mtx", remove(f"{MTX}/barcodes.tsv.gz"), Refused(MTX, "no barcodes.tsv.*; copy")),
    Case("matrix is a folder", "visium mtx", a_folder(f"{MTX}/matrix.mtx.gz"), Refused(MTX, "no matrix.mtx.*; copy")),
    Case("one column of features", "visium mtx",
         lines(f"{MTX}/features.tsv.gz", lambda ls: [line.split("\t")[1] for line in ls]), Opens(None)),
]  # fmt: skip

HDS = [
    Case("HD without positions", "visium hd", remove(HD_POSITIONS), Refused("spatial", "no tissue_positions.*; add")),
    Case("HD positions cut off", "visium hd", cut(HD_POSITIONS), Refused("tissue_positions.parquet", COPY)),
    Case("HD positions of garbage", "visium hd", garbage(HD_POSITIONS), Refused("tissue_positions.parquet", COPY)),
    Case("HD positions empty", "visium hd", write(HD_POSITIONS, ""), Refused("tissue_positions.parquet", COPY)),
    Case("HD positions are a folder", "visium hd", a_folder(HD_POSITIONS), Refused("tissue_positions", "; copy|; add")),
    Case("HD positions lack a column", "visium hd", table(HD_POSITIONS, lambda t: t.drop(columns="array_col")),
         Refused("tissue_positions.parquet", COPY)),
    Case("HD positions of dates", "visium hd", column(HD_POSITIONS, X, lambda v: pd.Timestamp("2024-01-01")),
         Refused("", "lie outside")),
    Case("HD without its scale", "visium hd", said(HD_SCALES, microns_per_pixel=None),
         Refused("scalefactors_json.json", "microns_per_pixel is None.*; copy")),
    Case("HD of another scale", "visium hd", said(HD_SCALES, microns_per_pixel=0.5), Opens("contradicts the 0.5 µm")),
    Case("HD matrix cut off", "visium hd", cut(f"{HD}/{H5}"), Refused(H5, COPY)),
    Case("HD bins off the image", "visium hd", column(HD_POSITIONS, X, lambda v: v - 5000), Refused("", "lie outside")),
    Case("HD barcodes of other bins", "visium hd",
         column(HD_POSITIONS, "barcode", lambda v: v.str.replace("016um", "008um")),
         Refused("tissue_positions.parquet", "join no spot; give")),
]  # fmt: skip

HESTS = [
    Case("h5ad cut off", "hest", cut(H5AD), Refused("TENX1.h5ad", "; download it again")),
    Case("h5ad empty", "hest", write(H5AD, ""), Refused("", "no slide that can be read; give")),
    Case("h5ad without centres", "hest", h5ad(H5AD, lambda a: a.obsm.pop("spatial")),
         Refused("TENX1.h5ad", "no centres of spots.*; give")),
    Case("h5ad with a centre that is NaN", "hest", h5ad(H5AD, lambda a: a.obsm["spatial"].__setitem__((3, 0), np.nan)),
         Refused("TENX1.h5ad", "holds no centres.*; download")),
    Case("h5ad whose centres are text", "hest",
         h5(H5AD, lambda f: (f.pop("obsm/spatial"), f["obsm"].create_dataset("spatial", data=[b"left"] * 49))),
         Refused("TENX1.h5ad", "; download")),
    Case("h5ad with negative counts", "hest", h5ad(H5AD, lambda a: setattr(a, "X", -a.X)), Opens(None, not_raw)),
    Case("h5ad with infinite counts", "hest", h5ad(H5AD, lambda a: a.X.data.__setitem__(0, np.inf)),
         Refused("TENX1.h5ad", "no numbers; download")),
    Case("h5ad without a gene", "hest", h5ad(H5AD, lambda a: a[:, :0].copy()),
         Refused("TENX1.h5ad", "no counts; give")),
    Case("h5ad with a spot twice", "hest", h5ad(H5AD, lambda a: setattr(a, "obs_names", ["A", "A", *a.obs_names[2:]])),
         Refused("TENX1.h5ad", "spot A is there twice; download")),
    Case("metadata without a pixel size", "hest", said(METADATA, pixel_size_um_estimated=None), Opens(None)),
    Case("metadata whose pixel size is NaN", "hest", said(METADATA, pixel_size_um_estimated=float("nan")), Opens(None)),
    Case("metadata of another pixel size", "hest", said(METADATA, pixel_size_um_estimated=0.25),
         Opens("0.25 µm/px contradicts|contradicts the 0.25")),
    Case("no metadata, no lattice", "hest",
         several(remove(METADATA), h5ad(H5AD, lambda a: a.obs.drop(columns=["array_row", "array_col"], inplace=True)),
                 h5ad(H5AD, lambda a: a[:3].copy())),
         Refused("", r"how many µm a px is; state it \(--mpp")),
    Case("metadata of garbage", "hest", garbage(METADATA), Refused("TENX1.json", "; copy")),
    Case("H&E is a folder", "hest", a_folder(WSI), Refused("wsis", r"no TENX1.tif.*; add it, or name")),
    Case("H&E of another section", "hest", picture(WSI, lambda i: i.resize((60, 60))),
         Refused("", "outside the .*; check")),
]  # fmt: skip

STIMAGES = [
    Case("a radius of 0", "stimage", column(COORD, "r", at(0, 0)), Refused("A_coord.csv", "radius; mend")),
    Case("an infinite radius", "stimage", column(COORD, "r", at(0, np.inf)), Refused("A_coord.csv", "radius; mend")),
    Case("coordinates lack a column", "stimage", table(COORD, lambda t: t.drop(columns="r")),
         Refused("A_coord.csv", "lacks the columns r; give")),
    Case("coordinates of a header alone", "stimage", table(COORD, lambda t: t[:0]),
         Refused("A_count.csv", "no place.*; give")),
    Case("coordinates empty", "stimage", write(COORD, ""), Refused("A_coord.csv", "cannot be read.*; give")),
    Case("coordinates of garbage", "stimage", garbage(COORD), Refused("A_coord.csv", "; give")),
    Case("a spot twice", "stimage", table(COORD, lambda t: pd.concat([t, t[:1]])),
         Refused("A_coord.csv", "twice; keep")),
    Case("counts in a damaged gzip", "stimage",
         several(damaged_gzip(COUNT), rename(COUNT, f"{COUNT}.gz")), Refused("A_count.csv.gz", "; give")),
    Case("counts in a gzip cut off", "stimage",
         several(cut_gzip(COUNT), rename(COUNT, f"{COUNT}.gz")), Refused("A_count.csv.gz", "; give")),
    Case("counts in Latin 1", "stimage",
         lambda f: (f / COUNT).write_bytes((f / COUNT).read_bytes().replace(b",", "é,".encode("latin-1"), 1)),
         Refused("A_count.csv", "; give")),
    Case("counts of a header alone", "stimage", lines(COUNT, lambda ls: ls[:1]), Refused("A_count.csv", "; give")),
    Case("counts with a line too long", "stimage", lines(COUNT, lambda ls: [*ls, ls[-1] + ",1,2"]),
         Refused("A_count.csv", "; give")),
    Case("counts with a missing value", "stimage",
         lines(COUNT, lambda ls: [*ls[:-1], ls[-1].rpartition(",")[0] + ","]),
         Refused("A_count.csv", "missing.*; give")),
    Case("image is a folder", "stimage", a_folder(PNG), Refused("image", "no image A.png; add it, or name")),
    Case("x and y swapped", "stimage", swapped(COORD, "xaxis", "yaxis"), Opens("lie outside", as_swapped)),
]  # fmt: skip

LEGACY = [
    Case("x and y swapped", "legacy st", swapped(SPOTS, "pixel_x", "pixel_y"),
         Opens("mirrored.*x and y", as_swapped)),
    Case("counts are a pipe", "legacy st", a_pipe(ST), Refused("", "no .*tsv.*counts; add")),
    Case("spots are a pipe", "legacy st", a_pipe(SPOTS), Refused("", "no slide.*give one")),
    Case("counts are a folder", "legacy st", a_folder(ST), Refused("", "no .*tsv.*counts; add")),
    Case("spots are a folder", "legacy st", a_folder(SPOTS), Refused("", "no slide.*give one")),
    Case("counts in a damaged gzip", "legacy st", damaged_gzip(ST), Refused(ST, "; give")),
    Case("counts of garbage", "legacy st", garbage(ST), Refused(ST, "; give")),
    Case("spots of garbage", "legacy st", garbage(SPOTS), Refused(SPOTS, "; give")),
    Case("spots far away in the array", "legacy st", column(SPOTS, "x", at(0, 1e300)), Refused(SPOTS, "; mend")),
    Case("one spot alone", "legacy st", table(SPOTS, lambda t: t[:1]), Refused("", r"state it \(--mpp")),
    Case("counts are no whole numbers", "legacy st",
         table(ST, lambda t: t.set_index(t.columns[0]).add(0.5).reset_index()), Opens(None, not_raw)),
    Case("another scale is stated", "legacy st", lambda f: None, Opens("contradicts", as_stated),
         options={"mpp": 0.8}),
]  # fmt: skip

IMAGES = [
    Case("alpha channel", "legacy st", picture("he.png", transparent), Opens(None)),
    Case("palette", "legacy st", picture("he.png", lambda i: i.quantize(256)), Opens(None, like_a_jpeg)),
    Case("CMYK JPEG", "legacy st", picture("he.png", lambda i: i.convert("CMYK"), "he.jpg"), Opens(None, like_a_jpeg)),
    Case("grey", "legacy st", picture("he.png", lambda i: i.convert("L")), Opens(None, grey)),
    Case("16-bit grey PNG", "legacy st",
         picture("he.png", lambda i: Image.fromarray(np.asarray(i.convert("L"), np.uint16) * 257)), Opens(None, grey)),
    Case("CMYK TIFF", "visium", picture(TIF, lambda i: i.convert("CMYK")), Opens(None, like_a_jpeg)),
    Case("16-bit RGB TIFF", "visium", pixels(TIF, lambda p: p.astype(np.uint16) * 257, photometric="rgb"), Opens(None)),
    Case("planes apart TIFF", "visium",
         pixels(TIF, lambda p: np.moveaxis(p, -1, 0), photometric="rgb", planarconfig="separate"), Opens(None)),
    Case("32-bit TIFF", "visium", pixels(TIF, lambda p: p.astype(np.uint32), photometric="rgb"),
         Refused(TIF, "type uint32 are not read; save")),
    Case("TIFF of seven channels", "visium",
         pixels(TIF, lambda p: np.tile(p[..., :1], 7), photometric="minisblack", planarconfig="contig"),
         Refused(TIF, "7 channels.*; name")),
    Case("complex TIFF", "visium", pixels(TIF, lambda p: p.astype(np.complex64), photometric="rgb"),
         Refused(TIF, "; ")),
    Case("1 x 1 px", "legacy st", picture("he.png", lambda i: i.resize((1, 1))), Refused("", "1 x 1 px image; check")),
    Case("PNG that claims 2 Gpx", "legacy st", claim_png("he.png", 50_000, 40_000),
         Refused("he.png", "claims 50000 x 40000 px.*; convert")),
    Case("PNG that claims 0.8 Gpx", "legacy st", claim_png("he.png", 40_000, 20_000), Refused("he.png", "; give")),
    Case("PNG without pixels", "legacy st", claim_png("he.png", 0, 0), Refused("he.png", "; give")),
    Case("TIFF in tiles that claims 2 Gpx", "visium", several(remove(HIRES), remove("spatial/tissue_lowres_image.png"),
                                                              claim_tiff(TIF, 50_000, 40_000)), Refused(TIF, "; ")),
    Case("PNG cut off", "legacy st", cut("he.png"), Refused("he.png", "; give")),
    Case("PNG is text", "legacy st", write("he.png", "hello"), Refused("he.png", "; give")),
]  # fmt: skip

WHOLE = [
    Case("no scale told", "whole slide", lambda f: None, Refused("he.png", r"state it \(--mpp"), "he.png"),
    Case("scale stated", "whole slide", lambda f: None, Opens(None, laid), "he.png", {"mpp": 100 / 34.5}),
    Case("another scale stated", "whole slide", lambda f: None, Opens("contradicts the", as_stated),
         "he.tif", {"mpp": 2.0}),
    Case("scale of a screen", "whole slide",
         pixels("he.tif", lambda p: p, photometric="rgb", resolution=(72, 72), resolutionunit="INCH"),
         Refused("he.tif", r"state it \(--mpp"), "he.tif"),
    Case("white", "whole slide", picture("he.png", flat(255, 255, 255)), Refused("he.png", "no tissue was found; give"),
         "he.png", {"mpp": 2.9}),
    Case("black", "whole slide", picture("he.png", flat(0, 0, 0)), Refused("he.png", "no tissue was found; give"),
         "he.png", {"mpp": 2.9}),
    Case("plain grey", "whole slide", picture("he.png", flat(128, 128, 128)),
         Refused("he.png", "no tissue was found; give"),
         "he.png", {"mpp": 2.9}),
    Case("grey picture", "whole slide", picture("he.png", lambda i: i.convert("L")),
         Refused("he.png", "no tissue was found; give"), "he.png", {"mpp": 2.9}),
    Case("1 x 1 px", "whole slide", picture("he.png", lambda i: i.resize((1, 1))), Refused("he.png", "; "),
         "he.png", {"mpp": 2.9}),
    Case("tif cut off", "whole slide", cut("he.tif"), Refused("he.tif", "; "), "he.tif"),
    Case("tif empty", "whole slide", write("he.tif", ""), Refused("he.tif", COPY), "he.tif"),
    Case("tif of garbage", "whole slide", garbage("he.tif"), Refused("he.tif", COPY), "he.tif"),
    Case("svs of garbage", "whole slide", garbage("he.svs"), Refused("he.svs", COPY), "he.svs"),
    Case("ndpi empty", "whole slide", write("he.ndpi", ""), Refused("he.ndpi", COPY), "he.ndpi"),
    Case("tif in tiles that claims 2 Gpx", "whole slide", claim_tiff("he.tif", 50_000, 40_000),
         Refused("he.tif", "; "), "he.tif"),
    Case("tif is a folder", "whole slide", a_folder("he.tif"), Refused("he.tif", "no slide.*give"), "he.tif"),
    Case("tif links to itself", "whole slide", a_loop("he.tif"), Refused("he.tif", "; check"), "he.tif"),
    Case("tif is a pipe", "whole slide", a_pipe("he.tif"), Refused("he.tif", "; "), "he.tif"),
    Case("pitch of 0", "whole slide", lambda f: None, Refused("he.tif", "lays no lattice; state"),
         "he.tif", {"pitch_um": 0}),
    Case("pitch too fine", "whole slide", lambda f: None, Refused("he.tif", "; choose a wider"),
         "he.tif", {"pitch_um": 0.3}),
    Case("pitch wider than the slide", "whole slide", lambda f: None, Refused("he.tif", "; "), "he.tif",
         {"spot_um": 5000.0}),
    Case("mask of another shape", "whole slide", lambda f: Image.new("L", (50, 400), 255).save(f / "mask.png"),
         Refused("mask.png", "does not span.*; give"), "he.tif", {"tissue": "mask.png"}),
    Case("mask all black", "whole slide", lambda f: Image.new("L", (59, 107), 0).save(f / "mask.png"),
         Refused("mask.png", "all black.*; make"), "he.tif", {"tissue": "mask.png"}),
    Case("mask of garbage", "whole slide", garbage("mask.png"), Refused("mask.png", "; give"), "he.tif",
         {"tissue": "mask.png"}),
    Case("no such mask", "whole slide", lambda f: None, Refused("mask.png", "; give"),
         "he.tif", {"tissue": "mask.png"}),
    Case("mask that claims 2 Gpx", "whole slide", claim_png("mask.png", 50_000, 40_000), Refused("mask.png", "; give"),
         "he.tif", {"tissue": "mask.png"}),
]  # fmt: skip


STORE = "slide.zarr"
STORES = [
    Case("root of no JSON", "store", write("slide.zarr/zarr.json", '{"spatialdata_attrs"'),
         Refused(STORE, "; write it again"), STORE),
    Case("root empty", "store", write("slide.zarr/zarr.json", ""), Refused(STORE, "; "), STORE),
    Case("image of no JSON", "store", write("slide.zarr/images/he/zarr.json", "{"), Refused(STORE, "; write"), STORE),
    Case("level of no JSON", "store", garbage("slide.zarr/images/he/s0/zarr.json"), Refused(STORE, "; write"), STORE),
    Case("table of no JSON", "store", write("slide.zarr/tables/table/zarr.json", "{"),
         Refused(STORE, "; write"), STORE),
    Case("no images", "store", no_folder("slide.zarr/images"), Refused(STORE, "; "), STORE),
    Case("no shapes", "store", no_folder("slide.zarr/shapes"), Refused(STORE, "; "), STORE),
    Case("spots gone", "store", no_folder("slide.zarr/shapes/places"), Refused(STORE, "; "), STORE),
    Case("spots without their file", "store", remove("slide.zarr/shapes/places/shapes.parquet"),
         Refused(STORE, "; "), STORE),
    Case("spots of garbage", "store", garbage("slide.zarr/shapes/places/shapes.parquet"),
         Refused(STORE, "; write"), STORE),
    Case("table without counts", "store", no_folder("slide.zarr/tables/table/X"), Refused(STORE, "; "), STORE),
    Case("table without names", "store", no_folder("slide.zarr/tables/table/var"), Refused(STORE, "; "), STORE),
    Case("image chunk of garbage", "store", garbage("slide.zarr/images/he/s0/c/0/0/0"),
         Refused(STORE, "; copy"), STORE),
    Case("table of another element", "store", elements(region="elsewhere"),
         Opens("opened without counts", no_counts), STORE, {"mpp": 100 / 34.5}),
    Case("table of other spots", "store", elements(instances=np.arange(49) + 1000),
         Refused(STORE, "join none.*; give"), STORE),
    Case("spots in another order", "store",
         elements(index=np.arange(49)[::-1].copy(), instances=np.arange(49)[::-1].copy()),
         Opens(None), STORE),
    Case("a spot twice", "store", elements(index=np.r_[1, 1:49]), Refused(STORE, "twice; "), STORE),
    Case("a row of the table twice", "store", elements(instances=np.r_[1, 1:49]), Refused(STORE, "twice; "), STORE),
    Case("radii are NaN", "store", radius(np.nan), Refused(STORE, "; "), STORE),
    Case("radii are infinite", "store", radius(np.inf), Refused(STORE, "; "), STORE),
    Case("radii are 0", "store", radius(0.0), Refused(STORE, "; "), STORE),
    Case("an empty folder", "store", lambda f: (shutil.rmtree(f / STORE), (f / STORE).mkdir()),
         Refused(STORE, "no slide.*give"), STORE),
    Case("a file for a store", "store", lambda f: (shutil.rmtree(f / STORE), (f / STORE).write_bytes(b"PK")),
         Refused(STORE, "no slide.*give"), STORE),
]  # fmt: skip

CASES = [*VISIUM, *MTXS, *HDS, *HESTS, *STIMAGES, *LEGACY, *IMAGES, *WHOLE, *STORES]
