"""``svg-compare``: trains the settings that courses and papers compare and draws their curves side by side.

Each study varies one thing of the same base (experiments/recipes/compare.args; with --model pose_cvae
compare_dance.args): KL annealing, teacher forcing, the prior, the form; with --studies also the grid of the
spatial form, the length of clips and what the decoder keeps. Flags of svg-train change the base. Started
again, it goes on where it was; finished runs are kept.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.command import run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable
from svg.flags import FlagParser, add_config_arguments, config_from_arguments, flag_values
from svg.models.registry import MODELS

from . import RECIPES, evaluate, train
from .command import open_run

if TYPE_CHECKING:
    from svg.evaluation.results import Evaluation

STUDIES = ("kl", "tfr", "prior", "form", "grid", "clip", "blend", "objects", "truth", "drawn")
BASE = "base"
Changes = dict[str, str | int | float]
"""Flags of svg-train in which a run differs from the base."""
SPATIAL: Changes = {"recurrence": "spatial", "g_dim": 32, "z_dim": 4, "rnn_size": 32}


def studies(args: argparse.Namespace) -> dict[str, dict[str, Changes]]:
    """Return the runs that are compared with the base `args`, as changed flags by run and study.

    Schedules are fitted to the epochs. Clips of other lengths get as many steps as make the same number of
    frames.
    """
    niter = args.niter
    clip = args.n_past + args.n_future
    steps = {
        frames: max(1, round(args.epoch_size * clip / (args.n_past + frames)))
        for frames in (max(1, args.n_future // 2), round(1.6 * args.n_future))
    }
    before: Changes = {"blend": True, "warp": "before"}
    carried: Changes = {"blend": True, "warp": "carried"}
    places: Changes = carried | {"places_weight": 0.002}
    return {
        "kl": {
            "kl_none": {"kl_anneal": "none"},
            "kl_monotonic": {"kl_anneal": "monotonic", "kl_anneal_cycle": 1},
            "kl_cyclical": {"kl_anneal": "cyclical", "kl_anneal_cycle": max(1, min(4, niter // 4))},
        },
        "tfr": {
            "tfr_1": {"tfr": 1.0, "tfr_decay_step": 0.0},
            "tfr_falling": {
                "tfr": 1.0,
                "tfr_start_decay_epoch": niter // 4,
                "tfr_decay_step": round(2 / niter, 6),
            },
            "tfr_0": {"tfr": 0.0, "tfr_decay_step": 0.0},
        },
        "prior": {"prior_learned": {"prior": "learned"}, "prior_fixed": {"prior": "fixed"}},
        "form": {"spatial": SPATIAL},
        "grid": {"grid_8": {"grid": 8}, "grid_16": {"grid": 16}},
        "clip": {
            f"clip_{frames}": {"n_future": frames, "epoch_size": size} for frames, size in steps.items()
        },
        "blend": {
            "no_blend": {"blend": False, "warp": "none"},
            "blend": {"blend": True, "warp": "none"},
            "warp_observed": {"blend": True, "warp": "observed"},
            "warp_before": before,
        },
        "objects": {
            "warp_before": before,
            "carried": carried,
            "places": places,
            "pushed": places | {"pushed_weight": 3.0},
        },
        "truth": {
            "truth_scene": {"places_weight": 0.0, "pushed_weight": 1.0},
            "truth_places": {"places_weight": 0.02, "pushed_weight": 1.0},
            "truth_pushed": {"places_weight": 0.02, "pushed_weight": 3.0},
        },
        "drawn": {"drawn_2": {"drawn_frames": 2}, "drawn_4": {"drawn_frames": 4}},
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = FlagParser(prog="svg-compare", description=__doc__.replace("`", ""), recipes=RECIPES)
    parser.add_argument("out", type=Path, help="folder of the runs and figures")
    defaults = "; ".join(f"of {name} {' '.join(entry.studies)}" for name, entry in MODELS.items())
    parser.add_argument(
        "--studies",
        nargs="+",
        choices=STUDIES,
        help=f"what is varied (default: {defaults})",
    )
    parser.add_argument("--n_sample", type=int, default=10, help="futures sampled for each test sequence")
    parser.add_argument(
        "--objects",
        action="store_true",
        help="score objects, too, as svg-evaluate --objects; for data of svg-data simulate --truth",
    )
    add_config_arguments(parser)
    entry = MODELS[parser.parse_args(argv).model]
    base = vars(parser.parse_args([".", f"@{RECIPES / entry.base_recipe}"]))
    parser.set_defaults(**{name: value for name, value in base.items() if name != "out"})
    args = parser.parse_args(argv)
    args.studies = args.studies or entry.studies
    if args.name:
        raise InputError("--name: the runs lie in OUT under the names of what is compared; leave it out")
    return args


def training_arguments(args: argparse.Namespace, name: str, changes: Changes) -> argparse.Namespace:
    """Return the flags of svg-train for a run: the recipe with the flags given here, and the run's own."""
    own = {"log_dir": str(args.out / name), "resume": False, "take_over": False}
    return argparse.Namespace(**vars(args) | changes | own)


