"""H&E that was painted, so that it is known to the px where the tissue is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

#: µm per px, and the middle of the piece of tissue, its radius, those of a hole and a crack in it; all in px.
MPP = 2.0
SHAPE = (1500, 2000)
MIDDLE, RADIUS = (700.0, 800.0), 500.0
HOLE, HOLE_RADIUS = (600.0, 700.0), 150.0
CRACK, CRACK_RADIUS = (900.0, 950.0), 45.0
#: A second piece, a speck of dust of the colour of tissue, blue ink, and the black edge of the glass.
PIECE, PIECE_RADIUS = (400.0, 1650.0), 180.0
SPECK, SPECK_RADIUS = (1200.0, 1500.0), 40.0
INK, EDGE = np.s_[1350:1450, 200:900], np.s_[:, :60]


def disc(middle: tuple[float, float], radius: float, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return where a disc is, of a middle (y, x)."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y + 0.5 - middle[0]) ** 2 + (x + 0.5 - middle[1]) ** 2 < radius**2


def true_tissue() -> np.ndarray:
    """Return where tissue should be found: the crack is too small to be left open, the speck to be kept."""
    return (disc(MIDDLE, RADIUS) & ~disc(HOLE, HOLE_RADIUS)) | disc(PIECE, PIECE_RADIUS)


def paint() -> np.ndarray:
    """Return the H&E, (height, width, 3) uint8."""
    random = np.random.default_rng(0)
    pixels = np.full((*SHAPE, 3), (240, 238, 243), dtype=float)
    tissue = (true_tissue() & ~disc(CRACK, CRACK_RADIUS)) | disc(SPECK, SPECK_RADIUS)
    nuclei = random.random(SHAPE) < 0.2
    pixels[tissue] = (225, 160, 195)
    pixels[tissue & nuclei] = (110, 70, 150)
    pixels[INK] = (40, 120, 190)
    pixels += random.normal(0, 4, (*SHAPE, 1))
    pixels[EDGE] = random.integers(0, 25, pixels[EDGE].shape)  # as dark as it is, any hue is saturated
    return np.clip(pixels, 0, 255).astype(np.uint8)


def write_tif(path: Path, pixels: np.ndarray, levels: int = 1, mpp: float | None = MPP, **options: object) -> Path:
    """Write a tiled TIFF with some levels of half the size, and its scale in the resolution tags."""
    ome = path.name.endswith(".ome.tif")
    said: dict[str, object] = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib", **options}
    if mpp is not None:
        said |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    if ome:
        said |= {"metadata": {"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm",
                              "PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"}}  # fmt: skip
    with tifffile.TiffWriter(path, ome=ome, bigtiff=path.suffix == ".btf") as tif:
        tif.write(pixels, subifds=levels - 1, **said)
        for level in range(1, levels):
            height, width = (size // 2**level for size in pixels.shape[:2])
            smaller = pixels[: height * 2**level, : width * 2**level].reshape(height, 2**level, width, 2**level, -1)
            said.pop("metadata", None)
            said.pop("resolution", None)
            said.pop("resolutionunit", None)
            tif.write(smaller.mean(axis=(1, 3)).astype(pixels.dtype), subfiletype=1, **said)
    return path
