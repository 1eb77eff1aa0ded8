"""GIFs and strips: sizes, order, borders, colours."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from data_tools.errors import InputError
from svg.figures.colours import GIVEN, INK, PREDICTED
from svg.figures.films import require_mp4, save_gif, save_mp4
from svg.figures.rendering import (
    BORDER,
    fitted,
    panel,
    render_sequence,
    side_by_side,
    strip,
    text_font,
    to_video,
)
from tests.support.samples import ODD_NAMES


@pytest.fixture
def video() -> np.ndarray:
    """6 frames of 64x64 that grow brighter, blue on the left and orange on the right."""
    frames = np.zeros((6, 64, 64, 3), np.uint8)
    for time in range(6):
        frames[time, :, :32] = (0, 0, 100 + 25 * time)
        frames[time, :, 32:] = (100 + 25 * time, 60, 0)
    return frames


def test_to_video():
    given, predicted = torch.zeros(2, 3, 4, 4), torch.full((3, 3, 4, 4), 0.5)
    predicted[:, 0] = 7.0  # out of range: clipped
    video = to_video(given, predicted)
    assert video.shape == (5, 4, 4, 3) and video.dtype == np.uint8
    assert not video[:2].any() and video[2, 0, 0].tolist() == [255, 128, 128]
    assert to_video(given[:, :1], predicted[:, :1]).shape == (5, 4, 4, 3)  # grey


def test_panel(video):
    for given, colour in ((True, GIVEN), (False, PREDICTED)):
        picture = np.asarray(panel(video[0], given, 128))
        assert picture.shape == (128 + 2 * BORDER, 128 + 2 * BORDER, 3)
        border = picture.copy()
        border[BORDER:-BORDER, BORDER:-BORDER] = colour
        assert (border == colour).all()
        np.testing.assert_array_equal(picture[BORDER + 64, BORDER + 32], video[0, 32, 16])


def read_gif(path) -> list[np.ndarray]:
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")).astype(int))
        return frames


def test_gif_has_every_frame_in_its_colours(tmp_path, video):
    pictures = side_by_side({"ref": video, "pred": video[::-1]}, 2)
    save_gif(pictures, tmp_path / "a.gif", fps=5)
    frames = read_gif(tmp_path / "a.gif")
    assert len(frames) == 6
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame - np.asarray(picture)).mean() < 3
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == 200 and image.info["loop"] == 0


def test_what_stands_still_does_not_flicker(tmp_path):
    generator = np.random.default_rng(0)
    video = np.broadcast_to(generator.integers(0, 255, (1, 64, 64, 3), np.uint8), (8, 64, 64, 3)).copy()
    video[:, :8] = generator.integers(0, 255, (8, 8, 64, 3), np.uint8)  # only the top moves
    save_gif([Image.fromarray(frame) for frame in video], tmp_path / "a.gif", fps=5)
    frames = read_gif(tmp_path / "a.gif")
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame[8:], frames[0][8:])


def test_render_sequence(tmp_path, video):
    written = render_sequence(tmp_path / "new", "best", {"ref": video, "rec": video, "pred": video}, 2, 5)
    names = ["best_ref.gif", "best_rec.gif", "best_pred.gif", "best.gif", "best.png"]
    assert [path.name for path in written] == names and all(path.exists() for path in written)
    strip = np.asarray(Image.open(tmp_path / "new" / "best.png")).reshape(-1, 3)
    # Three rows of 2 given and 4 predicted frames of 96 pixels within borders of 4
    ring = (96 + 2 * BORDER) ** 2 - 96**2
    assert (strip == GIVEN).all(1).sum() == 3 * 2 * ring and (strip == PREDICTED).all(1).sum() == 3 * 4 * ring


def assert_text(picture: Image.Image, text: str, place: tuple[float, float], size: int, anchor: str) -> None:
    """Fails unless the picture has exactly this text at this place."""
    font = text_font(size)
    expected = Image.new("RGB", picture.size, "white")
    draw = ImageDraw.Draw(expected)
    draw.text(place, text, INK, font, anchor=anchor)
    left, top, right, bottom = map(round, draw.textbbox(place, text, font, anchor=anchor))
    assert right <= picture.width and bottom <= picture.height and left >= 0 and top >= 0
    box = (left - 2, top - 2, right + 2, bottom + 2)
    assert picture.crop(box).tobytes() == expected.crop(box).tobytes(), text


@pytest.fixture
def scores() -> dict[str, np.ndarray]:
    """PSNR of the video's frames, the first two of which are given."""
    return {"pred": np.array([np.nan, np.nan, 31.04, 30.0, 29.96, 29.0])}


