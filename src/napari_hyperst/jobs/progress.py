"""What a training run has told so far, made of its events: its state, its curves, its pace and the time left."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

from napari_hyperst.nouns.events import Event

#: ``new`` has not been started, ``starting`` imports, ``preparing`` encodes tiles, ``failed`` is an error of a run that
#: could say which, ``crashed`` one that could not.
State = Literal["new", "starting", "preparing", "training", "paused", "done", "stopped", "failed", "crashed"]
#: The states of a run with a process.
LIVE: tuple[State, ...] = ("starting", "preparing", "training", "paused")
#: Steps that the pace is measured over, and the most that are kept for the curve between epochs.
_PACE, _CURVE = 40, 600
#: Of a spot, two tiles are looked at.
_TILES = 2
#: Numbers of an event that are no curves.
_NO_CURVE = ("epoch", "of", "step", "spots")


@dataclass
class RunProgress:
    """How far a run has come. Made with the ``epochs`` that its settings ask for.

    Attributes
    ----------
    state
        What it is doing.
    what
        What it tells of that: what is being prepared, or the message of its end.
    done, total
        Of what is being prepared.
    step, steps
        Steps taken and in all; 0 where it is not known yet.
    epoch, epochs
        Epochs that have ended, and the most there will be.
    device
        Where it computes.
    curves
        Each number that was told at the end of epochs, by name, as ``{epoch: value}``.
    losses
        (epochs as a fraction, loss) of steps, thinned evenly.
    warnings
        What it warned of.
    snapshot
        The epoch of the last validation map; 0 for none.
    best_epoch, metrics
        Of a run that is done, the epoch that is kept and what was measured there.
    """

    state: State = "new"
    what: str = ""
    done: int = 0
    total: int = 0
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    device: str = ""
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    losses: list[tuple[float, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    snapshot: int = 0
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    _paces: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_PACE))
    _last: float | None = None
    _every: int = 1
    _ending_s: float = 0.0

    @property
    def live(self) -> bool:
        """Whether a process is at work on it, so far as its events tell."""
        return self.state in LIVE

    @property
    def tiles_per_s(self) -> float:
        """Tiles a second over the last steps; 0 where that is not known."""
        seconds = sum(pace for pace, _ in self._paces)
        return _TILES * sum(spots for _, spots in self._paces) / seconds if seconds > 0 else 0.0

    @property
    def waiting(self) -> float | None:
        """The share of time spent waiting for data in the last epoch; None before there is one."""
        told = self.curves.get("waiting", {})
        return told[max(told)] if told else None

    @property
    def seconds_left(self) -> float | None:
        """Seconds to the end of the last epoch, with what comes at the end of each; None where that is not known."""
        if not self._paces or self.steps == 0:
            return None
        a_step = sum(pace for pace, _ in self._paces) / len(self._paces)
        return (self.steps - self.step) * a_step + (self.epochs - self.epoch) * self._ending_s

    @property
    def share(self) -> float:
        """How much of the training is over, from 0 to 1."""
        return self.step / self.steps if self.steps else 0.0

    def begin_again(self) -> None:
        """Take note that a process was started."""
        self.state, self.what, self.done, self.total = "starting", "", 0, 0
        self._paces.clear()
        self._rest()

    def crash(self, last_lines: str) -> None:
        """Take note that the process is gone without a word; its last lines are what there is to know."""
        self.state, self.what = "crashed", last_lines
        self._rest()

    def take(self, event: Event) -> None:
        """Take in an event."""
        match event.kind:
            case "start":
                self.state, self.what, self.device = "preparing", "", str(event.content.get("device", ""))
                self._rest()
            case "progress":
                self.what = str(event.content.get("what", ""))
                self.done, self.total = int(event.content.get("done", 0)), int(event.content.get("total", 0))
            case "step":
                self._take_step(event)
            case "epoch":
                self._take_epoch(event)
            case "validation":
                self.snapshot = int(event.content.get("epoch", 0))
            case "warning":
                self.warnings.append(str(event.content.get("message", "")))
            case "paused":
                self.state = "paused"
                self._rest()
            case "resumed":
                self.state = "training" if self.step else "preparing"
                self._rest()
            case "done":
                self.state, self.what = "done", ""
                self.best_epoch = int(event.content.get("epoch", 0))
                self.metrics = _numbers(event.content, ("epoch",))
            case "stopped":
                self.state, self.what = "stopped", ""
            case "error":
                self.state, self.what = "failed", str(event.content.get("message", ""))

    # -- within

    def _rest(self) -> None:
        """Take no account of the time between two events that a pause or a start lies between."""
        self._last = None

    def _take_step(self, event: Event) -> None:
        self.state = "training"
        self.step, self.steps = int(event.content.get("step", 0)), int(event.content.get("of", 0))
        if self._last is not None:
            self._paces.append((max(event.time - self._last, 1e-6), int(event.content.get("spots", 0))))
        self._last = event.time
        loss = event.content.get("total")
        if isinstance(loss, int | float) and self.step % self._every == 0:
            at = self.step / max(self.steps, 1) * self.epochs
            while self.losses and self.losses[-1][0] >= at:  # done again after a resumption
                self.losses.pop()
            self.losses.append((at, float(loss)))
            if len(self.losses) > _CURVE:
                self.losses, self._every = self.losses[::2], 2 * self._every

    def _take_epoch(self, event: Event) -> None:
        self.epoch, self.epochs = int(event.content.get("epoch", 0)), int(event.content.get("of", 0))
        for name, value in _numbers(event.content, _NO_CURVE).items():
            told = self.curves.setdefault(name, {})
            for late in [epoch for epoch in told if epoch >= self.epoch]:  # done again after a resumption
                del told[late]
            told[self.epoch] = value
        if self._last is not None:
            self._ending_s = max(event.time - self._last, 0.0)
            self._last = event.time


def _numbers(content: dict[str, Any], without: tuple[str, ...]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in content.items()
        if name not in without and isinstance(value, int | float) and not isinstance(value, bool)
    }


def duration(seconds: float) -> str:
    """Return a time as one says it: seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
