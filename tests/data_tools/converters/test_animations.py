"""Animated pictures are sequences; frames that are shown for longer count several times."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from data_tools import layout
from data_tools.converters import videos
from data_tools.converters.images import MOST_REPEATS, count_frames, read_animation
from data_tools.errors import InputError
from tests.support.recordings import read_sequence, shades, shared_case, write_animation

SUFFIXES = (".webp", ".png", ".apng", ".tif", ".tiff", ".gif")


def values(path: Path) -> list[int]:
    """Return the shade of each frame of an animation."""
    return [picture.getpixel((8, 8))[0] for picture in read_animation(path)]


def lengths(root: Path) -> dict[str, int]:
    index = layout.read_index(root)
    return dict(zip(index["sequence"], index["frames"], strict=True))


def test_the_case_of_animations_in_a_folder(tmp_path):
    videos.convert(shared_case("animated_in_folder"), tmp_path / "out", workers=1)
    names = ("monday.webp", "tuesday.webp", "wednesday.png", "thursday.tif")
    assert lengths(tmp_path / "out") == {f"{name}/0": 12 for name in names}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_frame_of_every_animation_is_taken(tmp_path, suffix):
    for name in "abc":
        write_animation(tmp_path / "in" / f"{name}{suffix}", shades(7))
    assert values(tmp_path / "in" / f"a{suffix}") == [10, 20, 30, 40, 50, 60, 70]
    videos.convert(tmp_path / "in", tmp_path / "out", every=2, image_width=16, workers=1)
    assert lengths(tmp_path / "out") == {f"{name}{suffix}/0": 4 for name in "abc"}
    assert read_sequence(tmp_path / "out" / "train" / f"a{suffix}" / "0")[:, 8, 8, 0].tolist() == [
        10,
        30,
        50,
        70,
    ]


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".jpg"])
def test_pictures_of_a_folder_are_one_sequence_as_before(tmp_path, suffix):
    (tmp_path / "in").mkdir()
    for number, picture in enumerate(shades(5)):
        picture.save(tmp_path / "in" / f"{number}{suffix}", format="PNG" if suffix == ".apng" else None)
        assert count_frames(tmp_path / "in" / f"{number}{suffix}") == 1
    videos.convert(tmp_path / "in", tmp_path / "out", image_width=16, shares=(1, 0, 0), workers=1)
    assert lengths(tmp_path / "out") == {"in/0": 5}


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
@pytest.mark.parametrize(
    ("durations", "times"),
    [
        ([40, 120, 40, 40, 80], [1, 3, 1, 1, 2]),
        ([30, 30, 40, 30, 70], [1, 1, 1, 1, 2]),  # 30 frames a second in steps of 10 ms
        ([100, 50, 100, 100, 100], [1, 1, 1, 1, 1]),
        ([0, 0, 0, 0, 0], [1, 1, 1, 1, 1]),
        ([20, 20, 20, 20, 20 * (MOST_REPEATS + 1)], [1, 1, 1, 1, 1]),  # a pause at the end
    ],
)
def test_a_frame_that_is_shown_for_longer_is_repeated(tmp_path, suffix, durations, times):
    write_animation(tmp_path / f"a{suffix}", shades(5), duration=durations)
    assert values(tmp_path / f"a{suffix}") == np.repeat([10, 20, 30, 40, 50], times).tolist()


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_equal_frames_that_the_file_stores_as_one_are_not_lost(tmp_path, suffix):
    """The encoders join equal neighbours and add up their durations."""
    pictures = [shades(4)[number] for number in (0, 1, 1, 1, 2, 3, 3)]
    write_animation(tmp_path / f"a{suffix}", pictures, duration=50)
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.n_frames == 4
    assert values(tmp_path / f"a{suffix}") == [10, 20, 20, 20, 30, 40, 40]


def test_the_still_that_stands_for_an_animated_png_is_no_frame_of_it(tmp_path):
    write_animation(tmp_path / "a.png", shades(5), default_image=True, duration=[50] * 4)
    assert values(tmp_path / "a.png") == [20, 30, 40, 50]
    write_animation(tmp_path / "b.png", shades(2), default_image=True, duration=[50])
    assert count_frames(tmp_path / "b.png") == 1


def test_thumbnails_and_masks_in_a_tiff_are_no_frames(tmp_path):
    """Cameras put a small copy of the picture on a second page."""
    pages = shades(4)
    for page, kind in zip(pages, (0, 1, 0, 4), strict=True):
        page.encoderinfo = {"tiffinfo": TiffImagePlugin.ImageFileDirectory_v2()}
        page.encoderinfo["tiffinfo"][254] = kind
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert values(tmp_path / "a.tif") == [10, 30]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:2])
    assert count_frames(tmp_path / "b.tif") == 1


def test_pages_of_more_than_8_bits_are_refused(tmp_path):
    pages = [Image.fromarray(np.full((8, 8), 1000 * number, np.uint16)) for number in range(3)]
    write_animation(tmp_path / "in" / "a.tif", pages)
    with pytest.raises(InputError, match=r"a.tif: a picture of more than 8 bits a channel"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)


def test_a_page_larger_than_the_first_is_not_decoded(tmp_path, monkeypatch):
    write_animation(tmp_path / "a.tif", [*shades(2), Image.new("RGB", (60, 50))])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with pytest.raises(ValueError, match="frame 2 has 60x50 pixels"):
        values(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif", ".tif"])
def test_a_damaged_animation_is_named(tmp_path, suffix):
    for name in "abc":
        write_animation(tmp_path / "in" / f"{name}{suffix}", shades(9))
    path = tmp_path / "in" / f"b{suffix}"
    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) * 2 // 3])
    with pytest.raises(InputError, match=rf"b{suffix}: (unreadable picture|the file ends in the middle)"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    assert not (tmp_path / "out" / "index.csv").exists()


def test_a_single_animation_as_the_source(tmp_path):
    write_animation(tmp_path / "a.webp", shades(12))
    videos.convert(tmp_path / "a.webp", tmp_path / "out", length=4, image_width=16, workers=1)
    assert layout.read_index(tmp_path / "out")["path"].tolist() == [
        f"{s}/a.webp/{n}" for n, s in enumerate(layout.SPLITS)
    ]
