"""A slide: one tissue section with its H&E, its spots and, where measured, its counts."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from spatialdata.transformations import get_transformation

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.nouns.tasks import SlideRef
from napari_hyperst.slides.fingerprint import picture_fingerprint
from napari_hyperst.slides.genes import GeneColumns
from napari_hyperst.slides.image import FILE_KEY, Pyramid
from napari_hyperst.slides.lattice import Lattice, LatticeKind, lattice_from_array, lattice_from_centres
from napari_hyperst.slides.scale import STATED, Claim, settle_scale

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData

#: Distance between neighbouring spots in µm, where the kind of lattice tells the assay: Visium is hexagonal.
VISIUM_PITCH_UM = 100.0
VISIUM_SPOT_UM = 55.0
#: Where more than this share of the spots lies outside the image, the two do not belong together.
_OUTSIDE_SHARE = 0.5


@dataclass(frozen=True)
class Spots:
    """The spots of a slide.

    Attributes
    ----------
    ids
        (n,) barcodes, or ``XxY`` for legacy ST.
    index
        (n,) values that tables use to point at the spots of the SpatialData element.
    centres_px
        (n, 2) centres, (x, y) in px of level 0 of the H&E, where pixel i spans i to i + 1.
    diameter_um
        Diameter of a spot in µm.
    """

    ids: NDArray[np.str_]
    index: NDArray[np.generic]
    centres_px: NDArray[np.float64]
    diameter_um: float

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Source:
    """What a reader found: a SpatialData object, and what its format knows about scale.

    Attributes
    ----------
    sdata
        The data.
    path
        Where it came from.
    image, spots, table
        Names of the elements to use; ``table`` is None where nothing was measured.
    pitch_um
        Distance between neighbouring spots, where the assay is known.
    spot_um
        Spot diameter, where the assay is known.
    mpp
        µm per px of the image's level 0, where the data state it.
    settled
        Whether that was settled on when we wrote the store: then the lattice does not overrule it.
    laid
        Whether the spots are of no assay, but were laid over the H&E.
    tissue
        Name of the labels element with the mask that they were laid over.
    """

    sdata: SpatialData
    path: Path
    image: str
    spots: str
    table: str | None
    pitch_um: float | None = None
    spot_um: float | None = None
    mpp: float | None = None
    settled: bool = False
    laid: bool = False
    tissue: str | None = None


@dataclass(frozen=True)
class Slide:
    """One tissue section, a thin view over one SpatialData object. Made by ``open_slide``.

    Attributes
    ----------
    source
        The SpatialData object, the path, and the names of the elements in use.
    coordinate_system
        The coordinate system that image and spots share.
    image
        The H&E as a lazy pyramid.
    mpp
        µm per px at level 0 of the image.
    spots
        Ids and centres of the spots.
    lattice
        Kind, pitch and neighbours.
    ref
        How to open it again.
    """

    source: Source
    coordinate_system: str
    image: Pyramid
    mpp: float
    spots: Spots
    lattice: Lattice
    ref: SlideRef

    @property
    def name(self) -> str:
        """Name of the spots element, which the tables of predictions are annotating."""
        return self.source.spots

    @property
    def path(self) -> Path:
        """Where the slide was opened from."""
        return self.source.path

    @property
    def sdata(self) -> SpatialData:
        """The SpatialData object behind the slide."""
        return self.source.sdata

    @property
    def counts(self) -> AnnData | None:
        """The measured table, or None on a slide without transcriptomics."""
        return None if self.source.table is None else self.sdata.tables[self.source.table]

    @cached_property
    def gene_columns(self) -> GeneColumns | None:
        """The columns of ``counts`` by gene; None on a slide without transcriptomics."""
        return None if self.counts is None else GeneColumns(self.counts)

    @property
    def pitch_um(self) -> float:
        """Distance between neighbouring spots in µm; NaN without a lattice."""
        return self.lattice.pitch_px * self.mpp

    @cached_property
    def count_rows(self) -> NDArray[np.intp]:
        """(n,) row of each spot in ``counts``; -1 for a spot that has none."""
        if self.counts is None:
            return np.full(len(self.spots), -1, dtype=np.intp)
        rows = {instance: row for row, instance in enumerate(_table_instances(self.counts, self.source.spots))}
        return np.array([rows.get(instance, -1) for instance in self.spots.index.tolist()], dtype=np.intp)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of spot ids and arrangement: the same for one section, whatever its format and stated scale."""
        digest = hashlib.sha256()
        centred = self.spots.centres_px - self.spots.centres_px.mean(axis=0)
        centres = np.rint(1000 * centred / max(float(centred.std()), 1e-9)).astype(int)
        for spot in sorted(f"{i}@{x},{y}" for i, (x, y) in zip(self.spots.ids, centres, strict=True)):
            digest.update(spot.encode() + b"\n")
        return digest.hexdigest()[:16]

    @cached_property
    def picture_fingerprint(self) -> str | None:
        """Hash of px of the H&E, by which a bare picture of a section is known; None where it shows nothing."""
        return picture_fingerprint(self.image)

    def boxes_px(self, side_um: float) -> NDArray[np.float64]:
        """Return (n, 4) squares of side ``side_um`` around the spots, (left, top, right, bottom) in level-0 px."""
        half = side_um / self.mpp / 2
        return np.hstack([self.spots.centres_px - half, self.spots.centres_px + half])

    def inside(self, side_um: float) -> NDArray[np.bool_]:
        """Return (n,) whether the square of side ``side_um`` around a spot lies wholly in the image."""
        left, top, right, bottom = self.boxes_px(side_um).T
        height, width = self.image.shape_px
        return (left >= 0) & (top >= 0) & (right <= width) & (bottom <= height)


