"""What svg-data check reports, and what it does not; what svg-data show says and draws."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.check import Finding, against_signs, check, longest_run
from data_tools.errors import InputError
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack import pack
from tests.support.places import RECORDINGS
from tests.support.samples import ODD_NAMES, moving_square


@pytest.fixture
def root(tmp_path) -> Path:
    """Three splits of moving squares whose positions follow their actions."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 4), ("validate", 2), ("test", 2)):
        for number in range(count):
            write_sequence(tmp_path / "data" / split / str(number), *moving_square(generator, 14))
    build_index(tmp_path / "data")
    return tmp_path / "data"


def problems(root: Path) -> list[str]:
    return [problem.replace(f"{root}/", "") for problem in check(root, workers=1).problems]


def rewrite(folder: Path, frames=None, actions=None, positions=None) -> None:
    """Writes a sequence again with some of its parts changed."""
    generator = np.random.default_rng(99)
    other = moving_square(generator, 14)
    shutil.rmtree(folder)
    write_sequence(
        folder,
        *(
            new if new is not None else old
            for new, old in zip((frames, actions, positions), other, strict=True)
        ),
    )
    build_index(folder.parent.parent)


@pytest.mark.slow
def test_a_sound_data_set_has_no_problem(root, tmp_path, capsys):
    assert svg_data.main(["check", str(root), "--workers", "2"]) == 0
    assert capsys.readouterr().out == f"{root}: no problem in 8 sequences, 112 frames\n"
    pack(root, tmp_path / "packed", workers=1)
    assert check(tmp_path / "packed", workers=1).problems == []


def test_every_damaged_sequence_is_named_not_only_the_first(root, capsys):
    (root / "train/1/3.png").write_bytes(b"x")
    data = bytearray((root / "train/2/7.png").read_bytes())
    data[60] ^= 1
    (root / "train/2/7.png").write_bytes(data)
    (root / "test/0/actions.csv").write_text("1,2\n")
    (root / "validate/1/5.png").unlink()
    shutil.rmtree(root / "validate/0")
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 1
    printed = capsys.readouterr().out.replace(f"{root}/", "")
    for line in ("train/1/3.png: not a PNG image", "train/2/7.png: unreadable PNG",
                 "test/0/actions.csv: found 1 rows, expected 14",
                 "validate/1/5.png: missing frame",
                  "validate/0: listed in index.csv, but there is no such sequence"):  # fmt: skip
        assert line in printed
    assert ": 5 problems in 7 sequences, 42 frames" in printed


def test_without_an_index(root, capsys):
    for name in (layout.INDEX_FILE, layout.INFO_FILE):
        (root / name).unlink()
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 0
    assert f"has no index yet; `svg-data index {root}` writes it" in capsys.readouterr().out
    with pytest.raises(InputError, match="train: is a split itself; name the folder above"):
        check(root / "train", workers=1)
    with pytest.raises(InputError, match="found no sequences in train, validate, test"):
        check(root.parent, workers=1)


def test_contradictions_to_the_index(root):
    generator = np.random.default_rng(5)
    write_sequence(root / "train" / "new", *moving_square(generator, 14))
    (root / "test/1/13.png").unlink()
    index = layout.read_index(root)
    info = layout.read_info(root)
    layout.write_index(root, index, layout.DatasetInfo("x", "", 2, 2, [0, 0, 1, 2], info.std))
    found = problems(root)
    assert any("test/1: found frames 13, index.csv says 14" in line for line in found)
    assert any("train/new: not listed in index.csv" in line for line in found)
    assert any("dataset.json: mean is not that of the training split" in line for line in found)
    (root / layout.INDEX_FILE).write_text("split\ntrain\n")
    assert any("found no column sequence" in line for line in problems(root))


def test_frozen_and_slow_recordings(root):
    frames, *_ = moving_square(np.random.default_rng(1), 14)
    frozen = frames.copy()
    frozen[6:11] = frozen[6]
    rewrite(root / "train/1", frozen)
    doubled = frames.repeat(2, axis=0)[:14]
    doubled[8] = doubled[7]  # 8 of 13 steps show nothing new, but never 4 in a row
    rewrite(root / "train/2", doubled)
    found = problems(root)
    assert [line.split(";")[0] for line in found if line.startswith("train/1")] == [
        "train/1: frozen frames, 5 in a row are equal"
    ]
    assert any(line.startswith("train/2: 8 of 14 frames equal the one before") for line in found)


def test_black_recordings_are_told_once(root):
    for number in (0, 1):
        rewrite(root / "train" / str(number), np.zeros((14, 64, 64, 3), np.uint8))
    assert (
        len([line for line in problems(root) if "frozen frames, 14 in a row" in line])
        == 2
        == len(problems(root))
    )


