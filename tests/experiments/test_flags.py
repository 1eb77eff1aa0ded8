"""Command lines as people type them: flags of other programs, slips, truth values, recipes by name."""

import argparse
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import svg
from data_tools import __main__ as svg_data
from data_tools.command import OneLineParser
from data_tools.errors import InputError
from experiments import (
    RECIPES,
    benchmark,
    compare,
    evaluate,
    plot,
    quickstart,
    render,
    report,
    rollout,
    train,
)
from svg.config import Config
from svg.flags import ALIASES, FOREIGN, FlagParser, add_config_arguments, config_from_arguments
from tests.support.places import ROOT

TINY = """--recurrence spatial --model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8
--feedback feature --tfr 0
--n_past 2 --n_future 4 --n_eval 6 --batch_size 4 --niter 1 --epoch_size 2 --device cpu"""


def parse(*flags: str) -> argparse.Namespace:
    parser = FlagParser(prog="test", recipes=RECIPES)
    add_config_arguments(parser)
    return parser.parse_args(flags)


def configured(*flags: str) -> Config:
    return config_from_arguments(parse(*flags))


def refusal(capsys, main, *flags: str) -> str:
    """Return the one line that refuses the flags."""
    try:
        code = main(list(flags))
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    assert code == 2 and not printed.out and len(printed.err.splitlines()) == 1, printed
    return printed.err


# ----------------------------------------------------------------------------------- flags of other programs


