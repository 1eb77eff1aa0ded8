"""GIFs and strips: sizes, order, borders, colours."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.layout import InputError
from svg.rendering import BORDER, GIVEN, PREDICTED, panel, render_sequence, require_mp4, save_gif, save_mp4, side_by_side, to_video


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
