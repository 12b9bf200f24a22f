"""What a training run would take, worked out where it would run: its genes, its settings, time and memory."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import psutil
import torch

from napari_hyperst.errors import SlideError
from napari_hyperst.models.build import build_method
from napari_hyperst.models.checkpoint_files import find_checkpoint, read_card, read_genes
from napari_hyperst.models.device import choose_device, choose_dtype, describe_devices
from napari_hyperst.models.method import Batch, Method
from napari_hyperst.nouns.plan import PlannedSlide, TrainingPlan
from napari_hyperst.nouns.slide_ref import SlideRef
from napari_hyperst.nouns.training import TrainConfig
from napari_hyperst.slides import Slide, open_slide
from napari_hyperst.slides.decoded import cache_folder
from napari_hyperst.slides.expression import measured_genes, require_raw
from napari_hyperst.slides.tiles import read_tiles
from napari_hyperst.training.encoding import state_gib, state_shape
from napari_hyperst.training.preparation import Spots, check_apart, choose_panel, divide_spots
from napari_hyperst.training.suggest import Cost, Pace, suggest, suggest_lora

_GIB = 2**30
#: Spots that are looked at, and how often, to measure the pace.
_PROBE = 4
#: Columns of a table of counts in which public data keep the patient.
_PATIENT = ("patient", "patient_id", "donor", "donor_id", "individual", "subject", "subject_id")
#: Values a token that a transformer block keeps for its gradient, by Korthikanti et al. 2022 (arXiv 2205.05198) without
#: the attention matrix, which is not kept: 34 bytes of two each; and those of a block that keeps none.
_KEPT, _PASSING = 17, 10


def plan_training(
    config: TrainConfig,
    free: Collection[str] = (),
    genes_of: str | None = None,
    say: Callable[[str], None] = lambda what: None,
) -> TrainingPlan:
    """Work out what a run would take; nothing is written, and no spot is trained on.

    Time is measured on a few tiles of its own slides with its own encoder, device and precision; memory is arithmetic.

    Parameters
    ----------
    config
        The run, as it is asked for so far.
    free
        Names of settings to be worked out.
    genes_of
        A checkpoint whose genes are taken in the place of ``config.gene_list``.
    say
        Called with what is being done.

    Raises
    ------
    HyperSTError
        What would keep the run from starting.
    """
    say("opening the slides")
    slides, held_out = ([_open(config.ref(path)) for path in paths] for paths in (config.slides, config.validation))
    check_apart(slides, held_out)
    kept, held_out_kept = divide_spots(config, slides, held_out)
    say("choosing genes")
    genes, asked = _genes(config, slides, kept, genes_of)
    say("trying the encoder")
    device = choose_device(config.device)
    spots, on_cpu = sum(map(len, kept)), device.type == "cpu"
    settings, reasons = _of_encoder(config, free, spots, on_cpu)
    changes = {name.removeprefix("method."): value for name, value in settings.items()}
    config = config.model_copy(update={"method": config.method.model_copy(update=changes)})
    cost = Cost(
        spots=spots,
        held_out=sum(map(len, held_out_kept)),
        pace=_pace(config, device.type),
        memory_free=free_memory(device),
        disk_free=shutil.disk_usage(cache_folder()).free,
        on_cpu=on_cpu,
    )
    more, why = suggest(config, cost, free)
    config = config.model_copy(update=more)
    described = describe_devices()
    return TrainingPlan(
        slides=_facts(config, slides, held_out, kept, held_out_kept, asked),
        genes=genes,
        settings=settings | more,
        reasons=reasons | why,
        device=f"{device.type}: {described[device.type][0]}" if device.type in described else str(device),
        devices=described,
        prepare_s=cost.prepare_s(config),
        epoch_s=cost.epoch_s(config),
        memory_gib=cost.memory_bytes(config) / _GIB,
        memory_free_gib=cost.memory_free / _GIB,
        cache_gib=0.0 if config.cache == "off" else cost.states_bytes(config) / _GIB,
        basis=(
            f"time: {2 * _PROBE} of your tiles, read, encoded and trained on just now on {device.type}; "
            "memory: arithmetic from the encoder's size"
        ),
    )


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def patient_of(slide: Slide) -> str:
    """Return whose section it is, where the table of counts tells; empty where not, or where there are several."""
    if slide.counts is None:
        return ""
    by_name = {str(name).lower(): name for name in slide.counts.obs.columns}
    for column in _PATIENT:
        if column in by_name:
            values = set(map(str, slide.counts.obs[by_name[column]].tolist()))
            return values.pop() if len(values) == 1 else ""
    return ""


def _open(ref: SlideRef) -> Slide:
    return _opened(ref, ref.path.stat().st_mtime_ns if ref.path.exists() else 0)


@lru_cache(maxsize=32)
def _opened(ref: SlideRef, modified_ns: int) -> Slide:
    return open_slide(ref.path, **ref.options)


def _genes(
    config: TrainConfig, slides: Sequence[Slide], kept: Sequence[Spots], genes_of: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the genes that can be learnt, and those that were asked for by name."""
    asked = config.gene_list if genes_of is None else read_genes(genes_of)
    if not asked:
        return choose_panel(config, slides, kept).genes, ()
    there = np.logical_and.reduce([measured_genes(slide, asked) for slide in slides])
    for slide in slides:
        require_raw(slide)
    if not there.any():
        raise SlideError(
            f"has none of the {len(asked)} genes ({', '.join(asked[:3])}, …)",
            where=slides[0].path,
            do="name genes as the slides do, or let them be chosen",
        )
    return tuple(np.array(asked)[there].tolist()), asked


