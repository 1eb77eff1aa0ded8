"""``svg-compare``: trains the settings that courses and papers compare and draws their curves side by side.

Each study varies one thing of the same base (experiments/recipes/compare.args; with --model pose_cvae compare_dance.args): KL
annealing, teacher forcing, the prior, the form; with --studies also the grid of the spatial form, the length of clips and what the
decoder keeps. Flags of svg-train change the base. Started again, it goes on where it was; finished runs are kept.
"""

import argparse
import sys
from pathlib import Path

from data_tools.command import run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable
from svg.flags import FlagParser, add_config_arguments, config_from_arguments, flag_values
from svg.models.registry import MODELS

from . import RECIPES, evaluate, train
from .command import open_run

STUDIES = ("kl", "tfr", "prior", "form", "grid", "clip", "blend")
BASE = "base"
SPATIAL = {"recurrence": "spatial", "g_dim": 32, "z_dim": 4, "rnn_size": 32}


def studies(args: argparse.Namespace) -> dict[str, dict[str, dict[str, str | int | float]]]:
    """What is compared with the base `args`, as changed flags by run and study.

    Schedules are fitted to the epochs. Clips of other lengths get as many steps as make the same number of frames.
    """
    niter, clip = args.niter, args.n_past + args.n_future
    steps = {
        frames: max(1, round(args.epoch_size * clip / (args.n_past + frames)))
        for frames in (max(1, args.n_future // 2), round(1.6 * args.n_future))
    }
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
            "warp_before": {"blend": True, "warp": "before"},
        },
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
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
    add_config_arguments(parser)
    entry = MODELS[parser.parse_args(argv).model]
    base = vars(parser.parse_args([".", f"@{RECIPES / entry.base_recipe}"]))
    parser.set_defaults(**{name: value for name, value in base.items() if name != "out"})
    args = parser.parse_args(argv)
    args.studies = args.studies or entry.studies
    if args.name:
        raise InputError("--name: the runs lie in OUT under the names of what is compared; leave it out")
    return args


def training_arguments(args: argparse.Namespace, name: str, changes: dict) -> argparse.Namespace:
    """What svg-train gets for a run: the recipe with the flags given here, and the run's own."""
    return argparse.Namespace(
        **vars(args) | changes | {"log_dir": str(args.out / name), "resume": False, "take_over": False}
    )


def changed_runs(args: argparse.Namespace, runs: dict[str, dict]) -> dict[str, dict]:
    """Those of a study's runs that are not the base itself."""
    return {
        name: changes
        for name, changes in runs.items()
        if any(getattr(args, flag) != changes[flag] for flag in changes)
    }


def as_flags(changes: dict[str, str | int | float]) -> str:
    """Changed flags as they would be written."""
    words = (
        f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag} {value}"
        for flag, value in changes.items()
    )
    return " ".join(words)


def train_run(wanted: argparse.Namespace) -> None:
    """Trains one run to its end, from where it is. Raises `InputError` if its folder holds another."""
    from svg.runs.checkpoint import exists, load_config
    from svg.runs.metrics_log import last_step
    from svg.training.resumption import WITHOUT_EFFECT

    run = Path(wanted.log_dir)
    wanted.resume = exists(run, "last")
    if wanted.resume:
        before, now = flag_values(load_config(run)), flag_values(config_from_arguments(wanted))
        before["data_root"], now["data_root"] = (
            Path(flags["data_root"]).resolve() for flags in (before, now)
        )
        for flag in (flag for flag in now if now[flag] != before[flag] and flag not in WITHOUT_EFFECT):
            raise InputError(
                f"--{flag}: found {now[flag]}, but {run} was begun with {before[flag]}; choose another folder"
            )
        if last_step(run) >= wanted.niter * wanted.epoch_size:
            return
    train.train(wanted)


def compare(args: argparse.Namespace) -> None:
    from svg.figures.plotting import plot_frames, plot_training
    from svg.runs.checkpoint import FIGURES
    from svg.runs.metrics_log import read_metrics
    from svg.sequences import SequenceDataset

    if args.init_from:
        raise InputError("--init_from: what is compared begins afresh; leave it out")
    if not args.data_root:
        raise InputError(
            "--data_root: not given; expected the root of a data set (svg-data simulate makes one)"
        )
    config = config_from_arguments(args)
    train.tell_notes(args, config)
    train.index_if_new(Path(args.data_root))
    chosen = {name: changed_runs(args, runs) for name, runs in studies(args).items() if name in args.studies}
    wanted = {BASE: {}} | {run: changes for runs in chosen.values() for run, changes in runs.items()}
    parsed = {name: training_arguments(args, name, changes) for name, changes in wanted.items()}
    evaluation = evaluate.parse(
        [str(args.out / BASE), "--n_sample", str(args.n_sample), "--device", args.device]
    )
    # whatever can be found wrong before hours of work
    evaluate.check(evaluation)
    for arguments in parsed.values():
        config_from_arguments(arguments)
    for study, runs in chosen.items():
        if not runs:
            raise InputError(
                f"--studies: with these flags {study} has nothing but the base itself; leave it or the flags out"
            )
    SequenceDataset(args.data_root, evaluation.split, config.data.n_eval, config.data.conditions)
    check_writable(args.out, "make it writable, or name another folder")

    for number, (name, arguments) in enumerate(parsed.items(), start=1):
        tell(f"{number}/{len(parsed)}  {name}: {as_flags(wanted[name]) or 'the base'}")
        try:
            train_run(arguments)
        except KeyboardInterrupt:
            tell("svg-compare: the same command goes on from there")
            raise
    results = {
        name: evaluate.evaluate_run(
            evaluation, open_run(evaluation, args.out / name), args.out / name, reuse=True
        )
        for name in parsed
    }
    evaluate.compare(results, args.out, evaluate.result_name(evaluation))
    folder = args.out / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {name: read_metrics(args.out / name) for name in parsed}
    for study, runs in chosen.items():
        shown = [BASE, *runs]
        plot_training({name: metrics[name] for name in shown}, folder / f"{study}_training.png")
        plot_frames({name: results[name] for name in shown}, folder / f"{study}_frames.png")
        tell(f"{folder / f'{study}_training.png'} and {study}_frames.png")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-compare", lambda: compare(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
