"""Protocols: how scores are taken, declared once and printed with every result.

A new protocol is one entry of `PROTOCOLS`.

Scores of one model differ by decibels between protocols, so the frame metrics of each published one are
written down here as its released code has them, beside this project's own. All have in common: only predicted
frames count, in the colours of the data; a sequence's first frames are given; a score is the mean over frames
of a sequence, then over sequences. FVD and KVD differ from one released code to the next, so they are taken
in one way under every protocol.
"""

import dataclasses
from dataclasses import dataclass, field

from data_tools.errors import InputError

OWN = "own"
CHOICES = {
    "psnr": ("together", "apart"),
    "mse": ("mean", "sum"),
    "ssim_window": ("uniform", "gaussian"),
    "lpips": ("alex", "vgg"),
}
"""Values of the fields that are one of a few words."""


@dataclass(frozen=True)
class Protocol:
    """A way to take scores. Raises `InputError` for a field that is none of its `CHOICES`.

    name          of the protocol, as ``--protocol`` takes it
    source        the published code that it follows, or another reason for it
    n_past        given frames; 0: those of the run
    n_future      predicted frames; 0: those of the run
    n_sample      futures sampled for each sequence
    best          how the best of them is chosen, by its mean over frames: ``each`` metric chooses for itself,
                  the metric of this name chooses for all, or ``none``
    psnr          of the squared error over all channels of a frame (``together``), or the mean of the
                  channels' PSNRs (``apart``)
    psnr_epsilon  added to the squared error; with 0 the PSNR of identical frames is infinite
    mse           of a frame: ``mean`` or ``sum`` over its values
    ssim_window   ``uniform`` 7x7 with sample covariance, or ``gaussian`` 11x11 of sigma 1.5
    ssim_range    range of values that SSIM assumes; the values are in [0,1]
    lpips         network of LPIPS 0.1: ``alex`` or ``vgg``
    """

    name: str
    source: str
    n_past: int = field(default=0, metadata={"least": 0})
    n_future: int = field(default=0, metadata={"least": 0})
    n_sample: int = field(default=100, metadata={"least": 0})
    best: str = "each"
    psnr: str = "together"
    psnr_epsilon: float = 0.0
    mse: str = "mean"
    ssim_window: str = "uniform"
    ssim_range: float = 1.0
    lpips: str = "alex"

    def __post_init__(self):
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                expected = " or ".join(choices)
                raise InputError(f"protocol {self.name}: found {name} {value!r}, expected {expected}")

    def for_run(self, n_past: int, n_future: int) -> "Protocol":
        """Return the protocol with the run's numbers of frames where it leaves them open."""
        return dataclasses.replace(self, n_past=self.n_past or n_past, n_future=self.n_future or n_future)

    def changed(self, **changes: int | str | None) -> "Protocol":
        """Return the protocol with those `changes` that are not None.

        The name of a published one then says where it departs from the publication.
        """
        effective = {
            name: value
            for name, value in changes.items()
            if value is not None and value != getattr(self, name)
        }
        departures = [
            f"{name} {value}"
            for name, value in effective.items()
            if self.name != OWN and getattr(self, name) != 0  # 0: left open
        ]
        name = f"{self.name}, changed: {', '.join(departures)}" if departures else self.name
        return dataclasses.replace(self, **(effective | {"name": name}))


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(OWN, "this project's: scikit-image's defaults for colour images", psnr_epsilon=1e-10),
        Protocol(
            "svg", "utils.eval_seq in generate_svg_lp.py of edenton/svg, which shows the best by SSIM; "
            "images in [0,1] are taken for such in [-1,1]",
            2, 28, best="ssim", psnr="apart", ssim_range=2.0,
        ),
        Protocol(
            "lab", "finn_eval_seq, as the course's code calls it: one future",
            2, 10, n_sample=1, best="none", psnr="apart", ssim_window="gaussian",
        ),
        Protocol(
            "srvp", "test.py of edouardelasalles/srvp, BAIR",
            2, 28, psnr="apart", ssim_window="gaussian",
        ),
        Protocol(
            "savp", "scripts/evaluate.py of alexlee-gk/video_prediction, BAIR",
            2, 28, ssim_window="gaussian",
        ),
        Protocol(
            "fitvid", "metrics.py of google-research/fitvid, RoboNet: one future; its LPIPS was not released",
            2, 10, n_sample=1, best="none", ssim_window="gaussian",
        ),
        Protocol(
            "ivideogpt", "video_metric.py of thuml/iVideoGPT, BAIR; there the given frame, re-encoded, "
            "counts as well",
            1, 15, psnr_epsilon=1e-8, ssim_window="gaussian", lpips="vgg",
        ),
        Protocol(
            "openstl", "metrics.py of chengtan9907/OpenSTL; images in [0,1] are taken for such in [-1,1]",
            n_sample=1, best="none", mse="sum", ssim_range=2.0,
        ),
    )
}  # fmt: skip
"""All protocols by their names, in the order of ``svg-evaluate --help``."""


def get_protocol(name: str) -> Protocol:
    """Return a protocol by its name. Raises `InputError` with the known names."""
    if name not in PROTOCOLS:
        raise InputError(f"found {name!r}, expected one of {', '.join(PROTOCOLS)}", "protocol")
    return PROTOCOLS[name]
