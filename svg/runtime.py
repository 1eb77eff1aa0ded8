"""Device, precision, memory and seeds."""

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from data_tools.errors import InputError


def choose_device(name: str) -> torch.device:
    """``auto`` takes the GPU if there is one, and of several processes that torchrun has started each its own.

    Raises `InputError` for a device that is not there.
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
    """Settings of the process for long work on `device` at constant sizes."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    else:
        keep_freed_memory()


@cache
def keep_freed_memory() -> None:
    """Tells glibc to use freed memory again instead of handing it back to the system.

    The system clears every page that it hands out, and a training step allocates and frees some hundred megabytes: a tenth of
    its time. Elsewhere than on Linux with glibc nothing happens.
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
    """Whether `precision` (auto, bfloat16, float32) means bfloat16 here: with ``auto`` where the hardware computes in it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":  # PyTorch's own test also counts emulation
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported()


def machine(device: torch.device) -> dict[str, str]:
    """What figures taken on `device` depend on: processor, cores, GPU, system and versions."""
    processor, cpu_info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if cpu_info.exists():
        names = [
            line.split(":")[1].strip()
            for line in cpu_info.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {
        "processor": processor, "cores": str(cores), "gpu": gpu, "system": platform.system(), "python": platform.python_version(),
        "torch": torch.__version__,
    }  # fmt: skip


def describe(device: torch.device, precision: str) -> str:
    """Return what computes, and in which numbers: ``cpu (2 threads, bfloat16)`` or ``NVIDIA H200 (float32)``."""
    numbers = "bfloat16" if uses_bfloat16(device, precision) else "float32"
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({numbers})"
    threads = torch.get_num_threads()
    return f"{device.type} ({threads} thread{'s' * (threads > 1)}, {numbers})"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16 where `uses_bfloat16` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(device, precision))


def generator(device: torch.device, *key: int) -> torch.Generator:
    """Random numbers that depend on `key`, e.g. (seed, step), alone: a resumed run draws what it would have drawn."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on `device`: of the machine's memory, this process's share among those that torchrun has started."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )  # PyTorch's own, to be used again
        return torch.cuda.mem_get_info(device)[0] + cached
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    try:
        with open("/proc/meminfo") as file:
            return (
                1024
                * int(next(line for line in file if line.startswith("MemAvailable:")).split()[1])
                // processes
            )
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // processes


def fetch(values: torch.Tensor) -> Callable[[], list[float]]:
    """Starts to bring `values` to the host; the returned function waits for them, and not for work that is given out later."""
    if not values.is_cuda:
        return values.tolist
    on_host, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
    arrived.record()

    def read() -> list[float]:
        arrived.synchronize()
        return on_host.tolist()

    return read
