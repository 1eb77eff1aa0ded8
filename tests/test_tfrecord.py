"""TFRecords and Examples against an independent writer, a genuine file, and damage of every kind."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tfrecords
from conftest import RECORDINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.layout import InputError
from data_tools.tfrecord import Damage, Record, masked_crc32c, parse_example, read_records


def test_crc32c_of_known_strings():
    """RFC 3720, appendix B.4: 32 bytes of zeros, of ones, and counting up; masked as TFRecord does."""
    for data, value in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        assert tfrecords.crc32c(data) == value
        assert struct.pack("<I", masked_crc32c(data)) == tfrecords.masked(value)


VALUES = st.one_of(
    st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5).map(lambda v: np.array(v, np.float32)),
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
    contents = [tfrecords.example({"number": np.array([n]), "noise": [bytes([n]) * (40 + n)]}) for n in range(5)]
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
    return [item.number for item in found if isinstance(item, Record)], [item for item in found if isinstance(item, Damage)]


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
    """Whatever is overwritten, inserted or removed: what comes as a record was written as one; nothing is raised."""
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
        assert told == (list(struck) if certain or 4 not in struck else [n for n in struck if n != 4 or 3 not in struck])


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
    assert len(features["steps/observation/image_0"]) == 10 and features["steps/observation/image_0"][0][:3] == b"\xff\xd8\xff"
    assert features["steps/action"].shape == (70,) and features["steps/is_first"].tolist() == [1] + [0] * 9