def build_slide(source: Source, mpp: float | None = None, ref: SlideRef | None = None) -> Slide:
    """Derive spots, lattice and scale from what a reader found.

    Parameters
    ----------
    source
        What the reader found.
    mpp
        µm per px at level 0, where the user states it; it overrides what the lattice says.
    ref
        How the slide was asked for; by its path and ``mpp`` if not told.

    Raises
    ------
    SlideError
        If spots and image share no coordinate system, most spots lie off the image, or no scale can be found.
    """
    sdata, where = source.sdata, source.path
    image = sdata.images[source.image]
    shapes: GeoDataFrame = sdata.shapes[source.spots]
    system, to_pixels = _spots_to_pixels(image, shapes, where)
    named = f"{where} ({source.image})" if where.suffix == ".zarr" else str(where)
    pyramid = Pyramid.from_element(image, image.attrs.get(FILE_KEY, named))
    _check_named_once(source, shapes)
    xy = np.column_stack([shapes.geometry.centroid.x, shapes.geometry.centroid.y]).astype(float)
    if not np.isfinite(xy).all():
        raise SlideError(
            f"{int((~np.isfinite(xy)).any(axis=1).sum())} spots have no finite position",
            where=where,
            do="mend the positions file",
        )
    centres = xy @ to_pixels[:2, :2].T + to_pixels[:2, 2]
    _check_centres(centres, pyramid.shape_px, where)
    ids, array = _ids_and_array(source, shapes)
    lattice = lattice_from_centres(centres) if array is None else lattice_from_array(centres, array, _reach(source))
    radius_px = _radius(shapes) * float(np.sqrt(abs(np.linalg.det(to_pixels[:2, :2]))))
    scale = _scale(source, lattice, mpp)
    spot_um = source.spot_um
    if spot_um is None:
        spot_um = VISIUM_SPOT_UM if lattice.kind == "hex" else 2 * radius_px * scale
    spots = Spots(ids=ids, index=shapes.index.to_numpy(), centres_px=centres, diameter_um=spot_um)
    ref = ref or SlideRef(path=where.absolute(), mpp=mpp)
    slide = Slide(source, system, pyramid, scale, spots, lattice, ref)
    if slide.counts is not None and (slide.count_rows < 0).all():
        raise SlideError(
            "the counts join none of the spots", where=where, do="give counts and positions of the same section"
        )
    return slide


def _spots_to_pixels(image: object, shapes: GeoDataFrame, where: Path) -> tuple[str, NDArray[np.float64]]:
    """Find a coordinate system shared by image and spots, and the affine from spot to image pixel coordinates."""
    of_image = get_transformation(image, get_all=True)
    of_spots = get_transformation(shapes, get_all=True)
    shared = [system for system in of_spots if system in of_image]
    if not shared:
        raise SlideError(
            f"image and spots share no coordinate system ({', '.join(of_image)}; {', '.join(of_spots)})",
            where=where,
            do="align them in SpatialData first",
        )
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    affine = np.linalg.inv(of_image[shared[0]].to_affine_matrix(**axes)) @ of_spots[shared[0]].to_affine_matrix(**axes)
    return shared[0], affine


