"""Where the model runs and in which number format. Both are facts of the machine, found once at start."""

import logging
import os
import time
from pathlib import Path

import torch

from briefbox.errors import ModelError
from briefbox.settings import Settings

log = logging.getLogger(__name__)

# bfloat16 must be this much faster to be worth its shorter mantissa.
WORTHWHILE = 1.1


def choose_device(settings: Settings) -> torch.device:
    """CUDA where it is there, unless BRIEFBOX_DEVICE says otherwise.

    Raises ModelError when CUDA is asked for and absent.
    """
    if settings.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if settings.device == "cuda":
        raise ModelError(
            f"BRIEFBOX_DEVICE=cuda, but torch {torch.__version__} finds no CUDA device; install a driver and a CUDA build of torch, or set BRIEFBOX_DEVICE=auto."
        )
    return torch.device("cpu")


def set_threads(settings: Settings) -> None:
    """BRIEFBOX_THREADS, or a thread for each core that this process may use (containers often may use fewer)."""
    torch.set_num_threads(settings.threads or usable_cores())


def usable_cores() -> int:
    """Cores by this process's affinity and by its control group's quota, one at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return cores


def choose_dtype(device: torch.device, settings: Settings) -> torch.dtype:
    """The number format of BRIEFBOX_PRECISION, or the fastest one that computes right on this device."""
    if settings.precision != "auto":
        dtype: torch.dtype = getattr(torch, settings.precision)
        reason = f"BRIEFBOX_PRECISION={settings.precision}"
    else:
        dtype, reason = _dtype(device)
    log.info("the model computes in %s on %s: %s", dtype, describe(device), reason)
    return dtype


def _dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU has bfloat16"
        return torch.float32, "the GPU has no bfloat16, and float16 overflows in some models"
    found = {"avx512_bf16", "amx_bf16", "bf16"} & cpu_flags()
    if not found:
        # Emulated, it is many times slower, and trying that out would only delay the start.
        return torch.float32, "the CPU has no bfloat16 instructions"
    ratio = _matmul_seconds(torch.float32) / _matmul_seconds(torch.bfloat16)
    measured = f"the CPU has {min(found)}, and bfloat16 was measured {ratio:.1f} times as fast as float32"
    return (torch.bfloat16 if ratio > WORTHWHILE else torch.float32), measured


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Best of some products in the shape of a small model's layer behind a batch of 64 rows."""
    one, other = torch.ones(64, 1024, dtype=dtype), torch.ones(4096, 1024, dtype=dtype)
    taken: list[float] = []
    with torch.inference_mode():
        for _ in range(12):
            started = time.perf_counter()
            torch.nn.functional.linear(one, other)
            taken.append(time.perf_counter() - started)
    return min(taken)


def cpu_flags() -> set[str]:
    """The CPU's instruction sets as Linux lists them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    # x86 calls them flags, Arm calls them Features.
    return next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())


def describe(device: torch.device) -> str:
    """The device in words, as stored with every brief."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
