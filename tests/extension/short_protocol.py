"""A protocol from outside the package: two futures of three frames, the best of them by PSNR."""

from svg.evaluation.protocols import PROTOCOLS, Protocol

PROTOCOLS["short"] = Protocol(
    "short", "an example of the tests", n_past=2, n_future=3, n_sample=2, best="psnr", psnr="apart"
)
