"""TFRecord files and the ``tf.train.Example`` messages in them, without TensorFlow. No number in a file is believed unchecked.

A record is: length, uint64; masked CRC32C of the length, uint32; data; masked CRC32C of the data, uint32; all little-endian
(https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details). An Example is a protocol buffer:
``Example{Features features=1}``, ``Features{map<string, Feature> feature=1}``, ``Feature{oneof: BytesList=1, FloatList=2,
Int64List=3}``, each list with its repeated ``value=1`` (tensorflow/core/example/feature.proto).
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .files import open_regular

Feature = list[bytes] | np.ndarray  # bytes, or float32 or int64 [N]

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
FRAMING_BYTES = _HEADER.size + _CHECKSUM.size  # of a record beside its data
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # protocol buffer wire types


@dataclass(frozen=True)
class Record:
    """One intact record; `number` counts from 0, `offset` is where its length field begins in the file."""

    number: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Damage:
    """A record that is not what its checksums promise."""

    path: Path
    number: int
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path} record {self.number} at byte {self.offset}: {self.reason}"


class MissingRecords(Damage):
    """The end of a file that comes before all expected records have come."""


def read_records(
    path: Path, wanted: Callable[[int], bool] = lambda number: True, expected: int = 0, certain: bool = True
) -> Iterator[Record | Damage]:
    """The records of a file in order, both checksums of each compared; those that are not `wanted` are passed over unread.

    A damaged record comes as `Damage`, the end of a file with fewer than `expected` records as `MissingRecords`. If the length
    of a record is what is damaged, reading goes on at the next place where a length and its checksum agree. How many records lie
    between follows from their number if that is `certain`, otherwise from their size. Raises `InputError` if the file cannot be
    read.
    """
    try:
        with open_regular(path) as file:
            yield from _records(file, path, os.fstat(file.fileno()).st_size, wanted, expected, certain)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); restore this shard, then run again") from None


def _records(file, path: Path, size: int, wanted: Callable[[int], bool], expected: int, certain: bool) -> Iterator[Record | Damage]:
    number, offset = 0, 0
    while offset < size:
        file.seek(offset)
        length = _length(file.read(_HEADER.size))
        end = offset + FRAMING_BYTES + (length or 0)
        if length is None:
            reason = "length field damaged" if size - offset >= _HEADER.size else "file ends within the record"
            yield Damage(path, number, offset, reason)
            end = _next_header(file, offset + 1, size)
            for _ in range(_lost_records(file, offset, end, size, expected - number if certain else 0) - 1):
                number += 1
                yield Damage(path, number, offset, "lost with the one before, whose length field is damaged too")
        elif end > size:
            yield Damage(path, number, offset, f"file ends {end - size} bytes before the record does")
        elif wanted(number):
            data = file.read(length)
            if file.read(_CHECKSUM.size) == _CHECKSUM.pack(masked_crc32c(data)):
                yield Record(number, offset, data)
            else:
                yield Damage(path, number, offset, f"checksum of its {length} bytes does not match")
        number, offset = number + 1, end
    if number < expected:
        yield MissingRecords(path, number, size, f"the file ends here, {expected - number} of {expected} records are missing")


def _lost_records(file, offset: int, end: int, size: int, left: int) -> int:
    """How many records lie between a damaged header and the next intact one, of `left` to the end of the file if that is known."""
    if end >= size:
        return 1
    following, place, intact = 0, end, True
    while place < size and intact:
        file.seek(place)
        length = _length(file.read(_HEADER.size))
        intact = length is not None
        following, place = following + intact, place + FRAMING_BYTES + (length or 0)
    if left and intact and left > following:
        return left - following
    file.seek(end)
    return max(1, round((end - offset) / (FRAMING_BYTES + _length(file.read(_HEADER.size)))))


def masked_crc32c(data: bytes) -> int:
    """CRC32C rotated right by 15 bits plus a constant, as TFRecord stores it."""
    import google_crc32c

    value = google_crc32c.value(data)
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _length(header: bytes) -> int | None:
    """The length that a header gives, or None if its checksum does not match."""
    if len(header) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    return length if checksum == masked_crc32c(header[:8]) else None


def _next_header(file, offset: int, size: int) -> int:
    """The first place from `offset` on where a length and its checksum agree and the record fits into the file; or its end."""
    window = 1 << 20
    while offset < size:
        file.seek(offset)
        data = np.frombuffer(file.read(window + _HEADER.size - 1), np.uint8)
        if len(data) >= _HEADER.size:
            lengths = np.lib.stride_tricks.sliding_window_view(data, 8)[: len(data) - _HEADER.size + 1].copy().view("<u8")[:, 0]
            room = size - FRAMING_BYTES - offset - np.arange(len(lengths))
            # An empty record is no Example, and most places are out already as their length is more than the file has.
            for place in np.flatnonzero((lengths > 0) & (lengths <= np.maximum(room, 0).astype(np.uint64))):
                if _length(data[place : place + _HEADER.size].tobytes()) is not None:
                    return offset + int(place)
        offset += window
    return size


# ---------------------------------------------------------------------------------------------------------- Example


def parse_example(data: bytes) -> dict[str, Feature]:
    """The features of a serialised ``tf.train.Example`` by name. Raises `ValueError` with what is wrong with it."""
    features: dict[str, Feature] = {}
    view = memoryview(data)
    for _, message in _fields(view, 1):
        for _, entry in _fields(message, 1):
            name, feature = "", None
            for number, value in _fields(entry, 1, 2):
                if number == 1:
                    name = bytes(value).decode()  # UnicodeDecodeError is a ValueError
                else:
                    feature = _parse_feature(value)
            if feature is not None:
                features[name] = feature
    return features


def _parse_feature(message: memoryview) -> Feature | None:
    parsed = None
    for kind, values in _fields(message, 1, 2, 3):
        if kind == 1:
            parsed = [bytes(value) for _, value in _fields(values, 1)]
        elif kind == 2:
            packed = b"".join(value for _, value in _fields(values, 1, packable=_FIXED32))
            if len(packed) % 4:
                raise ValueError(f"found {len(packed)} bytes of float32 values")
            parsed = np.frombuffer(packed, "<f4")
        else:
            chunks = [_varints(value) for _, value in _fields(values, 1, packable=_VARINT)]
            parsed = np.array([number for chunk in chunks for number in chunk], np.uint64).view(np.int64)
    return parsed


def _fields(message: memoryview, *numbers: int, packable: int | None = None) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of those fields of a message that have one of `numbers`.

    They have a length before them; those of wire type `packable` may stand alone, as in unpacked repeated fields.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        number, kind = key >> 3, key & 7
        start = place
        if kind == _LENGTH:
            length, start = _varint(message, place)
            place = start + length
        elif kind == _VARINT:
            _, place = _varint(message, place)
        elif kind == _FIXED32:
            place += 4
        elif kind == _FIXED64:
            place += 8
        else:
            raise ValueError(f"found wire type {kind} in a protocol buffer")
        if place > end:
            raise ValueError(f"a field of its protocol buffer ends {place - end} bytes behind the message")
        if number in numbers:
            if kind not in (_LENGTH, packable):
                raise ValueError(f"found wire type {kind} for field {number} of its protocol buffer")
            yield number, message[start:place]


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """(value, next place) of a base-128 number of at most 64 bits."""
    if place < len(message) and message[place] < 0x80:  # nearly all keys and lengths are this short
        return message[place], place + 1
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise ValueError("its protocol buffer ends within a number")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, place
    raise ValueError("found a number of more than 64 bits in a protocol buffer")


def _varints(message: memoryview) -> Iterator[int]:
    place = 0
    while place < len(message):
        value, place = _varint(message, place)
        yield value
