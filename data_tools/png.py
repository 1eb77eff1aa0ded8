"""PNG frames: read their size without decoding, decode and encode them.

Plain 8-bit grey and RGB, which nearly all frames are, take a fast way with kornia-rs; Pillow reads every
other kind. imageio takes some twenty times as long as the fast way (0.3 ms against 0.012 ms for 64x64
pixels).
"""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import InputError
from .files import open_regular, read_bytes
from .layout import MAX_PIXELS, MAX_WIDTH
from .signatures import kind_of

try:  # the pixels of Pillow in a third of the time, and every checksum is compared
    from kornia_rs.io import decode_image_png_u8
except ImportError:  # there is no wheel for this platform
    decode_image_png_u8 = None

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = 33  # signature and IHDR chunk
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour type -> channels after `read_frame`
# By channels, the end of the header of 8-bit grey and RGB without palette and interlace.
_PLAIN = {1: b"\x08\x00\x00\x00\x00", 3: b"\x08\x02\x00\x00\x00"}
_MOST_OVERHEAD = 2**20  # bytes of a file beside its pixels: colour profiles and the like
_SUB = 1  # filter type: each byte minus that of the pixel to its left


def read_image_size(path: Path) -> tuple[int, int, int]:
    """Return (height, width, channels) of a PNG from its first bytes, without decoding it.

    Raises `InputError` naming the file.
    """
    try:
        with open_regular(path) as file:
            return _size(path, file.read(_HEADER_BYTES), os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore this frame") from None


def _size(path: Path | str, head: bytes, length: int) -> tuple[int, int, int]:
    """Return (height, width, channels) from the first bytes of a file of this length. Raises `InputError`."""
    if len(head) < _HEADER_BYTES or head[:8] != _SIGNATURE or head[12:16] != b"IHDR":
        kind = None if head[:8] == _SIGNATURE else kind_of(head)
        found = kind or f"{length} bytes"
        raise InputError(f"{path}: not a PNG image ({found}); convert or restore this frame")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    if depth > 8 or colour not in _CHANNELS:
        found = f"found a PNG of {depth} bits a channel, expected 8-bit grey or RGB"
        raise InputError(f"{path}: {found}; convert this frame")
    if not (0 < height <= MAX_WIDTH and 0 < width <= MAX_WIDTH and height * width <= MAX_PIXELS):
        expected = f"expected at most {MAX_PIXELS} and sides up to {MAX_WIDTH}"
        raise InputError(f"{path}: found {height}x{width} pixels, {expected}; convert it")
    return height, width, _CHANNELS[colour]


def read_frame(path: Path | str, size: tuple[int, int, int], root: Path | None = None) -> np.ndarray:
    """Return one frame, uint8 [H,W,C] with C = 1 (grey) or 3 (RGB); `size` is (H,W,C) by the index.

    Raises `InputError` naming the file, also for a link out of the data root `root`.
    """
    try:
        data = read_bytes(path, most_bytes(size), root)
    except FileNotFoundError:
        missing = "missing frame, though the index lists it"
        raise InputError(f"{path}: {missing}; restore it or run `svg-data index` again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore this frame") from None
    return decode_frame(data, size, path)


def most_bytes(size: tuple[int, int, int]) -> int:
    """Return how large the file of a frame of this size may be."""
    return _MOST_OVERHEAD + 8 * size[0] * size[1]


def decode_frame(data: bytes, size: tuple[int, int, int], path: Path | str) -> np.ndarray:
    """Return the frame uint8 [H,W,C] in the bytes of a PNG. Raises `InputError` as `read_frame` does."""
    height, width, _ = _size(path, data[:_HEADER_BYTES], len(data))
    if (height, width) != size[:2]:  # compared before decoding: a wrong header must not cost memory
        raise InputError(f"{path}: found {height}x{width}, expected {size[0]}x{size[1]}; index again")
    try:
        if decode_image_png_u8 is not None and data[24:29] == _PLAIN[size[2]]:
            return decode_image_png_u8(data, size[:2], "mono" if size[2] == 1 else "rgb")
        return _decode_with_pillow(data, size[2]).reshape(size)
    except Exception as error:  # kornia-rs raises just Exception; Pillow OSError, SyntaxError, zlib.error ...
        reason = str(error) or type(error).__name__
        raise InputError(f"{path}: unreadable PNG ({reason}); restore this frame") from None


def _decode_with_pillow(data: bytes, channels: int) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.verify()  # compares the checksums, which decoding does not
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image.convert("L" if channels == 1 else "RGB"))


def encode_frames(frames: np.ndarray) -> list[bytes]:
    """Return uint8 frames [T,H,W,C] with C = 1 or 3 as PNG files.

    On 64x64 frames of a real camera this takes a sixth of the time of Pillow at its default level, for 9 %
    more bytes: one filter is computed for all frames at once, and in the noise deflate finds little beyond a
    Huffman code.
    """
    count, height, width, channels = frames.shape
    residual = frames.copy()  # each pixel minus the one to its left, modulo 256
    residual[:, :, 1:] -= frames[:, :, :-1]
    rows = np.empty((count, height, 1 + width * channels), np.uint8)
    rows[..., 0], rows[..., 1:] = _SUB, residual.reshape(count, height, -1)
    size = struct.pack(">II", width, height)
    start, end = _SIGNATURE + _chunk(b"IHDR", size + _PLAIN[channels]), _chunk(b"IEND", b"")
    return [start + _chunk(b"IDAT", _deflate(image)) + end for image in rows]


def _deflate(data: np.ndarray) -> bytes:
    deflate = zlib.compressobj(1, zlib.DEFLATED, strategy=zlib.Z_HUFFMAN_ONLY)
    return deflate.compress(data.data) + deflate.flush()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
