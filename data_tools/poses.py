"""Sequences that come with a skeleton image for each frame, in the layout of the course that the sibling system stems from.

::

    ROOT/train/train_img/*.png    ROOT/train/train_label/*.png      one sequence, or folders with one each
    ROOT/val/val_img/...          ROOT/val/val_label/...
    ROOT/test/test_img/0/*.png    ROOT/test/test_label/0/*.png      of a test sequence the first frame may be all there is

File names carry the frame's number (``12.png``, ``frame12.png``, ``0012.png``); a pose has the number of the frame that it
belongs to. The pose of a sequence's first frame is not needed.
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
    """The folder at or below which the frames of a split lie."""
    name = SPLIT_FOLDERS[split]
    return Path(root) / name / f"{name}{FRAMES}"


def has_poses(root: Path) -> bool:
    """Whether a data root is laid out in this way."""
    return any(frames_root(root, split).is_dir() for split in SPLIT_FOLDERS)


def poses_path(path: str) -> str:
    """The folder of the poses that belong to a folder of frames, both relative to the data root and with slashes.

    Raises `InputError` for a path that is not laid out so.
    """
    split, frames, *rest = [*path.split("/"), ""]
    if not frames.endswith(FRAMES):
        raise InputError(
            f"{path}: found a path to frames that is not like train/train{FRAMES}; run `svg-data index` again"
        )
    return "/".join([split, frames.removesuffix(FRAMES) + POSES, *rest[:-1]])


def find_sequences(root: Path, split: str) -> list[Path]:
    """Folders of frames of a split, in natural order. Hidden folders are left out.

    Raises `InputError` if the split's folder holds no PNG: it is not meant to be empty.
    """
    base = frames_root(root, split)
    found = png_folders(base, root)
    if not found and base.is_dir():
        raise InputError(
            f"{base}: found no PNG in it or below; convert its pictures to PNG, or remove the folder"
        )
    return found


def sequence_name(root: Path, split: str, folder: Path) -> str:
    """Its path below that of its split, or the last folder's name if it is the only one."""
    base = frames_root(root, split)
    return base.name if folder == base else folder.relative_to(base).as_posix()


def list_sequence(root: Path, path: str) -> tuple[list[str], list[str]]:
    """The files of a sequence by time: its frames, and its poses from that of the second frame on.

    Raises `InputError` naming a missing or foreign file. There may be more poses than frames.
    """
    frames, poses = (_numbered(Path(root) / folder) for folder in (path, poses_path(path)))
    first = next(iter(frames))
    poses = {number: file for number, file in poses.items() if number > first}
    most = max(frames)
    for kind, folder, files, least, last in (
        ("frame", path, frames, first, most),
        ("pose", poses_path(path), poses, first + 1, max(most, *poses, first)),
    ):
        for number in range(least, last + 1):
            if number not in files:
                raise InputError(
                    f"{Path(root) / folder}: found no {kind} number {number}, expected {least} to {last}; restore it"
                )
    return list(frames.values()), list(poses.values())


def _numbered(folder: Path) -> dict[int, str]:
    """The PNG files of a folder by the number in their names, ascending. Raises `InputError`."""
    try:
        names = [
            name for name in os.listdir(folder) if name.lower().endswith(".png") and not name.startswith(".")
        ]
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}); expected the pictures of a sequence here"
        ) from None
    files = {}
    for name in names:
        digits = re.fullmatch(r"[^0-9]*([0-9]{1,18})\.png", name, re.IGNORECASE)
        if digits is None:
            raise InputError(
                f"{folder / name}: found no frame number, expected a name like 12.png or frame12.png; rename this file"
            )
        number = int(digits[1])
        if number in files:
            raise InputError(
                f"{folder / name}: has the same number as {Path(files[number]).name}; remove one of them"
            )
        files[number] = f"{folder}/{name}"
    if not files:
        raise InputError(f"{folder}: found no pictures, expected 0.png, 1.png, ...")
    return dict(sorted(files.items()))


def check_sequence(root: Path, path: str) -> dict:
    """The index columns of one sequence, `poses` among them: how many frames after the first one have a pose.

    Reads every picture's header; raises `InputError` for what `list_sequence` refuses and for pictures of unequal size.
    """
    frames, poses = list_sequence(root, path)
    size = png.read_image_size(Path(frames[0]))
    if not poses:
        raise InputError(
            f"{Path(root) / poses_path(path)}: found no pose after the first frame's; nothing could be predicted"
        )
    pose_size = (*size[:2], png.read_image_size(Path(poses[0]))[2])
    for file, expected in (*((file, size) for file in frames), *((file, pose_size) for file in poses)):
        found = png.read_image_size(Path(file))
        if found != expected:
            raise InputError(
                f"{file}: found {found[0]}x{found[1]} with {found[2]} channels, expected {expected[0]}x{expected[1]} with "
                f"{expected[2]}; frames and poses agree in size: convert this picture"
            )
    row = dict(zip(("height", "width", "channels"), size, strict=True))
    return row | {
        "frames": len(frames),
        "action_dim": 0,
        "position_dim": 0,
        "poses": len(poses),
        "pose_channels": pose_size[2],
    }


def write_sequence(root: Path, split: str, name: str, frames: np.ndarray, poses: np.ndarray) -> None:
    """Writes uint8 frames and poses [T,H,W,C] of T frames as the sequence `name` of a split.

    Poses first, each folder whole or not at all: where there are frames the sequence is complete. Raises `InputError` if it is
    there, and `OSError` naming the folder if it cannot be written.
    """
    folder = frames_root(root, split) / name
    if folder.exists():
        raise InputError(f"{folder}: is there already; remove it or take another name")
    other = Path(root) / poses_path(folder.relative_to(root).as_posix())
    for target, pictures in ((other, poses), (folder, frames)):
        shutil.rmtree(target, ignore_errors=True)  # poses whose frames were never written
        with whole_folder(target) as temporary:
            for number, picture in enumerate(png.encode_frames(pictures)):
                (temporary / f"{number}.png").write_bytes(picture)
