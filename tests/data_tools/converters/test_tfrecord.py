"""TFRecords and Examples against an independent writer, a genuine file, and damage of every kind."""

import gzip
import io
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.converters.tfrecord import Damage, Record, masked_crc32c, parse_example, read_records
from data_tools.errors import InputError
from tests.support import tfrecords
from tests.support.limits import deadline, peak_memory
from tests.support.places import RECORDINGS


def test_crc32c_of_known_strings():
    """RFC 3720, appendix B.4: 32 bytes of zeros, of ones, and counting up; masked as TFRecord does."""
    for data, value in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        assert tfrecords.crc32c(data) == value
        assert struct.pack("<I", masked_crc32c(data)) == tfrecords.masked(value)


VALUES = st.one_of(
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(
        lambda v: np.array(v, np.float32)
    ),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5).map(lambda v: np.array(v, np.int64)),
)


@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=6))
@settings(deadline=None)
def test_examples_come_back(features):
    parsed = parse_example(tfrecords.example(features))
    assert parsed.keys() == features.keys()
    for name, values in features.items():
        if isinstance(values, list):
            assert parsed[name] == values
        else:
            assert parsed[name].dtype == values.dtype
            np.testing.assert_array_equal(parsed[name], values)


def test_unpacked_numbers_count_too():
    """Older writers give each number its own key: wire type 5 for floats, 0 for integers."""
    floats = tfrecords.field(2, b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, -2)))
    integers = tfrecords.field(3, b"\x08\x07" + b"\x08" + tfrecords.varint(2**64 - 3))
    for feature, expected in ((floats, [1.5, -2]), (integers, [7, -3])):
        entry = tfrecords.field(1, b"x") + tfrecords.field(2, feature)
        assert parse_example(tfrecords.field(1, tfrecords.field(1, entry)))["x"].tolist() == expected


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_no_example(data):
    try:
        parse_example(data)
    except ValueError as error:
        assert str(error)


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> tuple[Path, list[bytes], list[int]]:
    """A file of five records, their contents and where they begin."""
    contents = [
        tfrecords.example({"number": np.array([n]), "noise": [bytes([n]) * (40 + n)]}) for n in range(5)
    ]
    records = [tfrecords.record(data) for data in contents]
    path = tmp_path_factory.mktemp("shard") / "x.tfrecords"
    path.write_bytes(b"".join(records))
    return path, contents, np.cumsum([0, *map(len, records)]).tolist()


def test_records_in_order(shard):
    path, contents, starts = shard
    assert list(read_records(path)) == [Record(n, starts[n], contents[n]) for n in range(5)]
    assert [record.number for record in read_records(path, lambda number: number in (1, 4))] == [1, 4]


def read(path: Path, data: bytes, **options) -> tuple[list[int], list[Damage]]:
    path.write_bytes(data)
    found = list(read_records(path, **options))
    return [item.number for item in found if isinstance(item, Record)], [
        item for item in found if isinstance(item, Damage)
    ]


def test_every_flipped_bit_is_found_and_costs_one_record(shard, tmp_path):
    path, _, starts = shard
    whole = path.read_bytes()
    for place in range(starts[1], starts[3]):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        struck = 1 if place < starts[2] else 2
        intact, damages = read(tmp_path / "x", bytes(data))
        assert intact == [number for number in range(5) if number != struck]
        assert [(damage.number, damage.offset) for damage in damages] == [(struck, starts[struck])]
        assert str(damages[0]).startswith(f"{tmp_path / 'x'} record {struck} at byte {starts[struck]}: ")


def test_every_cut_is_found(shard, tmp_path):
    path, _, starts = shard
    whole = path.read_bytes()
    for length in range(len(whole)):
        intact, damages = read(tmp_path / "x", whole[:length])
        complete = sum(end <= length for end in starts[1:])
        assert intact == list(range(complete))
        if length in starts:  # only a promise tells that something is missing here
            assert not damages
            _, damages = read(tmp_path / "x", whole[:length], expected=5)
            assert f"{5 - complete} of 5 records are missing" in damages[0].reason
        assert [(damage.number, damage.offset) for damage in damages] == [
            (complete, starts[complete] if length not in starts else length)
        ]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damage_never_passes_for_a_record(shard, tmp_path_factory, data):
    """Whatever is overwritten, inserted or removed: each record was written as one; nothing is raised."""
    path, contents, _ = shard
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, min(len(whole), start + 60)))
    changed = whole[:start] + data.draw(st.binary(max_size=60)) + whole[stop:]
    damaged = tmp_path_factory.mktemp("damaged") / "x"
    damaged.write_bytes(changed)
    for item in read_records(damaged):
        assert isinstance(item, Damage) or item.data in contents