@pytest.mark.parametrize(
    ("flags", "ours"),
    [
        ("--num_workers 3", "--workers 3"),
        ("--data_threads=5", "--workers 5"),
        ("--cuda", "--device auto"),
        ("--cuda True", "--device auto"),
        ("--cuda=False", "--device cpu"),
        ("--no-cuda", "--device cpu"),
        ("--cuda --device cuda:1", "--device cuda:1"),
        ("--kl_anneal_cyclical", "--kl_anneal cyclical"),
        ("--kl_anneal_cyclical=True", "--kl_anneal cyclical"),
        ("--kl_anneal_cyclical False", "--kl_anneal monotonic"),
        ("--kl_anneal_type Monotonic", "--kl_anneal monotonic"),
        ("--kl_anneal_cycle 4", "--kl_anneal none --kl_anneal_cycle 4"),
        ("--last_frame_skip True", "--last_frame_skip"),
        ("--last_frame_skip --last_frame_skip=no", "--no-last_frame_skip"),
        (
            "--blend yes --compile 0 --anchor 1 --model pose_cvae --n_past 1",
            "--blend --anchor --model pose_cvae --n_past 1",
        ),
        ("--optimizer Adam", ""),
        ("--optimizer RMSprop", "--optimizer rmsprop"),
        ("--optim AdamW", "--optimizer adamw"),
        ("--model VGG", "--model svg --backbone vgg"),
        ("--model dcgan", "--backbone dcgan"),
        ("--model dcgan --backbone vgg", "--backbone vgg"),
        ("--backbone vgg --model dcgan", "--backbone dcgan"),
        ("--rnn_layers 3", "--predictor_rnn_layers 3 --posterior_rnn_layers 3 --prior_rnn_layers 3"),
        ("--train_vi_len 16 --val_vi_len 630", "--n_past 1 --n_future 15 --n_eval 630"),
        ("--DR data --save_root runs/a --num_epoch 70", "--data_root data --log_dir runs/a --niter 70"),
        (
            "--F_dim 64 --L_dim 16 --N_dim 8 --D_out_dim 96",
            "--g_dim 64 --pose_dim 16 --z_dim 8 --fusion_dim 96",
        ),
        (
            "--model pose_cvae --n_past 1 --L_dim 16 --D_out_dim 96",
            "--model pose_cvae --n_past 1 --pose_dim 16 --fusion_dim 96",
        ),
        ("--tfr_sde 10 --tfr_d_step 0.1", "--tfr_start_decay_epoch 10 --tfr_decay_step 0.1"),
        ("--epochs 7 --learning_rate 0.1", "--niter 7 --lr 0.1"),
        ("--model_dir= --save_model_name best --name=", ""),
    ],
)
def test_flags_of_other_programs_stand_for_ours(flags, ours):
    theirs, same = (vars(parse(*words.split())) | {"cuda": False, "notes": {}} for words in (flags, ours))
    assert theirs == same


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("", {}),
        ("", {"lr": None}),
        (
            "--data_root data --lr 2e-4 --niter 3 --blend --no-last_frame_skip --seed 7",
            {"data_root": Path("data"), "lr": 2e-4, "niter": 3, "blend": True, "last_frame_skip": False}
            | {"seed": np.int64(7)},
        ),
        ("--model VGG", {"model": "VGG"}),
        ("--model dcgan --backbone vgg", {"model": "dcgan", "backbone": "vgg"}),
        ("--backbone vgg --model dcgan", {"backbone": "vgg", "model": "dcgan"}),
        ("--init_from push-sim --n_future 8", {"init_from": "push-sim", "n_future": 8}),
        ("--init_from push-sim --grid 8 --model vgg", {"init_from": "push-sim", "grid": 8, "model": "vgg"}),
        ("--init_from push-objects --batch_size 20", {"init_from": "push-objects", "batch_size": 20}),
        (
            "--log_dir runs/ --name first --num_workers 1 --cuda False",
            {"log_dir": "runs/", "name": "first", "num_workers": 1, "cuda": False},
        ),
    ],
)
def test_configure_is_the_command(words, flags):
    config = config_from_arguments(train.parse(words.split()))
    assert svg.configure(**flags) == config
    assert svg.configure(RECIPES / "fine_tune.args", **flags) == config_from_arguments(
        train.parse(["@fine_tune.args", *words.split()])
    )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"batchsize": 3}, "unrecognized arguments: --batchsize=3; did you mean --batch_size?"),
        ({"batch": 3}, "unrecognized arguments: --batch=3; did you mean"),  # no abbreviations
        ({"niter": 3.5}, "invalid int value: '3.5'"),
        ({"lr": -1}, "lr: found -1.0, expected a number above 0"),
        ({"model": "objets"}, "; did you mean objects?"),
        ({"init_from": "push"}, "init_from: found 'push', expected a run folder or the name of a released"),
    ],
)
def test_configure_refuses_in_one_line(flags, expected, capsys):
    with pytest.raises(InputError) as error:
        svg.configure(**flags)
    assert expected in str(error.value) and "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_configure_takes_flags_files_and_says_what_has_no_effect(tmp_path, capsys):
    (tmp_path / "mine.args").write_text("--lr 0.5 # a note\n--niter 3\n")
    train_config = svg.configure(tmp_path / "mine.args", niter=4, dataset="bair").train
    assert (train_config.lr, train_config.niter) == (0.5, 4)
    assert capsys.readouterr().err.startswith("note: --dataset bair: not used: ")
    with pytest.raises(InputError, match=r"flags file: found no file .*none\.args"):
        svg.configure(tmp_path / "none.args")


def test_without_a_flag_beta_is_not_annealed():
    assert configured().train.kl_anneal == "none"


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ("--dataset bair", "--dataset bair: not used: the data are what lies in --data_root"),
        ("--num_digits 2", "--num_digits 2: not used: it is of moving MNIST"),
        ("--channels 1", "--channels 1: not used: it is read from the data"),
        (
            "--save_model_name epoch",
            "--save_model_name epoch: not used: the best weights are always kept as checkpoints/best",
        ),
        ("--cuda 0", "--cuda False: trains on the CPU; a certain GPU is --device cuda:N"),
        ("--store_visualization", "--store_visualization True: not used: svg-render"),
        (
            "--kl_anneal_ratio 3",
            "--kl_anneal_ratio: without effect, as beta is not annealed; add --kl_anneal_cyclical True or,",
        ),
        ("--num_workers 1000", "--workers 1000: the machine has "),
    ],
)
def test_flags_that_have_no_meaning_here_are_answered(flags, note, capsys):
    args = parse(*flags.split())
    train.tell_notes(args, config_from_arguments(args))
    printed = capsys.readouterr()
    assert printed.err.startswith(f"note: {note}") and len(printed.err.splitlines()) == 1 and not printed.out


