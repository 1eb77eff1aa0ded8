"""Choices of an evaluation that the protocol leaves open."""

import math
from dataclasses import dataclass

from data_tools.errors import InputError

from .metrics import optional

SCORERS = ("torch", "skimage")
"""Implementations of PSNR and SSIM: this project's, and scikit-image's as a second opinion."""


@dataclass(frozen=True)
class EvaluationOptions:
    """Choices of an evaluation that the protocol leaves open. Raises `InputError` for impossible ones.

    batch_size    sequences at a time
    seed          of the sampled futures
    limit         score the first sequences alone; 0: all
    metrics       optional metrics that are taken beside the usual ones
    action_tests  predict with conditions of other sequences and without actions, too
    scorer        one of `SCORERS`
    memory        GB for sampled futures; 0: 1 GB on a CPU, half of the free memory of a GPU
    compile       compile SSIM with torch.compile
    objects       find the objects in predicted frames, too, and part the error; needs the simulator's truth
    """

    batch_size: int = 16
    seed: int = 1
    limit: int = 0
    metrics: tuple[str, ...] = ()
    action_tests: bool = False
    scorer: str = "torch"
    memory: float = 0.0
    compile: bool = False
    objects: bool = False

    def __post_init__(self):
        for name, least in {"batch_size": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"found {getattr(self, name)}, expected at least {least}", name)
        for name in ("limit", "memory"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"found {value}, expected a number of at least 0", name)
        for metric in self.metrics:
            if metric not in optional():
                raise InputError(f"found {metric!r}, expected some of {', '.join(optional())}", "metrics")
        if self.scorer not in SCORERS:
            raise InputError(f"found {self.scorer!r}, expected {' or '.join(SCORERS)}", "scorer")
