"""A prediction of the tiny section, and of its store."""

from __future__ import annotations

from pathlib import Path

import pytest
from anndata import AnnData

from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.outputs import write_output
from napari_hyperst.slides.outputs.formats import OutputRequest


@pytest.fixture(scope="session")
def corner(tiny_section: Path) -> Slide:
    """Return the slide of ``tiny_table``."""
    return open_slide(tiny_section)


@pytest.fixture(scope="session")
def predicted_store(corner: Slide, tiny_table: AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with the prediction, to be read only."""
    return write_output(corner, tiny_table, OutputRequest(tmp_path_factory.mktemp("stores") / "corner.zarr"))
