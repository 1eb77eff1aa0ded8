"""``python -m experiments.judge``: train the judge of ``svg-evaluate --objects``, measure how well it sees.

DATA is a data set of ``svg-data simulate --truth``. With --out a judge is trained on its training split first
and written; then the judge is measured on the test split: on true frames, and on frames whose objects were
moved, blurred, faded and taken away by known amounts.
"""

import argparse
import sys
from pathlib import Path

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_file_writable, whole_file


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="python -m experiments.judge", description=__doc__.replace("`", ""))
    parser.add_argument("data", type=Path, help="data set of svg-data simulate --truth")
    parser.add_argument("--out", type=Path, help="train a judge and write it to this file (safetensors)")
    parser.add_argument("--weights", type=Path, help="measure this judge (default: the released one)")
    parser.add_argument("--steps", type=int, default=1100, help="of training to find objects (default 1100)")
    parser.add_argument(
        "--hand_steps", type=int, default=1500, help="of training to read the hand's motion (default 1500)"
    )
    parser.add_argument("--batch", type=int, default=6, help="scenes a step (default 6)")
    parser.add_argument("--lr", type=float, default=0.002, help="highest learning rate (default 0.002)")
    parser.add_argument("--seed", type=int, default=1, help="of weights, scenes and changes (default 1)")
    args = parser.parse_args(argv)
    for name, least in {"steps": 1, "hand_steps": 1, "batch": 1, "seed": 0}.items():
        if getattr(args, name) < least:
            raise InputError(f"--{name}: found {getattr(args, name)}, expected {least} or more")
    if args.out and args.weights:
        raise InputError("--weights: measures a judge that is there, --out trains one; leave one out")
    return args


def judge(args: argparse.Namespace) -> None:
    """Train a judge if one is asked for, and measure."""
    if args.out:
        check_file_writable(args.out)
        train(args)
    measure(args)


def train(args: argparse.Namespace) -> None:
    """Train a judge on the training split and write it."""
    import safetensors.torch
    import torch
    from tqdm import tqdm

    from svg.sequences import SequenceDataset
    from svg.training.judge import read_scenes, train_judge

    dataset = SequenceDataset(args.data, "train", 2, "none")
    with tqdm(total=len(dataset), desc="read", unit="scene", disable=None, leave=False) as bar:
        scenes = read_scenes(dataset, bar.update)
    losses = []
    total = args.steps + args.hand_steps
    with tqdm(total=total, desc="train", unit="step", disable=None, leave=False) as bar:

        def report(step: int, loss: float) -> None:
            bar.update()
            losses.append(loss)
            if step % 100 == 0:
                tell(f"step {step}: loss {sum(losses[-100:]) / 100:.3f}")

        trained = train_judge(scenes, args.steps, args.hand_steps, args.batch, args.lr, args.seed, report)
    weights = {name: value.to(torch.float16).contiguous() for name, value in trained.state_dict().items()}
    with whole_file(args.out) as file:
        file.write(safetensors.torch.save(weights))
    tell(f"written: {args.out} ({args.out.stat().st_size / 1000:.0f} kB)")


def measure(args: argparse.Namespace) -> None:
    """Print how well a judge sees the test split."""
    from svg.evaluation.judge import WEIGHTS, load_judge
    from svg.sequences import SequenceDataset
    from svg.training.judge import read_scenes
    from svg.training.judge_check import changed_table, hand_in_words, score_true_frames, true_frames_table

    seeing = load_judge(weights=args.out or args.weights or WEIGHTS)
    short = SequenceDataset(args.data, "test", 2, "none")
    dataset = SequenceDataset(args.data, "test", int(short.lengths.min()), "none")
    scores = score_true_frames(seeing, dataset)
    tell(f"\n{true_frames_table(scores).text()}\n\n{hand_in_words(scores)}\n")
    tell(changed_table(seeing, read_scenes(dataset)).text())


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("python -m experiments.judge", lambda: judge(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
