"""The simulator's truth on disk."""

import io

import numpy as np
import pytest
from PIL import Image

from data_tools.errors import InputError
from data_tools.truth import PALETTE, Truth, encode_labels, read_truth, truth_folder, write_truth


@pytest.fixture
def truth() -> Truth:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, (5, 6, 8)).astype(np.uint8)
    return Truth(labels, generator.normal(size=(5, 3, 7)).astype(np.float32))


def test_what_is_written_is_read_again(tmp_path, truth):
    write_truth(tmp_path, "train/00000", truth)
    again = read_truth(tmp_path, "train/00000", (6, 8), 1, 4)
    np.testing.assert_array_equal(again.segmentation, truth.segmentation[1:4])
    np.testing.assert_array_equal(again.poses, truth.poses[1:4])  # 9 digits give back every float32
    header = (truth_folder(tmp_path, "train/00000") / "objects.csv").read_text().split("\n")[0].split(",")
    assert header[:8] == [f"object0_{part}" for part in ("x", "y", "z", "qw", "qx", "qy", "qz")] + [
        "object1_x"
    ]


def test_any_viewer_shows_the_labels_in_colours(truth):
    with Image.open(io.BytesIO(encode_labels(truth.segmentation[0]))) as image:
        colours = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(colours, np.array(PALETTE, np.uint8)[truth.segmentation[0]])


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (lambda folder: (folder / "2.png").unlink(), "2.png: cannot be read"),
        (lambda folder: (folder / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "2.png: cannot be read"),
        (
            lambda folder: Image.new("RGB", (8, 6)).save(folder / "2.png"),
            "2.png: found RGB 6x8, expected a palette",
        ),
        (
            lambda folder: Image.new("P", (9, 6)).save(folder / "2.png"),
            "2.png: found P 6x9, expected a palette and 6x8",
        ),
        (lambda folder: (folder / "objects.csv").write_text("a,b\n1,2\n"), "its header is not object0_x"),
        (
            lambda folder: (folder / "objects.csv").write_text((folder / "objects.csv").read_text()[:-40]),
            "objects.csv: cannot be read",
        ),
    ],
)
def test_damage_is_named(tmp_path, truth, harm, expected):
    write_truth(tmp_path, "train/00000", truth)
    harm(truth_folder(tmp_path, "train/00000"))
    with pytest.raises(InputError, match=expected):
        read_truth(tmp_path, "train/00000", (6, 8), 0, 5)


def test_a_data_set_without_truth_is_told_how_to_have_it(tmp_path):
    with pytest.raises(InputError, match="not found; simulate the data set with --truth"):
        read_truth(tmp_path, "train/00000", (6, 8), 0, 5)
