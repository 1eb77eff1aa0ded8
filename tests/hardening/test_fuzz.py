"""Some bad files for every reader; ``python -m tests.hardening.fuzz`` has thousands for each."""

from collections import Counter

import pytest

from tests.hardening import fuzz

WRONG = ("accepted", "crashed", "hung")


@pytest.fixture(scope="module")
def readers(tmp_path_factory) -> dict[str, fuzz.Reader]:
    return fuzz.make_readers(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
def test_bad_files_are_refused_in_one_line(readers, capfd):
    counts = sum(fuzz.fuzz(readers, 30, seed=1).values(), Counter())
    told = [
        line
        for line in capfd.readouterr().err.splitlines()
        if any(f" {outcome}: " in line for outcome in WRONG)
    ]
    assert [counts[outcome] for outcome in WRONG] == [0, 0, 0], "\n".join(told)
    assert counts["refused"] > 20 * len(readers)


def test_the_harness_notices(readers):
    """It tells a reader that accepts a bad file from one that crashes, hangs or reads the same."""
    path = readers["table"].path

    def spoil(data: bytes, _: object) -> bytes:
        return b"spoiled" + data

    def fail() -> None:
        raise KeyError("a name")

    def hang() -> None:
        raise fuzz.Hung

    sound = path.read_bytes()
    for read, expected in (
        (path.read_bytes, "accepted"),
        (fail, "crashed"),
        (hang, "hung"),
        (lambda: sound, "same"),
    ):
        outcome, _ = fuzz.try_reader(fuzz.Reader(path, read), spoil, True, sound, fuzz.random.Random(0))
        assert outcome == expected
    assert path.read_bytes() == sound
