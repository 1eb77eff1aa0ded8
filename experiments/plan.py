"""``svg-plan``: acts on what a model imagines, in the simulator, and tells how often that goes well.

In each of the fixed scenes of svg_push/Push-v0 the planner imagines many plans with the model, carries the
first actions of the best one out, looks, and plans again. Beside the models act baselines: nothing, random
pushing, one of the planner's first candidates drawn blindly, a policy that goes behind the object and pushes
it through, looking at true places, and the planner with the simulator itself as its model.

Writes OUT/<actor>.jsonl, a line for each trial, OUT/plan.json, plan.csv, plan.md and plan.tex; and, of some
trials, what was imagined beside what happened: OUT/plan.html, a page of them, and films. Started again, it
goes on where it was.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.command import OneLineParser, run_command, tell
from data_tools.errors import InputError
from data_tools.files import check_writable, write_text
from data_tools.pool import add_workers_argument, check_workers
from data_tools.simulators.push import check_mujoco
from svg.planning.trial import BASELINES, COSTS, PERCEPTIONS, PROTOCOLS, SAMPLES, Trial

from .command import label_runs, take_released

if TYPE_CHECKING:
    from svg.evaluation.results import Evaluation
    from svg.evaluation.tables import Table
    from svg.figures.episode import Episode
    from svg.planning.control import Replan
    from svg.planning.results import Series
    from svg.planning.trials import Outcome

TASKS = ("reach", "push", "push_many")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = OneLineParser(prog="svg-plan", description=__doc__.replace("`", ""))
    parser.add_argument("runs", type=Path, nargs="*", help="run folders that svg-train has written")
    parser.add_argument(
        "--pretrained", nargs="+", default=[], metavar="NAME", help="released models, such as push-objects"
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="one planner with all the models, which avoids what they disagree about",
    )
    parser.add_argument("--task", choices=TASKS, default=Trial.task, help="default push")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=Trial.protocol,
        help="own: 24 frames, success by where things are at the end (default); vp2: horizon, samples, cost "
        "and score of VP2",
    )
    parser.add_argument(
        "--perception",
        choices=PERCEPTIONS,
        default=Trial.perception,
        help="where the objects are: given in every frame (default); given in the first one, then seen; or "
        "pointed at in the first one, as with a click, then found by a model of objects",
    )
    parser.add_argument(
        "--cost",
        choices=COSTS,
        default=Trial.cost,
        help="of a plan: how far things are from their goals (default), error to a picture of the goal, both",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        choices=BASELINES,
        default=list(BASELINES),
        metavar="NAME",
        help=f"what acts beside the models (default: {' '.join(BASELINES)})",
    )
    parser.add_argument("--scenes", type=int, default=100, help="how many (default 100)")
    parser.add_argument(
        "--tuning", action="store_true", help="other scenes, on which to choose settings; no results"
    )
    planner = parser.add_argument_group("the planner of the protocol own")
    words = {
        "decisions": "of a plan",
        "hold": "frames for which one is kept",
        "replan": "frames between plans",
    }
    for name, meaning in words.items():
        default = getattr(Trial, name)
        planner.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} (default {default})")
    planner.add_argument(
        "--samples",
        type=int,
        nargs="+",
        help="plans that are imagined, first ones and refinements "
        f"(default {' '.join(map(str, SAMPLES['own']))}; of vp2 {SAMPLES['vp2'][0]})",
    )
    planner.add_argument(
        "--informed",
        type=float,
        default=Trial.informed,
        help="share of the first plans that go behind the object or straight on (default %(default)s)",
    )
    parser.add_argument(
        "--scores",
        metavar="NAME",
        help="also put the scores of RUN/evaluation/NAME.json, which svg-evaluate has written of each of "
        "several runs, beside how often it succeeds, with rank correlations and a plot",
    )
    parser.add_argument("--films", type=int, default=4, help="trials of each model to film (default 4)")
    parser.add_argument(
        "--out", type=Path, help="folder of the results (default plans/TASK_PROTOCOL_PERCEPTION)"
    )
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    for name, least in {"scenes": 1, "decisions": 1, "hold": 1, "replan": 1, "films": 0}.items():
        if getattr(args, name) < least:
            raise InputError(f"--{name}: found {getattr(args, name)}, expected at least {least}")
    if args.samples and min(args.samples) < 2:
        raise InputError(f"--samples: found {min(args.samples)}, expected at least 2")
    if args.replan > args.decisions * args.hold:
        most = args.decisions * args.hold
        raise InputError(f"--replan: found {args.replan}, expected at most decisions * hold, {most}")
    if not 0 <= args.informed <= 1:
        raise InputError(f"--informed: found {args.informed:g}, expected a share from 0 to 1")
    if args.out is None:
        tuning = "_tuning" if args.tuning else ""
        args.out = Path("plans") / f"{args.task}_{args.protocol}_{args.perception}{tuning}"
    return args


def actors(args: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    """Return what acts, by its label: baselines without models, released models and runs."""
    models = {}
    for name in args.pretrained:
        run = take_released(name, args.out)
        models[run.name] = str(run)
    for label, run in label_runs(args.runs).items():
        if label in models or label in BASELINES:
            raise InputError(f"{run}: found another actor named {label}; rename the folder")
        models[label] = str(run)
    acting: dict[str, tuple[str, ...]] = dict.fromkeys(args.baselines, ())
    if args.together:
        if len(models) < 2:
            raise InputError(f"--together: found {len(models)} models, expected at least 2")
        acting["+".join(models)] = tuple(models.values())
    else:
        acting |= {label: (model,) for label, model in models.items()}
    return acting


def trial_of(args: argparse.Namespace, actor: str, models: tuple[str, ...] = (), number: int = 0) -> Trial:
    """Return the trial that the flags describe."""
    return Trial(
        actor,
        number,
        models,
        args.task,
        args.protocol,
        args.perception,
        args.cost,
        "tuning" if args.tuning else "test",
        args.decisions,
        args.hold,
        args.replan,
        tuple(args.samples) if args.samples else None,
        args.informed,
    )


def carry_out(trial: Trial) -> "Outcome":
    """Carry out a trial on a single core; other processes have the other ones."""
    import torch

    from svg.planning.trials import run_trial

    torch.set_num_threads(1)
    return run_trial(trial)


def run_actor(
    args: argparse.Namespace, label: str, models: tuple[str, ...], weights: str, workers: int
) -> "Series":
    """Carry out the trials of an actor that have no outcome yet."""
    from tqdm import tqdm

    from data_tools.pool import in_order
    from svg.planning.results import Series, SeriesFile

    trial = trial_of(args, label)
    file = SeriesFile(args.out / f"{label}.jsonl", trial, weights)
    outcomes = file.read()
    missing = [number for number in range(args.scenes) if number not in outcomes]
    jobs = [trial_of(args, label, models, number) for number in missing]
    for outcome in tqdm(
        in_order(carry_out, jobs, workers),
        total=len(jobs),
        desc=label,
        unit="trial",
        disable=None,
        leave=False,
    ):
        file.add(outcome)
        outcomes[outcome.number] = outcome
    chosen = {number: outcomes[number] for number in range(args.scenes)}
    return Series(label, weights, chosen, trial)


def watch(args: argparse.Namespace, label: str, models: tuple[str, ...], number: int) -> "Episode":
    """Carry a trial out once more and return what was seen and imagined in it."""
    import numpy as np

    from svg.figures.episode import Episode, Plan
    from svg.planning.trials import goal_of, run_trial

    frames: list[np.ndarray] = []
    plans: list[Plan] = []

    def keep(frame: np.ndarray, replan: "Replan | None") -> None:
        if replan is not None:
            imagined = replan.imagined
            horizon = range(replan.solution.plan.shape[1])
            pictures = imagined.frames(horizon)[0, 0].clamp(0, 1).mul(255).byte().movedim(1, -1).numpy()
            points = [] if imagined.points is None else imagined.points[0, 0].tolist()
            plans.append(Plan(len(frames), replan.actions, pictures, points))
        frames.append(frame)

    trial = trial_of(args, label, models, number)
    outcome = run_trial(trial, keep)
    goals, goal_picture = goal_of(trial)
    is_solved = outcome.is_solved(trial.protocol, trial.task)
    way = f"{1000 * outcome.distances[0]:.0f} mm from the goal, then {1000 * outcome.end:.0f}"
    title = f"{label}, scene {number}: {way}, {'solved' if is_solved else 'not solved'}"
    return Episode(title, frames, plans, goals, goal_picture, outcome.distances)


def plan(args: argparse.Namespace) -> None:
    """Carry out all trials, and write and print what they say."""
    check_writable(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    workers = check_workers(args.workers)
    chosen = actors(args)
    if not chosen:
        raise InputError("expected a run folder, --pretrained NAME or --baselines")

    import json

    from svg.evaluation.tables import write_tables
    from svg.planning.results import group_table, main_table, outcome_frame, summary
    from svg.runs.checkpoint import read_identity

    check_mujoco()
    weights = {
        label: "; ".join(read_identity(Path(model), "best") for model in models)
        for label, models in chosen.items()
    }
    evaluations = read_scores(args.scores, chosen, weights) if args.scores else {}
    series = []
    for label, models in chosen.items():
        series.append(run_actor(args, label, models, weights[label], workers))
        done = series[-1]
        tell(f"{label}: {int(done.successes.sum())} of {len(done.outcomes)} solved")
    tables = [main_table(series), group_table(series)]
    if evaluations:
        tables.append(show_scores(args, series, evaluations))
    tell()
    for table in tables:
        tell(table.text() + "\n")
    words = {"settings": describe(args)}
    write_tables(args.out / "plan", tables, words)
    write_text(args.out / "plan.json", json.dumps(summary(series), indent=1) + "\n")
    write_text(args.out / "plan.csv", outcome_frame(series).to_csv(index=False))
    names = f"plan.md, plan.tex, plan.json, plan.csv{', plan_scores.png' if evaluations else ''}"
    watched = {label: models for label, models in chosen.items() if models}
    if watched and args.films:
        show(args, watched, tables)
        names += ", plan.html with the episodes of films"
    tell(f"{describe(args)}\n{args.out}: {names}")


def read_scores(
    name: str, chosen: dict[str, tuple[str, ...]], weights: dict[str, str]
) -> "dict[str, Evaluation]":
    """Return the evaluation `name` of each model that acts alone. Raises `InputError` if one has none."""
    from svg.evaluation.results import FOLDER, load_evaluation

    evaluations = {}
    for label, (run, *others) in ((label, models) for label, models in chosen.items() if models):
        if others:
            continue
        path = Path(run) / FOLDER / f"{name}.json"
        evaluation = load_evaluation(Path(run), name)
        if evaluation is None or "pred" not in evaluation.methods:
            raise InputError(f"--scores: found no scores of predictions in {path}; svg-evaluate takes them")
        if not evaluation.setting.is_of(weights[label]):
            raise InputError(f"--scores: {path} is of other weights; run svg-evaluate again")
        evaluations[label] = evaluation
    if len(evaluations) < 2:
        raise InputError(f"--scores: found {len(evaluations)} models, expected at least 2")
    return evaluations


def show_scores(
    args: argparse.Namespace, series: "list[Series]", evaluations: "dict[str, Evaluation]"
) -> "Table":
    """Draw how often each model succeeds over its scores, and return the table."""
    from svg.figures.foretelling import plot_success
    from svg.planning.foretelling import SUCCESS, foretelling

    found = foretelling(series, evaluations)
    first = next(iter(evaluations.values()))
    frames = f"{first.protocol.n_past} frames given, {first.protocol.n_future} predicted"
    words = f"{describe(args)}\nscores of {first.setting.scored}, {frames}; bars: 95 % intervals"
    correlations = {title: found.correlation(title, SUCCESS) for title in found.scores}
    plot_success(found.outcomes[SUCCESS], found.scores, correlations, words, args.out / "plan_scores.png")
    return found.table()


def show(args: argparse.Namespace, chosen: dict[str, tuple[str, ...]], tables: "list[Table]") -> None:
    """Write films of the first trials of each model, and the page of them."""
    from svg.figures.films import save_gif
    from svg.figures.plan_film import plan_film
    from svg.figures.plan_page import FPS, build_plan_page

    (args.out / "films").mkdir(exist_ok=True)
    episodes = []
    for label, models in chosen.items():
        for number in range(min(args.films, args.scenes)):
            episodes.append(watch(args, label, models, number))
            save_gif(plan_film(episodes[-1]), args.out / "films" / f"{label}_{number:03d}.gif", FPS)
    title = f"Planning: {args.task} with {', '.join(chosen)}"
    write_text(args.out / "plan.html", build_plan_page(title, describe(args), tables, episodes))


def describe(args: argparse.Namespace) -> str:
    """Return in words what the table is of."""
    scenes = f"{args.scenes} {'tuning' if args.tuning else 'test'} scenes"
    if args.protocol == "vp2":
        return f"{args.task}, {scenes}, protocol vp2: success within 5 cm at the best moment of 15 frames"
    samples = " + ".join(map(str, args.samples or SAMPLES[args.protocol]))
    planner = f"{samples} plans of {args.decisions} decisions of {args.hold} frames"
    return (
        f"{args.task}, {scenes}, places {args.perception}, cost {args.cost}; {planner}, "
        f"a new plan every {args.replan} frames"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run_command(
        "svg-plan", lambda: plan(parse(argv)), "interrupted: the same command goes on from there"
    )


if __name__ == "__main__":
    sys.exit(main())
