"""``svg-compare``: trains the settings that courses and papers compare and draws their curves side by side.

Each study varies one thing of the same base (experiments/recipes/compare.args; with --model pose_cvae compare_dance.args): KL
annealing, teacher forcing, the prior, the form. Flags of svg-train change the base. Started again, it goes on where it was;
finished runs are kept.
"""

import argparse
import sys
from pathlib import Path

from data_tools.command import run_command
from data_tools.layout import InputError
from svg.config import FlagParser, add_config_arguments

from . import evaluate, train
from .command import open_run

RECIPES = {False: "compare.args", True: "compare_dance.args"}
"""The bases, without poses and with them."""
WITH_POSES = ("kl", "tfr")
"""Studies of the predictor from poses, by default."""
BASE = "base"
SPATIAL = {"recurrence": "spatial", "g_dim": 32, "z_dim": 4, "rnn_size": 32}


def studies(niter: int) -> dict[str, dict[str, dict[str, str | int | float]]]:
    """What is compared with the base, as changed flags by run and study; schedules are fitted to `niter` epochs."""
    return {
        "kl": {
            "kl_monotonic": {"kl_anneal": "monotonic", "kl_anneal_cycle": 1},
            "kl_cyclical": {"kl_anneal": "cyclical", "kl_anneal_cycle": max(1, min(4, niter // 4))},
        },
        "tfr": {
            "tfr_falling": {"tfr": 1.0, "tfr_start_decay_epoch": niter // 4, "tfr_decay_step": round(2 / niter, 6)},
            "tfr_0": {"tfr": 0.0},
        },
        "prior": {"prior_fixed": {"prior": "fixed"}},
        "form": {"spatial": SPATIAL},
    }


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = FlagParser(prog="svg-compare", description=__doc__.replace("`", ""))
    parser.add_argument("out", type=Path, help="folder of the runs and figures")
    parser.add_argument(
        "--studies", nargs="+", choices=tuple(studies(1)), help="what is varied (default: all; with poses kl and tfr)"
    )
    parser.add_argument("--n_sample", type=int, default=10, help="futures sampled for each test sequence")
    add_config_arguments(parser)
    with_poses = parser.parse_args(argv).model == "pose_cvae"
    base = vars(parser.parse_args([".", f"@{Path(__file__).parent / 'recipes' / RECIPES[with_poses]}"]))
    parser.set_defaults(**{name: value for name, value in base.items() if name != "out"})
    args = parser.parse_args(argv)
    args.studies = args.studies or [name for name in studies(1) if name in WITH_POSES or not with_poses]
    return args


def training_arguments(args: argparse.Namespace, name: str, changes: dict) -> argparse.Namespace:
    """What svg-train gets for a run: the recipe with the flags given here, and the run's own."""
    return argparse.Namespace(**vars(args) | changes | {"log_dir": str(args.out / name), "resume": False, "take_over": False})


def train_run(wanted: argparse.Namespace) -> None:
    """Trains one run to its end, from where it is. Raises `InputError` if its folder holds another."""
    from svg.checkpoint import exists, load_config
    from svg.config import config_from_arguments, flag_values
    from svg.journal import last_step
    from svg.resumption import WITHOUT_EFFECT

    run = Path(wanted.log_dir)
    wanted.resume = exists(run, "last")
    if wanted.resume:
        before, now = flag_values(load_config(run)), flag_values(config_from_arguments(wanted))
        before["data_root"], now["data_root"] = (Path(flags["data_root"]).resolve() for flags in (before, now))
        for flag in (flag for flag in now if now[flag] != before[flag] and flag not in WITHOUT_EFFECT):
            raise InputError(f"--{flag}: found {now[flag]}, but {run} was begun with {before[flag]}; choose another folder")
        if last_step(run) >= wanted.niter * wanted.epoch_size:
            return
    train.train(wanted)


def compare(args: argparse.Namespace) -> None:
    from svg.checkpoint import FIGURES
    from svg.config import config_from_arguments, flag_values
    from svg.journal import read_metrics
    from svg.plotting import plot_frames, plot_training
    from svg.sequences import SequenceDataset

    if args.init_from:
        raise InputError("--init_from: what is compared begins afresh; leave it out")
    if not args.data_root:
        raise InputError("--data_root: not given; expected the root of a data set (svg-data simulate makes one)")
    config = config_from_arguments(args)
    chosen = {name: runs for name, runs in studies(args.niter).items() if name in args.studies}
    wanted = {BASE: {}} | {run: changes for runs in chosen.values() for run, changes in runs.items()}
    parsed = {name: training_arguments(args, name, changes) for name, changes in wanted.items()}
    evaluation = evaluate.parse([str(args.out / BASE), "--n_sample", str(args.n_sample), "--device", args.device])
    # whatever can be found wrong before hours of work
    evaluate.check(evaluation)
    for name, arguments in parsed.items():
        if name != BASE and flag_values(config_from_arguments(arguments)) | {"log_dir": config.train.log_dir} == flag_values(
            config
        ):
            raise InputError(f"--studies: {name} would be the base itself with these flags; leave its study or the flags out")
    SequenceDataset(args.data_root, evaluation.split, config.data.n_eval, config.data.conditions)

    for number, (name, arguments) in enumerate(parsed.items(), start=1):
        changes = " ".join(f"--{flag} {value}" for flag, value in wanted[name].items())
        print(f"{number}/{len(parsed)}  {name}: {changes or 'the base'}")
        try:
            train_run(arguments)
        except KeyboardInterrupt:
            print("svg-compare: the same command goes on from there")
            raise
    results = {
        name: evaluate.evaluate_run(evaluation, open_run(evaluation, args.out / name), args.out / name, reuse=True)
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
        print(f"{folder / f'{study}_training.png'} and {study}_frames.png")


def main(argv: list[str] | None = None) -> int:
    return run_command("svg-compare", lambda: compare(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
