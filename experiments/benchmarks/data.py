"""The data path, on one core, beside the straightforward way of PIL and NumPy.

Both ways of a comparison take turns, so that a busy machine slows both. The recordings are made for it: discs
that drift over a table under a noisy camera, which as PNG are about as large as BAIR's.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_tools import layout

from .measurement import Row

FRAMES = 30
WIDTH = 64
CLIP = 12
BATCH = 32
CONDITIONS = 7
BAIR_SEQUENCES = 43_520
MEMORY_SIZES = (1_000, 40_000)


def make_sequence(number: int, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frames of drifting discs under a noisy camera, actions and positions.

    uint8 [30,width,width,3], float32 [30,4] and [30,3].
    """
    generator = np.random.default_rng(number)
    y, x = np.mgrid[:width, :width]
    slopes = generator.uniform(-0.5, 0.5, (2, 3))
    table = generator.uniform(120, 200, 3) + x[..., None] * slopes[0] + y[..., None] * slopes[1]
    centres = generator.uniform(0, width, (20, 2))
    radii = generator.uniform(3, 12, 20)
    drifts = generator.normal(size=(20, 2))
    colours = generator.uniform(0, 255, (20, 3))
    frames = []
    for time_step in range(FRAMES):
        image = table.copy()
        for centre, radius, drift, colour in zip(centres, radii, drifts, colours, strict=True):
            image[
                np.hypot(x - centre[0] - drift[0] * time_step, y - centre[1] - drift[1] * time_step) < radius
            ] = colour
        blurred = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, (1, 1), (0, 1))) / 4
        frames.append(
            blurred + generator.normal(0, 2, (width, width, 1)) + generator.normal(0, 0.7, blurred.shape)
        )
    actions, positions = generator.normal(size=(FRAMES, 4)), generator.normal(size=(FRAMES, 3))
    return np.clip(frames, 0, 255).astype(np.uint8), actions.astype(np.float32), positions.astype(np.float32)


# ---------------------------------------------------------------------------------- the straightforward way


def save_with_pillow(folder: Path, frames: np.ndarray, actions: np.ndarray, positions: np.ndarray) -> None:
    """Write one sequence, frame after frame."""
    from PIL import Image

    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    np.savetxt(folder / layout.ACTIONS_FILE, actions, delimiter=",")
    np.savetxt(folder / layout.POSITIONS_FILE, positions, delimiter=",")


def read_with_pillow(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a clip as the published loader reads it, one frame after the other."""
    from PIL import Image

    frames = np.stack([np.array(Image.open(folder / f"{number}.png")) for number in range(CLIP)])
    tables = [
        np.loadtxt(folder / name, delimiter=",") for name in (layout.ACTIONS_FILE, layout.POSITIONS_FILE)
    ]
    return frames, np.concatenate(tables, axis=1)[:CLIP]


# ---------------------------------------------------------------------------------- measuring


def one_core() -> None:
    """Keep this process and those that it starts on one core."""
    import torch

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def measure(folder: Path, repeats: int) -> list[Row]:
    """Return all rows of the data path, measured on data sets that are made in `folder`."""
    one_core()
    return [
        measure_conversion(folder / "conversion", repeats),
        *measure_reading(folder / "reading", repeats),
        measure_opening(folder / "opening", repeats),
        *measure_memory(folder / "memory"),
    ]


def in_turns(repeats: int, *ways: Callable[[int], object]) -> list[list[float]]:
    """Return the seconds of each way in each repetition, the ways taking turns.

    The first turn warms up and is not counted.
    """
    seconds = [[] for _ in ways]
    for turn in range(repeats + 1):
        for way, found in zip(ways, seconds, strict=True):
            start = time.perf_counter()
            way(turn)
            if turn:
                found.append(time.perf_counter() - start)
    return seconds


def measure_conversion(folder: Path, repeats: int) -> Row:
    """Return the row of converting a BAIR-shaped shard, beside reading it likewise and saving with Pillow."""
    from data_tools.converters import bair
    from data_tools.converters.tfrecord import Record, parse_example, read_records

    sequences = [make_sequence(number) for number in range(16)]
    shard = folder / "bair" / "train" / "traj_0_to_15.tfrecords"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"".join(bair_record(*sequence) for sequence in sequences))

    def ours(turn: int) -> None:
        bair.convert(folder / "bair", folder / f"ours_{turn}", validate_shards=0, workers=1)

    def reference(turn: int) -> None:
        for record in read_records(shard):
            assert isinstance(record, Record)  # the shard is whole
            frames, actions, positions = bair.read_recording(dict(parse_example(record.data)), "image_aux1")
            assert actions is not None and positions is not None
            sequence = folder / f"reference_{turn}" / "train" / str(record.number)
            save_with_pillow(sequence, frames, actions, positions)

    reference_seconds, our_seconds = in_turns(repeats, reference, ours)
    return Row.of(
        "conversion, frames/s",
        [len(sequences) * FRAMES / s for s in our_seconds],
        [len(sequences) * FRAMES / s for s in reference_seconds],
    )


def bair_record(frames: np.ndarray, actions: np.ndarray, positions: np.ndarray) -> bytes:
    """One TFRecord of BAIR's form with two cameras."""
    from data_tools.converters.tfrecord import masked_crc32c

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(content)) + content

    features = b""
    for time_step, frame in enumerate(frames):
        for name, kind, value in (
            ("image_aux1/encoded", 1, frame.tobytes()), ("image_main/encoded", 1, frame.tobytes()),
            ("action", 2, actions[time_step].tobytes()),
            ("endeffector_pos", 2, positions[time_step].tobytes()),
        ):  # fmt: skip
            features += field(
                1, field(1, f"{time_step}/{name}".encode()) + field(2, field(kind, field(1, value)))
            )
    data = field(1, features)
    length = len(data).to_bytes(8, "little")
    return (
        length
        + masked_crc32c(length).to_bytes(4, "little")
        + data
        + masked_crc32c(data).to_bytes(4, "little")
    )


