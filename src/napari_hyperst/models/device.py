"""Where to compute, and in which precision."""

from __future__ import annotations

from typing import Literal

import torch

from napari_hyperst.errors import ConfigError

Precision = Literal["auto", "float32", "bfloat16", "float16"]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; ``"auto"`` takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    ConfigError
        If there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"there is no device {name!r} here", do="use auto, cpu, cuda or mps") from error
    return device


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type that the encoder computes in; ``"auto"`` is bfloat16 where the hardware has it.

    Features in bfloat16 differ from float32 ones by about 1 %.

    Raises
    ------
    ConfigError
        If float16 is asked for on a CPU.
    """
    if precision == "float16" and device.type == "cpu":
        raise ConfigError("there is no float16 on a CPU", do="set precision to bfloat16 or float32")
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        fast = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
