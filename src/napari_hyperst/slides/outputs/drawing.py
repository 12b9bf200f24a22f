"""Parts of figures: the H&E, spots in their size over it, a frame around them, a scale bar; all axes in µm."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle, Patch, Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from napari_hyperst.slides.outputs.raster import SpotRaster
from napari_hyperst.slides.outputs.selection import are_squares
from napari_hyperst.slides.outputs.thumbnail import thumbnail
from napari_hyperst.slides.slide import Slide

#: Longest side, in px, of the H&E that is drawn, and of a map of many spots.
_DRAWN_PX, _MAP_PX = 1400, 2048
#: More spots than this are drawn as pixels.
_MOST_SHAPES = 20_000
#: How much of the H&E is left under spots.
_FADED = 0.35
_BARS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def finite_limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return percentile limits that are finite and not equal, whatever the values."""
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, [1, 99]) if len(finite) else (0.0, 1.0)
    return (float(low), float(high)) if high > low else (float(low), float(low) + 1.0)


class Canvas:
    """Draws on axes what there is at some spots of a slide.

    Parameters
    ----------
    slide
        The slide.
    centres
        (n, 2) centres of the spots, (x, y) in level-0 px of the H&E.
    """

    def __init__(self, slide: Slide, centres: NDArray[np.float64]) -> None:
        self._slide, self._centres = slide, centres
        self._tissue, shrunk = thumbnail(slide.image, _DRAWN_PX)
        height, width = (side / shrunk * slide.mpp for side in self._tissue.shape[:2])
        self._extent = (0.0, width, height, 0.0)

    @property
    def bounds_um(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of what is shown: the spots with a margin."""
        um = self._centres * self._slide.mpp
        margin = 2 * max(self._slide.spots.diameter_um, 0.02 * np.ptp(um, axis=0).max())
        (left, top), (right, bottom) = um.min(axis=0) - margin, um.max(axis=0) + margin
        return float(left), float(right), float(bottom), float(top)

    def draw_tissue(self, axes: Axes, heading: str, strength: float = 1.0) -> None:
        """Draw the H&E, with a heading and a scale bar.

        Parameters
        ----------
        axes
            Where to.
        heading
            What to write above.
        strength
            1 is as it is, 0 is white.
        """
        axes.imshow(self._tissue, extent=self._extent, alpha=strength)
        left, right, bottom, top = self.bounds_um
        axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[], aspect="equal")
        axes.set_title(heading, fontsize=11)
        draw_scale_bar(axes)

    def draw_map(
        self,
        axes: Axes,
        heading: str,
        values: NDArray[np.floating],
        colormap: str = "viridis",
        limits: tuple[float, float] | None = None,
    ) -> ScalarMappable:
        """Draw the spots in colours over the faded H&E.

        Parameters
        ----------
        axes
            Where to.
        heading
            What to write above.
        values
            (n,) numbers; a spot without a finite one is left out.
        colormap, limits
            How they are coloured.

        Returns
        -------
        ScalarMappable
            What a colour bar is made of.
        """
        self.draw_tissue(axes, heading, _FADED)
        return self._spots(axes, values, colormap, limits or finite_limits(values))

    def _spots(
        self, axes: Axes, values: NDArray[np.floating], colormap: str, limits: tuple[float, float]
    ) -> ScalarMappable:
        slide, size = self._slide, self._slide.spots.diameter_um
        if len(values) > _MOST_SHAPES:
            raster = SpotRaster.of_slide(slide, self._centres, np.asarray(values, np.float32)[None])
            level = next(k for k, shape in enumerate(raster.shapes_px) if max(shape) <= _MAP_PX)
            pixels = raster.level(level)[0]
            height, width = (side * raster.um(level) for side in pixels.shape)
            return axes.imshow(
                np.ma.masked_invalid(pixels),
                extent=(0.0, width, height, 0.0),
                cmap=colormap,
                vmin=limits[0],
                vmax=limits[1],
                interpolation="none",
            )
        um = self._centres * slide.mpp
        if are_squares(slide):
            shapes: list[Patch] = [Rectangle((x - size / 2, y - size / 2), size, size) for x, y in um]
        else:
            shapes = [Circle((x, y), size / 2) for x, y in um]
        drawn = PatchCollection(shapes, lw=0)
        drawn.set_array(np.ma.masked_invalid(values))
        drawn.set_cmap(colormap)
        drawn.set_clim(*limits)
        axes.add_collection(drawn)
        return drawn


def draw_scale_bar(axes: Axes) -> None:
    """Draw a bar of a round length, at most a third of the axes' width, at their lower left."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    width = abs(right - left)
    length = max(step for step in _BARS_UM if step <= max(width / 3, _BARS_UM[0]))
    x, y = left + 0.05 * width, bottom + 0.05 * (top - bottom)
    halo = [withStroke(linewidth=3, foreground="white")]
    axes.plot(
        [x, x + length], [y, y], color="black", lw=3, solid_capstyle="butt",
        path_effects=[withStroke(linewidth=5, foreground="white")],
    )  # fmt: skip
    label = f"{length} µm" if length < 1000 else f"{length // 1000} mm"
    y_label = y + 0.015 * (top - bottom)
    axes.text(x + length / 2, y_label, label, ha="center", va="bottom", fontsize=9, path_effects=halo)
