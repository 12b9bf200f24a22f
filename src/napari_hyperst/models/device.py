"""Where to compute, and in which precision."""

from __future__ import annotations

import platform
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


def describe_devices() -> dict[str, tuple[str, str]]:
    """Return of each kind of device what was found, or an empty text and the reason why there is none.

    Returns
    -------
    dict
        For ``"cuda"``, ``"mps"`` and ``"cpu"``: (what was found, why not), one of which is empty.
    """
    return {
        "cuda": _cuda(),
        "mps": _mps(),
        "cpu": (f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}", ""),
    }


def _cuda() -> tuple[str, str]:
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        more = f" and {torch.cuda.device_count() - 1} more" if torch.cuda.device_count() > 1 else ""
        return f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB{more}", ""
    if torch.version.hip is None and torch.version.cuda is None:
        return "", "PyTorch was installed without CUDA"
    return "", "no NVIDIA GPU with a driver that fits was found"


def _mps() -> tuple[str, str]:
    if torch.backends.mps.is_available():
        return "Apple GPU", ""
    if platform.system() != "Darwin":
        return "", "only Apple hardware has it"
    return "", "needs macOS 12.3 or later on Apple silicon, and a PyTorch built with it"
