"""Scores of a trained predictor on a split: PSNR and SSIM of each predicted frame of each sequence, by method.

Methods
    copy       the last observed frame, held
    rec        reconstruction: latents at the posterior's mean, which sees the true frames
    pred       prediction: latents at the prior's mean
    pred_best  best of N futures sampled from the prior, chosen for each sequence and each metric by its mean over frames
    pred_mean  mean over the scores of the N futures
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from data_tools.layout import InputError, write_text

from . import runtime
from .metrics import psnr, ssim
from .model import Observation, VideoPredictor, as_images
from .sequences import SequenceDataset, evaluation_batches

METRICS = ("psnr", "ssim")
FOLDER = "evaluation"


SSIM = {
    "uniform": "7x7 uniform window, data range 1, sample covariance, mean over channels (scikit-image's defaults)",
    "gaussian": "11x11 Gaussian window of sigma 1.5, data range 1, mean over channels (Wang et al. 2004)",
}


@dataclass(frozen=True)
class Protocol:
    """What a score means; printed and stored with every result."""

    data: str
    split: str
    n_past: int
    n_future: int
    n_sample: int
    sequences: int
    seed: int
    precision: str
    weights: str = ""
    clip: str = "first frames of each sequence"
    psnr: str = "dB for each frame over its channels, images in [0,1], at most 100; then the mean over frames and sequences"
    ssim: str = SSIM["uniform"]
    best: str = "for each sequence and metric the sampled future with the best mean over frames"


@dataclass(frozen=True)
class Evaluation:
    """`scores` has one row for each sequence, method and predicted frame: sequence, method, frame (from 1), psnr, ssim."""

    protocol: Protocol
    scores: pd.DataFrame

    def means(self) -> pd.DataFrame:
        """Mean PSNR and SSIM of each method."""
        return self.scores.groupby("method", sort=False)[[*METRICS]].mean()

    def per_frame(self) -> pd.DataFrame:
        """Mean PSNR and SSIM of each method at each predicted frame."""
        return self.scores.groupby(["method", "frame"], sort=False)[[*METRICS]].mean()

    def per_sequence(self, method: str) -> pd.DataFrame:
        """Mean PSNR and SSIM of each sequence by one method, in the order of the index."""
        return self.scores[self.scores["method"] == method].groupby("sequence", sort=False)[[*METRICS]].mean()

    def table(self) -> str:
        """The means as text, one method a line, and the gain over copying the last frame."""
        means, names = self.means(), method_names(self.protocol.n_sample)
        lines = [f"{'':34s}{'PSNR dB':>9s}{'SSIM':>9s}{'gain dB':>9s}"]
        for method, row in means.iterrows():
            gain = "" if method == "copy" else f"{row.psnr - means.psnr['copy']:+9.2f}"
            lines.append(f"{names[method]:34s}{row.psnr:9.2f}{row.ssim:9.4f}{gain}")
        return "\n".join(lines)

    def save(self, run: Path, name: str) -> Path:
        """Writes ``evaluation/<name>.json`` (protocol and means) and ``.csv`` (all scores); returns the JSON's path."""
        folder = Path(run) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        frames = self.per_frame()
        methods = {
            method: {name: {"mean": float(row[name]), "per_frame": frames.loc[method][name].tolist()} for name in METRICS}
            for method, row in self.means().iterrows()
        }
        write_text(folder / f"{name}.csv", self.scores.to_csv(index=False, float_format="%.6g"))
        path = folder / f"{name}.json"
        write_text(path, json.dumps({"protocol": asdict(self.protocol), "methods": methods}, indent=2) + "\n")
        return path


def method_names(n_sample: int | str = "N") -> dict[str, str]:
    """The methods as they are written in tables and legends."""
    return {
        "copy": "copy the last frame",
        "rec": "rec (posterior)",
        "pred": "pred (mean latent)",
        "pred_best": f"pred (best of {n_sample})",
        "pred_mean": f"pred (mean over {n_sample})",
    }


def read_per_frame(run: Path, name: str) -> pd.DataFrame | None:
    """(method, frame) -> mean psnr and ssim from an evaluation that `Evaluation.save` wrote; None if there is none."""
    path = Path(run) / FOLDER / f"{name}.csv"
    if not path.exists():
        return None
    try:
        scores = pd.read_csv(path)
        return scores.groupby(["method", "frame"], sort=False)[[*METRICS]].mean()
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: damaged ({error}); run svg-evaluate again") from None


def latent_noise(model: VideoPredictor, sequences: range, n_sample: int, n_future: int, seed: int) -> Tensor:
    """Noise [B,n_sample,n_future,*latent_shape] of each sequence from (seed, its number), whatever the batch it stands in."""
    cpu = torch.device("cpu")
    shape = (n_sample, n_future, *model.latent_shape)
    return torch.stack([torch.randn(shape, generator=runtime.generator(cpu, seed, number)) for number in sequences])


