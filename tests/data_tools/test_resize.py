"""A copy of a data set with frames of another size, to train on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.transform import resize as skimage_resize

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.converters import videos
from data_tools.errors import InputError
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack import pack
from data_tools.resize import resize
from data_tools.store import open_store
from experiments import train
from svg.sequences import SequenceDataset
from tests.support.recordings import contents

SEQUENCES = {"train/day/0": 9, "train/day/1": 7, "val/0": 6, "test/0": 5}  # frames of each
TINY = """--recurrence spatial --model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8
--n_past 2
--n_future 2 --n_eval 4 --batch_size 2 --niter 1 --epoch_size 1 --device cpu"""


def picture(generator: np.random.Generator, height: int, width: int, channels: int) -> np.ndarray:
    """A smooth picture, whose values at any size are known: a slope in each direction."""
    down, right = np.mgrid[0:height, 0:width].astype(float)
    slopes = generator.uniform(0.2, 0.8, (2, channels))
    return (
        20 + slopes[0] * down[..., None] / height * 200 + slopes[1] * right[..., None] / width * 90
    ).astype(np.uint8)


def write_root(root: Path, height: int = 100, width: int = 100, channels: int = 1) -> Path:
    generator = np.random.default_rng(0)
    for path, length in SEQUENCES.items():
        video = np.stack([picture(generator, height, width, channels) for _ in range(length)])
        actions, positions = (
            generator.normal(size=(length, columns)).astype(np.float32) for columns in (4, 3)
        )
        write_sequence(root / path, video, actions, positions)
    build_index(root, "table", "our lab")
    return root


@pytest.fixture
def root(tmp_path) -> Path:
    return write_root(tmp_path / "data")


def items(root: Path, split: str) -> list[dict]:
    return [SequenceDataset(root, split, 5)[number] for number in range(len(SequenceDataset(root, split, 5)))]


@pytest.mark.slow
def test_the_message_of_the_training_leads_to_a_training(root, tmp_path, capsys):
    flags = [*TINY.split(), "--log_dir", str(tmp_path / "run"), "--data_root"]
    assert train.main([*flags, str(root)]) == 2
    printed = capsys.readouterr().err
    command = f"svg-data resize {root} OUT --image_width 64"
    assert (
        f"--image_width: found 64, but the frames of {root} are 100x100; make a copy that fits with "
        f"`{command}`" in printed
    )
    copy = str(tmp_path / "copy")
    assert svg_data.main(command.replace("OUT", copy).split()[1:]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{copy}: 4 sequences written, 0 were there already",
        f"{copy}/index.csv: 4 sequences (2 train, 1 validate, 1 test), frames 64x64x1, 4 action and "
        f"3 position columns",
    ]
    assert train.main([*flags, copy]) == 0


@pytest.mark.parametrize("width", [64, 128])
def test_frames_that_a_flag_fits_lead_to_the_flag(tmp_path, capsys, width):
    root = write_root(tmp_path / "data", width, width)
    other = 192 - width
    assert (
        train.main(
            [
                *TINY.split(),
                "--image_width",
                str(other),
                "--log_dir",
                str(tmp_path / "r"),
                "--data_root",
                str(root),
            ]
        )
        == 2
    )
    assert f"are {width}x{width}; give --image_width {width}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size", "hint"),
    [((100, 100), True), ((64, 128), True), ((64, 64), False), ((128, 128), False), ((32, 32), True)],
)
def test_index_names_the_command(tmp_path, capsys, size, hint):
    root = write_root(tmp_path / "data", *size)
    assert svg_data.main(["index", str(root)]) == 0
    advice = f"`svg-data resize {root} OUT` makes a copy"
    expected = f"the frames are {size[0]}x{size[1]}, the models take 64x64 and 128x128; {advice}"
    assert (expected in capsys.readouterr().out) == hint


def test_all_but_the_pixels_stays(root, tmp_path):
    resize(root, tmp_path / "copy", workers=1)
    before, after = (layout.read_index(folder) for folder in (root, tmp_path / "copy"))
    same = ["split", "sequence", "frames", "channels", "action_dim", "position_dim"]
    assert before[same].equals(after[same])
    assert after["path"].tolist() == ["train/day/0", "train/day/1", "validate/0", "test/0"]
    assert layout.read_info(root) == layout.read_info(tmp_path / "copy")
    for split in layout.SPLITS:
        for old, new in zip(items(root, split), items(tmp_path / "copy", split), strict=True):
            np.testing.assert_array_equal(old["conditions"], new["conditions"])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("width", [64, 128])
def test_pixels_are_those_of_scikit_image(tmp_path, channels, width):
    root = write_root(tmp_path / "data", channels=channels)
    resize(root, tmp_path / "copy", width, workers=1)
    for old, new in zip(items(root, "train"), items(tmp_path / "copy", "train"), strict=True):
        assert new["frames"].shape == (5, width, width, channels)
        for before, after in zip(old["frames"], new["frames"], strict=True):
            expected = skimage_resize(
                before, (width, width, channels), preserve_range=True, anti_aliasing=True
            )
            inner = np.s_[2:-2, 2:-2]  # at the borders the filters differ
            assert (
                np.abs(after[inner].astype(float) - expected[inner]).max() < 1.6
            )  # of 255: both are rounded, twice


def test_frames_of_the_size_stay_as_they_are_and_others_are_cut_or_stretched(tmp_path):
    write_root(tmp_path / "same", 64, 64, 3)
    resize(tmp_path / "same", tmp_path / "same_copy", workers=1)
    for split in layout.SPLITS:
        for old, new in zip(
            items(tmp_path / "same", split), items(tmp_path / "same_copy", split), strict=True
        ):
            np.testing.assert_array_equal(old["frames"], new["frames"])
    wide = np.zeros((2, 10, 30, 3), np.uint8)
    wide[:, :, 10:20] = 200  # the square in the middle
    write_sequence(tmp_path / "wide/train/0", wide, None, None)
    build_index(tmp_path / "wide")
    for fit, expected in (("crop", 200), ("stretch", 0)):
        assert (
            svg_data.main(
                ["resize", str(tmp_path / "wide"), str(tmp_path / fit), "--image_width", "30", "--fit", fit]
            )
            == 0
        )
        with Image.open(tmp_path / fit / "train/0/1.png") as image:
            assert (
                image.size == (30, 30)
                and image.getpixel((1, 1)) == (expected,) * 3
                and image.getpixel((15, 15)) == (200,) * 3
            )


def test_packed_data_give_the_same(root, tmp_path):
    pack(root, tmp_path / "packed", workers=1)
    resize(root, tmp_path / "a", workers=1)
    resize(tmp_path / "packed", tmp_path / "b", workers=2)
    a, b = (contents(tmp_path / name) for name in "ab")
    assert a == b


def test_rows_of_tables_beyond_the_frames_stay(root, tmp_path):
    """Actions of a plan, of which the frames are to be predicted."""
    table = root / "test/0/actions.csv"
    table.write_text(table.read_text() + "1,2,3,4\n" * 3)
    resize(root, tmp_path / "copy", workers=1)
    assert (tmp_path / "copy/test/0/actions.csv").read_bytes() == table.read_bytes()
    assert open_store(tmp_path / "copy", "test").horizon(0, slice(0, 4)) == 5 + 3


def test_splits_are_those_of_the_index(root, tmp_path):
    """Whoever edits the index deals the sequences anew."""
    index = layout.read_index(root).astype({"split": str})
    index.loc[1, ["split", "sequence"]] = "test", "day/1"
    layout.write_index(root, index, layout.read_info(root))
    resize(root, tmp_path / "copy", workers=1)
    assert (tmp_path / "copy/test/day/1/6.png").exists() and not (tmp_path / "copy/train/day/1").exists()


def test_an_interrupted_copy_goes_on_and_another_one_is_refused(root, tmp_path):
    resize(root, tmp_path / "whole", workers=1)
    (root / "test/0/4.png").rename(tmp_path / "4.png")
    with pytest.raises(InputError, match=r"test/0/4.png: missing frame"):
        resize(root, tmp_path / "copy", workers=1)
    (tmp_path / "4.png").rename(root / "test/0/4.png")
    report = resize(root, tmp_path / "copy", workers=1)
    assert (report.written, report.present) == (1, 3)
    before = contents(tmp_path / "copy")
    assert before == contents(tmp_path / "whole")
    with pytest.raises(
        InputError, match="found image_width 64, expected 128 as now asked for; nothing was changed"
    ):
        resize(root, tmp_path / "copy", 128, workers=1)
    (root / "train/day/0/actions.csv").write_text("1,2,3,4\n" * 9)
    with pytest.raises(InputError, match=r"found data set .* as now asked for"):
        resize(root, tmp_path / "copy", workers=1)
    assert contents(tmp_path / "copy") == before


def test_sources_that_do_not_do(root, pose_root, tmp_path):
    with pytest.raises(InputError, match=r"has poses, and `svg-data resize` takes frames alone"):
        resize(pose_root, tmp_path / "copy")
    with pytest.raises(InputError, match="lies within the data set that is copied"):
        resize(root, root / "copy")
    with pytest.raises(InputError, match="--image_width: found 4, expected 8 to 1024"):
        resize(root, tmp_path / "copy", 4)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        resize(tmp_path / "nowhere", tmp_path / "copy")
    write_sequence(
        root / "train/day/1/inner", np.zeros((2, 100, 100, 1), np.uint8), np.zeros((2, 4)), np.zeros((2, 3))
    )
    build_index(root)
    with pytest.raises(InputError, match=r"the sequence inner lies within 1 \(train\); move it out of it"):
        resize(root, tmp_path / "copy", workers=1)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", ["../../elsewhere", "/tmp/elsewhere", "a/../../elsewhere"])
def test_a_name_that_leads_out_of_the_copy_is_refused(root, tmp_path, name):
    index = layout.read_index(root)
    index["sequence"] = [name, *index["sequence"][1:]]
    layout.write_index(root, index, layout.read_info(root))
    with pytest.raises(InputError, match="which leads out of it"):
        resize(root, tmp_path / "copy", workers=1)


def test_frames_points_to_it(root, tmp_path):
    with pytest.raises(
        InputError,
        match=r"is a data set already, .* or `svg-data resize .*data .*out` for frames of another size",
    ):
        videos.convert(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