def test_only_the_first_process_says_so(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    args = parse("--dataset", "bair")
    train.tell_notes(args, config_from_arguments(args))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            "--model_dir logs/fp",
            "argument --model_dir logs/fp: here `--log_dir RUN --resume` goes on with a run as if",
        ),
        (
            "--ckpt_path a.ckpt",
            "begins another one with its weights; model.pth and .ckpt files of other programs are not read",
        ),
        ("--test", "argument --test True: svg-evaluate and svg-rollout test a run"),
        (
            "--fast_train",
            "argument --fast_train True: all sequences are trained on from the start; leave it out",
        ),
        ("--partial 0.5", "argument --partial 0.5: all sequences of the index are trained on"),
        ("--rnn_layers x", "argument --rnn_layers: invalid int value: 'x'"),
        ("--num_workers x", "invalid int value: 'x'"),
        ("--cuda=maybe", "argument --cuda: found 'maybe', expected True or False"),
        ("--blend=2", "argument --blend: found '2', expected True or False"),
        ("--kl_anneal_ratio 0.5", "where it is the ramp's share of a cycle, use 2 here"),
        (
            "--kl_anneal_cyclical=False --kl_anneal_ratio 0",
            "--kl_anneal_ratio: found 0.0, expected at least 1",
        ),
        ("--channels", "expected one argument"),
    ],
)
def test_flags_that_would_mislead_are_refused(flags, expected, capsys):
    assert expected in refusal(capsys, train.main, *flags.split(), "--data_root", "data")


