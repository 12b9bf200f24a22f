"""A fine-tuning epoch without the frozen-prefix cache over the same epoch with it.

LoRA on the last blocks of the bundled encoder, on spots of one slide; two models of the same start take the same steps
(batches, symmetries, dropout), in turn, one reading states from files and one running all blocks on tiles from the
slide. ``ratio`` is the time of the steps without the cache over that with it. Beside it: how far the losses lie apart,
relative to the loss; how far the final weights do, all together relative to their norm, and at most, relative to the
largest of their tensor (AdamW takes steps of one size in the first of which the sign of a gradient near 0 decides, so
single weights do drift); and after how many epochs the time to fill the cache has come back. The cache is filled in a
folder of its own, which is removed.

Usage: python benchmarks/prefix_cache.py [SLIDE] [--spots 64] [--batch-size 32] [--lora-blocks 2] [--symmetries 8]
       [--epochs 1] [--device auto] [--precision float32] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings

import torch
from torch import Tensor, nn

from napari_hyperst.models.build import build_method
from napari_hyperst.models.device import choose_device, choose_dtype
from napari_hyperst.models.method import Method
from napari_hyperst.nouns.methods import HyperSTConfig
from napari_hyperst.nouns.tiles import TileSpec
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.decoded import CACHE_VARIABLE
from napari_hyperst.slides.expression import select_hmhvg
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.training.dataset import SlideTiles, TrainingSet, count_detected, measure, trainable_spots
from napari_hyperst.training.prefix_cache import map_states

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("slide", nargs="?", default=sample_folder())
parser.add_argument("--spots", type=int, default=64)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--lora-blocks", type=int, default=2)
parser.add_argument("--symmetries", type=int, default=8)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--device", default="auto")
parser.add_argument("--precision", default="float32")
parser.add_argument("--json", action="store_true")
words = parser.parse_args()
warnings.simplefilter("ignore")

slide, spec = open_slide(words.slide), TileSpec()
panel = select_hmhvg([slide], 200)
device = choose_device(words.device)
kept = [trainable_spots(slide, spec)[: words.spots]]
measured = (*measure([slide], kept, panel), torch.zeros(len(kept[0]), dtype=torch.long), count_detected([slide], kept))


def wait() -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def start() -> Method:
    """Return the model as both start, in training: of the encoder, only LoRA's dropout is at work."""
    torch.manual_seed(0)
    model = build_method(HyperSTConfig(lora_blocks=words.lora_blocks), len(panel)).to(device)
    model.encoder.dtype = choose_dtype(words.precision, device)
    model.train()
    model.encoder.vit.eval()
    for name, module in model.encoder.vit.named_modules():
        if name.endswith("lora_dropout"):
            module.train()
    return model


class Run:
    """A model that learns, and what came of its steps."""

    def __init__(self, data: TrainingSet) -> None:
        self.data, self.model = data, start()
        self.learnt = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self.learnt, lr=1e-3, weight_decay=0.05)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, rows: Tensor, symmetry: Tensor) -> None:
        """Take a step, with the dropout of its number."""
        torch.manual_seed(1000 + len(self.losses))
        wait()
        began = time.perf_counter()
        batch = self.data.batch(rows, symmetry, device)
        assert batch.spot_genes is not None
        loss = self.model.objective(self.model(batch), batch.spot_genes)["total"]
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learnt, 1.0)
        self.optimiser.step()
        self.model.clamp_()
        self.losses.append(loss.item())
        wait()
        self.seconds.append(time.perf_counter() - began)


def distance(one: float | Tensor, other: float | Tensor) -> float:
    """Return the largest difference, over the largest size of the first."""
    one, other = torch.as_tensor(one), torch.as_tensor(other)
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))


with tempfile.TemporaryDirectory() as folder:
    os.environ[CACHE_VARIABLE] = folder
    encoder = start().encoder
    began = time.perf_counter()
    states = map_states([slide], kept, encoder, spec, symmetries=words.symmetries, cache_gib=1e6)
    fill = time.perf_counter() - began
    tiles = SlideTiles([slide], kept, spec, words.symmetries)
    on_cuda = device.type == "cuda"
    sources = [TrainingSet(looked_at, *measured, pinned=on_cuda) for looked_at in (tiles, states)]
    for data in sources:  # the first step of a process is slow
        Run(data).step(torch.arange(4), torch.zeros(4, dtype=torch.long))
    plain, cached = runs = [Run(data) for data in sources]
    generator = torch.Generator().manual_seed(0)
    steps_per_epoch = max(1, round(len(kept[0]) / words.batch_size))
    for _ in range(words.epochs):
        for rows in torch.randperm(len(kept[0]), generator=generator).tensor_split(steps_per_epoch):
            symmetry = torch.randint(words.symmetries, (len(rows),), generator=generator)
            for run in runs:
                run.step(rows, symmetry)

pairs = [(a.detach().flatten(), b.detach().flatten()) for a, b in zip(plain.learnt, cached.learnt, strict=True)]
without, with_cache = (sum(run.seconds) / words.epochs for run in runs)
by_step = [distance(a, b) for a, b in zip(plain.losses, cached.losses, strict=True)]
result = {
    "ratio": without / with_cache,
    "epoch_seconds_without": without,
    "epoch_seconds_with": with_cache,
    "fill_seconds": fill,
    "epochs_to_break_even": fill / (without - with_cache),
    "loss_difference": max(by_step),
    "loss_difference_by_step": by_step,
    "weight_difference": float(torch.dist(*(torch.cat(side) for side in zip(*pairs, strict=True))))
    / float(torch.cat([a for a, _ in pairs]).norm()),
    "largest_weight_difference": max(distance(a, b) for a, b in pairs),
    "spots": len(kept[0]),
    "steps": len(plain.losses),
    "symmetries": words.symmetries,
    "threads": torch.get_num_threads(),
    "device": device.type,
    "precision": str(cached.model.encoder.dtype).removeprefix("torch."),
    "target": 3,
}
print(json.dumps(result) if words.json else "\n".join(f"{key}: {value}" for key, value in result.items()))
