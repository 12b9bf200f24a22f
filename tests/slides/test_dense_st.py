"""Dense arrays of legacy ST: places of one parity, 141 µm apart, with genes by Ensembl id."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_hyperst.errors import SlideError
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.expression import spot_counts


@pytest.fixture
def mob(shared_data: Path, tmp_path: Path) -> Path:
    """Return a folder with one section of the mouse olfactory bulb, and the symbols of its genes."""
    folder = tmp_path / "bulb"
    folder.mkdir()
    for name in ("MOB1.jpg", "MOB1.tsv", "alignment_table_MOB1.tsv", "mouse_genes.tsv.gz"):
        shutil.copy(shared_data / "mob" / name, folder)
    return folder


def test_a_section_by_itself(mob: Path) -> None:
    slide = open_slide(mob)
    table = pd.read_csv(mob / "alignment_table_MOB1.tsv", sep="\t").query("selected == 1")
    assert len(slide.spots) == 379
    assert list(slide.spots.ids) == [f"{x}x{y}" for x, y in zip(table.x, table.y, strict=True)]
    np.testing.assert_allclose(slide.spots.centres_px, table[["pixel_x", "pixel_y"]])
    assert slide.lattice.kind == "square"
    # Places are 21.66 px apart in x and 24.05 in y; the nearest spots are so along the diagonal.
    assert slide.lattice.pitch_px == pytest.approx(np.hypot(21.66, 24.05), rel=1e-3)
    assert slide.pitch_um == pytest.approx(200 / np.sqrt(2))
    assert slide.mpp == pytest.approx(4.37, rel=1e-3)
    assert slide.spots.diameter_um == 100
    counts = pd.read_csv(mob / "MOB1.tsv", sep="\t", index_col=0)
    rows = slide.count_rows
    np.testing.assert_array_equal(slide.counts[rows[rows >= 0]].X.toarray(), counts.loc[slide.spots.ids[rows >= 0]])


def test_its_genes_go_by_id_with_and_without_version_and_by_symbol(mob: Path) -> None:
    slide = open_slide(mob)
    known = pd.read_csv(mob / "mouse_genes.tsv.gz", sep="\t").set_index("gene_id")["gene_name"]
    gene = next(one for one in slide.counts.var_names if one in known.index)
    found = spot_counts(slide, [gene, gene.partition(".")[0], f"{gene.partition('.')[0]}.99", known[gene], "nothing"])
    assert np.nanmax(found[:, 0]) > 0
    for i in (1, 2, 3):
        np.testing.assert_array_equal(found[:, i], found[:, 0])
    assert np.isnan(found[:, 4]).all()


def test_several_sections_in_a_folder(shared_data: Path) -> None:
    with pytest.raises(SlideError, match=r"4 sections: MOB1, .*open the table of spots of one"):
        open_slide(shared_data / "mob")
    slide = open_slide(shared_data / "mob" / "alignment_table_MOB3.tsv")
    assert slide.name == "MOB3"
    assert len(slide.spots) == 438
