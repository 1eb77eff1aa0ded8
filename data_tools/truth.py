"""The simulator's truth beside a data set: what each pixel shows, and where each object is.

::

    ROOT/truth/train/00000/0.png 1.png ...    segmentation of each frame: PNG with a palette
    ROOT/truth/train/00000/objects.csv        poses of the objects, one row a frame, with a header

It lies outside the folders of the splits, so that a data set is the same with it and without. The path below
``truth`` is that of the sequence in the index.
"""

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import InputError
from .files import read_bytes, whole_folder
from .folders import write_table

FOLDER = "truth"
OBJECTS_FILE = "objects.csv"
STILL, ARM, SHADOW, FIRST_OBJECT = 0, 1, 2, 3
"""Labels of a segmentation; object n has ``FIRST_OBJECT + n``.

`SHADOW` is that of arm and objects on what never moves.
"""
POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
"""The numbers of an object's pose: the place of its centre in metres, and its turn as a unit quaternion."""
MOST_OBJECTS = 32
PALETTE = (
    *((204, 190, 160), (40, 40, 44), (120, 110, 96)),  # still, arm, shadow
    *((214, 39, 40), (31, 119, 180), (44, 160, 44), (255, 187, 20), (148, 103, 189), (23, 190, 207)),
    *((227, 119, 194), (140, 86, 75)),
)
"""RGB of the labels in order; further objects are white."""
_LEFT_OVER = "simulate it again with --truth, or remove the folder truth"


@dataclass(frozen=True)
class Truth:
    """The truth of some frames of a sequence.

    Args:
        segmentation: uint8 [T,H,W], labels.
        poses: float32 [T,N,7], see `POSE`.
    """

    segmentation: np.ndarray
    poses: np.ndarray

    def padded_poses(self) -> np.ndarray:
        """Return the poses with zeros for objects that are not there, float32 [T,MOST_OBJECTS,7]."""
        missing = MOST_OBJECTS - self.poses.shape[1]
        return np.pad(self.poses, ((0, 0), (0, missing), (0, 0)))


def truth_folder(root: Path, path: str) -> Path:
    """Return the folder of the truth of the sequence at `path`, as the index has it, below a data root."""
    return Path(root) / FOLDER / path


def write_truth(root: Path, path: str, truth: Truth) -> None:
    """Write the truth of a whole sequence; nothing is left of it if that fails. What is there is replaced."""
    folder = truth_folder(root, path)
    if folder.is_dir():  # of a sequence whose own folder was not complete when a simulation was stopped
        shutil.rmtree(folder)
    with whole_folder(folder) as temporary:
        for number, labels in enumerate(truth.segmentation):
            (temporary / f"{number}.png").write_bytes(encode_labels(labels))
        header = ",".join(f"object{n}_{part}" for n in range(truth.poses.shape[1]) for part in POSE)
        table = temporary / OBJECTS_FILE
        write_table(table, truth.poses.reshape(len(truth.poses), -1))
        table.write_text(f"{header}\n{table.read_text()}")


def encode_labels(labels: np.ndarray) -> bytes:
    """Return labels, uint8 [H,W], as a PNG whose palette shows them in colours."""
    image = Image.fromarray(labels)
    image.putpalette([channel for colour in PALETTE for channel in colour] + [255] * 3 * (256 - len(PALETTE)))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def read_truth(root: Path, path: str, size: tuple[int, int], start: int, stop: int) -> Truth:
    """Read the truth of frames `start` to `stop` of a sequence, whose frames have `size` (H,W).

    Raises `InputError` naming what is missing, damaged or of another size.
    """
    folder = truth_folder(root, path)
    if not folder.is_dir():
        raise InputError(f"{folder}: not found; simulate the data set with --truth")
    frames = [_read_labels(folder / f"{number}.png", size, root) for number in range(start, stop)]
    poses = _read_poses(folder / OBJECTS_FILE, stop, root)
    return Truth(np.stack(frames), poses[start:stop])


def _read_labels(path: Path, size: tuple[int, int], root: Path) -> np.ndarray:
    try:
        data = read_bytes(path, 2**16 + 2 * size[0] * size[1], root)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if (image.mode, image.size) != ("P", size[::-1]):
                found = f"{image.mode} {image.size[1]}x{image.size[0]}"
                expected = f"a palette and {size[0]}x{size[1]}"
                raise InputError(f"{path}: found {found}, expected {expected}; {_LEFT_OVER}")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_LEFT_OVER}") from None


def _read_poses(path: Path, frames: int, root: Path) -> np.ndarray:
    """Return the poses of a sequence of at least `frames` frames, float32 [T,N,7]."""
    try:
        lines = read_bytes(path, 2**28, root).decode().splitlines()
        columns = lines[0].split(",")
        count = len(columns) // len(POSE)
        expected = [f"object{n}_{part}" for n in range(count) for part in POSE]
        if columns != expected or not 0 < count <= MOST_OBJECTS:
            raise ValueError("its header is not object0_x, object0_y, ...")
        table = np.array([[float(value) for value in line.split(",")] for line in lines[1:]], np.float32)
        if table.shape[1:] != (len(columns),) or len(table) < frames or not np.isfinite(table).all():
            raise ValueError(f"expected {frames} rows of {len(columns)} finite numbers")
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: cannot be read ({error}); {_LEFT_OVER}") from None
    return table.reshape(len(table), count, len(POSE))
