"""The matrix of distances between B and B points, over the plain form that makes a (B, B, d) tensor of differences.

Same points, device, types and exactness, forward and backward; the two in turn, several times. ``ratio`` is the plain
form's time over ours, ``memory_ratio`` its peak memory over ours: below 1 ours would be the worse. ``worst_ratio`` is
the ratio of times where all points are in one place, so that every pair cancels in the Gram matrix and is done again.
Peak memory is of what the operations allocate beyond their inputs, from the profiler on a CPU.

Usage: python benchmarks/lorentz.py [--batch 128] [--dim 1024] [--device auto] [--repeats 5] [--threads N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from napari_hyperst.models.device import choose_device
from napari_hyperst.models.lorentz import exp_map0, pairwise_distance

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--dim", type=int, default=1024)
parser.add_argument("--device", default="auto")
parser.add_argument("--repeats", type=int, default=5)
parser.add_argument("--threads", type=int, default=torch.get_num_threads())
parser.add_argument("--json", action="store_true")
words = parser.parse_args()
torch.set_num_threads(words.threads)
device = choose_device(words.device)

Form = Callable[[Tensor, Tensor], Tensor]


def plain(x: Tensor, y: Tensor) -> Tensor:
    """Return distances of all pairs at c = 1 from their differences, in float64 (METHODS 1, the asinh form)."""
    p, q = x.double(), y.double()
    squares = (p * p).sum(-1)[:, None], (q * q).sum(-1)[None]
    rise = (squares[0] - squares[1]) / sum((1 + square).sqrt() for square in squares)
    return 2 * torch.asinh(torch.sqrt(((p[:, None] - q) ** 2).sum(-1) - rise**2) / 2).float()


def ours(x: Tensor, y: Tensor) -> Tensor:
    """Return distances of all pairs from a Gram matrix."""
    return pairwise_distance(x, y, 1.0)


def draw(spread: float) -> tuple[Tensor, Tensor]:
    """Draw two batches of points at distance 1 from the origin, whose tangents differ from one by the spread."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(1, words.dim, generator=generator)
    away = torch.randn(2, words.batch, words.dim, generator=generator)
    tangents = torch.nn.functional.normalize(centre / (1 + spread) + spread * away, dim=-1)
    x, y = exp_map0(tangents.to(device), 1.0)
    return x.requires_grad_(), y.requires_grad_()


def step(form: Form, points: tuple[Tensor, Tensor]) -> Tensor:
    """Go forward and backward; return the gradient of the first points."""
    gradient: Tensor = torch.autograd.grad(form(*points).mean(), points)[0]
    return gradient


def seconds(form: Form, points: tuple[Tensor, Tensor]) -> float:
    """Time a step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step(form, points)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak_mib(form: Form, points: tuple[Tensor, Tensor]) -> float:
    """Return the most memory that a step holds at once, in MiB."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(form, points)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step(form, points)
    held = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most / 2**20


def compare(points: tuple[Tensor, Tensor]) -> list[tuple[float, float]]:
    """Return times of the plain form and of ours, in turn."""
    step(plain, points), step(ours, points)  # warm up
    return [(seconds(plain, points), seconds(ours, points)) for _ in range(words.repeats)]


apart, together = draw(1e3), draw(1e-6)
for points in (apart, together):
    torch.testing.assert_close(ours(*points), plain(*points), rtol=1e-6, atol=0)
times, worst = compare(apart), compare(together)
memory = peak_mib(plain, apart), peak_mib(ours, apart)
result = {
    "ratio": statistics.median(theirs / mine for theirs, mine in times),
    "memory_ratio": memory[0] / memory[1],
    "worst_ratio": statistics.median(theirs / mine for theirs, mine in worst),
    "plain_seconds": statistics.median(theirs for theirs, _ in times),
    "seconds": statistics.median(mine for _, mine in times),
    "plain_mib": memory[0],
    "mib": memory[1],
    "worst_mib": peak_mib(ours, together),
    "batch": words.batch,
    "dim": words.dim,
    "threads": words.threads,
    "device": device.type,
}
print(json.dumps(result) if words.json else "\n".join(f"{key}: {value}" for key, value in result.items()))
