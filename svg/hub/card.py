"""The card of a shared model: a page in Markdown, with a head that the Hugging Face Hub reads."""

import dataclasses
import shlex
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, PackageLoader

from ..config import Config, ModelConfig
from ..evaluation.methods import METHODS
from ..evaluation.metrics import METRICS
from ..evaluation.results import FOLDER, Evaluation, load_evaluation
from ..evaluation.tables import number, one_line
from ..flags import flag_values

HEADLINE = ("pred", "pred_best")
"""Methods whose scores stand in the head."""
OWN_FLAGS = ("log_dir", "device", "data_device", "workers", "track")
"""Flags that say nothing of the model."""


def evaluations_of(run: Path, identity: str) -> list[Evaluation]:
    """Return what `svg-evaluate` has written in a run of these weights. Raises `InputError`."""
    names = sorted(path.stem for path in (run / FOLDER).glob("*.json"))
    found = [load_evaluation(run, name) for name in names]
    return [item for item in found if item is not None and item.setting.is_of(identity)]


def make_card(
    name: str,
    config: Config,
    numbers: dict[str, int],
    evaluations: list[Evaluation],
    picture: str = "",
    licence: str = "",
    is_changed: bool = False,
) -> str:
    """Return the card.

    Args:
        name: as `svg.load` takes it.
        config: of the run, as it is shared.
        numbers: of the model's weights, ``weights``, and of the training's ``steps``.
        evaluations: of these weights.
        picture: a file beside the card.
        licence: as the Hub spells it, such as ``mit``; none is stated without.
        is_changed: the weights are others than those that were trained and scored.
    """
    environment = Environment(loader=PackageLoader("svg", "hub"), trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = one_line
    own = [dataclasses.replace(item, setting=_shared_setting(item)) for item in evaluations]
    return environment.get_template("card.jinja").render(
        name=name,
        model=config.model,
        data=config.data,
        given=_given(config),
        command=command_of(config),
        evaluations=own,
        results=[_result(item) for item in own],
        picture=picture,
        licence=licence,
        is_changed=is_changed,
        **numbers,
    )


def _shared_setting(evaluation: Evaluation) -> Any:
    """Return the setting without the place of the data on this machine."""
    return dataclasses.replace(evaluation.setting, data=PurePath(evaluation.setting.data).name)


def _given(config: Config) -> str:
    """Return in words what the model is given besides frames."""
    model: ModelConfig = config.model
    if model.takes_poses:
        return "the poses of a person"
    if not model.condition_dim:
        return ""
    columns = {"all": "actions and positions of the end effector"}.get(
        config.data.conditions, config.data.conditions
    )
    return f"{columns} ({model.condition_dim} numbers a frame)"


def command_of(config: Config) -> str:
    """Return the command line of `svg-train` that has this configuration."""
    usual = flag_values(Config())
    words = []
    for flag, value in flag_values(config).items():
        if value == usual[flag] or flag in OWN_FLAGS:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words.append(f"--{flag} {shlex.quote(str(value))}")
    return " ".join(["svg-train", *words])


def _result(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as the head has it: task, data set and metrics with their intervals."""
    protocol = evaluation.protocol
    metrics = []
    for method in HEADLINE:
        for key in evaluation.metrics if method in evaluation.methods else ():
            metric = METRICS[key]
            mean = evaluation.mean(method, key)
            words = [metric.title, METHODS[method].name(protocol.n_sample)]
            if mean.is_bounded:
                words.append(
                    f"95 % interval {number(mean.low, metric.format)} to {number(mean.high, metric.format)}"
                )
            metrics.append({"type": key, "name": ", ".join(words), "value": number(mean.mean, metric.format)})
    task = f"{protocol.n_future} frames predicted from {protocol.n_past}, protocol {protocol.name}"
    return {"task": task, "dataset": evaluation.setting.scored, "metrics": metrics}
