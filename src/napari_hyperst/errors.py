"""Errors that a user can cause: each says what was wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class HyperSTError(Exception):
    """An error that a user can cause and mend.

    Parameters
    ----------
    what
        What was wrong, as a clause without a full stop.
    where
        The file, folder or spot it was found in.
    do
        What to do about it, as a clause without a full stop.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, do: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.do = do
        line = what if self.where is None else f"{self.where}: {what}"
        super().__init__(" ".join((line if do is None else f"{line}; {do}").split()))


class SlideError(HyperSTError):
    """A slide cannot be opened, or lacks what was asked of it."""


class ScaleError(SlideError):
    """Nothing tells how many µm a px of a slide's H&E is: the user has to."""


class CheckpointError(HyperSTError):
    """A checkpoint or an encoder is missing, broken, or does not fit the slide."""


class ConfigError(HyperSTError):
    """A setting is unknown or out of range."""


class StoreError(HyperSTError):
    """A result cannot be written where it was asked to go."""


class RegionError(HyperSTError):
    """A region that was drawn on a slide cannot be compared with the rest, or the comparison cannot be written."""


class HyperSTWarning(UserWarning):
    """Something the user should know before trusting a result."""
