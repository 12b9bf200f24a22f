"""One step: the gradient of the whole batch's objective, however the batch is divided.

Contrastive negatives are those of the whole batch, so a batch that is too large for the memory of one device cannot be
handled piece by piece and summed. Gradient caching (Gao et al. 2021, arXiv 2101.06983) can: embeddings of all pieces
first, without a graph; the objective, and its gradient with respect to them; then each piece again, with a graph, from
which that gradient is carried on to the weights. Random numbers, of dropout and of the objective, depend on seed, step
and piece alone, so the second time is the first one replayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

from napari_hyperst.models.method import Batch, Embeddings, Method
from napari_hyperst.training.processes import Processes


class OutOfMemory(Exception):
    """The device of some process has no memory for a piece of this size; raised in all processes."""


def seed_of(*numbers: int) -> int:
    """Return a seed that depends on some numbers, such as seed, step and piece, and on nothing else."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def divide(rows: Tensor, processes: int, micro_batch: int | None) -> list[Tensor]:
    """Divide a batch into pieces, as many for each process, the pieces of one process after one another's.

    Parameters
    ----------
    rows
        (B,) what is divided.
    processes
        How many share it.
    micro_batch
        The most rows in a piece; None for no bound.

    Returns
    -------
    list of Tensor
        As many pieces for each process; some are empty where there are fewer rows than that, but a process has none
        only where there are fewer rows than processes.
    """
    shares = rows.tensor_split(processes)
    pieces = max(1, -(-len(shares[0]) // (micro_batch or len(shares[0]))))
    return [piece for share in shares for piece in share.tensor_split(pieces)]


def accumulate_gradient(
    model: Method,
    pieces: Sequence[Callable[[], Batch]],
    sizes: Sequence[int],
    targets: tuple[Tensor, Tensor, Tensor],
    seeds: Sequence[int],
    processes: Processes,
    backward: Callable[[Tensor], None],
    poll: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """Add to the weights the gradient of the objective of a batch over all pieces and processes.

    Parameters
    ----------
    model
        The method, in training mode.
    pieces
        Those of this process, each put on the device when it is called.
    sizes
        The rows that each process has, together (B).
    targets
        Of the whole batch, pieces of all processes in order: (B, G) measured expression, (B,) slide, (B,) genes found.
    seeds
        One for the objective, then one for each piece of this process.
    processes
        All of them; their gradients are summed.
    backward
        Computes the gradient of a scalar; with a gradient scaler, of the scaled one.
    poll
        Called before each piece.

    Returns
    -------
    dict
        Terms of the loss, detached.

    Raises
    ------
    OutOfMemory
        If there is not enough on some device; gradients are then of no use.
    """
    at_once = len(pieces) == 1
    parts: list[Embeddings] = []
    with _together(processes), torch.set_grad_enabled(at_once):
        for piece, seed in zip(pieces, seeds[1:], strict=True):
            poll()
            torch.manual_seed(seed)
            parts.append(model(piece()))
    names = list(parts[0].points)
    leaves = [torch.cat(rows).detach().requires_grad_() for rows in zip(*map(_tensors, parts), strict=True)]
    whole = [processes.gather(leaf, sizes) for leaf in leaves]
    expression, slide, detected = targets
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _together(processes):
        torch.manual_seed(seeds[0])
        embeddings = Embeddings(whole[0], dict(zip(names, whole[1:], strict=True)), slide, detected)
        terms = model.objective(embeddings, expression)
        backward(terms["total"])
        for parameter in learnt:
            if parameter.grad is not None:  # of the objective's own scalars; the same in every process, to be summed
                parameter.grad /= processes.count
        start = 0
        for piece, seed in zip(pieces, seeds[1:], strict=True):
            poll()
            if at_once:
                again = parts[0]
            else:
                torch.manual_seed(seed)
                again = model(piece())
            rows = slice(start, start := start + len(again.prediction))
            _carry_on(again, [leaf.grad[rows] if leaf.grad is not None else None for leaf in leaves])
            del again
    processes.sum_gradients(learnt)
    return {name: term.detach() for name, term in terms.items()}


@contextmanager
def _together(processes: Processes) -> Iterator[None]:
    """Raise ``OutOfMemory`` in all processes if it ran out in one, so that none waits for another."""
    ran_out = None
    try:
        yield
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        ran_out = str(error)
    if processes.any(ran_out is not None):
        raise OutOfMemory(ran_out or "in another process")


def _carry_on(embeddings: Embeddings, gradients: Sequence[Tensor | None]) -> None:
    """Carry the gradient with respect to embeddings on to the weights."""
    made = [
        (tensor, gradient)
        for tensor, gradient in zip(_tensors(embeddings), gradients, strict=True)
        if tensor.requires_grad and gradient is not None
    ]
    if made:
        torch.autograd.backward([tensor for tensor, _ in made], [gradient for _, gradient in made])


def _tensors(embeddings: Embeddings) -> list[Tensor]:
    return [embeddings.prediction, *embeddings.points.values()]
