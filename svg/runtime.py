"""Device, precision and seeds."""

import numpy as np
import torch

from data_tools.layout import InputError


def choose_device(name: str) -> torch.device:
    """``auto`` takes the GPU if there is one. Raises `InputError` for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"--device: found {name!r}, expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device: {name} is not there (found {torch.cuda.device_count()} GPUs); use --device cpu")
    return device


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bfloat16 autocast; with ``auto`` where the hardware computes in bfloat16, which is where it pays."""
    enabled = precision == "bfloat16"
    if precision == "auto":
        enabled = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def generator(device: torch.device, *key: int) -> torch.Generator:
    """Random numbers that depend on `key`, e.g. (seed, step), alone: a resumed run draws what it would have drawn."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)
