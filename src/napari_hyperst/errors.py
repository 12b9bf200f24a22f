"""Errors that a user can cause: each says what was wrong, where, and what to do."""

from __future__ import annotations

import os
import re
from pathlib import Path

#: What is not shown: control characters and surrogates, and marks that turn the direction of text or have no width.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
#: Tokens of the Hugging Face hub; what follows a word that says so in a header or an address; passwords in addresses.
_SECRETS = re.compile(
    r"\bhf_(?:[A-Za-z0-9]{16,}|(?:oauth|jwt|user|org)_[\w.-]{8,})"
    r"|(?i:(?<=bearer )|(?<=authorization: basic )|(?<=token=)|(?<=signature=)|(?<=credential=)|(?<=[?&]sig=))"
    r"[^\s&\"',;)]+"
    r"|(?<=://)[^\s/@]+(?=@)"
)
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
#: A token is longer than this; what is shorter may be a word of the sentence.
_SHORT = 8


def scrub(text: str) -> str:
    """Return text without tokens, passwords and signatures, which must not get into logs, events or cards."""
    for name in _TOKEN_VARIABLES:
        token = os.environ.get(name, "")
        if len(token) >= _SHORT:
            text = text.replace(token, "***")
    return _SECRETS.sub("***", text)


def plain(text: str, longest: int | None = None) -> str:
    """Return text in one line that a terminal or a label shows as it is, without tokens, cut to a length if told.

    Control characters and marks that turn the direction of text, with which a name could look like another or move a
    terminal's cursor, become ``U+FFFD``.
    """
    line = _HIDDEN.sub("\ufffd", " ".join(scrub(text).split()))
    return line if longest is None or len(line) <= longest else f"{line[:longest]}…"


def unmarked(text: str) -> str:
    """Return text that Qt takes for no HTML, as which a label or a tooltip shows whatever has a tag in it."""
    return text.replace("<", "\u2039")


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
        super().__init__(plain(line if do is None else f"{line}; {do}"))


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
