"""What a long task tells while it runs: one JSON object a line, appended to a file that anybody may follow."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_hyperst.errors import scrub
from napari_hyperst.received import open_received

#: The kinds that end a task.
ENDINGS = ("done", "stopped", "error")
#: Bytes of a file of events that are read at once; the largest run tells some 100 MiB.
_MOST_AT_ONCE = 512 * 2**20
#: All kinds.
KINDS = (
    "start", "device", "progress", "step", "epoch", "validation", "checkpoint", "warning", "filling", "filled",
    "paused", "resumed", *ENDINGS,
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something that happened in a task.

    Attributes
    ----------
    kind
        One of ``KINDS``.
    time
        When, in seconds since the epoch.
    content
        What: ``what``, ``done`` and ``total`` of a progress (``total`` is 0 where it is not known), ``message`` of a
        warning or an error, ``file`` and ``genes`` of a filling, how many ``spots`` of it are filled, and so on.
    """

    kind: str
    time: float
    content: dict[str, Any]

    @property
    def ends(self) -> bool:
        """Whether nothing comes after it."""
        return self.kind in ENDINGS


class EventLog:
    """Appends events to a file, each in one write, whole as soon as it is told.

    Parameters
    ----------
    path
        The file; made when the first event is told.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, content: dict[str, Any] | None = None) -> Event:
        """Write an event and return it."""
        if kind not in KINDS:
            raise ValueError(f"there is no event {kind!r}")
        event = Event(kind, time.time(), dict(content or {}))
        line = scrub(json.dumps({"kind": kind, "time": event.time, **event.content}, default=str)).encode() + b"\n"
        with self.path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, 2)
                if file.read(1) != b"\n":  # a writer was killed within a line
                    line = b"\n" + line
            file.write(line)
        return event


class EventReader:
    """Follows a file of events.

    Parameters
    ----------
    path
        The file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def new(self, most_bytes: int = _MOST_AT_ONCE) -> list[Event]:
        """Return the events that were told since the last call; a line that is not whole yet is left for the next.

        Parameters
        ----------
        most_bytes
            The most to read in this call, many lines long.
        """
        try:
            with open_received(self.path, self.path.resolve().parent) as file:
                file.seek(self._offset)
                text = file.read(most_bytes)
        except (FileNotFoundError, ValueError):
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.splitlines() if (event := _parse(line)) is not None]


def _parse(line: bytes) -> Event | None:
    """Read a line; None for one that a killed writer left broken."""
    try:
        content = json.loads(line)
        return Event(str(content.pop("kind")), float(content.pop("time")), content)
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
