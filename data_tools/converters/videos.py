"""Convert videos, animations and folders of pictures into sequences, index included.

SOURCE is a video, or a folder in which every video, every animation (GIF, WebP, PNG, TIFF of several pages)
and every folder of pictures (of any names and sizes) is one recording. Tables with a row for each frame are
converted as well: actions.csv and endeffector_positions.csv in a folder of pictures or beside its only video,
or ep1.csv or ep1_actions.csv and ep1_endeffector_positions.csv beside ep1.mp4. Recordings are cut into
sequences of --length frames; the rest at the end is a shorter one.

Recordings in folders called train, val, test or the like, at any depth, stay in that split. Otherwise three
or more are assigned to the splits, each as a whole; fewer are divided in time: the beginning trains, the end
tests. If several cameras filmed the same episodes, one is taken. Videos are read by ffmpeg, from the package
imageio-ffmpeg. Started again, an interrupted conversion continues.
"""

import argparse
import itertools
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..conversion import (
    DEFAULT_SHARES,
    WHOLE,
    DataRoot,
    Report,
    Shares,
    WorkShard,
    add_shard_argument,
    add_splits_argument,
    assign_splits,
    check_shares,
    fill_root,
    print_report,
)
from ..errors import InputError
from ..files import open_regular
from ..folders import write_sequence
from ..layout import INFO_FILE, SPLITS
from ..pool import add_workers_argument, check_workers
from ..tables import read_table
from .images import (
    PICTURES,
    add_fit_arguments,
    check_image_width,
    decode_picture,
    fit_picture,
    read_animation,
)
from .recordings import MIN_FRAMES, Recording, list_pictures, plan_recordings


def read_recording(
    path: Path, width: int, fit: str, every: int, pictures: Sequence[str] | None = None
) -> Iterator[np.ndarray]:
    """Yield each `every`-th frame of a video, an animation or a folder of pictures, uint8 [width,width,3].

    `pictures` are names of pictures in the folder; if None, all of its most frequent kind. Raises
    `InputError` naming the file.
    """
    if path.is_dir():
        names = list_pictures(path, [file.name for file in path.iterdir()]) if pictures is None else pictures
        for name in names[::every]:
            try:
                yield fit_picture(decode_picture(path / name), width, fit)
            except ValueError as error:
                raise InputError(f"{path / name}: {error}; restore or remove it") from None
    elif path.suffix.lower() in PICTURES:
        try:
            for picture in itertools.islice(read_animation(path), 0, None, every):
                yield fit_picture(picture, width, fit)
        except ValueError as error:
            raise InputError(f"{path}: {error}; restore or remove it") from None
    else:
        yield from _read_video(path, width, fit, every)


