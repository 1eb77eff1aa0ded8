"""Distinct files for distinct sequences, whatever their names are."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.folders import write_sequence
from data_tools.index import build_index
from experiments import evaluate, plot, render, report, rollout, train
from svg.figures.names import file_stems, label
from tests.experiments.test_commands import TINY
from tests.support.samples import ODD_NAMES, moving_square

ENDINGS = ("", "_ref", "_pred", "_sample_1")
ODD = st.sampled_from(
    [
        "a",
        "A",
        "_",
        "/",
        "\\",
        "ref",
        "_ref",
        ".",
        " ",
        "\n",
        "\x1b",
        "\0",
        "é",
        "e\u0301",
        "ß",
        "ss",
        "😀",
        "\ud800",
    ]
)
NAMES = st.lists(
    st.one_of(st.lists(ODD, max_size=6).map("".join), st.text(max_size=400)), unique=True, max_size=12
)


@given(NAMES)
def test_every_file_has_one_sequence(names):
    stems = file_stems(names, ENDINGS)
    assert list(stems) == names
    files = [stem + ending for stem in stems.values() for ending in ENDINGS]
    for form in ("NFC", "NFD"):  # what differs in case or spelling alone is the same file for some systems
        assert len({unicodedata.normalize(form, file).casefold() for file in files}) == len(files)
    for stem in stems.values():
        assert 0 < len(stem.encode()) <= 200 and stem.isprintable()
        assert not set(stem) & set('/\\:*?"<>|\0') and stem.strip(". ") == stem


@given(NAMES, st.randoms(use_true_random=False))
def test_stems_depend_on_neither_order_nor_company(names, random):
    stems = file_stems(names, ENDINGS)
    shuffled = random.sample(names, len(names))
    assert file_stems(shuffled, ENDINGS) == stems
    more = file_stems([*names, "another sequence"], ENDINGS)
    assert {name: more[name] for name in names if name != "another sequence"} == {
        name: stem for name, stem in stems.items() if name != "another sequence"
    }


def test_usual_names_are_their_own_stems():
    names = ["00012", "train.tfrecords_3", "push left", "a/b", "Übung", "A-1"]
    assert list(file_stems(names).values()) == [
        "00012",
        "train.tfrecords_3",
        "push left",
        "a_b",
        "Übung",
        "A-1",
    ]


def test_a_name_that_is_a_stem_keeps_it():
    stems = file_stems(["a/b", "a_b"])
    assert (
        stems["a_b"] == "a_b" and stems["a/b"].startswith("a_b-") and len(stems["a/b"]) == len("a_b-01234567")
    )
    assert file_stems(["a_b", "a/b", "x"])["a/b"] == stems["a/b"]


def test_endings_count_as_well():
    """The GIF of `push_ref` must not be that of the true frames of `push`."""
    stems = file_stems(["push", "push_ref"], ENDINGS)
    assert stems["push"] == "push" and stems["push_ref"].startswith("push_ref-")
    assert file_stems(["push", "push_ref"]) == {"push": "push", "push_ref": "push_ref"}


def test_case_and_long_names():
    stems = file_stems(["Push", "push", "a" * 300, "a" * 299 + "b"])
    assert stems["Push"] == "Push" and stems["push"].startswith("push-")
    assert len({stem.casefold() for stem in stems.values()}) == 4 and max(map(len, stems.values())) == 160


@pytest.mark.parametrize("name", ODD_NAMES)
def test_labels_are_one_printable_line(name):
    assert label(name).isprintable() and len(label(name)) <= 48


def test_labels():
    assert label("a\nb  c\x1b[31m") == "a b c\\x1b[31m" and label("run-7") == "run-7"
    assert label("x" * 30 + "y" * 30) == "x" * 24 + "…" + "y" * 23
    assert [label("abc", most) for most in (1, 2, 3)] == ["…", "a…", "abc"]


NAMED = ("a/b", "a_b", "A_b", "a_b_ref", "$\\frac$ \u00e9")


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory):
    """A run whose name is a formula that matplotlib cannot read, on sequences with odd or colliding names."""
    folder, random = tmp_path_factory.mktemp("odd"), np.random.default_rng(0)
    root = folder / "data"
    for split, names in (("train", "0123"), ("validate", "01"), ("test", NAMED)):
        for name in names:
            write_sequence(root / split / name, *moving_square(random, 8))
    build_index(root)
    run = folder / "$\\frac$_{x}"
    assert train.main([*TINY.split(), "--data_root", str(root), "--log_dir", str(run)]) == 0
    return run


def test_every_sequence_has_pictures_of_its_own(odd_run, tmp_path):
    shown = {}
    for command in (render, rollout):
        out = tmp_path / command.__name__
        assert command.main([str(odd_run), "--sequences", *NAMED, "--out", str(out)]) == 0
        shown[command] = {path.name: path.read_bytes() for path in out.glob("*.gif")}
    films = shown[render]
    assert len(films) == 4 * len(NAMED) and "test_sequence_A_b_ref.gif" in films
    assert len(set(films.values())) == len(films)  # their titles and frames differ
    assert len(set(shown[rollout].values())) == len(shown[rollout]) == len(NAMED)
    assert "test_A_b.gif" in shown[rollout] and len({name.casefold() for name in shown[rollout]}) == len(
        NAMED
    )


@pytest.mark.slow
def test_a_run_and_sequences_of_odd_names_are_shown(odd_run, tmp_path, capsys):
    assert evaluate.main([str(odd_run), "--n_sample", "2", "--out", str(tmp_path)]) == 0
    assert plot.main([str(odd_run), "--scores", "test_n2", "--out", str(tmp_path / "x.svg")]) == 0
    assert (
        report.main(
            [str(odd_run), "--n_sample", "2", "--sequences", *NAMED, "--out", str(tmp_path / "x.html")]
        )
        == 0
    )
    assert render.main([str(odd_run), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    assert "Video prediction: $\\frac$_{x}" in (tmp_path / "x.html").read_text()