def measure_reading(folder: Path, repeats: int) -> list[Row]:
    """One 12-frame item from PNG and from the packed store, and batches from the packed store."""
    from data_tools.index import build_index
    from data_tools.pack import pack
    from svg.sequences import SequenceDataset, TrainingBatches

    count = 64
    for number in range(count):  # written as everybody writes them, not in our own faster form
        save_with_pillow(folder / "png" / "train" / str(number), *make_sequence(number))
    build_index(folder / "png")
    pack(folder / "png", folder / "packed", workers=1)
    from_png, from_pack = (SequenceDataset(folder / name, "train", CLIP) for name in ("png", "packed"))
    reference, png, packed = in_turns(
        20 * repeats,
        lambda turn: read_with_pillow(folder / "png" / "train" / str(turn % count)),
        lambda turn: from_png[turn % count],
        lambda turn: from_pack[turn % count, turn % (FRAMES - CLIP)],
    )
    batches, steps = TrainingBatches(from_pack, BATCH, seed=0, clip_start="random"), 100

    def load(turn: int) -> None:
        for _ in batches.iterate(range(turn * steps, (turn + 1) * steps), workers=0, pin_memory=False):
            pass

    (loading,) = in_turns(repeats, load)
    return [
        Row.of("12-frame item from PNG, us", [1e6 * s for s in png], [1e6 * s for s in reference]),
        Row.of(
            "12-frame item from the packed store, us", [1e6 * s for s in packed], [1e6 * s for s in reference]
        ),
        Row.of("loader, packed store, 12-frame clips/s", [steps * BATCH / s for s in loading]),
    ]


def measure_opening(folder: Path, repeats: int) -> Row:
    """Measure opening a data set of BAIR's size, whose frames are not there, as a Dataset."""
    from svg.sequences import SequenceDataset

    write_linked_index(folder, BAIR_SEQUENCES)
    (seconds,) = in_turns(repeats, lambda turn: SequenceDataset(folder, "train", CLIP))
    return Row.of(f"opening {BAIR_SEQUENCES:,} sequences, s", seconds)


def write_linked_index(root: Path, sequences: int, store: str = "folders", width: int = WIDTH) -> None:
    """Write the index of a training split whose sequences are not there."""
    import pandas as pd

    root.mkdir(parents=True, exist_ok=True)
    names = [
        f"traj_{number // 256 * 256}_to_{number // 256 * 256 + 255}.tfrecords/{number % 256}"
        for number in range(sequences)
    ]
    index = pd.DataFrame(
        {"split": "train", "sequence": names, "path": [f"train/{name}" for name in names], "frames": FRAMES}
    )
    index = index.assign(height=width, width=width, channels=3, action_dim=4, position_dim=3)
    zeros, ones = [0.0] * CONDITIONS, [1.0] * CONDITIONS
    layout.write_index(root, index, layout.DatasetInfo("benchmark", "", 4, 3, zeros, ones, store))


def write_links(root: Path, width: int = WIDTH) -> None:
    """Write the folders of `write_linked_index`: links to one of 256 sequences, links to eight real ones."""
    from data_tools.folders import write_sequence

    real = [root.resolve() / "real" / str(number) for number in range(8)]
    for number, path in enumerate(real):
        write_sequence(path, *make_sequence(number, width))
    group = root.resolve() / "group"
    group.mkdir()
    for number in range(256):
        (group / str(number)).symlink_to(real[number % len(real)])
    (root / "train").mkdir()
    for path in {os.path.dirname(path) for path in layout.read_index(root)["path"].tolist()}:
        (root / path).symlink_to(group)


def write_hollow_arrays(root: Path, sequences: int, width: int = WIDTH) -> None:
    """Make the files of a packed training split of full length, without writing anything to them."""
    from data_tools.npy import npy_header

    (root / "train").mkdir()
    for name, dtype, shape in (
        ("frames", np.uint8, (width, width, 3)),
        ("conditions", np.float32, (CONDITIONS,)),
    ):
        shape = (sequences * FRAMES, *shape)
        header = npy_header(np.dtype(dtype), shape)
        with open(root / "train" / f"{name}.npy", "wb") as file:
            file.write(header)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, len(header) + int(np.prod(shape)) * np.dtype(dtype).itemsize)


def measure_memory(folder: Path) -> list[Row]:
    """Return the resident memory after reading 3,000 clips of a small and of a large data set (on Linux).

    Packed ones are left out for which the disk has no room.
    """
    if not Path("/proc/self/status").exists():
        return []
    rows = []
    for store in ("folders", "packed"):
        for sequences in MEMORY_SIZES:
            root = folder / f"{store}_{sequences}"
            if (
                store == "packed"
                and shutil.disk_usage(folder).free < 2 * sequences * FRAMES * WIDTH * WIDTH * 3
            ):
                continue
            write_linked_index(root, sequences, store)
            if store == "folders":
                write_links(root)
            else:
                write_hollow_arrays(root, sequences)
            rows.append(
                Row.of(
                    f"resident memory, {store}, {sequences:,} sequences, MB", [resident_after_reading(root)]
                )
            )
    return rows


def resident_after_reading(root: Path) -> float:
    code = f"""
from svg.sequences import SequenceDataset, TrainingBatches
batches = TrainingBatches(SequenceDataset({str(root)!r}, "train", {CLIP}), 30, 0, "random")
for batch in batches.iterate(range(100), 0, False):
    pass
print(int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0]) / 1024)
"""
    return float(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
