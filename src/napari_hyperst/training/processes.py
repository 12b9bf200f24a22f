"""The processes that train together, on Hugging Face accelerate; one, where no launcher started more."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from napari_hyperst.errors import ConfigError
from napari_hyperst.models.device import choose_device
from napari_hyperst.nouns.training import TrainConfig

#: The package that a tracker needs.
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


class Processes:
    """The processes of a training run, of which this is one.

    The model is not wrapped: each process has the gradient of the whole batch's objective with respect to its own
    spots, and these are summed (``sum_gradients``), where a wrapper would average them.

    Parameters
    ----------
    config
        The run's settings.

    Raises
    ------
    ConfigError
        If there are not as many processes as the settings or the launcher say, the device is not there, or a
        tracker's package is not installed.

    Attributes
    ----------
    rank, count
        The number of this process, and of all.
    device
        Where this process computes.
    """

    def __init__(self, config: TrainConfig) -> None:
        missing = [name for name in config.trackers if find_spec(_PACKAGES[name]) is None]
        if missing:
            raise ConfigError(f"the tracker {missing[0]} is not installed", do=f"pip install {_PACKAGES[missing[0]]}")
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        device = choose_device(config.device)
        self._accelerator = Accelerator(
            cpu=launched > 1 and device.type == "cpu",
            mixed_precision="no",  # the encoder has autocast of its own; heads and objective stay float32
            log_with=list(config.trackers) or None,
            project_dir=config.out if config.trackers else None,
        )
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.device = device if self.count == 1 else self._accelerator.device
        wanted = launched if config.processes is None else config.processes
        if not self.count == launched == wanted:
            raise ConfigError(
                f"{self.count} processes train together, not {wanted}",
                do="start that many, on CPUs with torchrun --nproc-per-node (accelerate's launcher starts one there)",
            )

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def main_first(self) -> AbstractContextManager[None]:
        """Return a context that the main process goes through before the others."""
        return self._accelerator.main_process_first()

    def wait(self) -> None:
        """Wait for all."""
        self._accelerator.wait_for_everyone()

    def any(self, flag: bool) -> bool:
        """Tell whether a flag is up in any process."""
        if self.count == 1:
            return flag
        return bool(self._accelerator.reduce(torch.tensor(float(flag), device=self.device), "sum").item() > 0)

    def agree(self, numbers: dict[str, float]) -> dict[str, float]:
        """Return the numbers of the first process, so that all decide alike."""
        if self.count == 1:
            return numbers
        said = [numbers]
        broadcast_object_list(said)
        return said[0]

    def gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the rows of all processes, in their order.

        Parameters
        ----------
        own
            (n, ...) rows of this process; they keep their gradient, those of others have none.
        sizes
            How many rows each process has.
        """
        if self.count == 1:
            return own
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own.detach()
        parts = list(self._accelerator.gather(padded).split(max(sizes)))
        parts = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over the processes, in place; a process without one counts as zero."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.requires_grad:
                own = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._accelerator.reduce(own, "sum")

    def start_trackers(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        """Begin a run in the experiment trackers that were asked for."""
        if self._accelerator.log_with:
            options = {"wandb": {"dir": str(folder)}}
            self._accelerator.init_trackers(name, {k: _plain(v) for k, v in settings.items()}, init_kwargs=options)

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Log numbers to the trackers."""
        self._accelerator.log(numbers, step=step)

    def close(self) -> None:
        """End the trackers' runs and what joins the processes."""
        self._accelerator.end_training()


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool) else str(value)
