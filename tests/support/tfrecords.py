"""Genuine TFRecord files for tests, written independently of the reader.

CRC32C bit by bit, protocol buffers by hand.
"""

import struct
from pathlib import Path

import numpy as np

# CRC-32C (Castagnoli), reflected polynomial 0x82F63B78: RFC 3720, appendix B.4.
_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def masked(value: int) -> bytes:
    return struct.pack("<I", (((value >> 15) | (value << 17 & 0xFFFFFFFF)) + 0xA282EAD8) % 2**32)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(crc32c(length)) + data + masked(crc32c(data))


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values) -> bytes:
    """bytes, or a list of them -> BytesList; float32 array -> FloatList; integer array -> Int64List."""
    if isinstance(values, bytes):
        values = [values]
    if isinstance(values, list):
        return field(1, b"".join(field(1, value) for value in values))
    if values.dtype == np.float32:
        return field(2, field(1, values.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(value) % 2**64) for value in values)))


def example(features: dict) -> bytes:
    return field(
        1, b"".join(field(1, field(1, name.encode()) + field(2, feature(v))) for name, v in features.items())
    )


def bair_features(
    frames: dict[str, np.ndarray], actions: np.ndarray | None, positions: np.ndarray | None
) -> dict:
    """The features of one BAIR sequence; `frames` by camera, uint8 [T,H,W,3]."""
    features = {}
    for time in range(len(next(iter(frames.values())))):
        for camera, images in frames.items():
            features[f"{time}/{camera}/encoded"] = images[time].tobytes()
        for name, table in (("action", actions), ("endeffector_pos", positions)):
            if table is not None:
                features[f"{time}/{name}"] = table[time].astype(np.float32)
    return features


def write_shard(path: Path, examples: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(example(features)) for features in examples))
    return path
