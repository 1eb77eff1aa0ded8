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
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device: found {name!r}, expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device: {name} is not there (found {torch.cuda.device_count()} GPUs); use --device cpu")
    return device


def uses_bfloat16(device: torch.device, precision: str) -> bool:
    """Whether `precision` (auto, bfloat16, float32) means bfloat16 here: with ``auto`` where the hardware computes in it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":  # PyTorch's own test also counts emulation
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16 where `uses_bfloat16` says so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(device, precision))


def generator(device: torch.device, *key: int) -> torch.Generator:
    """Random numbers that depend on `key`, e.g. (seed, step), alone: a resumed run draws what it would have drawn."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(seed)
