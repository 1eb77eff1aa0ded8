"""Sequences with a skeleton image for each frame, in the layout of a course on predicting people.

::

    ROOT/train/train_img/*.png    ROOT/train/train_label/*.png      one sequence, or folders with one each
    ROOT/val/val_img/...          ROOT/val/val_label/...
    ROOT/test/test_img/0/*.png    ROOT/test/test_label/0/*.png      a test sequence may have one frame only

File names contain the number of the frame (``12.png``, ``frame12.png``, ``0012.png``); a pose has the number
of the frame that it belongs to. The pose of the first frame of a sequence is not needed.
"""

import os
import re
import shutil
from pathlib import Path

import numpy as np

from . import png
from .errors import InputError
from .files import whole_folder
from .folders import png_folders

SPLIT_FOLDERS = {"train": "train", "validate": "val", "test": "test"}
FRAMES, POSES = "_img", "_label"


def frames_root(root: Path, split: str) -> Path:
    """Return the folder at or below which the frames of a split lie."""
    name = SPLIT_FOLDERS[split]
    return Path(root) / name / f"{name}{FRAMES}"


def has_poses(root: Path) -> bool:
    """Return whether a data root has this layout."""
    return any(frames_root(root, split).is_dir() for split in SPLIT_FOLDERS)


def poses_path(path: str) -> str:
    """Return the folder of the poses for a folder of frames, both relative to the data root and with slashes.

    Raises `InputError` for a path that is not of this layout.
    """
    split, frames, *rest = [*path.split("/"), ""]
    if not frames.endswith(FRAMES):
        found = f"found a path to frames that is not like train/train{FRAMES}"
        raise InputError(f"{path}: {found}; run `svg-data index` again")
    return "/".join([split, frames.removesuffix(FRAMES) + POSES, *rest[:-1]])


def find_sequences(root: Path, split: str) -> list[Path]:
    """Return the folders of frames of a split, in natural order. Hidden folders are left out.

    Raises `InputError` if the folder of the split holds no PNG: it is probably not meant to be empty.
    """
    base = frames_root(root, split)
    folders = png_folders(base, root)
    if not folders and base.is_dir():
        advice = "convert its pictures to PNG, or remove the folder"
        raise InputError(f"{base}: found no PNG in it or below; {advice}")
    return folders


def sequence_name(root: Path, split: str, folder: Path) -> str:
    """Return the path of a sequence below the folder of its split; if it is that folder, the name of it."""
    base = frames_root(root, split)
    return base.name if folder == base else folder.relative_to(base).as_posix()


def list_sequence(root: Path, path: str) -> tuple[list[str], list[str]]:
    """Return the files of a sequence in order: its frames, and its poses from that of the second frame on.

    Raises `InputError` naming a missing or foreign file. There may be more poses than frames.
    """
    frame_folder = Path(root) / path
    pose_folder = Path(root) / poses_path(path)
    frames = _numbered(frame_folder)
    first = min(frames)
    poses = {number: file for number, file in _numbered(pose_folder).items() if number > first}
    last = max(frames)
    _check_gaps(frame_folder, "frame", frames, first, last)
    _check_gaps(pose_folder, "pose", poses, first + 1, max(last, *poses, first))
    return list(frames.values()), list(poses.values())


def _check_gaps(folder: Path, kind: str, files: dict[int, str], first: int, last: int) -> None:
    """Raise `InputError` unless there is a file for each number from `first` to `last`."""
    for number in range(first, last + 1):
        if number not in files:
            missing = f"found no {kind} number {number}, expected {first} to {last}"
            raise InputError(f"{folder}: {missing}; restore it")


def _numbered(folder: Path) -> dict[int, str]:
    """Return the PNG files of a folder by the number in their names, ascending. Raises `InputError`."""
    try:
        names = [
            name for name in os.listdir(folder) if name.lower().endswith(".png") and not name.startswith(".")
        ]
    except OSError as error:
        expected = "expected the pictures of a sequence here"
        raise InputError(f"{folder}: cannot be read ({error.strerror}); {expected}") from None
    files = {}
    for name in names:
        digits = re.fullmatch(r"[^0-9]*([0-9]{1,18})\.png", name, re.IGNORECASE)
        if digits is None:
            expected = "expected a name like 12.png or frame12.png"
            raise InputError(f"{folder / name}: found no frame number, {expected}; rename this file")
        number = int(digits[1])
        if number in files:
            other = Path(files[number]).name
            raise InputError(f"{folder / name}: has the same number as {other}; remove one of them")
        files[number] = f"{folder}/{name}"
    if not files:
        raise InputError(f"{folder}: found no pictures, expected 0.png, 1.png, ...")
    return dict(sorted(files.items()))


def check_sequence(root: Path, path: str) -> dict[str, int]:
    """Return the columns of one sequence in the index.

    One of them is `poses`, the number of frames after the first one that have a pose. The header of every
    picture is read. Raises `InputError` as `list_sequence` does, and for pictures of unequal size.
    """
    frames, poses = list_sequence(root, path)
    size = png.read_image_size(Path(frames[0]))
    if not poses:
        missing = "found no pose after that of the first frame; nothing could be predicted"
        raise InputError(f"{Path(root) / poses_path(path)}: {missing}")
    height, width, channels = size
    pose_channels = png.read_image_size(Path(poses[0]))[2]
    _check_sizes(frames, size)
    _check_sizes(poses, (height, width, pose_channels))
    return {
        "height": height,
        "width": width,
        "channels": channels,
        "frames": len(frames),
        "action_dim": 0,
        "position_dim": 0,
        "poses": len(poses),
        "pose_channels": pose_channels,
    }


def _check_sizes(files: list[str], size: tuple[int, int, int]) -> None:
    """Raise `InputError` for a picture that is not of this size (H,W,C)."""
    expected = f"expected {size[0]}x{size[1]} with {size[2]}"
    for file in files:
        height, width, channels = png.read_image_size(Path(file))
        if (height, width, channels) != size:
            found = f"found {height}x{width} with {channels} channels"
            advice = "frames and poses agree in size: convert this picture"
            raise InputError(f"{file}: {found}, {expected}; {advice}")


def write_sequence(root: Path, split: str, name: str, frames: np.ndarray, poses: np.ndarray) -> None:
    """Write uint8 frames and poses [T,H,W,C] as the sequence `name` of a split.

    Each folder gets its name when it is complete, that of the poses first: if the folder of frames is there
    the sequence is complete. Raises `InputError` if it is there already, and `OSError` naming the folder if
    it cannot be written.
    """
    folder = frames_root(root, split) / name
    if folder.exists():
        raise InputError(f"{folder}: is there already; remove it or take another name")
    other = Path(root) / poses_path(folder.relative_to(root).as_posix())
    for target, pictures in ((other, poses), (folder, frames)):
        shutil.rmtree(target, ignore_errors=True)  # poses of an interrupted run that wrote no frames
        with whole_folder(target) as temporary:
            for number, picture in enumerate(png.encode_frames(pictures)):
                (temporary / f"{number}.png").write_bytes(picture)
