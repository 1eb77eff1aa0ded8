"""Read how TensorFlow Datasets describes a data set: the features of its steps, and its files.

``features.json`` and ``dataset_info.json`` are protocol buffers as JSON (tensorflow_datasets/core/proto). A
data set of episodes has a sequence ``steps``; others are sequences themselves, or have features that are. In
a ``tf.train.Example`` the name of a feature is its path, with the names of all dictionaries above it, such as
``steps/observation/image``. No number in these files is believed: all are compared with bounds before they
are used.
"""

import itertools
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ..errors import InputError
from ..files import open_regular, walk
from ..json_files import read_json
from ..layout import MAX_COLUMNS, MAX_PIXELS
from .tfrecord import FRAMING_BYTES

FEATURES_FILE = "features.json"
INFO_FILE = "dataset_info.json"
STEPS = "steps"
MAX_JSON = 2**22  # bytes of either file
CHANNELS = (1, 3, 4)  # of pictures: grey, RGB, and with transparency, which is ignored
MAX_SHARDS = 100_000
MAX_SPLITS = 1_000
MAX_NAME = 1_000  # letters of a name or a path
MAX_RANK = 8  # dimensions of a tensor
TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
OTHER_TEMPLATES = (TEMPLATE, "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}", "{DATASET}-{SPLIT}.{FILEFORMAT}")
"""Other usual names of shards than those that `INFO_FILE` gives."""
ADVICE = "restore it"