def imagine_in_chunks(
    model: VideoPredictor, start: Observation, conditions: Tensor, noise: Tensor, precision: str, memory: float = 0.0
) -> Iterator[Tensor]:
    """`VideoPredictor.imagine` for as many of the futures [S,B,F,C,H,W] at a time as fit into `memory` GB.

    0: 1 GB on a CPU, half of what is free on a GPU. The numbers of futures are powers of two, lest they differ a little each time.
    """
    room = 1e9 * memory or (runtime.free_memory(noise.device) / 2 if noise.is_cuda else 1e9)
    fitting = max(1, int(room / model.future_bytes(noise.shape[2]) / len(noise)))
    for some in noise.split(1 << (fitting.bit_length() - 1), dim=1):
        with runtime.autocast(noise.device, precision):
            futures = model.imagine(start, conditions, some)
        yield futures


@torch.no_grad()
def evaluate(
    model: VideoPredictor,
    dataset: SequenceDataset,
    n_past: int,
    n_sample: int,
    device: torch.device,
    precision: str = "auto",
    batch_size: int = 16,
    memory: float = 0.0,
    ssim_window: str = "uniform",
    compile: bool = False,
    seed: int = 1,
    limit: int = 0,
    weights: str = "",
) -> Evaluation:
    """Scores all sequences of `dataset` (or the first `limit`); its clips hold the observed and the predicted frames.

    `weights` says in the protocol where the model comes from. `model` is best one of `svg.inference.freeze`.

    `compile` is for SSIM. The past is observed once for all samples; `memory` is that of `imagine_in_chunks`. With `n_sample` 0
    nothing is sampled.
    """
    n_future = dataset.clip_length - n_past
    metrics = {"psnr": psnr, "ssim": partial(ssim, window=ssim_window, compile=compile)}
    parts = []
    total = min(limit, len(dataset)) if limit else len(dataset)
    with tqdm(total=total, desc="evaluate", unit="sequence", disable=None, leave=False) as bar:
        for numbers, batch in evaluation_batches(dataset, batch_size, limit):
            frames, conditions = as_images(batch["frames"].to(device)), batch["conditions"].to(device)
            past, target = frames[:, :n_past], frames[:, n_past:]
            noise = latent_noise(model, numbers, n_sample, n_future, seed).to(device)
            videos = {"copy": past[:, -1:].expand_as(target)}
            sampled = {name: [] for name in metrics}
            with runtime.autocast(device, precision):  # the model alone: scores are taken in float32
                videos["rec"] = model.reconstruct(frames, conditions, n_past)[:, n_past - 1 :]
                start = model.observe(past, conditions)
                future = conditions[:, n_past - 1 :]
                zeros = torch.zeros(len(frames), 1, n_future, *model.latent_shape, device=device)
                videos["pred"] = model.imagine(start, future, zeros)[0]
            for futures in imagine_in_chunks(model, start, future, noise, precision, memory) if n_sample else ():
                for name, metric in metrics.items():
                    sampled[name].append(metric(futures, target))
            scores = {method: {name: metric(video, target) for name, metric in metrics.items()} for method, video in videos.items()}
            if n_sample:
                scores["pred_best"], scores["pred_mean"] = _best_and_mean({k: torch.cat(v) for k, v in sampled.items()})
            sequence_names = dataset.index["sequence"].iloc[numbers.start : numbers.stop]
            parts += [_rows(sequence_names, method, values) for method, values in scores.items()]
            bar.update(len(numbers))
    computed = f"{'bfloat16' if runtime.uses_bfloat16(device, precision) else 'float32'} on {device.type}"
    protocol = Protocol(
        str(dataset.root), dataset.split, n_past, n_future, n_sample, total, seed, computed, weights, ssim=SSIM[ssim_window]
    )
    return Evaluation(protocol, pd.concat(parts, ignore_index=True))


def _best_and_mean(samples: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores [S,B,F] of S futures -> those of the best future of each sequence [B,F], chosen for each metric; and their mean."""
    best, mean = {}, {}
    for name, values in samples.items():
        chosen = values.mean(2).argmax(0)  # [B]
        best[name] = values[chosen, torch.arange(values.shape[1], device=values.device)]
        mean[name] = values.mean(0)
    return best, mean


def _rows(sequences: pd.Series, method: str, values: dict[str, Tensor]) -> pd.DataFrame:
    n_future = values["psnr"].shape[1]
    return pd.DataFrame(
        {
            "sequence": np.repeat(sequences.to_numpy(), n_future),
            "method": method,
            "frame": np.tile(np.arange(1, n_future + 1), len(sequences)),
            **{name: value.float().cpu().numpy().ravel() for name, value in values.items()},
        }
    )
