"""Prediction end to end, over the bare encoder's forward on tiles already in memory.

Same slide, number of forwards, batch, device and precision; the two in turn, several times. ``ratio`` is the bare
forward's time over that of the whole prediction: 1 would mean that reading tiles, heads and maps cost nothing.

Usage: python benchmarks/predict.py [SLIDE] [--checkpoint REF] [--device auto] [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings

import torch

from napari_hyperst.models.checkpoint import load_checkpoint
from napari_hyperst.models.device import choose_device, choose_dtype
from napari_hyperst.prediction import predict
from napari_hyperst.slides import open_slide
from napari_hyperst.slides.sample import sample_folder
from napari_hyperst.slides.tiles import read_tiles, spots_with_tiles

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("slide", nargs="?", default=sample_folder())
parser.add_argument("--checkpoint", default="her2st-dinov2s")
parser.add_argument("--device", default="auto")
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--json", action="store_true")
words = parser.parse_args()
warnings.simplefilter("ignore")

slide, checkpoint = open_slide(words.slide), load_checkpoint(words.checkpoint)
device = choose_device(words.device)
spec = checkpoint.card.tiles
batches = list(read_tiles(slide, spec, spots_with_tiles(slide, spec), words.batch_size))


def wait() -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def bare() -> float:
    """Time the encoder alone: both tiles of every spot."""
    encoder = checkpoint.model.encoder.to(device).eval()
    encoder.dtype = choose_dtype("auto", device)
    wait()
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            for tiles in (batch.spot, batch.niche):
                encoder(torch.from_numpy(tiles).to(device))
    wait()
    return time.perf_counter() - started


def whole() -> float:
    """Time a prediction, from pixels on disk to maps."""
    started = time.perf_counter()
    predict(slide, checkpoint, words.device, batch_size=words.batch_size)
    wait()
    return time.perf_counter() - started


bare(), whole()  # warm up
pairs = [(bare(), whole()) for _ in range(words.repeats)]
result = {
    "ratio": statistics.median(alone / all_of_it for alone, all_of_it in pairs),
    "encoder_seconds": statistics.median(alone for alone, _ in pairs),
    "prediction_seconds": statistics.median(all_of_it for _, all_of_it in pairs),
    "tiles": 2 * sum(len(batch.spots) for batch in batches),
    "device": device.type,
}
print(json.dumps(result) if words.json else "\n".join(f"{key}: {value}" for key, value in result.items()))
