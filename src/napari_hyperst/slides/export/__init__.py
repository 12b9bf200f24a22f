"""A prediction becomes a table of a SpatialData Zarr."""

from __future__ import annotations

from napari_hyperst.slides.export.store import check_target, write_table
from napari_hyperst.slides.export.table import prediction_table, table_name

__all__ = ["check_target", "prediction_table", "table_name", "write_table"]
