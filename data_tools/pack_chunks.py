"""Write one split of a data set as chunks for object storage; see `chunks` for their form.

A chunk gets its name when it is complete, and the list of those that are is kept beside them. So an
interrupted packing goes on after the last chunk, and ends with the same files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from .chunks import CONDITIONS, FRAME_ENDS, FRAMES, MOST_CHUNK, POSE_ENDS, POSES, Chunks, Sample
from .errors import InputError
from .files import flush_file, folder_in, temporary_beside, write_text
from .json_files import read_json
from .layout import SPLITS
from .pool import in_order
from .remote import CHUNKS_FILE, NEEDS, content_digest
from .store import opened_store

UNFINISHED_FILE = "unfinished.json"  # the list of chunks while there are not all
OVERHEAD = 64  # bytes of a chunk for the sizes and shapes of a sample


def import_writer() -> Any:
    """Return LitData's writer. Raises `InputError` if it is not installed."""
    try:
        from litdata.streaming.writer import BinaryWriter
    except ImportError:
        raise InputError(f"--format litdata: {NEEDS}") from None
    return BinaryWriter


def pack_split(
    root: Path, out: Path, split: str, rows: pd.DataFrame, workers: int, bar: tqdm, chunk_bytes: int
) -> None:
    """Write the sequences in `rows` of the index of a split as chunks of some `chunk_bytes`.

    A chunk ends with the sequence that makes it that large. Raises `InputError` naming the file for a
    sequence that cannot be read.
    """
    folder = folder_in(out, split)
    if (folder / CHUNKS_FILE).exists():
        bar.update(len(rows))
        return
    written = _read_unfinished(folder)
    done = sum(chunk["chunk_size"] for chunk in written["chunks"])
    bar.update(done)
    numbers, lengths = rows["number"].tolist()[done:], rows["frames"].tolist()[done:]
    samples = in_order(
        partial(_read_sample, root, split), list(zip(numbers, lengths, strict=True)), workers, out
    )
    for batch in _batches(samples, chunk_bytes):
        chunk, config = _write_chunk(folder, len(written["chunks"]), batch)
        written["chunks"].append(chunk)
        written["config"] = config | {"chunk_bytes": chunk_bytes}
        write_text(folder / UNFINISHED_FILE, json.dumps(written, sort_keys=True) + "\n")
        bar.update(len(batch))
    os.replace(folder / UNFINISHED_FILE, folder / CHUNKS_FILE)
    Chunks(out, split, len(rows), opened_store(root, split).conditions.is_image)


def digest(out: Path, index: str) -> str:
    """Return the digest of the text of ``index.csv`` and of the chunks of all splits."""
    lists = [out / split / CHUNKS_FILE for split in SPLITS if (out / split / CHUNKS_FILE).exists()]
    return content_digest(index.encode(), [path.read_bytes() for path in lists])


def _read_unfinished(folder: Path) -> dict[str, Any]:
    """Return the list of the chunks that an interrupted packing has written."""
    path = folder / UNFINISHED_FILE
    if not path.exists():
        return {"chunks": []}
    return read_json(path, f"remove the folder {folder} to pack the split from its beginning")


def _batches(samples: Iterable[Sample], chunk_bytes: int, most: int = MOST_CHUNK) -> Iterator[list[Sample]]:
    """Yield the samples of each chunk: some `chunk_bytes`, never more than `most`."""
    batch: list[Sample] = []
    size = 0
    for sample in samples:
        added = _bytes_of(sample)
        if batch and size + added > most:
            yield batch
            batch, size = [], 0
        batch.append(sample)
        size += added
        if size >= chunk_bytes:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _bytes_of(sample: Sample) -> int:
    """Return how many bytes of a chunk a sample takes, or a few more."""
    return OVERHEAD + sum(memoryview(part).nbytes for part in sample.values())


def _write_chunk(folder: Path, number: int, samples: list[Sample]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write a chunk and return its entry in the list of chunks, and LitData's description of the samples."""
    temporary = temporary_beside(folder / "chunk")
    try:
        # LitData begins another chunk when one is full, which this one never is.
        writer = import_writer()(str(temporary), chunk_bytes=MOST_CHUNK, chunk_index=number)
        for place, sample in enumerate(samples):
            writer[place] = sample
        writer.done()
        (list_file,) = temporary.glob(f"*{CHUNKS_FILE}")
        values = json.loads(list_file.read_text())
        (entry,) = values["chunks"]
        path = temporary / entry["filename"]
        with open(path, "rb") as file:
            entry["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        entry["filename"] = f"chunk-0-{number}.bin"  # LitData's name has the rank of a torchrun process
        flush_file(path)
        os.replace(path, folder / entry["filename"])
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return entry, values["config"]


def _read_sample(root: Path, split: str, job: tuple[int, int]) -> Sample:
    """Return the first frames of a sequence with their conditions; job is (number, number of frames).

    All pictures are decoded: one that is damaged is not copied.
    """
    number, length = job
    store = opened_store(root, split)
    conditions = [store.conditions.numbers(rows) for _, rows in store.pieces(number, length)]
    frames, poses = store.images(number, length)
    sample = {FRAMES: b"".join(frames), FRAME_ENDS: _ends(frames)}
    if store.conditions.is_image:
        sample |= {POSES: b"".join(poses), POSE_ENDS: _ends(poses)}
    else:
        sample[CONDITIONS] = np.concatenate(conditions)
    size = _bytes_of(sample)
    if size + OVERHEAD > MOST_CHUNK:
        place = root / str(store.index["path"].iat[number])
        raise InputError(f"{place}: found {size / 1e9:.1f} GB, expected at most 4.2; divide this sequence")
    return sample


def _ends(pictures: list[bytes]) -> np.ndarray:
    """Return where each picture ends in all of them one after the other."""
    return np.cumsum([len(picture) for picture in pictures], dtype=np.int64)
