"""PNG frames: the same pixels by the fast way and by Pillow, and one line for whatever is damaged."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from data_tools import png
from data_tools.errors import InputError

FRAME = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)


@pytest.fixture(params=["kornia-rs", "Pillow"])
def decoder(request, monkeypatch):
    """Reading as it is where kornia-rs has a wheel, and where it has none."""
    if request.param == "Pillow":
        monkeypatch.setattr(png, "decode_image_png_u8", None)
    elif png.decode_image_png_u8 is None:
        pytest.skip("kornia-rs is not installed")


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, "PNG", **options)
    return path


KINDS = {
    "RGB": lambda path: saved(path, Image.fromarray(FRAME)),
    "grey": lambda path: saved(path, Image.fromarray(FRAME).convert("L")),
    "palette": lambda path: saved(path, Image.fromarray(FRAME).quantize(16)),
    "grey and alpha": lambda path: saved(path, Image.fromarray(FRAME).convert("LA")),
    "RGBA": lambda path: saved(path, Image.fromarray(FRAME).convert("RGBA")),
    "one bit": lambda path: saved(path, Image.fromarray(FRAME).convert("1")),
    "transparent colour": lambda path: saved(
        path, Image.fromarray(FRAME), transparency=tuple(map(int, FRAME[0, 0]))
    ),
    "optimised": lambda path: saved(path, Image.fromarray(FRAME), optimize=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_as_pillow_reads_it(tmp_path, decoder, kind):
    path = KINDS[kind](tmp_path / "0.png")
    size = png.read_image_size(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("L" if size[2] == 1 else "RGB")).reshape(size)
    np.testing.assert_array_equal(png.read_frame(path, size), expected)
    other = (*size[:2], 4 - size[2])  # grey read as RGB, RGB as grey
    with Image.open(path) as image:
        expected = np.asarray(image.convert("L" if other[2] == 1 else "RGB")).reshape(other)
    np.testing.assert_array_equal(png.read_frame(path, other), expected)


@given(
    arrays(
        np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
    )
)
@settings(deadline=None)
def test_pillow_reads_what_is_written(frames):
    for data, frame in zip(png.encode_frames(frames), frames, strict=True):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.mode == ("L" if frame.shape[2] == 1 else "RGB")
            np.testing.assert_array_equal(np.asarray(image).reshape(frame.shape), frame)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> tuple[Path, bytes]:
    folder = tmp_path_factory.mktemp("png")
    return folder / "0.png", saved(folder / "0.png", Image.fromarray(FRAME)).read_bytes()


def read_or_refuse(path: Path, data: bytes) -> str:
    """Reads damaged data; "read" only with the true pixels, otherwise the one line."""
    path.write_bytes(data)
    try:
        frame = png.read_frame(path, FRAME.shape)
    except InputError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)
        return str(error)
    np.testing.assert_array_equal(frame, FRAME)
    return "read"


def test_every_flipped_bit_in_the_pixels_is_found(good, decoder):
    path, data = good
    for place in range(len(data) - 16):  # what follows holds the end marker, no pixels
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        assert read_or_refuse(path, bytes(damaged)) != "read", place


def test_every_cut_is_found(good, decoder):
    path, data = good
    for length in range(len(data) - 12):
        assert read_or_refuse(path, data[:length]) != "read"


@given(start=st.integers(0, 700), removed=st.integers(0, 40), inserted=st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_damage_gives_the_true_pixels_or_one_line(good, start, removed, inserted):
    path, data = good
    read_or_refuse(path, data[:start] + inserted + data[start + removed :])


def test_a_gigantic_size_is_refused_before_decoding(good):
    path, data = good
    line = read_or_refuse(path, data[:16] + b"\x7f\xff\xff\xff" * 2 + data[24:])
    assert "found 2147483647x2147483647 pixels, expected at most 16777216 and sides up to 16384" in line
    line = read_or_refuse(path, data[:16] + b"\x00\x00\x0f\xff" * 2 + data[24:])
    assert "found 4095x4095, expected 9x14" in line
