"""Takes video files and folders of pictures as sequences, index included.

SOURCE is a video file, or a folder in which every video file and every folder of pictures (of any names and sizes) is one
recording. actions.csv and endeffector_positions.csv in a folder of pictures, a row for each picture, come along; videos have
none. Recordings are cut into sequences of --length frames; what is left over at the end is a shorter one. If all recordings lie
in train/, validate/ and test/, they stay there. Otherwise, with three recordings or more each is dealt to one split as a whole;
fewer are divided in time: the beginning trains, the end tests. Videos other than GIF are read by ffmpeg, from the package
imageio-ffmpeg. Started again, an interrupted conversion continues.
"""

import argparse
import itertools
import re
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageSequence

from .claim import claimed
from .conversion import DEFAULT_SHARES, RECIPE_FILE, Report, add_splits_argument, assign_splits, check_shares, gather, print_report
from .files import natural_key, walk
from .folders import read_conditions, write_sequence
from .images import add_fit_arguments, check_image_width, decode_picture, fit_picture, open_picture
from .index import SPLIT_ALIASES, TABLES, build_index
from .layout import INFO_FILE, SPLITS, InputError
from .pool import add_workers_argument, check_workers, in_order
from .tables import name_hint

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ogv")
ANIMATIONS = (".gif",)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MIN_FRAMES = 2  # of a sequence: fewer show no motion


def find_recordings(source: Path) -> list[Path]:
    """Video files and folders of pictures at or below `source`, in natural order. Hidden ones are left out."""
    if source.is_file():
        return [source]
    found = set()
    for folder, files in walk(source):
        names = [name for name in files if not name.startswith(".")]
        found |= {Path(folder, name) for name in names if name.lower().endswith(VIDEOS + ANIMATIONS)}
        if any(name.lower().endswith(PICTURES) for name in names):
            found.add(Path(folder))
    if not found:
        kinds = " ".join(VIDEOS + ANIMATIONS + PICTURES)
        raise InputError(f"{source}: found neither videos nor pictures ({kinds}); name a video or a folder of them")
    return sorted(found, key=lambda path: natural_key(path.relative_to(source).as_posix()))


def _pictures(folder: Path) -> list[Path]:
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")]
    return sorted(files, key=lambda file: natural_key(file.name))


def read_recording(path: Path, width: int, fit: str, every: int) -> Iterator[np.ndarray]:
    """Each `every`-th frame of a video or a folder of pictures, uint8 [width,width,3]. Raises `InputError` naming the file."""
    if path.is_dir():
        for file in _pictures(path)[::every]:
            try:
                yield fit_picture(decode_picture(file), width, fit)
            except ValueError as error:
                raise InputError(f"{file}: {error}; restore or remove it") from None
    elif path.suffix.lower() in ANIMATIONS:
        try:
            with open_picture(path, ("GIF",)) as animation:
                for picture in itertools.islice(ImageSequence.Iterator(animation), 0, None, every):
                    yield fit_picture(picture.convert("RGB"), width, fit)
        except ValueError as error:
            raise InputError(f"{path}: {error}; restore or remove it") from None
    else:
        yield from _read_video(path, width, fit, every)


def _read_video(path: Path, width: int, fit: str, every: int) -> Iterator[np.ndarray]:
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
    except ImportError:
        raise InputError("imageio-ffmpeg: not installed, and videos need it; run `pip install imageio-ffmpeg`") from None
    crop = "crop=min(iw\\,ih):min(iw\\,ih)," if fit == "crop" else ""
    filters = f"select=not(mod(n\\,{every})),{crop}scale={width}:{width}:flags=lanczos"
    # Only files: a playlist that calls itself a video must not fetch anything.
    command = [
        get_ffmpeg_exe(),
        "-nostdin",
        "-v",
        "error",
        "-xerror",
        "-protocol_whitelist",
        "file",
        "-max_pixels",
        f"{Image.MAX_IMAGE_PIXELS}",
        "-i",
        f"file:{path}",
    ]
    command += f"-map 0:v:0 -fps_mode passthrough -vf {filters} -pix_fmt rgb24 -f rawvideo -".split()
    size = width * width * 3
    # Errors go to a file: a pipe that nobody reads would fill and stop ffmpeg.
    with tempfile.TemporaryFile() as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
        try:
            while len(data := process.stdout.read(size)) == size:
                yield np.frombuffer(data, np.uint8).reshape(width, width, 3)
            code = process.wait()
        finally:
            process.kill()
        errors.seek(0)
        reason = re.sub(r"\[[^]]*@ 0x[0-9a-f]+\] *", "", errors.read(1000).decode(errors="replace")).strip()
    if reason or data or code:  # also an ffmpeg that was interrupted between two frames: it then ends without a word
        raise InputError(f"{path}: unreadable video ({reason[:200] or 'ended early'}); restore or remove it")


