"""Which of a Space Ranger run's images is the H&E to use: the full-resolution one, or the best that there is."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spatialdata.transformations import Identity, Scale

from napari_hyperst.errors import HyperSTWarning, SlideError
from napari_hyperst.slides.image import image_element
from napari_hyperst.slides.readers.files import full_resolution_images, image_file, image_size

#: The coarse images that Space Ranger keeps, better first.
_KINDS = ("hires", "lowres")
#: A full-resolution image may be this much larger or smaller than the coarse one says, beside what rounding explains.
_SIZE_TOLERANCE = 0.005


@dataclass(frozen=True)
class Run:
    """Where the images of a run are.

    Attributes
    ----------
    name
        Name of the sample, which the names of elements begin with.
    folder
        The folder that the user gave, or its ``outs``.
    spatials
        Folders that may hold Space Ranger's coarse images, the first before the others.
    factors
        Scale factors of the coarse images, over the full-resolution one.
    """

    name: str
    folder: Path
    spatials: tuple[Path, ...]
    factors: dict[str, float]

    def coarse(self, kind: str) -> Path | None:
        """Return the file of a coarse image, ``"hires"`` or ``"lowres"``."""
        files = [spatial / f"tissue_{kind}_image.png" for spatial in self.spatials]
        return next((file for file in files if file.is_file()), None)

    def transformations(self) -> dict[str, Any]:
        """Return the transformations of what is in full-resolution px, to each coordinate system."""
        systems: dict[str, Any] = {self.name: Identity()}
        for kind in _KINDS:
            factor = self.factors[f"tissue_{kind}_scalef"]
            systems[f"{self.name}_downscaled_{kind}"] = Scale([factor, factor], axes=("y", "x"))
        return systems


def add_image(images: Any, run: Run, given: str | Path | None) -> tuple[str, float]:
    """Add the H&E to use, as a pyramid: the one the user names, else one whose name tells it, else a coarse one.

    Parameters
    ----------
    images
        The images of a SpatialData object, by name; the one chosen is added or replaced.
    run
        Where the images are.
    given
        The full-resolution image, where the user names one.

    Returns
    -------
    tuple
        Name of the element, and by what factor it is smaller than at full resolution.

    Raises
    ------
    SlideError
        If there is no image, the one named is not there or broken, or several could be it.
    """
    full = _given(run, given) if given is not None else _found(run)
    if full is not None:
        element = f"{run.name}_full_image"
        images[element] = image_element(full, {run.name: Identity()})
        return element, 1.0
    for kind in _KINDS:
        if (picture := run.coarse(kind)) is not None:
            factor = run.factors[f"tissue_{kind}_scalef"]
            images[f"{run.name}_{kind}_image"] = _coarse_element(run, picture, kind, factor)
            return f"{run.name}_{kind}_image", factor
    raise SlideError(
        "no image: neither tissue_hires_image.png nor tissue_lowres_image.png",
        where=run.spatials[0],
        do="add one, or name the full-resolution image (--image, or image=)",
    )


def add_coarse_images(images: Any, run: Run) -> None:
    """Add the coarse images that can be read, as spatialdata-io would; one that is broken is no loss."""
    for kind in _KINDS:
        picture = run.coarse(kind)
        if picture is not None and image_size(picture) is not None:
            factor = run.factors[f"tissue_{kind}_scalef"]
            try:
                images[f"{run.name}_{kind}_image"] = _coarse_element(run, picture, kind, factor)
            except SlideError:
                continue


def warn_of_coarse_image(run: Run, element: str, mpp: float | None) -> None:
    """Tell that there is no full-resolution image, and at what µm per px the one in use is."""
    kind = element.removeprefix(f"{run.name}_").removesuffix("_image")
    scale = "" if mpp is None else f" at {mpp:.2f} µm/px"
    warnings.warn(
        f"{run.folder}: no full-resolution image; the {kind} image{scale} is used, coarser than models are trained on "
        "(name the full-resolution one with --image, or image=)",
        HyperSTWarning,
        stacklevel=5,
    )


def _coarse_element(run: Run, picture: Path, kind: str, factor: float) -> Any:
    to_full = Scale([1 / factor, 1 / factor], axes=("y", "x"))
    return image_element(picture, {f"{run.name}_downscaled_{kind}": Identity(), run.name: to_full})


def _given(run: Run, given: str | Path) -> Path:
    file = image_file(given, run.folder)
    expected, size = _expected_size(run), image_size(file)
    if expected is not None and size is not None and not _agree(size, expected):
        warnings.warn(
            f"{file}: is of {size[0]} x {size[1]} px, where Space Ranger's own images tell of "
            f"{expected[0]:.0f} x {expected[1]:.0f} px: it may be cropped, coarser, or of another section",
            HyperSTWarning,
            stacklevel=6,
        )
    return file


def _found(run: Run) -> Path | None:
    """Find the full-resolution image by name, and by its size where a coarse image tells what that must be."""
    folders = [run.folder, run.folder / "microscope_image"]
    if run.folder.name == "outs":
        folders.append(run.folder.parent)
    expected = _expected_size(run)
    ranked = full_resolution_images(folders, run.name)
    for _, alike in itertools.groupby(ranked, key=lambda one: one[0]):
        fitting = [path for _, path in alike if _may_be(path, expected)]
        if len(fitting) > 1:
            raise SlideError(
                f"{len(fitting)} images could be the H&E: {', '.join(path.name for path in fitting)}",
                where=run.folder,
                do="name one (--image, or image=)",
            )
        if fitting:
            return fitting[0]
    return None


def _may_be(path: Path, expected: tuple[float, float] | None) -> bool:
    size = image_size(path)
    return expected is None or size is None or _agree(size, expected)


def _expected_size(run: Run) -> tuple[float, float] | None:
    """Return the (width, height) of the full-resolution image that a coarse one tells of."""
    for kind in _KINDS:
        picture = run.coarse(kind)
        size = None if picture is None else image_size(picture)
        if size is not None:
            factor = run.factors[f"tissue_{kind}_scalef"]
            return size[0] / factor, size[1] / factor
    return None


def _agree(size: tuple[int, int], expected: tuple[float, float]) -> bool:
    # Coarse images are at least some hundred px wide, so that a px of rounding is well within the tolerance.
    return all(abs(is_ / ought - 1) <= _SIZE_TOLERANCE for is_, ought in zip(size, expected, strict=True))
