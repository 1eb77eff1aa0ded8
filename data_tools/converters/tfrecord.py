"""Read TFRecord files and the ``tf.train.Example`` messages in them, without TensorFlow.

No number in a file is used unchecked.

A record is: length, uint64; masked CRC32C of the length, uint32; data; masked CRC32C of the data, uint32; all
little-endian (https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details). An Example
is a protocol buffer: ``Example{Features features=1}``, ``Features{map<string, Feature> feature=1}``,
``Feature{oneof: BytesList=1, FloatList=2, Int64List=3}``, each list with its repeated ``value=1``
(tensorflow/core/example/feature.proto).
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import InputError
from ..files import open_regular
from ..signatures import HEAD_BYTES, kind_of

Feature = list[bytes] | np.ndarray
"""The values of a feature: bytes, or float32 or int64 [N]."""

MAX_FEATURES = 100_000  # of an Example
_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
FRAMING_BYTES = _HEADER.size + _CHECKSUM.size  # of a record beside its data
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # protocol buffer wire types
_VARINT_BYTES = 10  # of 64 bits, at most
_PIECE = 2**16  # bytes of numbers that are decoded at once


@dataclass(frozen=True)
class Record:
    """One intact record; `number` counts from 0, `offset` is the place of its length field in the file."""

    number: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Damage:
    """A record that contradicts its checksums."""

    path: Path
    number: int
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path} record {self.number} at byte {self.offset}: {self.reason}"


class MissingRecords(Damage):
    """The end of a file that has fewer records than expected."""


def read_records(
    path: Path,
    is_wanted: Callable[[int], bool] = lambda number: True,
    expected: int = 0,
    certain: bool = True,
) -> Iterator[Record | Damage]:
    """Yield the records of a file in order, after comparing both checksums of each.

    Records that are not `is_wanted` are skipped without reading them. A damaged record is yielded as
    `Damage`, the end of a file with fewer than `expected` records as `MissingRecords`. If the length field of
    a record is damaged, reading continues at the next place where a length and its checksum agree; the number
    of records in between follows from `expected` if that is `certain`, otherwise from their size.

    Raises `InputError` if the file cannot be read or is of another kind.
    """
    try:
        with open_regular(path) as file:
            yield from _records(file, path, os.fstat(file.fileno()).st_size, is_wanted, expected, certain)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); restore this shard, then run again"
        ) from None


def _records(
    file: BinaryIO, path: Path, size: int, is_wanted: Callable[[int], bool], expected: int, certain: bool
) -> Iterator[Record | Damage]:
    number, offset = 0, 0
    while offset < size:
        file.seek(offset)
        length = _length(file.read(_HEADER.size))
        end = offset + FRAMING_BYTES + (length or 0)
        if length is None:
            if offset == 0:
                _refuse_other_kinds(file, path)
            is_cut = size - offset < _HEADER.size
            reason = "file ends within the record" if is_cut else "length field damaged"
            yield Damage(path, number, offset, reason)
            end = _next_header(file, offset + 1, size)
            for _ in range(_lost_records(file, offset, end, size, expected - number if certain else 0) - 1):
                number += 1
                lost = "lost with the one before, whose length field is damaged too"
                yield Damage(path, number, offset, lost)
        elif end > size:
            yield Damage(path, number, offset, f"file ends {end - size} bytes before the record does")
        elif is_wanted(number):
            data = file.read(length)
            if file.read(_CHECKSUM.size) == _CHECKSUM.pack(masked_crc32c(data)):
                yield Record(number, offset, data)
            else:
                yield Damage(path, number, offset, f"checksum of its {length} bytes does not match")
        number, offset = number + 1, end
    if number < expected:
        missing = f"{expected - number} of {expected} records are missing"
        yield MissingRecords(path, number, size, f"the file ends here, {missing}")


def _refuse_other_kinds(file: BinaryIO, path: Path) -> None:
    """Raise `InputError` if a file that does not begin with a record is of another kind, not just damaged."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    try:
        either_format = zlib.MAX_WBITS | 32  # zlib or gzip
        start = zlib.decompressobj(wbits=either_format).decompress(head, _HEADER.size)
    except zlib.error:
        start = b""
    if _length(start) is not None:
        kind, program = "ZLIB", "Python's `zlib.decompress`"
        if head[:1] == b"\x1f":
            kind, program = "GZIP", "`gzip -dc OLD > NEW`"
        found = f"found {kind}-compressed TFRecords, expected uncompressed ones"
        raise InputError(f"{path}: {found}; decompress this file with {program}")
    if kind := kind_of(head):
        raise InputError(f"{path}: found {kind}, expected TFRecords; convert it to them or move it away")


