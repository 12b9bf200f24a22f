"""Where the table of a prediction goes: the slide's own store, a copy of it, or a new store."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anndata import AnnData

from napari_hyperst.errors import StoreError
from napari_hyperst.files import check_place, to_disk
from napari_hyperst.slides.commit import WORK, check_name, check_table_name, put_table, working_folder
from napari_hyperst.slides.convert import convert, self_contained
from napari_hyperst.slides.export.table import table_name
from napari_hyperst.slides.slide import Slide


def write_table(
    slide: Slide,
    annotation: AnnData,
    path: str | Path,
    *,
    table: str | None = None,
    copy: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the table of a prediction into a store, as a table that annotates the slide's spots.

    Into the store that the slide was opened from, when that is ``path``; else into a new store with the slide's
    image, spots and counts, or, if asked for, with all that its own store holds. A table of ours with the same name is
    replaced as a whole; no other element is touched.

    Parameters
    ----------
    slide
        The slide that the table annotates.
    annotation
        From ``prediction_table``.
    path
        The store to write.
    table
        Name of the new table; ``<measured table>_hyperst``, or ``hyperst`` where nothing was measured.
    copy
        Whether a new store is a copy of the slide's own, with all its elements.
    progress
        As for ``convert``, which makes a new store.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    StoreError
        If the name is taken by something else, or the store cannot be written. Nothing is left behind.
    """
    check_target(slide, path, table, copy=copy)
    path, name = Path(path).expanduser().resolve(), table or table_name(slide)
    own = _own_store(slide)
    if path == own:
        put_table(path, name, annotation)
        return path
    if not copy or own is None:
        return convert(slide, path, progress, also=lambda staged: put_table(staged, name, annotation), keep=False)
    with _new_store(path) as staged:
        shutil.copytree(own, staged, symlinks=True, ignore=shutil.ignore_patterns(WORK))
        put_table(staged, name, annotation)
    return path


def check_target(slide: Slide, path: str | Path, table: str | None = None, *, copy: bool = False) -> None:
    """Check that ``write_table`` may write there, before the work of predicting is done.

    Raises
    ------
    StoreError
        If something else is there, the table's name is taken by an element that is not ours or is none that
        SpatialData allows, or there is no store to copy.
    """
    path, own, name = Path(path).expanduser(), _own_store(slide), table or table_name(slide)
    check_table_name(name, path)
    if path.resolve() == own:
        check_name(own, name)
        return
    if path.exists() and slide.source.laid and slide.path.resolve() == path.resolve():
        raise StoreError("holds other spots than were laid now", where=path, do="name a new store for these")
    check_place(path, do="name a new store, or the one the slide was opened from")
    if copy and own is None:
        raise StoreError("was not opened from a SpatialData store", where=slide.path, do="export it as a new store")
    if copy and own is not None:
        check_name(own, name)
        if own in path.resolve().parents:
            raise StoreError("lies within the store that it would be a copy of", where=path, do="name another place")
    elif name.casefold() in {element.casefold() for _, element, _ in self_contained(slide).gen_elements()}:
        raise StoreError(
            f"would have another element {name!r} that is not ours", where=path, do="name the table otherwise"
        )


def _own_store(slide: Slide) -> Path | None:
    """Return the store that the slide is a view of, if there is one."""
    stored = slide.sdata.path
    return None if stored is None else Path(stored).resolve()


@contextmanager
def _new_store(path: Path) -> Iterator[Path]:
    """Give a place to write a store to, which takes its name when it is whole; else nothing is there afterwards."""
    with working_folder(path.with_name(f".{path.name}.hyperst-export"), path) as work:
        staged = work / path.name
        shutil.rmtree(staged, ignore_errors=True)
        yield staged
        to_disk(staged)
        check_place(path)
        staged.rename(path)