def convert(
    source: Path,
    out: Path,
    length: int = 30,
    every: int = 1,
    image_width: int = 64,
    fit: str = "crop",
    shares: tuple[float, float, float] = DEFAULT_SHARES,
    workers: int | None = None,
    skip_damaged: bool = False,
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
        skip_damaged: leave a recording out from where it is damaged on instead of raising.

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
        raise InputError(f"{source}: is a data set already, with an index; use it as it is, or name a folder of recordings")
    recordings = name_recordings(source)
    jobs = list(zip(recordings.values(), recordings, split_recordings(list(recordings), shares), strict=True))
    recipe = {
        "converter": "frames", "version": 1, "length": length, "every": every, "image_width": image_width, "fit": fit,
        "splits": shares, "recordings": {name: _extent(path) for name, path in recordings.items()},
    }  # fmt: skip
    work = partial(_convert_recording, out, length, every, image_width, fit, shares, skip_damaged)
    with claimed(out, RECIPE_FILE, recipe):
        report = gather(in_order(work, jobs, workers, out), out, "frames", len(jobs))
        report.notes += unread_tables(recordings.values())
        if not report.written + report.present:
            raise InputError(f"{source}: no recording can be used; {(report.left_out + report.notes)[0]}")
        build_index(out, source.resolve().stem, "videos and pictures")
    return report


def name_recordings(source: Path) -> dict[str, Path]:
    """The recordings by the name of their folder in the data root. Raises `InputError` if two would share one."""
    base = source.parent if source.is_file() else source
    recordings: dict[str, Path] = {}
    for path in find_recordings(source):
        name = path.relative_to(base).as_posix() if path != base else source.resolve().name
        if not name.isprintable():
            raise InputError(f"{str(path)!r}: a name with characters that cannot be written; rename it")
        if name in recordings:
            raise InputError(f"{path}: has the same name as the recording {recordings[name]}; rename it")
        recordings[name] = path
    for name, path in recordings.items():
        above = next((str(parent) for parent in PurePosixPath(name).parents if str(parent) in recordings), None)
        if above:
            raise InputError(f"{recordings[above]}: holds pictures and, below them, {path}; put them into a folder of their own")
    return recordings


def _extent(path: Path) -> list[int]:
    """Tells a recording from what it was before: bytes of its pictures or its file, checksums of its tables."""
    files = _pictures(path) if path.is_dir() else [path]
    tables = [path / name for name in TABLES if (path / name).exists()]
    return [len(files), sum(file.stat().st_size for file in files), *(zlib.crc32(table.read_bytes()) for table in tables)]


def unread_tables(recordings: Iterable[Path]) -> list[str]:
    """A line for each CSV beside a recording that is not taken along."""
    recordings, found = set(recordings), []
    for folder in sorted({path if path.is_dir() else path.parent for path in recordings}):
        has_pictures = folder in recordings
        for path in sorted(folder.glob("*.[cC][sS][vV]")):
            if not has_pictures:
                found.append(f"{path}: not read; videos have no tables, folders of pictures do")
            elif path.name not in TABLES:
                found.append(f"{path}: not read; {name_hint(path.name)}")
    return found


def split_recordings(names: list[str], shares: tuple[float, float, float]) -> list[str | None]:
    """The split of each recording: that of its folder, or dealt out, or None if there are so few that time divides them.

    Raises `InputError` if some lie in folders that are called like splits and others do not.
    """
    folders = [name.split("/")[0] for name in names]
    odd = [name for name, folder in zip(names, folders, strict=True) if folder not in SPLITS]
    if not odd:
        return folders
    if any(folder.lower() in (*SPLITS, *SPLIT_ALIASES) and "/" in name for name, folder in zip(names, folders, strict=True)):
        raise InputError(f"{odd[0]}: lies outside of {', '.join(SPLITS)}, where other recordings lie; move it into one or away")
    return assign_splits(len(names), shares) if len(names) >= len(SPLITS) else [None] * len(names)


def _convert_recording(
    out: Path, length: int, every: int, image_width: int, fit: str, shares: tuple, skip_damaged: bool,
    job: tuple[Path, str, str | None],
) -> Report:  # fmt: skip
    path, name, split = job
    report, read = Report(), partial(read_recording, path, image_width, fit, every)
    try:
        tables = _read_tables(path, every)
        if split:
            target = (out / name) if name.startswith(f"{split}/") else out / split / name
            targets = (target / str(number) for number in itertools.count())
        else:
            pieces = divide_in_time(count_pieces(sum(1 for _ in read()), length), shares)
            targets = (out / piece / name / str(number) for number, piece in enumerate(pieces))
        start = 0
        for frames in _batched(read(), length):
            if len(frames) < MIN_FRAMES:  # a lone last one shows no motion
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


def _read_tables(path: Path, every: int) -> dict[str, np.ndarray]:
    """The tables of a folder of pictures, a row for each picture."""
    tables = read_conditions(path, len(_pictures(path)), exact=True) if path.is_dir() else {}
    if tables and every > 1:
        raise InputError(
            f"--every: found {every}, but {path} has actions or positions, which are those of neighbouring frames; expected 1"
        )
    return tables


def count_pieces(frames: int, length: int) -> int:
    """Sequences that so many frames give."""
    whole, rest = divmod(frames, length)
    return whole + (rest >= MIN_FRAMES)


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
    parser.add_argument("--skip_damaged", action="store_true", help="leave recordings out from where they are damaged on")
    add_workers_argument(parser)


def run(args: argparse.Namespace) -> None:
    report = convert(
        args.source, args.out, args.length, args.every, args.image_width, args.fit, tuple(args.splits), args.workers,
        args.skip_damaged,
    )  # fmt: skip
    print_report(args.out, [args.out], report)
