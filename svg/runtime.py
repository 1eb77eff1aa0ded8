"""Choose device and precision; memory, seeds, and a description of the machine."""

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch

from data_tools.errors import InputError


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` is the GPU if there is one.

    Of several processes that torchrun has started each gets its own GPU. Raises `InputError` for an unknown
    or missing device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise InputError(f"found {name!r}, expected auto, cpu, cuda or cuda:N", "device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{name} is not there (found {torch.cuda.device_count()} GPUs); use cpu", "device")
    return device


def prepare(device: torch.device) -> None:
    """Set the process up for long work on `device` at constant sizes."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed_memory()


@cache
def keep_freed_memory() -> None:
    """Tell glibc to use freed memory again instead of returning it to the system.

    The system clears every page that it hands out, and a training step allocates and frees some hundred
    megabytes: a tenth of its time. Does nothing elsewhere than on Linux with glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(arena_max, 1)  # what one thread has freed serves another
    mallopt(trim_threshold, 2**31 - 1)


def uses_bfloat16(device: torch.device, precision: str) -> bool:
    """Return whether `precision` (auto, bfloat16, float32) means bfloat16 on `device`.

    With ``auto`` it does where the hardware computes in it.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":  # PyTorch's own test also counts emulation
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported()


def machine(device: torch.device) -> dict[str, str]:
    """Return what timings on `device` depend on: processor, cores, GPU, system and versions."""
    processor = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = cpu_info.read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "processor": processor,
        "cores": str(cores),
        "gpu": gpu,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def describe(device: torch.device, precision: str) -> str:
    """Describe device and precision in words: ``cpu (2 threads, bfloat16)`` or ``NVIDIA H200 (float32)``."""
    numbers = "bfloat16" if uses_bfloat16(device, precision) else "float32"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({numbers})"
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' * (threads > 1)}, {numbers})"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context, or decorator, that casts to bfloat16 where `uses_bfloat16` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(device, precision))


def generator(device: torch.device, *key: int) -> torch.Generator:
    """Return a source of random numbers that depend on `key` alone, e.g. (seed, step).

    A resumed run then draws what the uninterrupted one would have drawn.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be had on `device`.

    Of the machine's memory it is this process's share among those that torchrun has started.
    """
    if device.type == "cuda":
        # PyTorch's own, to be used again
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return _available_bytes() // processes


def _available_bytes() -> int:
    """Return the bytes of the machine's memory that are free or can be freed."""
    try:
        with open("/proc/meminfo") as file:
            line = next(line for line in file if line.startswith("MemAvailable:"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@lru_cache(maxsize=64)
def constant(values: tuple, device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return the tensor of (nested) tuples of numbers on `device`, copied there once.

    A copy would wait for all work that a GPU has been given, and cannot be part of a CUDA graph. Nobody may
    write to the tensor, which is shared.
    """
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def fetch(values: torch.Tensor) -> Callable[[], list[float]]:
    """Start to copy `values` to the host; return a function that waits for them and returns them.

    It does not wait for work that is given to the device later.
    """
    if not values.is_cuda:
        return values.tolist
    on_host = values.to("cpu", non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return on_host.tolist()

    return read
