"""Stain normalisation: maps of colour that are fitted to a slide once, and are the same for all of its tiles."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.color import lab2rgb, rgb2lab

from napari_hyperst.errors import ConfigError, HyperSTWarning, SlideError

#: Takes (..., 3) uint8 RGB and returns the like.
StainMap = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

#: The light that Macenko's method takes for that of glass: torchstain's, and that of the reference implementation.
_LIGHT = 240.0
#: Colours of two stains that are told apart are at least this far apart, in radians; the reference's are at 0.39.
_LEAST_ANGLE = 0.1
#: Reinhard's reference in CIELAB: what his method finds in the tiles of the packaged section, rounded.
_REFERENCE_MEAN = np.array([58.82, 12.78, -19.31])
_REFERENCE_SPREAD = np.array([20.82, 6.098, 9.878])
#: Colours whose lightness, or either of whose other coordinates, is spread less than this are of no stained tissue.
_LEAST_SPREAD = 0.5
#: Glass is the brightest hundredth of a slide, and no darker nor more coloured than this.
_GLASS_PERCENTILE = 99.0
_DARKEST_GLASS = 160.0
_GLASS_COLOUR = 1.3


@dataclass(frozen=True)
class Macenko:
    """Stains moved to a reference, by a matrix on optical densities.

    Where light I goes through stains of colours H (3 x 2) in amounts c, minus ln((I + 1) / 240) is H c (Macenko et al.,
    ISBI 2009). With the reference's colours H' and amounts m' at their 99th percentile, for m of the slide,
    H' diag(m' / m) pinv(H) takes densities of the slide to those of the reference.

    Attributes
    ----------
    matrix
        (3, 3) float32, that matrix.
    """

    matrix: NDArray[np.float32]

    def __call__(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tiles, (..., 3) uint8 RGB, in the reference's stains."""
        logarithms = np.log((np.arange(256, dtype=np.float32) + 1) / np.float32(_LIGHT))
        light = np.exp(logarithms[tiles] @ self.matrix.T)
        light *= _LIGHT
        return np.rint(light, out=light).clip(0, 255).astype(np.uint8)

    @classmethod
    def fit(cls, pixels: NDArray[np.uint8], where: str | Path) -> Macenko:
        """Find the slide's stains with torchstain; its own reference is the reference.

        Parameters
        ----------
        pixels
            (n, 3) uint8 RGB of tissue.
        where
            The slide, for messages.

        Raises
        ------
        ConfigError
            If torchstain is not installed.
        SlideError
            If two stains cannot be told apart.
        """
        try:
            from torchstain.base.normalizers import MacenkoNormalizer
        except ImportError as error:
            raise ConfigError(
                "Macenko's stain normalisation needs torchstain", do="pip install 'napari-hyperst[stain]'"
            ) from error
        normaliser = MacenkoNormalizer(backend="numpy")
        colours, amounts = normaliser.HERef, normaliser.maxCRef
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # numpy's, on no px at all; what comes of it is checked
                normaliser.fit(pixels[None], Io=_LIGHT)
        except (ValueError, IndexError, np.linalg.LinAlgError) as error:
            raise _no_stains(where) from error
        found, most = normaliser.HERef, normaliser.maxCRef  # unit vectors, and amounts at the 99th percentile
        apart = np.arccos(np.clip(found[:, 0] @ found[:, 1], -1, 1))
        if not (apart >= _LEAST_ANGLE and most.min() > 0):  # NaN is neither
            raise _no_stains(where)
        return cls((colours @ np.diag(amounts / most) @ np.linalg.pinv(found)).astype(np.float32))


@dataclass(frozen=True)
class Reinhard:
    """Colours given the mean and the spread of a reference.

    In CIELAB, in the place of the lαβ of Reinhard et al. (IEEE CG&A 2001), each of the three coordinates v becomes
    (v - m) s' / s + m', for mean m and standard deviation s of the slide, m' and s' of the reference.

    Attributes
    ----------
    scale, shift
        (3,) float32, s' / s and m' - m s' / s.
    """

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]

    def __call__(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tiles, (..., 3) uint8 RGB, in the reference's colours."""
        lab = rgb2lab(tiles.astype(np.float32) / np.float32(255)) * self.scale + self.shift
        light = np.maximum(lab[..., 0], 0)
        # No colour has less than no blue: what would have is clipped here, as scikit-image does with a warning.
        lab = np.stack([light, lab[..., 1], np.minimum(lab[..., 2], 200 / 116 * (light + 16))], axis=-1)
        return np.rint(255 * lab2rgb(lab)).clip(0, 255).astype(np.uint8)

    @classmethod
    def fit(cls, pixels: NDArray[np.uint8], where: str | Path) -> Reinhard:
        """Take mean and spread of the slide's colours.

        Parameters
        ----------
        pixels
            (n, 3) uint8 RGB of tissue.
        where
            The slide, for messages.

        Raises
        ------
        SlideError
            If the colours do not differ.
        """
        lab = rgb2lab(pixels.astype(np.float32) / np.float32(255))
        mean, spread = lab.mean(axis=0, dtype=np.float64), lab.std(axis=0, dtype=np.float64)
        if spread.min() < _LEAST_SPREAD:
            raise _no_stains(where)
        scale = _REFERENCE_SPREAD / spread
        return cls(scale.astype(np.float32), (_REFERENCE_MEAN - mean * scale).astype(np.float32))


@dataclass(frozen=True)
class WhiteBalance:
    """Channels scaled so that glass is white.

    Attributes
    ----------
    table
        (256, 3) uint8, what each value becomes in red, green and blue.
    """

    table: NDArray[np.uint8]

    def __call__(self, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the tiles, (..., 3) uint8 RGB, balanced."""
        return self.table[tiles, np.arange(3)]

    @classmethod
    def fit(cls, pixels: NDArray[np.uint8], where: str | Path) -> WhiteBalance:
        """Take the brightest hundredth of the slide for glass; where that is none, warn and change nothing.

        Parameters
        ----------
        pixels
            (n, 3) uint8 RGB of all of the slide.
        where
            The slide, for messages.
        """
        white = np.percentile(pixels, _GLASS_PERCENTILE, axis=0)
        if white.min() < _DARKEST_GLASS or white.max() > _GLASS_COLOUR * white.min():
            warnings.warn(
                f"{where}: no glass is seen (its brightest px are {', '.join(f'{one:.0f}' for one in white)}), so the "
                "white is not balanced",
                HyperSTWarning,
                stacklevel=2,
            )
            white = np.full(3, 255.0)
        scaled = np.arange(256)[:, None] * (255.0 / white)
        return cls(np.rint(scaled).clip(0, 255).astype(np.uint8))


def _no_stains(where: str | Path) -> SlideError:
    return SlideError(
        "haematoxylin and eosin cannot be told apart in its spots' tiles",
        where=where,
        do="check that the image is an H&E, or use no stain normalisation (tiles.stain=none)",
    )