def test_a_name_is_a_folder_in_log_dir(data_root, tmp_path, capsys):
    flags = [
        *TINY.split(),
        "--data_root",
        str(data_root),
        "--log_dir",
        str(tmp_path / "logs"),
        "--name",
        "first",
    ]
    assert train.main(flags) == 0
    assert (
        json.loads((tmp_path / "logs" / "first" / "config.json").read_text())["train"]["log_dir"]
        == f"{tmp_path}/logs/first"
    )
    assert (
        train.main(["--log_dir", str(tmp_path / "logs"), "--exp_name", "first", "--resume", "--niter", "2"])
        == 0
    )
    assert len((tmp_path / "logs" / "first" / "metrics.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()
    assert "--name: the runs lie in OUT" in refusal(capsys, compare.main, str(tmp_path / "x"), "--name", "a")


def test_a_resumed_run_names_what_such_flags_change(data_root, tmp_path, capsys):
    run = str(tmp_path / "run")
    flags = [
        *TINY.split(),
        "--kl_anneal_cyclical=True",
        "--kl_anneal_cycle=1",
        "--data_root",
        str(data_root),
        "--log_dir",
        run,
    ]
    assert train.main(flags) == 0
    capsys.readouterr()
    for changed, expected in (
        ("--kl_anneal_cyclical=False", "--kl_anneal: found monotonic, expected cyclical, with which"),
        (
            "--last_frame_skip True --feedback frame",
            "--last_frame_skip: found True, expected False, with which",
        ),
        ("--rnn_layers 3", "--predictor_rnn_layers: found 3, expected 2, with which"),
        ("--optim SGD", "--optimizer: found sgd, expected adam, with which"),
    ):
        assert expected in refusal(capsys, train.main, "--log_dir", run, "--resume", *changed.split())
    same = "--kl_anneal_cyclical True --num_workers 1 --cuda False --last_frame_skip=False"
    assert train.main(["--log_dir", run, "--resume", *same.split()]) == 0
    assert "nothing left to do after 2 steps" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- truth values


def test_switches_of_every_command_take_truth_values():
    assert train.parse(["--resume", "True", "--take_over", "yes"]).take_over
    assert not train.parse(["--resume", "--resume=False"]).resume
    args = evaluate.parse(["--reuse", "run", "--compile", "False"])
    assert args.reuse and not args.compile and args.runs == [Path("run")]


def test_a_switch_leaves_what_follows_it_alone():
    for flag in ("--blend", "--no-blend", "--cuda", "--kl_anneal_cyclical", "--compile"):
        assert compare.parse([flag, "out"]).out == Path("out")
    assert compare.parse(["--blend", "False", "--", "1"]).out == Path("1")


# ----------------------------------------------------------------------------------------------------- slips


@pytest.mark.parametrize(
    ("command", "flags", "expected"),
    [
        (
            train,
            "--batchsize 12",
            "unrecognized arguments: --batchsize 12; did you mean --batch_size?; see svg-train --help",
        ),
        (train, "--batch-size=12", "unrecognized arguments: --batch-size=12; did you mean --batch_size?"),
        (train, "-batch_size 12", "; did you mean --batch_size?"),
        (
            train,
            "--kl_aneal cyclical --n_futur=3 --epoch_sise 3",
            "; did you mean --kl_anneal, --epoch_size?",
        ),
        (train, "--numworkers 12", "; did you mean --num_workers?"),
        (train, "--zzz 1", "unrecognized arguments: --zzz 1; see svg-train --help"),
        (train, "--optimizer adan", "invalid choice: 'adan' (choose from "),
        (train, "--optimizer adan", "; did you mean adam?; see svg-train --help"),
        (train, "--grid 9", "invalid choice: 9 (choose from 8, 16)"),
        (evaluate, "run --nsample 3", "; did you mean --n_sample?; see svg-evaluate --help"),
        (evaluate, "run --split valid", "; did you mean validate?"),
        (render, "run --sequence_s 3", "; did you mean --sequences?"),
        (rollout, "run --checkpont best", "; did you mean --checkpoint?"),
        (plot, "run --uot x", "; did you mean --out?"),
        (report, "run --dataroot x", "; did you mean --data_root?"),
        (compare, "out --studys kl", "; did you mean --studies?"),
        (quickstart, "--pre_trained", "; did you mean --pretrained?"),
        (benchmark, "--repeat_s 1 --dev cpu", "; did you mean --repeats?"),
        (svg_data, "indx data", "; did you mean index?; see svg-data --help"),
        (
            svg_data,
            "index data --sorce x",
            "svg-data index: unrecognized arguments: --sorce x; did you mean --source?",
        ),
    ],
)
def test_the_nearest_name_is_told(command, flags, expected, capsys):
    assert expected in refusal(capsys, command.main, *flags.split())


def test_what_a_terminal_would_obey_is_written_out(capsys):
    assert r"unrecognized arguments: --\x1b[31m x; see" in refusal(capsys, train.main, "--\x1b[31m", "\nx")


@pytest.mark.parametrize(
    ("short", "flag", "value"),
    [
        ("--n_e", "n_eval", 7),
        ("--rnn", "rnn_size", 7),
        ("--opt", "optimizer", "sgd"),
        ("--mod", "model", "pose_cvae"),
    ],
)
def test_abbreviations_stand_for_flags_of_this_project(short, flag, value):
    assert getattr(parse(short, str(value)), flag) == value


def test_no_flag_of_another_program_hides_one_of_ours():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)  # raises for a name that is there twice
    own = {name for section in ("data", "model", "train") for name in vars(getattr(Config(), section))}
    assert set(ALIASES.values()) < own and not ((ALIASES.keys() | FOREIGN.keys()) - {"channels"}) & own


words = st.sampled_from([f"--{name}" for name in (*ALIASES, *FOREIGN, "blend", "no-cuda", "lr", "grid")])


@settings(max_examples=300, deadline=None)  # a busy machine is slow
@given(
    st.lists(
        st.one_of(words, st.sampled_from(["True", "0", "--", "3", "x", "-1"]), st.text(max_size=9)),
        max_size=6,
    )
)
def test_anything_typed_is_parsed_or_refused(typed):
    try:
        assert isinstance(
            parse(*(word for word in typed if not word.startswith(("-h", "--h")))), argparse.Namespace
        )
    except SystemExit as end:
        assert end.code == 2


# ----------------------------------------------------------------------------------------------- flags files


@pytest.mark.parametrize(
    "name",
    [
        "quickstart.args",
        "quickstart",
        "experiments/recipes/quickstart.args",
        "experiments/recipes/quickstart",
    ],
)
def test_recipes_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert configured(f"@{name}") == configured(f"@{ROOT / 'experiments' / 'recipes' / 'quickstart.args'}")
    assert configured(f"@{name}").model.recurrence == "spatial"
    assert train.parse([f"@{name}"]).rnn_size == 64 and compare.parse(["out", f"@{name}"]).rnn_size == 64


def test_a_file_in_the_current_folder_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dance.args").write_text("--rnn_size 3")
    (tmp_path / "quickstart").mkdir()
    assert parse("@dance").rnn_size == parse("@dance.args").rnn_size == 3
    assert parse("@quickstart").rnn_size == 64


def test_a_missing_flags_file_is_answered_with_the_recipes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    told = refusal(capsys, train.main, "@quikstart.args")
    assert (
        "found no file quikstart.args, and no recipe of that name; the recipes are bair_svg_lp.args, "
        "compare.args," in told
    )
    assert "; did you mean quickstart?" in told
    assert "found no file mine/quickstart.args, and no recipe" in refusal(
        capsys, train.main, "@mine/quickstart.args"
    )
    for name in ("@", "@\0", "@..", "@" + "x" * 300):
        refusal(capsys, train.main, name)


def test_recipes_in_an_archive(tmp_path, monkeypatch):
    """As of a package that is imported from one."""
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("package.zip", "w") as archive:
        archive.writestr("recipes/small.args", "--rnn_size 5")
    parser = FlagParser(recipes=zipfile.Path("package.zip", "recipes/"))
    add_config_arguments(parser)
    assert parser.parse_args(["@small"]).rnn_size == 5


def test_flags_files_in_flags_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").write_text("--rnn_size 3 --z_dim 2  # both\n")
    (tmp_path / "mine").write_text(
        "\ufeff--g_dim 16\n@base --z_dim 5 --last_frame_skip False", encoding="utf-8"
    )
    args = parse("--z_dim", "9", "@mine", "@base")
    assert (args.g_dim, args.rnn_size, args.z_dim, args.last_frame_skip) == (16, 3, 2, False)
    for number in range(40):  # 2^40 of them
        (tmp_path / str(number)).write_text(f"@{number + 1} @{number + 1}")
    (tmp_path / "40").write_text("")
    assert "flags file: found more than 100" in refusal(capsys, train.main, "@0")
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**33)
    assert "found no file pipe" in refusal(capsys, train.main, "@pipe")
    assert (
        "flags file: large cannot be read (a sparse file: 8589934592 bytes, of which 0 are stored)"
        in refusal(capsys, train.main, "@large")
    )


def test_recipes_as_the_documents_name_them():
    """Every recipe that is named anywhere is there."""
    texts = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "svg" / "released").glob("*/README.md"),
    ]
    named = {
        word
        for text in texts
        for line in text.read_text().splitlines()
        for word in line.split()
        if word.startswith("@")
    }
    recipes = {name.strip("`,;.):") for name in named if name.startswith("@experiments/recipes/")}
    assert recipes
    for name in recipes:
        assert configured(name, "--data_root", "data") is not None


def test_the_parser_of_all_commands_is_one():
    """Also of sub-commands."""
    for path in (ROOT / "experiments").glob("*.py"):
        assert "argparse.ArgumentParser(prog" not in path.read_text(), path
    parser = OneLineParser(prog="x")
    assert isinstance(parser.add_subparsers().add_parser("y"), OneLineParser)