def _ffmpeg_command(path: Path, width: int, fit: str, every: int) -> list[str]:
    """Return the command line of ffmpeg that writes the frames of a video as raw RGB to its stdout.

    Raises `InputError` if imageio-ffmpeg is not installed.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        missing = "imageio-ffmpeg: not installed, and videos need it"
        raise InputError(f"{missing}; run `pip install imageio-ffmpeg`") from None
    crop = "crop=min(iw\\,ih):min(iw\\,ih)," if fit == "crop" else ""
    filters = f"select=not(mod(n\\,{every})),{crop}scale={width}:{width}:flags=lanczos"
    # The whitelist keeps a playlist that calls itself a video from fetching anything.
    before = f"-nostdin -v error -xerror -protocol_whitelist file -max_pixels {Image.MAX_IMAGE_PIXELS} -i"
    after = f"-map 0:v:0 -fps_mode passthrough -vf {filters} -pix_fmt rgb24 -f rawvideo -"
    return [get_ffmpeg_exe(), *before.split(), f"file:{path}", *after.split()]


def _read_video(path: Path, width: int, fit: str, every: int) -> Iterator[np.ndarray]:
    """Yield each `every`-th frame of a video, uint8 [width,width,3]. Raises `InputError` naming the file.

    ffmpeg is run directly: the reader of imageio neither limits protocols and pixels nor reports the errors
    of a damaged video, and would crop and resize each frame in Python.
    """
    command = _ffmpeg_command(path, width, fit, every)
    try:
        open_regular(path).close()  # ffmpeg would wait for the end of a pipe
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); restore or remove it") from None
    size = width * width * 3
    # Errors go to a file: a pipe that nobody reads would fill and stop ffmpeg.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        try:
            while len(data := process.stdout.read(size)) == size:
                yield np.frombuffer(data, np.uint8).reshape(width, width, 3)
            code = process.wait()
        finally:
            process.kill()
        errors.seek(0)
        reason = re.sub(r"\[[^]]*@ 0x[0-9a-f]+\] *", "", errors.read(1000).decode(errors="replace")).strip()
    if reason or data or code:  # an ffmpeg that is interrupted between two frames gives no reason
        reason = reason[:200] or "ended early"
        raise InputError(f"{path}: unreadable video ({reason}); restore or remove it")


def convert(
    source: Path,
    out: Path,
    length: int = 30,
    every: int = 1,
    image_width: int = 64,
    fit: str = "crop",
    shares: Shares = DEFAULT_SHARES,
    workers: int | None = None,
    skip_damaged: bool = False,
    camera: str | None = None,
    shard: WorkShard = WHOLE,
) -> Report:
    """Convert recordings into the data root `out`, index included.

    Args:
        source: a video file, or a folder of videos, animations and folders of pictures.
        out: data root, outside of `source`.
        length: frames of a sequence.
        every: take one of so many frames.
        image_width, fit: see `images.fit_picture`.
        shares: of train, validate and test.
        workers: number of processes; as many as there are processors if None.
        shard: the part of the work that is done.
        skip_damaged: leave a recording out from the damaged place on instead of raising.
        camera: see `recordings.plan_recordings`.

    Raises `InputError` naming the file for a recording that is damaged.
    """
    workers = check_workers(workers)
    check_image_width(image_width)
    check_shares(shares)
    for flag, value, least in (("length", length, MIN_FRAMES), ("every", every, 1)):
        if value < least:
            raise InputError(f"--{flag}: found {value}, expected {least} or more")
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; name a video or a folder of videos or pictures")
    if out.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{out}: lies within {source}, whose pictures are read; name another place")
    if (source / INFO_FILE).exists():
        advice = f"use it as it is, or `svg-data resize {source} {out}` for frames of another size"
        raise InputError(f"{source}: is a data set already, with an index; {advice}")
    recordings, notes = plan_recordings(source, shares, camera)
    recipe = {
        "converter": "frames",
        "version": 2,
        "length": length,
        "every": every,
        "image_width": image_width,
        "fit": fit,
        "splits": shares,
        "recordings": {recording.place: recording.fingerprint() for recording in recordings},
        "split of each": {recording.place: recording.split for recording in recordings},
    }
    work = partial(_convert_recording, out, length, every, image_width, fit, shares, skip_damaged)
    root = DataRoot(out, recipe, source.resolve().stem, "videos and pictures")
    return fill_root(root, recordings, work, workers, report=Report(notes=notes), shard=shard)


def _convert_recording(
    out: Path,
    length: int,
    every: int,
    image_width: int,
    fit: str,
    shares: Shares,
    skip_damaged: bool,
    recording: Recording,
) -> Report:
    """Write the sequences of a recording."""
    report = Report()
    path = recording.path
    name = recording.name
    read = partial(read_recording, path, image_width, fit, every, recording.pictures or None)
    try:
        tables = _read_tables(recording, every, read)
        if recording.split:
            targets = (out / recording.split / name / str(number) for number in itertools.count())
        else:
            pieces = divide_in_time(count_pieces(sum(1 for _ in read()), length), shares)
            targets = (out / piece / name / str(number) for number, piece in enumerate(pieces))
        start = 0
        for frames in _batched(read(), length):
            if len(frames) < MIN_FRAMES:  # a single last frame shows no motion
                break
            folder = next(targets)
            if folder.is_dir():
                report.present += 1
            else:
                rows = {key: table[start : start + len(frames)] for key, table in tables.items()}
                write_sequence(folder, np.stack(frames), rows.get("actions"), rows.get("positions"))
                report.written += 1
            start += len(frames)
        if not start:
            report.notes.append(f"{path}: found fewer than {MIN_FRAMES} frames (--every {every}): not used")
    except InputError as error:
        if not skip_damaged:
            raise InputError(f"{error} (or leave such recordings out with --skip_damaged)") from None
        report.left_out.append(str(error))
    return report


def _read_tables(
    recording: Recording, every: int, read: Callable[[], Iterator[np.ndarray]]
) -> dict[str, np.ndarray]:
    """Return the tables of a recording. Raises `InputError` unless they have a row for each frame."""
    if not recording.tables:
        return {}
    if every > 1:
        found = f"found {every}, but {recording.path} has actions or positions"
        raise InputError(f"--every: {found}, which belong to neighbouring frames; expected 1")
    frames = len(recording.pictures) or sum(1 for _ in read())
    return {
        key: read_table(path, frames, exact=True, last_unused=key == "actions")
        for key, path in recording.tables.items()
    }


def count_pieces(frames: int, length: int) -> int:
    """Return the number of sequences that so many frames are cut into."""
    whole, rest = divmod(frames, length)
    return whole + (rest >= MIN_FRAMES)


def _batched(frames: Iterable[np.ndarray], length: int) -> Iterator[list[np.ndarray]]:
    frames = iter(frames)
    while batch := list(itertools.islice(frames, length)):
        yield batch


def divide_in_time(pieces: int, shares: Shares) -> list[str]:
    """Return the split of each piece of one recording.

    Each split with a share gets a stretch of at least one piece.
    """
    counts = [0] * len(shares)
    for split in assign_splits(pieces, shares):
        counts[SPLITS.index(split)] += 1
    return [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("source", type=Path, help="a video, or a folder of videos and of folders of pictures")
    parser.add_argument("out", type=Path, help="data root to write")
    parser.add_argument("--length", type=int, default=30, help="frames of a sequence (default: %(default)s)")
    parser.add_argument(
        "--every", type=int, default=1, help="take one of so many frames (default: %(default)s)"
    )
    add_fit_arguments(parser)
    parser.add_argument(
        "--camera",
        help="which one to take of several cameras, or all (default: the first by name not on the robot)",
    )
    add_splits_argument(parser)
    parser.add_argument(
        "--skip_damaged", action="store_true", help="leave recordings out from the damaged place on"
    )
    add_workers_argument(parser)
    add_shard_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Convert recordings and print what was done."""
    report = convert(
        args.source,
        args.out,
        args.length,
        args.every,
        args.image_width,
        args.fit,
        tuple(args.splits),
        args.workers,
        args.skip_damaged,
        args.camera,
        shard=args.shard,
    )
    print_report(args.out, [args.out], report)