def _lost_records(file: BinaryIO, offset: int, end: int, size: int, left: int) -> int:
    """Return the number of records between a damaged header and the next intact one, at `end`.

    `left` is the number of records to the end of the file, or 0 if it is unknown.
    """
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
    size_of_next = FRAMING_BYTES + (_length(file.read(_HEADER.size)) or 0)
    return max(1, round((end - offset) / size_of_next))


def masked_crc32c(data: bytes) -> int:
    """Return CRC32C rotated right by 15 bits plus a constant, as TFRecord stores it."""
    import google_crc32c

    return _mask(google_crc32c.value(data))


def _mask(value: Any) -> Any:
    """Return a 32-bit number, or an array of them, rotated right by 15 bits plus a constant."""
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _length(header: bytes) -> int | None:
    """Return the length that a header gives, or None if its checksum does not match."""
    if len(header) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(header)
    return length if checksum == masked_crc32c(header[:8]) else None


def _next_header(file: BinaryIO, offset: int, size: int) -> int:
    """Return the first place from `offset` on where a length and its checksum agree and the record fits in.

    If there is none it is the end of the file.
    """
    window = 1 << 12  # most damage is short; longer damage is read in larger pieces
    while offset < size:
        file.seek(offset)
        data = np.frombuffer(file.read(window + _HEADER.size - 1), np.uint8)
        if len(data) >= _HEADER.size:
            headers = np.lib.stride_tricks.sliding_window_view(data, _HEADER.size)
            lengths = headers[:, :8].copy().view("<u8")[:, 0]
            room = size - FRAMING_BYTES - offset - np.arange(len(lengths))
            # An empty record is no Example. Most places drop out as their length is more than the file has.
            places = np.flatnonzero((lengths > 0) & (lengths <= np.maximum(room, 0).astype(np.uint64)))
            checksums = headers[places, 8:].copy().view("<u4")[:, 0]
            matching = places[_masked_crc32c_of_lengths(headers[places, :8]) == checksums]
            if len(matching):
                return offset + int(matching[0])
        offset += window
        window = min(2 * window, 1 << 18)
    return size


def _masked_crc32c_of_lengths(lengths: np.ndarray) -> np.ndarray:
    """Return `masked_crc32c` of each of many length fields, uint8 [N,8], as uint64 [N]."""
    values = np.full(len(lengths), 0xFFFFFFFF, np.uint64)
    for column in lengths.T:
        values = _CRC32C_TABLE[(values ^ column) & 0xFF] ^ (values >> 8)
    return _mask(values ^ 0xFFFFFFFF)


def _crc32c_table() -> np.ndarray:
    """Return the CRC32C of each byte, uint64 [256] (RFC 3720; polynomial 0x1EDC6F41, its bits reflected)."""
    values = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        values = (values >> 1) ^ (values & 1) * 0x82F63B78
    return values


_CRC32C_TABLE = _crc32c_table()


# ---------------------------------------------------------------------------------------------------- Example