@pytest.mark.parametrize("certain", [True, False])
def test_records_behind_neighbouring_damaged_lengths_keep_their_numbers(shard, tmp_path, certain):
    path, _, starts = shard
    for struck in ((1, 2), (0, 1, 2), (2, 3), (3, 4), (1, 2, 4)):
        data = bytearray(path.read_bytes())
        for number in struck:
            data[starts[number] + 1] ^= 1
        intact, damages = read(tmp_path / "x", bytes(data), expected=5 if certain else 0, certain=certain)
        assert intact == [number for number in range(5) if number not in struck]
        told = [damage.number for damage in damages]
        assert told == (
            list(struck) if certain or 4 not in struck else [n for n in struck if n != 4 or 3 not in struck]
        )


def test_a_length_field_is_not_believed(tmp_path):
    """A length of 2^62 with the right checksum allocates nothing."""
    length = struct.pack("<Q", 2**62)
    _, damages = read(tmp_path / "x", length + tfrecords.masked(tfrecords.crc32c(length)) + b"abc")
    assert len(damages) == 1 and "before the record does" in damages[0].reason


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"x: cannot be read \(No such file"):
        list(read_records(tmp_path / "x"))


@pytest.mark.skipif(not (RECORDINGS / "bridge_rlds").exists(), reason=f"no real recordings in {RECORDINGS}")
def test_a_genuine_file():
    records = list(read_records(next((RECORDINGS / "bridge_rlds").glob("*.tfrecord*"))))
    assert len(records) == 25 and all(isinstance(record, Record) for record in records)
    features = parse_example(records[7].data)
    assert (
        len(features["steps/observation/image_0"]) == 10
        and features["steps/observation/image_0"][0][:3] == b"\xff\xd8\xff"
    )
    assert features["steps/action"].shape == (70,) and features["steps/is_first"].tolist() == [1] + [0] * 9


def int64_list(values: np.ndarray) -> bytes:
    """An Example with one list of numbers of one byte each, and a small feature after it."""
    numbers = tfrecords.field(3, tfrecords.field(1, values.astype(np.uint8).tobytes()))
    entries = (
        tfrecords.field(1, name) + tfrecords.field(2, feature)
        for name, feature in ((b"long", numbers), (b"short", b"\x1a\x03\x0a\x01\x07"))
    )
    return tfrecords.field(1, b"".join(tfrecords.field(1, entry) for entry in entries))


def test_long_lists_of_numbers_come_back():
    """Numbers of every length, across the pieces that are decoded at once."""
    generator = np.random.default_rng(0)
    values = (generator.integers(-(2**63), 2**63 - 1, 150_000) >> generator.integers(0, 64, 150_000)).astype(
        np.int64
    )
    np.testing.assert_array_equal(parse_example(tfrecords.example({"x": values}))["x"], values)


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        (b"\x01\x80", "ends within a number"),
        (b"\x80" * 10 + b"\x01", "more than 64 bits"),
        (b"\x80" * 400_000 + b"\x01", "more than 64 bits"),
    ],
)
def test_numbers_that_are_none(numbers, reason):
    entry = tfrecords.field(1, b"x") + tfrecords.field(2, tfrecords.field(3, tfrecords.field(1, numbers)))
    example = parse_example(tfrecords.field(1, tfrecords.field(1, entry)))
    with pytest.raises(ValueError, match=reason):
        example["x"]


def test_a_list_of_numbers_takes_eight_bytes_a_number():
    values = np.arange(4_000_000) % 128
    data = int64_list(values)
    assert peak_memory(lambda: parse_example(data)["long"]) < 60  # of which the numbers take 32 MB
    np.testing.assert_array_equal(parse_example(data)["long"], values)
    unpacked = tfrecords.field(3, b"\x08\x07" * 200_000)
    data = tfrecords.field(1, tfrecords.field(1, tfrecords.field(1, b"x") + tfrecords.field(2, unpacked)))
    assert peak_memory(lambda: parse_example(data)["x"]) < 8