def _check_named_once(source: Source, shapes: GeoDataFrame) -> None:
    """Refuse spots, or rows of the table, that cannot be told apart."""
    named = [shapes.index]
    if source.table is not None:
        rows = _table_instances(source.sdata.tables[source.table], source.spots)
        named.append(pd.Index([instance for instance in rows if instance is not None], dtype=object))
    for index, what in zip(named, ("spot", "row of the table for spot"), strict=False):
        if index.has_duplicates:
            raise SlideError(
                f"the {what} {index[index.duplicated()][0]} is there twice", where=source.path, do="keep one a spot"
            )


def _check_centres(centres: NDArray[np.float64], shape_px: tuple[int, int], where: Path) -> None:
    if len(centres) == 0:
        raise SlideError("there is no spot in tissue", where=where, do="check the positions file")
    height, width = shape_px
    outside = ~((centres >= 0) & (centres < (width, height))).all(axis=1)
    if not outside.any():
        return
    said = f"{int(outside.sum())} of {len(centres)} spots lie outside the {width} x {height} px image"
    if outside.mean() > _OUTSIDE_SHARE:
        raise SlideError(
            said, where=where, do="check that image, positions and scale factors are of one section and one resolution"
        )
    warnings.warn(f"{where}: {said}; they are left out", HyperSTWarning, stacklevel=3)


def _radius(shapes: GeoDataFrame) -> float:
    """Return the median radius of the spots; of polygons, half the side of a square of their area."""
    return float(np.median(shapes["radius"] if "radius" in shapes.columns else np.sqrt(shapes.area) / 2))


def _table_instances(table: AnnData, region: str) -> list[object]:
    attrs = table.uns["spatialdata_attrs"]
    instances = table.obs[attrs["instance_key"]].astype(object).to_numpy()
    mine = (table.obs[attrs["region_key"]] == region).to_numpy()
    return [instance if here else None for instance, here in zip(instances, mine, strict=True)]


def _ids_and_array(source: Source, shapes: GeoDataFrame) -> tuple[NDArray[np.str_], NDArray[np.intp] | None]:
    """Take spot ids, and array coordinates where every spot has them, from the spots element or the table."""
    ids = shapes.index.astype(str).to_numpy().astype(str)
    columns = ("array_row", "array_col")
    array = shapes[list(columns)].to_numpy() if set(columns) <= set(shapes.columns) else None
    if source.table is not None:
        table = source.sdata.tables[source.table]
        rows = {instance: row for row, instance in enumerate(_table_instances(table, source.spots))}
        found = np.array([rows.get(instance, -1) for instance in shapes.index.tolist()])
        names = table.obs_names.to_numpy().astype(str)
        ids = np.where(found >= 0, names[found], ids)
        if array is None and set(columns) <= set(table.obs.columns) and (found >= 0).all():
            array = table.obs[list(columns)].to_numpy()[found]
    if array is not None:
        array = array.astype(float)
        array = array.astype(np.intp) if np.isfinite(array).all() else None
    return ids, array


def _scale(source: Source, lattice: Lattice, stated: float | None) -> float:
    """Settle on µm per px: what the user says, else what was settled before, else the lattice, else the data.

    A lattice that was laid follows from the scale, and so tells none.
    """
    pitch_um = source.pitch_um if source.pitch_um is not None else _known_pitch(lattice.kind)
    tells = pitch_um is not None and lattice.kind != "none" and not source.laid
    measured = pitch_um / lattice.pitch_px if pitch_um is not None and tells else None
    by_lattice = "" if measured is None else f"the spots' pitch of {lattice.pitch_px:.4g} px = {pitch_um:g} µm"
    recorded = (source.mpp, "what the store records" if source.settled else "the slide's metadata")
    claims: list[Claim] = [(stated, STATED), (measured, by_lattice)]
    claims.insert(1 if source.settled or source.laid else 2, recorded)
    return settle_scale(claims, source.path, ", and check that image and spots are of one resolution")


def _reach(source: Source) -> int:
    """Return how many pitches away the ring of neighbours is: of laid spots, those nearest to where Visium has them."""
    return max(1, round(VISIUM_PITCH_UM / source.pitch_um)) if source.laid and source.pitch_um else 1


def _known_pitch(kind: LatticeKind) -> float | None:
    return VISIUM_PITCH_UM if kind == "hex" else None