class Example(Mapping[str, Feature]):
    """The features of a serialised ``tf.train.Example`` by name.

    A feature is decoded when it is looked up, so that others take no memory. Raises `ValueError` with the
    fault of the message, or of a feature when that is looked up.
    """

    def __init__(self, data: bytes):
        self._messages: dict[str, memoryview] = {}
        for number, message in _fields(memoryview(data), 1, 2):
            if number == 2:
                expected = "expected a tf.train.Example, as TensorFlow Datasets writes them"
                raise ValueError(f"a tf.train.SequenceExample, {expected}")
            for _, entry in _fields(message, 1):
                name, feature = "", b""
                for field, value in _fields(entry, 1, 2):
                    if field == 1:
                        name = bytes(value).decode()  # UnicodeDecodeError is a ValueError
                    else:
                        feature = value
                if len(feature):
                    self._messages[name] = feature
                if len(self._messages) > MAX_FEATURES:
                    raise ValueError(f"more than {MAX_FEATURES} features")

    def __getitem__(self, name: str) -> Feature:
        return _decode(self._messages[name])

    def __contains__(self, name: object) -> bool:
        return name in self._messages

    def __iter__(self) -> Iterator[str]:
        return iter(self._messages)

    def __len__(self) -> int:
        return len(self._messages)


def parse_example(data: bytes) -> Example:
    """Return the features of a serialised ``tf.train.Example``. Raises `ValueError` with the fault."""
    return Example(data)


def some_names(features: Mapping[str, Feature], most: int = 5) -> str:
    """Return the names of the first features, for errors."""
    names = sorted(features)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:60] for name in names[:most]) + more if names else "none"


def _decode(message: memoryview) -> Feature:
    feature = None
    for kind, values in _fields(message, 1, 2, 3):
        if kind == 1:
            feature = [bytes(value) for _, value in _fields(values, 1)]
        elif kind == 2:
            packed = _joined(values, _FIXED32)
            if len(packed) % 4:
                raise ValueError(f"found {len(packed)} bytes of float32 values")
            feature = np.frombuffer(packed, "<f4")
        else:
            feature = _varints(_joined(values, _VARINT))
    if feature is None:
        raise ValueError("found a feature without a list of values")
    return feature


def _joined(message: memoryview, packable: int) -> bytearray:
    """Return the bytes of the numbers of a list; in the file they are packed, in pieces or unpacked."""
    joined = bytearray()
    for _, value in _fields(message, 1, packable=packable):
        joined += value
    return joined


def _fields(
    message: memoryview, *numbers: int, packable: int | None = None
) -> Iterator[tuple[int, memoryview]]:
    """Yield (number, content) of those fields of a message that have one of `numbers`.

    They have a length before them; those of wire type `packable` may stand alone, as in unpacked repeated
    fields.
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
    """Return (value, next place) of a base-128 number of at most 64 bits."""
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


def _varints(data: bytearray) -> np.ndarray:
    """Return base-128 numbers of at most 64 bits each, one after the other, as int64 [N]."""
    octets = np.frombuffer(data, np.uint8)
    if len(octets) and octets[-1] >= 0x80:
        raise ValueError("its protocol buffer ends within a number")
    numbers = np.zeros(np.count_nonzero(octets < 0x80), np.uint64)
    done, start = 0, 0
    while start < len(octets):
        last = np.flatnonzero(
            octets[start : start + _PIECE] < 0x80
        )  # last bytes of the numbers in this piece
        first = np.concatenate([[0], last[:-1] + 1])[: len(last)]
        longest = int((last - first).max(initial=0)) + 1
        if longest > _VARINT_BYTES or not len(last):
            raise ValueError("found a number of more than 64 bits in a protocol buffer")
        values = numbers[done : done + len(last)]
        for place in range(longest):  # seven bits of each number that has so many
            longer = first + place <= last
            bits = octets[start + first[longer] + place] & np.uint64(0x7F)
            values[longer] |= bits << np.uint64(7 * place)
        done += len(last)
        start += int(last[-1]) + 1
    return numbers.view(np.int64)
