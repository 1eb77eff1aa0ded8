"""Takes video files and folders of pictures as sequences, index included: recordings without actions.

SOURCE is a video file, or a folder in which every video file and every folder of pictures is one recording. Recordings are cut
into sequences of --length frames (what is left over at the end is a shorter one). With three recordings or more each is in one
split as a whole; fewer are divided in time: the beginning trains, the end tests. Videos other than GIF are read by ffmpeg, from
the package imageio-ffmpeg. Started again, an interrupted conversion continues.
"""

import argparse
import itertools
import math
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from .claim import claimed
from .conversion import RECIPE_FILE, Report, add_splits_argument, assign_splits, check_shares, gather, print_report
from .folders import natural_key, write_sequence
from .images import add_fit_arguments, check_image_width, decode_picture, fit_picture
from .index import build_index
from .layout import SPLITS, InputError
from .pool import add_workers_argument, check_workers, in_order

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ogv")
ANIMATIONS = (".gif",)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MIN_FRAMES = 2  # of a sequence: fewer show no motion


def find_recordings(source: Path) -> list[Path]:
    """Video files and folders of pictures at or below `source`, in natural order. Hidden ones are left out."""
    if source.is_file():
        return [source]
    paths = [source, *source.rglob("*")]
    visible = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(source).parts)]
    found = {path for path in visible if path.suffix.lower() in VIDEOS + ANIMATIONS and path.is_file()}
    found |= {path.parent for path in visible if path.suffix.lower() in PICTURES and path.is_file()}
    if not found:
        kinds = " ".join(VIDEOS + ANIMATIONS + PICTURES)
        raise InputError(f"{source}: found neither videos nor pictures ({kinds}); name a video or a folder of them")
    return sorted(found, key=lambda path: natural_key(path.relative_to(source).as_posix()))


def read_recording(path: Path, width: int, fit: str, every: int) -> Iterator[np.ndarray]:
    """Each `every`-th frame of a video or a folder of pictures, uint8 [width,width,3]. Raises `InputError` naming the file."""
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")]
        for file in sorted(files, key=lambda file: natural_key(file.name))[::every]:
            try:
                yield fit_picture(decode_picture(file), width, fit)
            except ValueError as error:
                raise InputError(f"{file}: {error}; restore or remove it") from None
    elif path.suffix.lower() in ANIMATIONS:
        try:
            with Image.open(path) as animation:
                for picture in itertools.islice(ImageSequence.Iterator(animation), 0, None, every):
                    yield fit_picture(picture.convert("RGB"), width, fit)
        except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, EOFError ... on damaged files
            raise InputError(f"{path}: unreadable ({error}); restore or remove it") from None
    else:
        yield from _read_video(path, width, fit, every)


def _read_video(path: Path, width: int, fit: str, every: int) -> Iterator[np.ndarray]:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise InputError("imageio-ffmpeg: not installed, and videos need it; run `pip install imageio-ffmpeg`") from None
    crop = "crop=min(iw\\,ih):min(iw\\,ih)," if fit == "crop" else ""
    filters = f"select=not(mod(n\\,{every})),{crop}scale={width}:{width}:flags=lanczos"
    command = [
        get_ffmpeg_exe(),
        "-nostdin",
        "-v",
        "error",
        "-xerror",
        "-i",
        f"file:{path}",
        "-map",
        "0:v:0",
        "-fps_mode",
        "passthrough",
    ]
    command += ["-vf", filters, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    size = width * width * 3
    # Errors go to a file: a pipe that nobody reads would fill and stop ffmpeg.
    with tempfile.TemporaryFile() as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            while len(data := process.stdout.read(size)) == size:
                yield np.frombuffer(data, np.uint8).reshape(width, width, 3)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        reason = errors.read(1000).decode(errors="replace").strip()
    if reason or data:
        raise InputError(f"{path}: unreadable video ({reason[:300] or 'cut off'}); restore or remove it")


def convert(
    source: Path,
    out: Path,
    length: int = 30,
    every: int = 1,
    image_width: int = 64,
    fit: str = "crop",
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    workers: int | None = None,
) -> Report:
    """Converts recordings into the data root `out`, index included.

    Args:
        source: a video file, or a folder of videos and folders of pictures.
        out: data root, outside of `source`.
        length: frames of a sequence.
        every: take each so many-th frame.
        image_width, fit: see `images.fit_picture`.
        shares: of train, validate and test.
        workers: processes; as many as there are processors if None.

    Raises `InputError` naming the file for a recording that is damaged or too short.
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
    recordings = find_recordings(source)
    base = source.parent if source.is_file() else source
    names = [path.relative_to(base).as_posix() if path != base else source.resolve().name for path in recordings]
    for name, other in itertools.pairwise(sorted(names)):
        if other.startswith(f"{name}/"):
            raise InputError(f"{base / name}: holds pictures and, below it, {other}; put its own pictures into a folder beside it")
    recipe = {
        "converter": "frames", "version": 1, "length": length, "every": every, "image_width": image_width, "fit": fit,
        "splits": shares, "recordings": names,
    }  # fmt: skip
    whole = len(recordings) >= len(SPLITS)
    splits = assign_splits(len(recordings), shares) if whole else [None] * len(recordings)
    work = partial(_convert_recording, out=out, length=length, every=every, image_width=image_width, fit=fit, shares=shares)
    with claimed(out, RECIPE_FILE, recipe):
        jobs = list(zip(recordings, names, splits, strict=True))
        report = gather(in_order(work, jobs, min(workers, len(jobs)), out), out, "frames", len(jobs))
        build_index(out, source.resolve().stem, "videos and pictures")
    return report


def _convert_recording(
    job: tuple[Path, str, str | None], out: Path, length: int, every: int, image_width: int, fit: str, shares: tuple
) -> Report:
    path, name, split = job
    report, read = Report(), partial(read_recording, path, image_width, fit, every)
    splits = itertools.repeat(split) if split else divide_in_time(math.ceil(sum(1 for _ in read()) / length), shares)
    for number, (split, frames) in enumerate(zip(splits, _batched(read(), length), strict=False)):
        folder = out / split / name / str(number)
        if folder.is_dir():
            report.present += 1
        elif len(frames) >= MIN_FRAMES:
            write_sequence(folder, np.stack(frames), None, None)
            report.written += 1
        elif not number:
            raise InputError(f"{path}: found {len(frames)} frames, expected {MIN_FRAMES} or more; remove it")
    return report


def _batched(frames: Iterable[np.ndarray], length: int) -> Iterator[list[np.ndarray]]:
    frames = iter(frames)
    while some := list(itertools.islice(frames, length)):
        yield some


def divide_in_time(pieces: int, shares: tuple[float, float, float]) -> list[str]:
    """The split of each piece of one recording: a stretch of it for each split that has a share, at least one piece long."""
    counts = [0] * len(shares)
    for split in assign_splits(pieces, shares):
        counts[SPLITS.index(split)] += 1
    return [split for split, count in zip(SPLITS, counts, strict=True) for _ in range(count)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a video, or a folder of videos and of folders of pictures")
    parser.add_argument("out", type=Path, help="data root to write")
    parser.add_argument("--length", type=int, default=30, help="frames of a sequence (default: %(default)s)")
    parser.add_argument("--every", type=int, default=1, help="take each so many-th frame (default: %(default)s)")
    add_fit_arguments(parser)
    add_splits_argument(parser)
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> None:
    report = convert(args.source, args.out, args.length, args.every, args.image_width, args.fit, tuple(args.splits), args.workers)
    print_report(args.out, report)
