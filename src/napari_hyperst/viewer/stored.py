"""The predictions that a slide's store holds: read without the model, and believed only as far as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_hyperst.errors import HyperSTError, SlideError, plain
from napari_hyperst.nouns.provenance import read_provenance
from napari_hyperst.viewer.contract import OURS
from napari_hyperst.viewer.entry import annotates
from napari_hyperst.viewer.notices import show_info, show_warning

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from napari_hyperst.slides.slide import Slide
    from napari_hyperst.viewer.entry import Entry
    from napari_hyperst.viewer.session import Session


#: Follows the name of a prediction that was made since the slide was opened.
_NEW = " (new)"


def stored_predictions(slide: Slide, warn: Callable[[str], None]) -> dict[str, AnnData]:
    """Return the tables of predictions of a slide's spots in its store, by name, the one made last at the end.

    Parameters
    ----------
    slide
        The slide.
    warn
        Told of each that cannot be shown, and why.
    """
    from napari_hyperst.slides.export.checks import check_prediction

    found: list[tuple[str, str, AnnData]] = []
    for name, table in slide.sdata.tables.items():
        if not annotates(table, slide.source.spots):
            continue
        try:
            made = read_provenance(table.uns[OURS], f"{slide.path} ({name})")
            check_prediction(table, f"{slide.path} ({name})")
        except SlideError as error:
            warn(f"the prediction {name} cannot be shown: {error}")
        else:
            found.append((made.run.at, name, table))
    return {name: table for _, name, table in sorted(found, key=lambda one: one[:2])}


def choices(entry: Entry) -> tuple[str, ...]:
    """Return the names of the predictions of a slide that can be shown, of which one may not be in its store yet."""
    shown = shown_of(entry)
    return tuple(dict.fromkeys((*entry.stored, *([shown] if shown else ()))))


def shown_of(entry: Entry) -> str:
    """Return which of a slide's predictions is shown; empty where none that is done is."""
    stored = next((name for name, table in entry.stored.items() if table is entry.table), "")
    return f"{entry.table_name}{_NEW}" if not stored and entry.result is not None else stored


def show_last_stored(session: Session, entry: Entry) -> None:
    """Show the prediction that was made last of those in a slide's store, if there is one."""
    entry.stored = stored_predictions(entry.slide, show_warning)
    if entry.stored:
        session.show_stored(entry, next(reversed(entry.stored)))


def show_stored(session: Session, entry: Entry, name: str) -> None:
    """Show one of the predictions that a slide's store holds; which there are is told.

    One that is shown and in no store yet is kept beside them.

    Parameters
    ----------
    session, entry
        The slide.
    name
        One of ``choices``.

    Raises
    ------
    HyperSTError
        If it is none of them.
    """
    if name == shown_of(entry):
        return
    if name not in entry.stored:
        raise HyperSTError(f"there is no prediction {name!r}", where=entry.slide.path, do="choose one of the list")
    if entry.result is not None and entry.table is not None:
        entry.stored[shown_of(entry)] = entry.table
    try:
        session.set_prediction(entry.key, entry.stored[name], name.removesuffix(_NEW))
    except Exception as error:  # the table is anybody's, and may be odd in ways that nobody foresaw
        session.forget_prediction(entry.key)
        show_warning(f"{entry.slide.path}: the prediction {name} cannot be shown ({plain(str(error), 200)})")
        return
    if len(entry.stored) > 1:
        show_info(
            f"{entry.slide.path.name} holds {len(entry.stored)} predictions, {', '.join(entry.stored)}: {name} is shown"
        )
