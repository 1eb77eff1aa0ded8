"""Recordings of every kind for tests of the converters, and ways to look at what they became."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.folders import frame_paths
from data_tools.png import read_frame
from tests.support import tfrecords
from tests.support.places import CASES


def shared_case(name: str) -> Path:
    """Return the folder of one of the shared cases; skip the test where they are not at hand."""
    if not (CASES / name).exists():
        pytest.skip(f"no shared cases in {CASES}")
    return CASES / name


def contents(root: Path) -> dict[str, bytes]:
    """Return the contents of all files at and below a folder by their paths."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def sequence_files(root: Path) -> dict[str, bytes]:
    """Return the contents of the files of all sequences of a data root, without those beside its splits."""
    return {name: data for name, data in contents(root).items() if "/" in name}


def read_sequence(folder: Path) -> np.ndarray:
    paths = frame_paths(folder)
    with Image.open(paths[0]) as image:
        size = (image.height, image.width, 3)
    return np.stack([read_frame(path, size) for path in paths])


def bair_sequence(number: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    cameras = {
        name: generator.integers(0, 256, (4, 8, 8, 3), np.uint8) for name in ("image_aux1", "image_main")
    }
    return (
        cameras,
        generator.normal(size=(4, 4)).astype(np.float32),
        generator.normal(size=(4, 3)).astype(np.float32),
    )


TENSOR = {"tensor": {"shape": {"dimensions": ["2"]}, "dtype": "float32", "encoding": "none"}}


SCALAR = {"tensor": {"shape": {}, "dtype": "bool", "encoding": "none"}}


PICTURE = {"image": {"shape": {"dimensions": ["10", "16", "3"]}, "dtype": "uint8", "encodingFormat": "png"}}


def features_dict(features: dict) -> dict:
    return {"featuresDict": {"features": features}}


def tensor(dtype: str, *dimensions: int, encoding: str = "none") -> dict:
    return {
        "tensor": {
            "shape": {"dimensions": [str(n) for n in dimensions]},
            "dtype": dtype,
            "encoding": encoding,
        }
    }


def sequence(feature: dict) -> dict:
    return {"sequence": {"feature": feature, "length": "-1"}}


def episode(number: int, steps: int) -> dict:
    generator = np.random.default_rng(number)
    images = []
    for image in generator.integers(0, 256, (steps, 10, 16, 3), np.uint8):
        images.append(io.BytesIO())
        Image.fromarray(image).save(images[-1], "PNG")
    return {
        "steps/observation/camera": [image.getvalue() for image in images],
        "steps/observation/wrist_camera": [image.getvalue() for image in images[::-1]],
        "steps/observation/state": generator.normal(size=2 * steps).astype(np.float32),
        "steps/action/move": generator.normal(size=2 * steps).astype(np.float32),
        "steps/action/close": generator.integers(0, 2, steps),
        "steps/text": [b"push"] * steps,
    }


def write_version(folder: Path, shards: dict[str, list[int]]) -> Path:
    """Write a TFDS data set: by split, the number of steps of each episode, up to three in a shard."""
    folder.mkdir(parents=True)
    steps = {
        "observation": features_dict({"wrist_camera": PICTURE, "camera": PICTURE, "state": TENSOR}),
        "action": features_dict({"move": TENSOR, "close": SCALAR}), "text": {"text": {}},
    }  # fmt: skip
    tree = features_dict(
        {"steps": {"sequence": {"feature": features_dict(steps)}}, "episode_metadata": features_dict({})}
    )
    (folder / "features.json").write_text(json.dumps(tree))
    splits, number = [], 0
    for split, lengths in shards.items():
        groups = [lengths[start : start + 3] for start in range(0, len(lengths), 3)]
        splits.append({"name": split, "shardLengths": [str(len(group)) for group in groups]})
        for shard, group in enumerate(groups):
            path = folder / f"pushing-{split}.tfrecord-{shard:05d}-of-{len(groups):05d}"
            tfrecords.write_shard(
                path, [episode(number + place, length) for place, length in enumerate(group)]
            )
            number += len(group)
    (folder / "dataset_info.json").write_text(
        json.dumps({"name": "pushing", "fileFormat": "tfrecord", "splits": splits})
    )
    return folder


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write uint8 frames [T,H,W,3] as a lossless video (.mkv) or as H.264 (.mp4)."""
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {"codec": "ffv1", "pix_fmt_out": "bgr0"} if path.suffix == ".mkv" else {"codec": "libx264"}
    writer = imageio_ffmpeg.write_frames(str(path), frames.shape[2:0:-1], fps=10, macro_block_size=1, **codec)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()


def shades(count: int) -> list[Image.Image]:
    """Return pictures of 16x16 pixels, each of a shade of its own: 10, 20, 30 ..."""
    return [Image.new("RGB", (16, 16), (10 + 10 * number,) * 3) for number in range(count)]


def write_animation(path: Path, pictures: list[Image.Image], **options) -> None:
    """Write an animated GIF, WebP or PNG or a TIFF of several pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options |= {".webp": {"lossless": True}, ".apng": {"format": "PNG"}}.get(path.suffix, {})
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)


def write_table(path: Path, rows: int, columns: int = 2) -> np.ndarray:
    """Write a CSV of numbers, float32 [rows,columns], and return them."""
    table = np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, table, fmt="%.9g", delimiter=",")
    return table


def write_pictures(folder: Path, count: int, shade: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (16, 8), (shade, number, 0)).save(folder / f"frame{number + 1}.png")
