"""How scores are taken: declared once, printed with every result.

Scores of one model differ by decibels between protocols, so the frame metrics of each published one are written down here as its
released code has them, beside this project's own. What is the same for all: only predicted frames count, in the colours of the
data; a sequence's first frames are given; a score is the mean over frames of a sequence, then over sequences. FVD and KVD, which
the released codes take in as many ways as there are codes, are taken in one way under every protocol.
"""

import dataclasses
from dataclasses import dataclass

from data_tools.errors import InputError

HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "mse": False, "lpips": False, "fvd": False, "kvd": False}
OWN = "own"
FRAME_METRICS, SET_METRICS = ("psnr", "ssim", "mse", "lpips"), ("fvd", "kvd")
"""Taken of every frame, and of sets of videos."""


@dataclass(frozen=True)
class Protocol:
    """One way to score; `describe` says it in words.

    n_past, n_future    given and predicted frames; 0: those of the run
    n_sample            futures sampled for each sequence
    best                how the best of them is chosen, by its mean over frames: ``each`` metric its own, one metric by name for
                        all, or ``none``
    psnr                squared error over all channels of a frame ``together``, or the mean of the channels' PSNRs (``apart``)
    psnr_epsilon        added to the squared error; 0 leaves identical frames infinite
    mse                 of a frame: ``mean`` or ``sum`` over its values
    ssim_window         ``uniform`` 7x7 with sample covariance, or ``gaussian`` 11x11 of sigma 1.5
    ssim_range          what SSIM takes the range of the values to be; they are in [0,1]
    lpips               network of LPIPS 0.1: ``alex`` or ``vgg``
    """

    name: str
    source: str
    n_past: int = 0
    n_future: int = 0
    n_sample: int = 100
    best: str = "each"
    psnr: str = "together"
    psnr_epsilon: float = 0.0
    mse: str = "mean"
    ssim_window: str = "uniform"
    ssim_range: float = 1.0
    lpips: str = "alex"

    def for_run(self, n_past: int, n_future: int) -> "Protocol":
        """With the run's numbers of frames where the protocol leaves them open."""
        return dataclasses.replace(self, n_past=self.n_past or n_past, n_future=self.n_future or n_future)

    def changed(self, **changes: int | str | None) -> "Protocol":
        """With those `changes` that are not None; a departure from what a published one stands for shows in its name."""
        changes = {
            name: value
            for name, value in changes.items()
            if value is not None and value != getattr(self, name)
        }
        # 0: left open
        departures = [
            f"{name} {value}"
            for name, value in changes.items()
            if self.name != OWN and getattr(self, name) != 0
        ]
        name = f"{self.name}, changed: {', '.join(departures)}" if departures else self.name
        return dataclasses.replace(self, **changes, name=name)

    def describe(self, metrics: tuple[str, ...] = ("psnr", "ssim", "mse")) -> dict[str, str]:
        """The protocol in words, a line for each of its parts and of `metrics`."""
        ssim = {
            "uniform": "7x7 uniform window, sample covariance",
            "gaussian": "11x11 Gaussian window of sigma 1.5",
        }[self.ssim_window]
        infinite = f"{self.psnr_epsilon:g} added to it" if self.psnr_epsilon else "infinite where it is 0"
        chosen = {
            "each": "the sampled future with the best mean over frames, for each sequence and each metric anew",
            "none": "not taken",
        }
        lines = {
            "protocol": f"{self.name} ({self.source})",
            "frames": f"{self.n_past} given, {self.n_future} predicted; the predicted ones count; first frames of each sequence",
            "samples": f"{self.n_sample} futures a sequence",
            "best": chosen.get(self.best, f"the sampled future with the best mean {self.best.upper()}, for all metrics")
            if self.n_sample > 1
            else "not taken",
            "averages": "over the frames of a sequence, then over sequences; colour as in the data, values in [0,1]",
            "psnr": {
                "together": "dB of each frame from its squared error over all channels",
                "apart": "dB of each channel of each frame, then the mean over channels",
            }[self.psnr] + f", {infinite}",
            "ssim": f"{ssim}, data range {self.ssim_range:g}, mean over channels",
            "mse": f"{self.mse} over the values of a frame",
            "lpips": f"version 0.1, {self.lpips}",
            "fvd": "Frechet distance of I3D logits (Kinetics 400); whole clips with their given frames, the first future of each",
            "kvd": "unbiased MMD with the kernel (x.y/d + 1)^3 of the same features",
        }  # fmt: skip
        return {name: line for name, line in lines.items() if name not in HIGHER_IS_BETTER or name in metrics}


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(OWN, "this project's: scikit-image's defaults for colour images", psnr_epsilon=1e-10),
        Protocol(
            "svg", "utils.eval_seq in generate_svg_lp.py of edenton/svg, which shows the best by SSIM; images in [0,1] are taken "
            "for such in [-1,1]",
            2, 28, best="ssim", psnr="apart", ssim_range=2.0,
        ),
        Protocol(
            "lab", "finn_eval_seq, as the course's code calls it: one future",
            2, 10, n_sample=1, best="none", psnr="apart", ssim_window="gaussian",
        ),
        Protocol("srvp", "test.py of edouardelasalles/srvp, BAIR", 2, 28, psnr="apart", ssim_window="gaussian"),
        Protocol("savp", "scripts/evaluate.py of alexlee-gk/video_prediction, BAIR", 2, 28, ssim_window="gaussian"),
        Protocol(
            "fitvid", "metrics.py of google-research/fitvid, RoboNet: one future; its LPIPS was not released",
            2, 10, n_sample=1, best="none", ssim_window="gaussian",
        ),
        Protocol(
            "ivideogpt", "video_metric.py of thuml/iVideoGPT, BAIR; there the given frame, re-encoded, counts as well",
            1, 15, psnr_epsilon=1e-8, ssim_window="gaussian", lpips="vgg",
        ),
        Protocol(
            "openstl", "metrics.py of chengtan9907/OpenSTL; images in [0,1] are taken for such in [-1,1]",
            n_sample=1, best="none", mse="sum", ssim_range=2.0,
        ),
    )
}  # fmt: skip


def get_protocol(name: str) -> Protocol:
    """A protocol by its name. Raises `InputError` listing the names there are."""
    if name not in PROTOCOLS:
        raise InputError(f"found {name!r}, expected one of {', '.join(PROTOCOLS)}", "protocol")
    return PROTOCOLS[name]
