"""JSON of anybody becomes a dataclass, or one line that names the value."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from data_tools.errors import InputError
from data_tools.json_files import read_dataclass, read_json


@dataclass(frozen=True)
class Lens:
    focus: float
    kind: Literal["wide", "long"] = "wide"


@dataclass(frozen=True)
class Camera:
    name: str
    lens: Lens
    pixels: int = field(default=64, metadata={"above": 0, "most": 4096})
    share: float = field(default=0.5, metadata={"least": 0, "below": 1})
    colour: bool = True
    format: str = field(default="png", metadata={"choices": ("png", "gif")})
    owner: str | None = None
    size: tuple[int, ...] = ()
    times: list[float] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    notes: Any = None

    def __post_init__(self) -> None:
        if len(self.times) > self.pixels:
            raise ValueError("found more times than pixels")


SMALL = {"name": "top", "lens": {"focus": 35}}
FULL = SMALL | {
    "pixels": 8,
    "share": 0,
    "colour": False,
    "format": "gif",
    "owner": "lab",
    "size": [3, 4],
    "times": [0, 0.5],
    "labels": {"a": "b"},
    "notes": [None, {"x": 1}],
}


def test_values_become_fields():
    assert read_dataclass(Camera, SMALL, "c.json") == Camera("top", Lens(35))
    full = Camera("top", Lens(35), 8, 0, False, "gif", "lab", (3, 4), [0, 0.5], {"a": "b"}, [None, {"x": 1}])
    assert read_dataclass(Camera, FULL, "c.json") == full
    assert read_dataclass(Camera, FULL | {"owner": None}, "c.json").owner is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": 3}, "name: found 3, expected str"),
        ({"lens": 3}, "lens: found 3, expected an object with named values"),
        ({"lens": {}}, "found no focus in lens"),
        ({"lens": {"focus": 1, "zoom": 2}}, "found 'zoom' in lens, which this release does not know"),
        (
            {"lens": {"focus": 1, "kind": "fish"}},
            "kind: found 'fish', expected typing.Literal['wide', 'long']",
        ),
        ({"lens": {"focus": True}}, "focus: found True, expected float"),
        ({"lens": {"focus": math.nan}}, "focus: found nan, expected float"),
        ({"lens": {"focus": math.inf}}, "focus: found inf, expected float"),
        ({"lens": {"focus": 10**400}}, f"focus: found 1{'0' * 36}..., expected float"),
        ({"pixels": 0}, "pixels: found 0, expected more than 0"),
        ({"pixels": 4097}, "pixels: found 4097, expected at most 4096"),
        ({"pixels": 8.0}, "pixels: found 8.0, expected int"),
        ({"pixels": 2**63}, "pixels: found 9223372036854775808, expected int"),
        ({"share": -0.1}, "share: found -0.1, expected at least 0"),
        ({"share": 1}, "share: found 1, expected less than 1"),
        ({"colour": 1}, "colour: found 1, expected bool"),
        ({"format": "jpg"}, "format: found 'jpg', expected one of png, gif"),
        ({"owner": 3}, "owner: found 3, expected str"),
        ({"size": 3}, "size: found 3, expected tuple[int, ...]"),
        ({"size": [3, "4"]}, "size: found '4', expected int"),
        ({"times": [0, None]}, "times: found None, expected float"),
        ({"times": [0] * 65}, "found more times than pixels"),
        ({"labels": {"a": 3}}, "labels: a: found 3, expected str"),
        ({"labels": []}, "labels: found [], expected dict[str, str]"),
        ({"color": True}, "found 'color', which this release does not know"),
    ],
)
def test_faults_are_named_in_a_line(change, fault):
    with pytest.raises(InputError) as error:
        read_dataclass(Camera, SMALL | change, "c.json", "write it again")
    assert str(error.value) == f"c.json: damaged ({fault}); write it again"


def test_missing_values_and_other_json():
    with pytest.raises(InputError, match=r"^c\.json: damaged \(found no lens\); restore this file$"):
        read_dataclass(Camera, {"name": "top"}, "c.json")
    for values in ([], None, "top", 3):
        with pytest.raises(InputError, match=r"contents: found .*, expected an object with named values"):
            read_dataclass(Camera, values, "c.json")


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"a": ' + "1" * 5000 + "}", "[" * 100_000, "\0\xff"])
def test_files_that_are_no_json_objects(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text, "latin-1")
    with pytest.raises(InputError, match=r"c\.json: damaged \(.*\); write it again$") as error:
        read_json(path, "write it again")
    assert len(str(error.value)) < 500


def test_sizes_are_compared_before_reading(tmp_path):
    path = tmp_path / "c.json"
    path.write_text('{"a": 1}')
    assert read_json(path, "", most=8) == {"a": 1}
    with pytest.raises(
        InputError, match=r"c\.json: cannot be read \(8 bytes, expected at most 7\); shorten it"
    ):
        read_json(path, "shorten it", most=7)