def test_pictures_name_their_sequence_and_scores(video, scores):
    pictures = side_by_side({"ref": video, "pred": video}, 2, title="best: sequence 7", scores=scores)
    assert len(pictures) == 6 and pictures[0].size == (8 + 2 * 208, 50 + 200 + 18 + 24)
    for time, picture in enumerate(pictures):
        assert_text(picture, "best: sequence 7", (8, 18), 15, "ls")
        assert_text(picture, "ref", (8 + 100, 45), 14, "ms")
        assert_text(picture, "pred: mean 30.00 dB", (216 + 100, 45), 14, "ms")
        below = np.asarray(picture)[251:267]
        assert (below[:, :210] == 255).all()  # none below the truth
        if time < 2:
            assert (below == 255).all()
        else:
            assert_text(
                picture, f"PSNR {('31.0', '30.0', '30.0', '29.0')[time - 2]} dB", (216 + 100, 264), 13, "ms"
            )


def test_strips_name_their_sequence_and_scores(video, scores):
    picture = strip({"ref": video, "pred": video}, 2, title="sequence 7", scores=scores)
    left = 12 + int(text_font(12).getlength("mean 30.00 dB"))
    assert picture.size == (left + 6 * 107, 44 + 107 + 107 + 16)
    assert_text(picture, "sequence 7; PSNR of each predicted frame in dB", (4, 17), 14, "ls")
    assert_text(picture, "mean 30.00 dB", (4, 44 + 107 + 52 + 17), 12, "lm")
    for time, text in enumerate(("31.0", "30.0", "30.0", "29.0"), start=2):
        assert_text(picture, text, (left + 107 * time + 52, 44 + 107 + 104 + 12), 12, "ms")


def test_without_scores_pictures_are_as_before(video):
    assert (
        side_by_side({"ref": video}, 2)[0].size == (216, 250) and strip({"ref": video}, 2).size[1] == 22 + 107
    )


def test_a_prediction_without_an_error(video):
    picture = side_by_side({"pred": video[:1]}, 0, scores={"pred": np.array([np.inf])})[0]
    assert_text(picture, "pred: mean inf dB", (108, 21), 14, "ms")
    assert_text(picture, "PSNR inf dB", (108, 240), 13, "ms")


@pytest.mark.parametrize("name", [*ODD_NAMES, "word " * 300])
def test_names_of_all_kinds_fit(name, video, scores, tmp_path):
    assert text_font(15).getlength(fitted(name, text_font(15), 200)) <= 200
    title = f"sequence {name}"
    written = render_sequence(tmp_path, "a", {"pred": video}, 2, 5, title=title, scores=scores)
    assert [path.name for path in written] == ["a_pred.gif", "a.gif", "a.png"]
    assert np.asarray(side_by_side({"pred": video}, 2, title=title, scores=scores)[0])[:24, -8:].min() == 255


def test_text_takes_no_colours_from_the_frames(tmp_path):
    """With title and scores, the frames in a GIF are as near to what they were as without."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    shapes = np.stack([x * 3 + 40, y * 3 + 30, 255 - x * 2 - y], -1)
    video = np.clip(shapes + random.normal(0, 12, (8, 64, 64, 3)), 0, 255).astype(np.uint8)
    errors = []
    for texts in ({}, {"title": "sequence 12", "scores": {"pred": 30 + random.random(8)}}):
        pictures = side_by_side({"pred": video}, 2, **texts)
        top = 26 + 24 * bool(texts)
        save_gif(pictures, tmp_path / "a.gif", fps=5)
        inside = (slice(top, top + 200), slice(8, 208))
        frames = zip(read_gif(tmp_path / "a.gif"), pictures, strict=True)
        errors.append(
            np.mean(
                [np.abs(frame[inside] - np.asarray(picture, int)[inside]).mean() for frame, picture in frames]
            )
        )
    assert errors[1] < 1.05 * errors[0] and errors[0] < 8


def test_mp4(tmp_path, video):
    """Read back with the library that wrote it: sizes, number of frames and colours."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    pictures = side_by_side({"ref": video}, 2)
    save_mp4(pictures, tmp_path / "a.mp4", fps=5)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
    meta = next(reader)
    frames = [np.frombuffer(frame, np.uint8).reshape(meta["size"][1], meta["size"][0], 3) for frame in reader]
    assert meta["fps"] == 5 and len(frames) == 6 + 3
    for frame, picture in zip(frames, pictures, strict=False):
        assert np.abs(frame.astype(int) - np.asarray(picture)[: len(frame), : frame.shape[1]]).mean() < 6


def test_mp4_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"--mp4: .* needs imageio-ffmpeg: pip install"):
        require_mp4()