@pytest.mark.parametrize(
    ("flags", "run"), [([], 0), ([0, 0], 0), ([1], 1), ([1, 0, 1, 1, 1, 0, 1, 1], 3), ([0, 1, 1], 2)]
)
def test_longest_run(flags, run):
    assert longest_run(np.array(flags, bool)) == run


def test_constant_actions(root):
    rewrite(root / "train/3", actions=np.full((14, 2), 0.5))
    assert [line for line in problems(root) if "train/3" in line] == [
        "train/3: the actions never change; check how they were recorded"
    ]


def test_positions_against_the_actions(root):
    _, actions, positions = moving_square(np.random.default_rng(2), 14)
    rewrite(root / "validate/1", actions=actions * (1, -1), positions=positions)
    found = [line for line in problems(root) if "against" in line]
    assert len(found) == 1 and found[0].startswith("validate/1: position 2 moves against action 2")


def test_a_set_whose_axis_is_inverted_is_told_once(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(6):
        frames, actions, positions = moving_square(generator, 14)
        write_sequence(tmp_path / "train" / str(number), frames, actions * (1, -1), positions)
    assert problems(tmp_path) == [
        f"{tmp_path}: position 2 moves against action 2 in nearly all sequences; check the sign of one"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("sequences", [5, 10, 25])
def test_unrelated_smooth_columns_raise_no_alarm(sequences):
    """Slow wanderings agree or disagree in sign for long stretches by chance."""
    alarms = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        findings = []
        for number in range(sequences):
            noise = generator.normal(size=(40, 14))
            smooth = np.stack([np.convolve(column, np.ones(15) / 15, "valid") for column in noise.T], axis=1)[
                :10
            ]
            findings.append(
                Finding(
                    "train",
                    str(number),
                    row={"action_dim": 7, "position_dim": 7},
                    conditions=smooth.astype(np.float32),
                )
            )
        alarms += bool(list(against_signs(Path(), findings)))
    assert alarms <= 4


def test_actions_that_are_no_displacements_are_left_alone(tmp_path):
    """Targets, whose sign says nothing about the movement, and unsigned ones."""
    generator = np.random.default_rng(0)
    for number in range(8):
        frames, actions, positions = moving_square(generator, 14)
        write_sequence(
            tmp_path / "train" / str(number),
            frames,
            np.column_stack([positions[:, 0] - 30, np.abs(actions[:, 1])]),
            positions,
        )
    assert problems(tmp_path) == []


def test_statistics_are_compared_column_by_column(root):
    info = layout.read_info(root)
    for number, folder in enumerate(sorted(root.glob("*/*"))):
        table = np.column_stack([np.arange(14) * 1000.0 + number, np.arange(14) * 0.01])
        (folder / "actions.csv").write_text("".join(f"{a:.9g},{b:.9g}\n" for a, b in table))
    build_index(root)
    info = layout.read_info(root)
    mean = [info.mean[0], info.mean[1] + 0.5, *info.mean[2:]]
    layout.write_index(root, layout.read_index(root), dataclasses.replace(info, mean=mean))
    assert [line for line in problems(root) if "statistics" in line or "dataset.json" in line] == [
        f"dataset.json: mean is not that of the training split; run `svg-data index {root}` again"
    ]


def test_a_split_that_the_index_says_otherwise(root):
    index = layout.read_index(root).astype({"split": str})
    index.loc[1, ["split", "sequence"]] = "test", "from_train"
    layout.write_index(root, index, layout.read_info(root))
    assert any("train/1: found split train, index.csv says test" in line for line in problems(root))


def test_a_packed_data_set_without_its_index_says_so(root, tmp_path):
    pack(root, tmp_path / "packed", workers=1)
    index = (tmp_path / "packed" / layout.INDEX_FILE).read_text()
    (tmp_path / "packed" / layout.INDEX_FILE).unlink()
    assert any("index.csv: not found" in line for line in problems(tmp_path / "packed"))
    (tmp_path / "packed" / layout.INDEX_FILE).write_text(index)
    (tmp_path / "packed" / layout.INFO_FILE).write_text("{")
    assert any("dataset.json: damaged" in line for line in problems(tmp_path / "packed"))


def test_splits_that_share_frames(root):
    shutil.rmtree(root / "test/0")
    shutil.copytree(root / "train/2", root / "test/0")
    shutil.copytree(root / "train/0", root / "train/8")
    shutil.rmtree(root / "validate/0")
    shutil.copytree(root / "train/3", root / "validate/0")
    for number in range(14):  # a stretch of it, cut anew
        source = root / "train/3" / f"{number + 4}.png"
        shutil.copy(source, root / "validate/0" / f"{number}.png") if source.exists() else (
            root / f"validate/0/{number}.png"
        ).unlink()
    build_index(root)
    found = [line.split(";")[0] for line in problems(root) if "frames" in line]
    assert found == [
        "train/8: the same frames as train/0",
        "validate/0: 10 of its frames stand in train/3 as well",
        "test/0: 14 of its frames stand in train/2 as well",
    ]


@pytest.mark.slow
def test_a_damaged_packed_data_set_is_told_once(root, tmp_path, capsys):
    pack(root, tmp_path / "packed", workers=1)
    with open(tmp_path / "packed/train/frames.npy", "r+b") as file:
        file.truncate(1000)
    assert svg_data.main(["check", str(tmp_path / "packed"), "--workers", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "frames.npy: found 1000 bytes" in line]) == 1


@pytest.mark.slow
def test_show(root, tmp_path, capsys):
    frames, actions, positions = moving_square(np.random.default_rng(3), 5)
    write_sequence(root / "train" / "9", frames, actions, positions)
    build_index(root, "squares", "drawn here")
    assert svg_data.main(["show", str(root)]) == 0
    text = (root / "overview.txt").read_text()
    assert text in capsys.readouterr().out
    assert text.startswith(
        f"squares: drawn here ({root}, folders)\nframes 64x64x3, 2 action and 2 position columns\n"
    )
    rows = {tuple(line.split()[:3]): line.split()[3:] for line in text.splitlines()}
    assert rows["train", "5", "61"][:2] == ["5-14", "5"] and rows["test", "2", "28"][:2] == ["14", "2"]
    tables = [np.loadtxt(path, delimiter=",") for path in root.glob("train/*/actions.csv")]
    column = np.concatenate(tables)[:, 1]
    expected = [column.min(), column.mean(), column.std(), column.max()]
    np.testing.assert_allclose([float(cell) for cell in rows["action", "2", "train"]], expected, rtol=1e-4)
    with Image.open(root / "overview.png") as image:
        assert image.width > 500 and len(image.convert("RGB").getcolors(1 << 20)) > 20
    pack(root, tmp_path / "packed", workers=1)
    assert (
        svg_data.main(
            ["show", str(tmp_path / "packed"), "--out", str(tmp_path / "sheet.png"), "--sequences", "1"]
        )
        == 0
    )
    assert (tmp_path / "sheet.txt").exists()
    assert svg_data.main(["show", str(root), "--out", "x.jpg"]) == 2


@pytest.mark.slow
def test_show_with_odd_names_and_large_constants(tmp_path):
    for number, name in enumerate(("a$_$b", "\u6f22\u5b57", "c")):
        table = np.column_stack(
            [np.full(4, 1.7e9), np.full(4, (-1) ** number * 3e38), np.full(4, 0.1 * number)]
        )
        write_sequence(tmp_path / "train" / name, np.full((4, 8, 8, 3), number, np.uint8), table, None)
    build_index(tmp_path, "a$_$b")
    assert svg_data.main(["show", str(tmp_path)]) == 0


def test_motion_and_brightness_by_hand(tmp_path, capsys):
    frames = np.zeros((3, 8, 8, 1), np.uint8)
    frames[1] = 30
    frames[2, :4] = 90  # mean difference 30, then (60 + 30) / 2 = 45
    write_sequence(tmp_path / "test" / "0", frames, None, None)
    build_index(tmp_path)
    assert svg_data.main(["show", str(tmp_path)]) == 0
    assert "25.0   37.50" in capsys.readouterr().out


@pytest.mark.skipif(
    not (RECORDINGS / "bair_sequence.npz").exists(), reason=f"no real recordings in {RECORDINGS}"
)
def test_real_sequences_are_not_doubtful(tmp_path):
    recording, clips = np.load(RECORDINGS / "bair_sequence.npz"), np.load(RECORDINGS / "bair_clips.npz")
    write_sequence(tmp_path / "train" / "0", recording["image_aux1"], recording["action"], None)
    assert problems(tmp_path) == []
    for name in clips:
        write_sequence(tmp_path / "clips" / "train" / name, clips[name], None, None)
    assert problems(tmp_path / "clips") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_NAMES)
def test_show_names_of_all_kinds(name, root, capsys):
    info = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(info | {"name": name, "source": name}))
    assert svg_data.main(["show", str(root), "--sequences", "1"]) == 0
    text = (root / "overview.txt").read_text()
    assert text.replace("\n", "").isprintable() and not set(capsys.readouterr().out) & set("\x1b\0")