def test_what_nobody_asks_for_takes_no_memory():
    data = int64_list(np.arange(4_000_000) % 128)
    assert peak_memory(lambda: parse_example(data)["short"].tolist() == [7]) < 1


def test_an_example_of_too_many_features_is_refused():
    entries = b"".join(
        tfrecords.field(1, tfrecords.field(1, str(n).encode()) + b"\x12\x02\x0a\x00") for n in range(100_001)
    )
    with pytest.raises(ValueError, match="more than 100000 features"):
        parse_example(tfrecords.field(1, entries))


def tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("0.png")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 427160\n"
OTHER_KINDS = {
    "gzip": (
        gzip.compress,
        "found GZIP-compressed TFRecords, expected uncompressed ones; decompress this file with `gzip -dc",
    ),
    "zlib": (zlib.compress, "found ZLIB-compressed TFRecords"),
    "zipped text": (lambda data: gzip.compress(b"text" * 100), "found a GZIP file, expected TFRecords"),
    "tar": (tar, "found a tar archive, as WebDataset's shards are, expected TFRecords"),
    "parquet": (lambda data: b"PAR1" + data + b"PAR1", "found a Parquet file"),
    "web page": (
        lambda data: b"<!DOCTYPE html><html>404</html>",
        "found a web page, as failed downloads leave it",
    ),
    "pointer": (lambda data: POINTER, r"a Git LFS pointer instead of the file: run `git lfs pull`"),
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_files_of_another_kind_are_named(shard, tmp_path, kind):
    change, expected = OTHER_KINDS[kind]
    (tmp_path / "x").write_bytes(change(shard[0].read_bytes()))
    with pytest.raises(InputError, match=f"^{tmp_path / 'x'}: ") as error:
        list(read_records(tmp_path / "x", expected=5))
    assert expected in str(error.value)


def test_a_damaged_beginning_is_no_other_kind(shard, tmp_path):
    """Also if the length looks like the first bytes of a compressed file."""
    whole = bytearray(shard[0].read_bytes())
    for begin in (b"\x78\x9c", b"\x1f\x8b\x08"[:2], b"\0\0"):
        whole[: len(begin)] = begin
        intact, damages = read(tmp_path / "x", bytes(whole))
        assert intact == [1, 2, 3, 4] and damages[0].reason == "length field damaged"


def test_sequence_examples_are_named():
    data = tfrecords.example({"length": np.array([3])}) + tfrecords.field(2, b"")
    with pytest.raises(ValueError, match=r"a tf\.train\.SequenceExample, expected a tf\.train\.Example"):
        parse_example(data)


def test_a_sparse_file_is_not_read(tmp_path):
    """Its first record claims nine tenths of a terabyte, which a sparse file has as zeros."""
    path, length = tmp_path / "x", struct.pack("<Q", 900 << 30)
    path.write_bytes(length + tfrecords.masked(tfrecords.crc32c(length)))
    os.truncate(path, 1 << 40)
    with (
        deadline(5),
        pytest.raises(InputError, match=r"a sparse file: 1099511627776 bytes, of which \d+ are stored"),
    ):
        list(read_records(path))
    path.write_bytes(b"x" * 12)
    os.truncate(path, 1 << 40)
    with deadline(5), pytest.raises(InputError, match="a sparse file"):
        list(read_records(path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x")
    for path in (tmp_path / "x", Path("/dev/zero")):
        with deadline(5), pytest.raises(InputError, match="not a regular file"):
            list(read_records(path))


@pytest.mark.slow
def test_looking_for_the_next_record_takes_no_longer_than_there_is_to_look_at(shard, tmp_path):
    """Thousands of damaged lengths between sound ones; and a megabyte in which each place may be a length."""
    sound = tfrecords.record(b"abcd")
    damaged = b"\xff" + sound[1:]
    with deadline(30):
        intact, damages = read(tmp_path / "x", (sound + damaged) * 5_000)
    assert intact == list(range(0, 10_000, 2)) and len(damages) == 5_000
    noise = np.full(2**17, 5, "<u8").tobytes()
    path, contents, starts = shard
    whole = path.read_bytes()
    with deadline(30):
        read(tmp_path / "x", whole[: starts[2]] + noise + whole[starts[2] :])
    found = [item for item in read_records(tmp_path / "x") if isinstance(item, Record)]
    assert [item.data for item in found] == contents and found[2].offset == starts[2] + len(noise)