@dataclass(frozen=True)
class StepFeature:
    """One feature of a step.

    Args:
        kind: "picture" (encoded), "pixels" (uint8 values), "numbers", or "other", which cannot be used.
        key: its name in an Example.
        shape: of the pixels or numbers of a step; of a picture its channels.
        dtype: of the values, by its name in TensorFlow.
        encoding: "none" for values in a list of numbers, "bytes" or "zlib" if the values of each step are
            bytes.
    """

    kind: str
    key: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    encoding: str = "none"

    @property
    def size(self) -> int:
        """Return the number of values of a step."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Shard:
    """One file of a data set.

    Args:
        path: the file.
        name: its path below the folder of the data set.
        split: the name of its split in the source.
        episodes: number of episodes that it is said to have.
    """

    path: Path
    name: str
    split: str
    episodes: int


@dataclass
class Shards:
    """The files of a data set; a line for each `absent` file of a split that has others, and notes."""

    dataset: str
    present: list[Shard] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


# --------------------------------------------------------------------------------------------------- features


def read_step_features(path: Path) -> dict[str, StepFeature]:
    """Return the features of a step by their path within it, such as ``observation/image``.

    Raises `InputError` if no feature has values over time.
    """
    tree = read_json(path, ADVICE, path.parent, MAX_JSON)
    try:
        top = tree["featuresDict"].get("features", {}) if "featuresDict" in tree else {}
        if STEPS in top:
            features = dict(_leaves(top[STEPS]["sequence"]["feature"], "", f"{STEPS}/", 1))
        else:
            features = dict(_leaves(tree, "", "", 0))
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path}: no features as TensorFlow Datasets writes them ({reason}); {ADVICE}"
        ) from None
    if not features:
        raise InputError(f"{path}: found no features over time, expected {STEPS} or sequences; {ADVICE}")
    return features


def _leaves(node: dict, path: str, prefix: str, sequences: int) -> Iterator[tuple[str, StepFeature]]:
    """Yield the features over time at and below a node by their path; it lies within so many sequences."""
    if not isinstance(node, dict) or not node:
        raise TypeError(f"{path or 'the top'} is no feature")
    if len(path) > MAX_NAME:
        raise ValueError(f"the path of a feature has more than {MAX_NAME} letters")
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _leaves(child, f"{path}/{name}" if path else name, prefix, sequences)
    elif "sequence" in node:
        yield from _leaves(node["sequence"]["feature"], path, prefix, sequences + 1)
    elif sequences == 1 and "image" in node:
        yield path, _picture(node["image"], prefix + path)
    elif sequences == 1 and "tensor" in node:
        yield path, _tensor(node["tensor"], _dimensions(node["tensor"], []), prefix + path)
    elif sequences:
        yield path, StepFeature("other", prefix + path)
    elif "video" in node:
        yield path, _picture(node["video"], prefix + path)
    elif "tensor" in node:  # over time if it has more than one dimension, of which the first is time
        feature = _tensor(node["tensor"], _dimensions(node["tensor"], [])[1:], prefix + path)
        if feature.shape and feature.encoding == "none":
            yield path, feature


def _picture(image: dict, key: str) -> StepFeature:
    channels = (_dimensions(image, ["3"]) or [3])[-1]
    usable = channels in CHANNELS and _text(image.get("dtype", "uint8")) in ("uint8", "")
    return StepFeature("picture" if usable else "other", key, (channels,))


def _tensor(tensor: dict, shape: list[int], key: str) -> StepFeature:
    """Return the feature that is a tensor with values of this shape at each step."""
    dtype = _text(tensor.get("dtype", ""))
    encoding = _text(tensor.get("encoding", "none")).lower() or "none"
    encodings = {"none": r"(b?float|u?int|bool)\d*", "bytes": r"float(16|32|64)|u?int(8|16|32|64)|bool"}
    encodings["zlib"] = encodings["bytes"]
    known = re.fullmatch(encodings.get(encoding, "x"), dtype)
    kind = "other"
    size = _size(shape)
    if known and dtype == "uint8" and size and _is_picture(shape):
        kind = "pixels"
    elif known and 0 < size <= MAX_COLUMNS:
        kind = "numbers"
    return StepFeature(kind, key, tuple(shape) if size else (), dtype, encoding)


def _is_picture(shape: list[int]) -> bool:
    if len(shape) == 2:
        return min(shape) >= 16  # fewer may be a matrix
    return len(shape) == 3 and shape[-1] in CHANNELS and min(shape[:2]) >= 8


def _size(shape: list[int]) -> int:
    """Return the number of values; 0 if it is unknown, or larger than a picture may have."""
    if len(shape) > MAX_RANK or not all(0 < length <= MAX_PIXELS for length in shape):
        return 0
    size = math.prod(shape)
    return size if size <= MAX_PIXELS * max(CHANNELS) else 0


def _dimensions(feature: dict, usual: list[str]) -> list[int]:
    dimensions = feature.get("shape", {}).get("dimensions", usual)
    if not isinstance(dimensions, list):
        raise TypeError(f"found dimensions {dimensions!r}")
    return [_count(dimension) for dimension in dimensions[: MAX_RANK + 2]]


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise TypeError(f"found {str(value)[:40]!r}, expected a text of {MAX_NAME} letters or fewer")
    return value


def _count(value: object) -> int:
    """Return a whole number, which the JSON of protocol buffers has in quotes; -1 if it is unknown.

    Raises `ValueError` for anything else.
    """
    if type(value) is int:
        return value
    if isinstance(value, str) and re.fullmatch("-1|[0-9]{1,18}", value):
        return int(value)
    raise ValueError(f"found {value!r}")


# ----------------------------------------------------------------------------------------------------- shards


def find_version(source: Path) -> Path:
    """Return the folder with ``features.json``: `source` itself or the only one below it."""
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; name the folder of one version of a data set")
    if (source / FEATURES_FILE).exists():
        return source
    folders = [Path(folder) for folder, files in walk(source) if FEATURES_FILE in files]
    if len(folders) != 1:
        names = ", ".join(str(path) for path in folders[:5]) or "none"
        expected = f"expected one folder with {FEATURES_FILE}, found {names}"
        raise InputError(f"{source}: {expected}; name the folder of one version")
    return folders[0]


def find_shards(folder: Path) -> Shards:
    """Return the shards in a folder, in order, each with the number of episodes that it is said to have.

    Their names follow the ``filepathTemplate`` of the split or, if no file does, one of `OTHER_TEMPLATES`.
    Raises `InputError` if there are none, for impossible names, and for a file that is too small for its
    episodes.
    """
    path = folder / INFO_FILE
    info = read_json(path, ADVICE, folder, MAX_JSON)
    try:
        splits = [_split(split) for split in info["splits"]]
        dataset, kind = _text(info.get("name", "")), _text(info.get("fileFormat", "tfrecord"))
        if len(splits) > MAX_SPLITS or sum(len(split.lengths) for split in splits) > MAX_SHARDS:
            raise ValueError(f"more than {MAX_SPLITS} splits or {MAX_SHARDS} shards")
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: no shard lengths of the splits ({reason}); {ADVICE}") from None
    if kind != "tfrecord":
        raise InputError(
            f"{path}: found the file format {kind!r}, expected tfrecord; have TFDS write TFRecords"
        )
    shards = Shards(dataset or folder.resolve().name)
    for split in splits:
        _add_split(shards, folder, split, dataset)
    if not shards.present:
        first = (_first_name(split, dataset) for split in splits if split.lengths)
        names = ", ".join(itertools.islice(first, 3)) or "none"
        raise InputError(f"{folder}: found no shard that {INFO_FILE} lists, such as {names}; fetch them")
    shards.present.sort(key=lambda shard: shard.name)
    known = {shard.name for shard in shards.present}
    for name in sorted(os.listdir(folder)):
        if ".tfrecord" in name and name not in known and not name.startswith("."):
            shards.notes.append(f"{folder / name}: not read; {INFO_FILE} lists no such shard")
    return shards


@dataclass(frozen=True)
class _Split:
    name: str
    lengths: list[int]  # episodes of each shard
    template: str


def _split(split: dict) -> _Split:
    lengths = split.get("shardLengths", [])  # which is left out if there are none
    if not isinstance(lengths, list) or len(lengths) > MAX_SHARDS:
        raise ValueError(f"shard lengths that are no list of {MAX_SHARDS} or fewer")
    template = _text(split.get("filepathTemplate") or TEMPLATE)
    return _Split(_text(split["name"]), [_count(length) for length in lengths], template)


def _first_name(split: _Split, dataset: str) -> str:
    return _fill(
        split.template, _values(split.name, dataset) | _numbers("00000", f"{len(split.lengths):05d}")
    )


def _add_split(shards: Shards, folder: Path, split: _Split, dataset: str) -> None:
    """Add the present and the absent shards of a split."""
    total = len(split.lengths)
    for template in dict.fromkeys((split.template, *OTHER_TEMPLATES)):
        names = _find_files(folder, template, split.name, dataset, total)
        if names:
            break
    else:
        if total:
            shards.notes.append(
                f"{folder}: split {split.name} is not read; none of its {total} shards is here"
            )
        return
    called = next(iter(names.values()))[1] or dataset
    shards.dataset = called or shards.dataset
    for number, (name, _) in names.items():
        _check_size(folder / name, folder, split.lengths[number])
        shards.present.append(Shard(folder / name, name, split.name, split.lengths[number]))
    for number in range(total):
        if number not in names:
            name = _fill(template, _values(split.name, called) | _numbers(f"{number:05d}", f"{total:05d}"))
            shards.absent.append(f"{folder / name}: missing shard of split {split.name}")


def _find_files(
    folder: Path, template: str, split: str, dataset: str, total: int
) -> dict[int, tuple[str, str]]:
    """Return by number the files that a template describes: their paths and the data set's name in them.

    That name may differ from `dataset`, as the folder may have been renamed.
    """
    above, _, last = template.rpartition("/")
    patterns = {"DATASET": "(?P<dataset>.+)", "SPLIT": re.escape(split), "FILEFORMAT": "tfrecord"}
    patterns |= _numbers(r"(?P<number>\d{5,})", r"(?P<total>\d{5,})")
    try:
        above = _fill(above, _values(split, dataset))
        pattern = re.compile(_fill(re.sub(r"[^{}\w]", r"\\\g<0>", last), patterns))
    except (KeyError, re.error):
        reason = f"found the template {template!r}, expected one like {TEMPLATE}"
        raise InputError(f"{folder / INFO_FILE}: {reason}; {ADVICE}") from None
    if above.startswith("/") or ".." in PurePosixPath(above).parts or "\0" in above:
        raise InputError(
            f"{folder / INFO_FILE}: found shards in {above!r}, expected them in {folder}; {ADVICE}"
        )
    files: dict[int, tuple[str, str]] = {}
    names = sorted(os.listdir(folder / above)) if (folder / above).is_dir() else []
    for match in filter(None, map(pattern.fullmatch, names)):
        groups, name = match.groupdict(), f"{above}/{match[0]}" if above else match[0]
        number, of = int(groups.get("number", 0)), int(groups.get("total", total))
        if of != total or number >= total or ("number" not in groups and total > 1):
            reason = f"{INFO_FILE} lists {total} shards of split {split}, not this one"
            raise InputError(f"{folder / name}: {reason}; {ADVICE}")
        if number in files:
            reason = f"is shard {number} of split {split}, and so is {files[number][0]}"
            raise InputError(f"{folder / name}: {reason}; move one of them away")
        files[number] = name, groups.get("dataset", "")
    return files


def _values(split: str, dataset: str) -> dict[str, str]:
    return {"DATASET": dataset, "SPLIT": split, "FILEFORMAT": "tfrecord"}


def _numbers(number: str, total: str) -> dict[str, str]:
    return {"SHARD_INDEX": number, "NUM_SHARDS": total, "SHARD_X_OF_Y": f"{number}-of-{total}"}


def _fill(template: str, values: dict[str, str]) -> str:
    """Return a template with its variables filled in. Raises `KeyError` for an unknown one."""
    return re.sub(r"\{([^{}]*)\}", lambda variable: values[variable[1]], template)


def _check_size(path: Path, folder: Path, episodes: int) -> None:
    """Raise `InputError` for a link out of the folder, and if the file is too small for so many episodes.

    This is called before anything is allocated for the episodes.
    """
    try:
        with open_regular(path, folder) as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore this shard") from None
    if not 0 <= episodes * FRAMING_BYTES <= size:
        raise InputError(
            f"{path}: {size} bytes cannot hold {episodes} episodes, as {INFO_FILE} says; {ADVICE}"
        )
