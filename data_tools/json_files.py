"""JSON files that anybody may have written: read them and check every value on the way into a dataclass."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import InputError
from .files import read_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance  # known to type checkers alone

MAX_JSON = 2**26  # bytes
MAX_INTEGER = 2**63 - 1  # of either sign: NumPy and torch hold no larger one
SHOWN = 40  # letters of a wrong value that an error repeats

T = TypeVar("T", bound="DataclassInstance")


def read_json(path: Path, advice: str, root: Path | None = None, most: int = MAX_JSON) -> dict[str, Any]:
    """Return the JSON object in a file of at most `most` bytes.

    Raises `InputError` that names the file and ends with the advice, also for a link out of `root`.
    """
    try:
        values = json.loads(read_bytes(path, most, root))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    except (ValueError, RecursionError) as error:  # no text, no JSON, gigantic numbers, endless nesting
        raise InputError(f"{path}: damaged ({error}); {advice}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: damaged (found no JSON object); {advice}")
    return values


def read_dataclass(cls: type[T], values: object, place: str | Path, advice: str = "restore this file") -> T:
    """Return an instance of a dataclass from a JSON object, every value of which is checked.

    Each value must be of the type that its field is annotated with: ``bool``, ``int`` (below 2**63),
    ``float`` (finite; a whole number is taken, too), ``str``, ``Any``, ``X | None``, ``Literal``,
    ``list[X]``, ``tuple[X, ...]``, ``dict[str, X]`` or a dataclass. Fields with a default may be missing.

    The metadata of a field may hold the bounds of a number, ``above``, ``below``, ``least`` and ``most``, and
    the allowed values, ``choices``: ``field(metadata={"least": 0, "most": 64})``. Conditions between fields
    belong into ``__post_init__``, whose `ValueError` is reported like the other faults.

    Args:
        cls: the dataclass.
        values: what `json.loads` returned.
        place: the file, and if need be the part of it, that errors begin with.
        advice: what errors tell the reader to do.

    Raises `InputError` in one line for an unknown, missing or wrong value.
    """
    try:
        return _build(cls, values, "")
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"{place}: damaged ({error}); {advice}") from None


def _build(cls: type[T], values: object, name: str) -> T:
    """Return an instance of a dataclass, which is the value of the field `name` if that is not "".

    Raises `ValueError`.
    """
    within = f" in {name}" if name else ""
    if not isinstance(values, Mapping):
        raise ValueError(
            f"{name or 'contents'}: found {_short(values)}, expected an object with named values"
        )
    kinds = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    unknown = [key for key in values if key not in fields]
    if unknown:
        raise ValueError(f"found {_short(unknown[0])}{within}, which this release does not know")
    arguments = {}
    for key, field in fields.items():
        if key in values:
            arguments[key] = _convert(kinds[key], values[key], key)
            _check_bounds(values[key], field.metadata, key)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"found no {key}{within}")
    return cls(**arguments)


def _convert(kind: Any, value: Any, name: str) -> Any:
    """Return a value as the type of its field. Raises `ValueError` if it is of another type."""
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, name)
    origin = typing.get_origin(kind)
    inner = typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and types.NoneType in inner:
            return None
        (kind,) = (other for other in inner if other is not types.NoneType)
        return _convert(kind, value, name)
    if origin in (list, tuple) and isinstance(value, list):
        return origin(_convert(inner[0], item, name) for item in value)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(inner[1], item, f"{name}: {key}") for key, item in value.items()}
    if kind is Any or (origin is typing.Literal and value in inner) or _is_plain(kind, value):
        return value
    raise ValueError(f"{name}: found {_short(value)}, expected {_describe(kind)}")


def _is_plain(kind: Any, value: Any) -> bool:
    """Return whether a value is a text, a number or a truth value of this type."""
    if type(value) is int and kind in (int, float):
        return abs(value) <= MAX_INTEGER
    if kind is float:
        return type(value) is float and math.isfinite(value)
    return kind in (str, bool) and type(value) is kind


def _check_bounds(value: Any, bounds: Mapping[str, Any], name: str) -> None:
    """Raise `ValueError` for a value that is out of the bounds in a field's metadata."""
    choices = bounds.get("choices")
    if choices and value not in choices:
        raise ValueError(f"{name}: found {_short(value)}, expected one of {', '.join(map(str, choices))}")
    if type(value) not in (int, float):
        return
    limits = {
        "above": ("more than", value > bounds.get("above", -math.inf)),
        "below": ("less than", value < bounds.get("below", math.inf)),
        "least": ("at least", value >= bounds.get("least", -math.inf)),
        "most": ("at most", value <= bounds.get("most", math.inf)),
    }
    for bound, (words, is_kept) in limits.items():
        if not is_kept:
            raise ValueError(f"{name}: found {value}, expected {words} {bounds[bound]}")


def _describe(kind: Any) -> str:
    """Return the name of a type, such as ``int`` or ``list[float]``."""
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