def changed_runs(args: argparse.Namespace, runs: dict[str, Changes]) -> dict[str, Changes]:
    """Return those of a study's runs that are not the base itself."""
    return {
        name: changes
        for name, changes in runs.items()
        if any(getattr(args, flag) != changes[flag] for flag in changes)
    }


def as_flags(changes: Changes) -> str:
    """Return changed flags as they are written on a command line."""
    words = (
        f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}"
        for flag, value in changes.items()
    )
    return " ".join(words)


def train_run(arguments: argparse.Namespace) -> None:
    """Train one run to its end, from where it is. Raises `InputError` if its folder holds another."""
    from svg.runs.checkpoint import exists, load_config
    from svg.runs.metrics_log import last_step
    from svg.training.resumption import WITHOUT_EFFECT

    run = Path(arguments.log_dir)
    arguments.resume = exists(run, "last")
    if arguments.resume:
        before = flag_values(load_config(run))
        now = flag_values(config_from_arguments(arguments))
        for flags in (before, now):
            flags["data_root"] = Path(flags["data_root"]).resolve()
        for flag in now:
            if now[flag] != before[flag] and flag not in WITHOUT_EFFECT:
                raise InputError(
                    f"--{flag}: found {now[flag]}, but {run} was begun with {before[flag]}; "
                    "choose another folder"
                )
        if last_step(run) >= arguments.niter * arguments.epoch_size:
            return
    train.train(arguments)


def train_all(runs: dict[str, argparse.Namespace], changes: dict[str, Changes]) -> None:
    """Train all runs, those that were begun before from where they are."""
    for number, (name, arguments) in enumerate(runs.items(), start=1):
        tell(f"{number}/{len(runs)}  {name}: {as_flags(changes[name]) or 'the base'}")
        try:
            train_run(arguments)
        except KeyboardInterrupt:
            tell("svg-compare: the same command goes on from there")
            raise


def draw(out: Path, study_runs: dict[str, list[str]], results: dict[str, "Evaluation"]) -> None:
    """Write the curves of each study's runs over epochs and over predicted frames."""
    from svg.figures.plotting import plot_frames, plot_training
    from svg.runs.checkpoint import FIGURES
    from svg.runs.metrics_log import read_metrics

    folder = out / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {name: read_metrics(out / name) for name in results}
    for study, names in study_runs.items():
        path = folder / f"{study}_training.png"
        plot_training({name: metrics[name] for name in names}, path)
        plot_frames({name: results[name] for name in names}, folder / f"{study}_frames.png")
        tell(f"{path} and {study}_frames.png")


def compare(args: argparse.Namespace) -> None:
    """Train, score and draw the runs of the chosen studies."""
    from svg.evaluation.objects import check_truth
    from svg.sequences import SequenceDataset
    from svg.training.data import prepare_root

    if args.init_from:
        raise InputError("--init_from: all compared runs begin with new weights; leave it out")
    config = config_from_arguments(args)
    train.tell_notes(args, config)
    prepare_root(args.data_root)
    chosen = {name: changed_runs(args, runs) for name, runs in studies(args).items() if name in args.studies}
    changes: dict[str, Changes] = {BASE: {}}
    for runs in chosen.values():
        changes |= runs
    arguments = {name: training_arguments(args, name, changed) for name, changed in changes.items()}
    flags = [str(args.out / BASE), "--n_sample", str(args.n_sample), "--device", args.device]
    evaluation = evaluate.parse([*flags, "--objects"] if args.objects else flags)
    # whatever can be found wrong before hours of work
    evaluate.options_of(evaluation)
    for namespace in arguments.values():
        config_from_arguments(namespace)
    for study, runs in chosen.items():
        if not runs:
            raise InputError(
                f"--studies: with these flags {study} has nothing but the base itself; "
                "leave it or the flags out"
            )
    scored = SequenceDataset(args.data_root, evaluation.split, config.data.n_eval, config.data.conditions)
    if args.objects:
        check_truth(scored)
    check_writable(args.out, "make it writable, or name another folder")

    train_all(arguments, changes)
    results = {}
    for name in arguments:
        run = args.out / name
        results[name] = evaluate.evaluate_run(evaluation, open_run(evaluation, run), run, reuse=True)
    evaluate.compare(results, args.out / f"comparison_{evaluate.result_name(evaluation)}")
    draw(args.out, {study: [BASE, *runs] for study, runs in chosen.items()}, results)


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command("svg-compare", lambda: compare(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