def _facts(
    config: TrainConfig,
    slides: Sequence[Slide],
    held_out: Sequence[Slide],
    kept: Sequence[Spots],
    held_out_kept: Sequence[Spots],
    asked: tuple[str, ...],
) -> tuple[PlannedSlide, ...]:
    blocks = [len(spots) for spots in held_out_kept] if config.holdout > 0 else [0] * len(slides)
    trained = [(slide, len(spots), block) for slide, spots, block in zip(slides, kept, blocks, strict=True)]
    validated = [(slide, 0, len(spots)) for slide, spots in zip(held_out, held_out_kept, strict=False)]
    return tuple(
        PlannedSlide(
            path=str(slide.path),
            name=slide.name,
            spots=spots,
            held_out=block,
            patient=patient_of(slide),
            missing=tuple(np.array(asked)[~measured_genes(slide, asked)].tolist()) if asked else (),
        )
        for slide, spots, block in [*trained, *validated]
    )


def _of_encoder(
    config: TrainConfig, free: Collection[str], spots: int, on_cpu: bool
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the encoder's settings: those of the checkpoint that it starts from, or what so many spots can teach."""
    if config.init_from is not None:
        start = read_card(find_checkpoint(str(config.init_from)))
        names = ("encoder", "lora_rank", "lora_alpha")
        settings = {f"method.{name}": getattr(start.method, name) for name in names}
        settings["method.lora_blocks"] = max(start.method.lora_blocks, config.method.lora_blocks)
        if "method.lora_blocks" in free:
            settings["method.lora_blocks"] = start.method.lora_blocks
        return settings, dict.fromkeys(settings, f"as in {start.name}, which it starts from")
    if "method.lora_blocks" not in free:
        return {}, {}
    blocks, why = suggest_lora(spots, on_cpu)
    return {"method.lora_blocks": blocks}, {"method.lora_blocks": why}


_PACES: dict[str, Pace] = {}


def _pace(config: TrainConfig, device: str) -> Pace:
    """Return what was measured, once for all plans that differ in nothing that it hangs on."""
    hangs_on = (config.method.model_dump_json(), config.tiles, config.precision, device, config.ref(config.slides[0]))
    key = "|".join(map(str, hangs_on))
    if key not in _PACES:
        _PACES[key] = _measure(config, torch.device(device))
    return _PACES[key]


def _measure(config: TrainConfig, device: torch.device) -> Pace:
    """Read, encode and learn from a few tiles, and see how long that takes."""
    slide = _open(config.ref(config.slides[0]))
    spots = divide_spots(config.model_copy(update={"holdout": 0.0, "validation": ()}), [slide], [])[0][0][:_PROBE]
    began = time.perf_counter()
    read = list(read_tiles(slide, config.tiles, spots, batch=_PROBE, threads=1))
    read_s = (time.perf_counter() - began) / (2 * len(spots))
    genes = config.genes if not config.gene_list else len(config.gene_list)
    model = build_method(config.method, genes)
    model.encoder.dtype = choose_dtype(config.precision, device)
    model.to(device).train()
    pixels = torch.from_numpy(np.concatenate([tiles.spot for tiles in read] + [tiles.niche for tiles in read])).to(
        device
    )
    model.encoder.prefix(pixels[:1])  # what is only slow the first time
    encode_s = _seconds(lambda: model.encoder.prefix(pixels), device) / len(pixels)
    states = model.encoder.prefix(pixels).half().float()
    batch = _batch(states, genes, device)
    _learn(model, batch)
    step_s = _seconds(lambda: _learn(model, batch), device) / len(spots)
    parameters = list(model.parameters())
    shape = state_shape(model.encoder)
    tokens = math.prod(shape[:-1])
    depth = len(model.encoder.vit.blocks) - model.encoder.first_trained
    width = int(model.encoder.vit.embed_dim)
    all_tokens = int(model.encoder.vit.patch_embed.num_patches + model.encoder.vit.num_prefix_tokens)
    return Pace(
        read_s,
        encode_s,
        step_s,
        weights=4 * sum(p.numel() for p in parameters),
        learnt=4 * sum(p.numel() for p in parameters if p.requires_grad),
        state=int(state_gib(model.encoder, 1) * _GIB),
        kept=2 * 4 * _KEPT * tokens * width * depth,
        passing=2 * 4 * _PASSING * all_tokens * width,
    )


def _batch(states: torch.Tensor, genes: int, device: torch.device) -> Batch:
    spot, niche = states.chunk(2)
    expression = torch.rand(len(spot), genes, device=device)
    whole = torch.zeros(len(spot), dtype=torch.long, device=device)
    return Batch(spot, niche, expression, expression.clone(), whole, torch.arange(len(spot), device=device))


def _learn(model: Method, batch: Batch) -> None:
    model.zero_grad()
    assert batch.spot_genes is not None
    terms = model.objective(model(batch), batch.spot_genes)
    terms["total"].backward()


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return max(time.perf_counter() - began, 1e-6)
