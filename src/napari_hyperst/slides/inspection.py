"""A look at what a path holds before anything is read: quick, without the libraries that read it."""

from __future__ import annotations

import json
from pathlib import Path

from napari_hyperst.errors import SlideError
from napari_hyperst.slides.formats import (
    FORMATS,
    IMAGE_SUFFIXES,
    Format,
    bin_folders,
    format_of,
    is_zarr_group,
    matrices,
    outs_folder,
    sections,
)

#: Formats that may hold several tables of counts, and those whose spots may be laid over an H&E.
_WITH_TABLES: tuple[Format, ...] = ("spatialdata", "visium_hd")
_MAY_BE_LAID: tuple[Format, ...] = ("spatialdata", "whole_slide")
#: Where Space Ranger 4 puts single cells, and how their matrices are called.
_CELLS, _CELL_MATRIX = "segmented_outputs", "_feature_cell_matrix.h5"
#: So many names are told, of so many that are looked at.
_TOLD, _LOOKED_AT = 3, 50


def inspect_slide(path: Path, *, image: bool = False, table: bool = False, laying: bool = False) -> Format:
    """Tell the format of a slide, or what is there instead.

    Parameters
    ----------
    path
        What the user gave.
    image, table, laying
        Whether an image, a table, or how spots are to be laid (pitch, diameter or mask) was given as well.

    Returns
    -------
    Format
        The slide may still be broken.

    Raises
    ------
    SlideError
        If the path cannot be looked at, is no slide, or one that has no use for what was given.
    """
    try:
        there = path.exists()
    except OSError as error:
        raise SlideError(f"cannot be looked at ({error.strerror})", where=path, do="check the path") from error
    if not there:
        raise SlideError("there is nothing here", where=path, do="check the path")
    _look_into(path)
    found = format_of(path)
    if found is None and path.suffix == ".h5ad" and image:
        found = "hest"  # what is missing around it is named
    if found in (None, "space_ranger") and _is_of_cells(path):
        raise SlideError(
            "holds single cells (segmented_outputs), which are not read",
            where=path,
            do="open binned_outputs of the same run, which Space Ranger writes beside it",
        )
    if found is None:
        what, do = _instead(path)
        raise SlideError(f"is no slide that can be read: {what}", where=path, do=do)
    if table and found not in _WITH_TABLES:
        raise SlideError("has one table of counts, and none to choose", where=path, do="leave --table (table=) out")
    if image and found == "whole_slide":
        raise SlideError("is the H&E itself", where=path, do="leave --image (image=) out")
    if laying and (found not in _MAY_BE_LAID or (found == "spatialdata" and not _was_laid(path))):
        raise SlideError(
            "has spots of its own, so none are laid over it", where=path, do="leave pitch, spot and tissue out"
        )
    return found


def _look_into(path: Path) -> None:
    """Tell a path that may not be read from one that is no slide."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        elif path.is_file():
            path.open("rb").close()
        else:  # a pipe or a device, which may be waited for without end
            raise SlideError("is neither a file nor a folder", where=path, do="check the path")
    except OSError as error:
        raise SlideError(f"cannot be read ({error.strerror})", where=path, do="check its rights") from error


def _was_laid(store: Path) -> bool:
    """Tell whether the root of a store says that its spots were laid; what cannot be told is left to the reader."""
    try:
        attributes = json.loads((store / "zarr.json").read_text(encoding="utf-8"))["attributes"]
        return bool(attributes["hyperst"]["laid"])
    except (KeyError, TypeError):
        return False
    except (OSError, ValueError):
        return True


def _is_of_cells(path: Path) -> bool:
    """Tell a run, or a folder of it, that has single cells but no bins."""
    if not path.is_dir() or bin_folders(path):
        return False
    folder = outs_folder(path)
    return (folder / _CELLS).is_dir() or any(folder.glob(f"*{_CELL_MATRIX}"))


def _instead(path: Path) -> tuple[str, str]:
    """Say what a path holds that is no slide, and what the nearest format lacks."""
    try:
        return _in_file(path) if path.is_file() else _in_folder(path)
    except OSError as error:
        return f"it cannot be looked into ({error.strerror})", "check its rights"


def _in_file(path: Path) -> tuple[str, str]:
    if path.suffix == ".h5ad":
        return (
            "counts without an H&E",
            f"name the H&E (--image, or image=), or add metadata/{path.stem}.json and wsis/{path.stem}.tif, as in HEST",
        )
    if path.name.endswith((".h5", ".mtx", ".mtx.gz", ".parquet", ".json")):
        return "one file of a slide", f"give the folder that holds all of it, such as {path.absolute().parent}"
    return f"a file of type {path.suffix or '(none)'}", f"give one of: {', '.join(FORMATS.values())}"


def _in_folder(path: Path) -> tuple[str, str]:
    names = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))
    if not names:
        return "an empty folder", "check the path"
    if is_zarr_group(path):
        return (
            f"a Zarr store that is no SpatialData, with {_some(names)}",
            "give a store with images and shapes, as SpatialData writes it, or the file it was made from",
        )
    folder = outs_folder(path)
    if found := matrices(folder):
        return (
            f"a matrix of counts ({found[0].name}), but no folder spatial with positions and scale factors",
            f"copy spatial from Space Ranger's outs to {folder}",
        )
    within = sorted(child for child in path.iterdir() if not child.name.startswith("."))[:_LOOKED_AT]
    if slides := [child.name for child in within if child.suffix.lower() not in IMAGE_SUFFIXES and format_of(child)]:
        return f"a folder of slides ({_some(slides)})", f"open one of them, such as {path / slides[0]}"
    for ending, other, lacks in (
        ("_coord.csv", "_count.csv", "an STimage-1K4M slide has its counts in gene_exp/NAME_count.csv"),
        ("_count.csv", "_coord.csv", "an STimage-1K4M slide has its places in coord/NAME_coord.csv"),
        (
            ".tsv",
            "_selection.tsv",
            "a legacy ST section has its spots in NAME_selection.tsv or alignment_table_NAME.tsv",
        ),
        (".h5ad", ".tif", "a HEST sample has st/NAME.h5ad, wsis/NAME.tif and metadata/NAME.json"),
    ):
        plain = [name.removesuffix(".gz") for name in names]
        if any(name.endswith(ending) for name in plain) and not sections(path):
            held = next(name for name in plain if name.endswith(ending))
            return f"{held}, but no *{other} that goes with it", f"add what is missing: {lacks}"
    if images := [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]:
        return f"no counts, but {_some(images)}", f"to open an H&E alone, give the file: {path / images[0]}"
    return f"it holds {_some(names)}", f"give one of: {', '.join(FORMATS.values())}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_TOLD]) + (", …" if len(names) > _TOLD else "")
