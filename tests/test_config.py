"""Flags, flags files, config.json and the refusals of what cannot be."""

import argparse
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.errors import InputError
from svg.config import Config, ModelConfig, TrainConfig
from svg.flags import FlagParser, add_config_arguments, config_from_arguments, flag_values
from svg.runs.checkpoint import load_config
from tests.support.places import ROOT

RECIPES = ROOT / "experiments" / "recipes"
SVG_FLAGS = [
    "--n_past", "--n_future", "--n_eval", "--g_dim", "--z_dim", "--rnn_size", "--predictor_rnn_layers",
    "--posterior_rnn_layers", "--prior_rnn_layers", "--beta", "--lr", "--beta1", "--batch_size", "--niter",
    "--epoch_size", "--optimizer", "--data_root", "--log_dir", "--seed", "--model", "--image_width",
    "--last_frame_skip", "--tfr", "--tfr_start_decay_epoch", "--tfr_decay_step", "--tfr_lower_bound",
    "--kl_anneal_cyclical", "--kl_anneal_cycle", "--kl_anneal_ratio",
]  # fmt: skip


def parse(*flags: str) -> Config:
    return config_from_arguments(parser().parse_args(flags))


def parser() -> argparse.ArgumentParser:
    result = FlagParser(prog="test")
    add_config_arguments(result)
    return result


def test_flags_that_users_of_svg_know():
    known = {option for action in parser()._actions for option in action.option_strings}
    assert not [flag for flag in SVG_FLAGS if flag not in known]


def test_defaults_are_the_published_sizes():
    config = parse()
    assert config == Config()
    assert (config.model.g_dim, config.model.z_dim, config.model.rnn_size) == (128, 64, 256)
    assert (config.data.n_past, config.data.n_future, config.train.lr, config.train.beta) == (
        2,
        10,
        0.002,
        1e-4,
    )


def test_flags_reach_their_section():
    config = parse(
        "--g_dim", "16", "--lr", "1e-3", "--last_frame_skip", "--n_past", "3", "--kl_anneal_cyclical"
    )
    assert (config.model.g_dim, config.train.lr, config.model.last_frame_skip, config.data.n_past) == (
        16,
        0.001,
        True,
        3,
    )
    assert config.train.kl_anneal == "cyclical"
    assert not parse("--no-last_frame_skip").model.last_frame_skip


def test_flags_file(tmp_path):
    path = tmp_path / "flags.args"
    path.write_text("# a comment\n--g_dim 16 --z_dim 8   # two\n\n--data_root 'a folder/x'\n")
    config = parse(f"@{path}", "--z_dim", "9")
    assert (config.model.g_dim, config.model.z_dim, config.data.data_root) == (16, 9, "a folder/x")


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.args")), ids=lambda path: path.name)
def test_recipes_parse(recipe):
    assert (parse(f"@{recipe}") == Config()) == (
        recipe.name == "bair_svg_lp.args"
    )  # the defaults are the published sizes


@given(st.integers(1, 99), st.floats(1e-6, 1), st.booleans(), st.text(max_size=20))
def test_json_both_ways(n_past, lr, blend, folder):
    config = Config(
        dataclasses.replace(Config().data, n_past=n_past, n_eval=n_past + 1, data_root=folder),
        ModelConfig(blend=blend, condition_dim=7),
        TrainConfig(lr=lr),
    )
    assert Config.from_values(json.loads(config.to_json()), "config.json") == config
    again = config_from_arguments(argparse.Namespace(**flag_values(config)))
    assert again == dataclasses.replace(config, model=dataclasses.replace(config.model, condition_dim=0))


@pytest.mark.parametrize("backbone", ["vgg", "dcgan"])
def test_the_backbone_is_stored_as_the_model(backbone):
    """Files of version 0.1 name the backbone as the model, and what is written is what it can read."""
    config = Config(model=ModelConfig(model=backbone))
    assert (config.model.model, config.model.backbone) == ("svg", backbone)
    values = json.loads(config.to_json())
    assert values["model"]["model"] == backbone and "backbone" not in values["model"]
    assert Config.from_values(values, "config.json") == config
    values["model"] |= {"model": "svg", "backbone": backbone}
    assert Config.from_values(values, "config.json") == config


def test_no_invalid_configuration_can_be_made():
    for make, message in (
        (lambda: ModelConfig(g_dim=0), "g_dim: found 0, expected a number above 0"),
        (lambda: dataclasses.replace(Config().data, n_past=12), "n_eval: found 12, expected more than"),
        (lambda: Config(dataclasses.replace(Config().data, augment=0.1)), "augment: actions belong to their"),
    ):
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda v: v.pop("model"),
            r"config\.json: damaged \(model: found None, expected an object with named values\); restore",
        ),
        (lambda v: v.update(schema_version=9), "found schema version 9, expected 1"),
        (
            lambda v: v["model"].update(rnn_size=10**12),
            r"config\.json: damaged \(rnn_size: found 1000000000000, expected at most 65536\)",
        ),
        (
            lambda v: v["model"].update(prior_rnn_layers=65),
            "prior_rnn_layers: found 65, expected at most 64",
        ),
        (lambda v: v["model"].update(channels=4), "channels: found 4, expected 1 or 3"),
        (lambda v: v["model"].update(model="x"), "model: found 'x', expected one of svg, objects, pose_cvae"),
        (lambda v: v["data"].update(n_past=12), r"\(n_eval: found 12, expected more than n_past 12: nothing"),
        (lambda v: v["model"].update(g_dim="128"), "g_dim: found '128', expected int"),
        (lambda v: v["model"].update(g_dim=True), "g_dim: found True, expected int"),
        (lambda v: v["model"].update(colour=1), "found 'colour' in model, which this release does not know"),
        (lambda v: v["model"].update(g_dim=-1), "g_dim: found -1, expected more than 0"),
        (lambda v: v["train"].update(lr=None), "lr: found None, expected float"),
    ],
)
def test_bad_json(change, expected):
    values = json.loads(Config().to_json())
    change(values)
    with pytest.raises(InputError, match=expected):
        Config.from_values(values, "run/config.json")


def test_a_configuration_that_is_no_json(tmp_path):
    for text in ("{", "[]", "[" * 100_000, '{"schema_version": 1' + "0" * 5000 + "}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"config\.json: damaged"):
            load_config(tmp_path)


@pytest.mark.parametrize(
    "flags",
    [
        "--batch_size 0", "--lr 0", "--lr nan", "--lr inf", "--tfr 1.5", "--tfr 0.2 --tfr_lower_bound 0.5",
        "--beta -1", "--image_width 96", "--n_past 12 --n_eval 12", "--feedback feature --last_frame_skip",
        "--kl_anneal_ratio 0.5", "--beta1 1", "--kl_anneal cyclical --niter 3 --kl_anneal_cycle 4",
        "--kl_anneal_ratio nan", "--kl_anneal_ratio inf", "--seed 99999999999999999999",
        "--tfr 0 --batch_size 1", "--warmup 1", "--n_future 0", "--workers -1", "--epoch_size 0",
    ],
)  # fmt: skip
def test_impossible_flags_are_named(flags):
    with pytest.raises(InputError) as error:
        parse(*flags.split())
    assert flags.split()[-2 if not flags.split()[-1].startswith("--") else -1] in error.value.line
