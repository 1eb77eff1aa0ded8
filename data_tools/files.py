"""The file system: read anybody's files and folders safely, and write our own completely or not at all.

A path from elsewhere may be a pipe, a device, a link to another place, larger than memory or unreadable.
Names of temporary files are random and never opened through a link, so that nobody can have put something
there before.
"""

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

try:
    import resource
except ImportError:  # Windows
    resource = None

from .errors import InputError

TEMPORARY = ".svg-part"  # suffix of temporary names
POINTER = b"version https://git-lfs.github.com/spec/"  # first bytes of a Git LFS pointer
MOST_POINTER = 1024  # bytes of a Git LFS pointer
SPARSE_FROM = 2**26  # bytes: smaller files may be sparse
SPARSE = 4  # a file is refused if it is so many times as large as its stored part
OTHER_PLACE = "make it writable, or name another place with --out"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has neither of them
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def explain_os_error(error: OSError) -> str:
    """Return the error in one line, with advice."""
    problem = f"{error.filename or 'files'}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{problem}; make room"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{problem}; raise the limit, {open_files_limit()}, or lower --workers"
    return f"{problem}; check the path, its rights and the disk"


def open_files_limit() -> str:
    """Return the limit on open files of this process in words, and where it is set."""
    if resource is None:
        return "of open files"
    return f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} open files by `ulimit -n`"


# ---------------------------------------------------------------------------------------------------- reading


def open_regular(path: Path | str, root: Path | str | None = None) -> io.BufferedReader:
    """Open a regular file for reading. A link out of `root` is refused.

    Raises `OSError`, also for a pipe or a device, on which reading may never end; for a sparse file that is
    nearly empty, which would be read as more zeros than fit into memory; and for a pointer of Git LFS instead
    of the file.
    """
    file = open(path, "rb", opener=partial(_open, root))  # noqa: SIM115 the caller closes it
    try:
        reason = _unreadable(file)
    except OSError:
        file.close()
        raise
    if reason is None:
        return file
    file.close()
    raise OSError(errno.EINVAL, reason, str(path))


def _unreadable(file: io.BufferedReader) -> str | None:
    """Return the reason for which a file must not be read, or None."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_size <= MOST_POINTER and file.peek(len(POINTER)).startswith(POINTER):
        return "a Git LFS pointer instead of the file: run `git lfs pull`"
    blocks = getattr(status, "st_blocks", status.st_size)  # of 512 bytes; Windows does not tell
    if status.st_size > SPARSE_FROM and blocks * 512 * SPARSE < status.st_size:
        stored = _stored_bytes(file.fileno(), status.st_size)
        if stored * SPARSE < status.st_size:
            return f"a sparse file: {status.st_size} bytes, of which {stored} are stored"
    return None


def _stored_bytes(handle: int, size: int) -> int:
    """Return the number of stored bytes of a file, compressed or not; the others are holes."""
    stored = place = 0
    with contextlib.suppress(OSError):  # raised by a hole that goes on to the end
        while place < size:
            start = os.lseek(handle, place, os.SEEK_DATA)
            place = os.lseek(handle, start, os.SEEK_HOLE)
            stored += place - start
    os.lseek(handle, 0, os.SEEK_SET)
    return stored


def _open(root: Path | str | None, path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe, and refuse a link that leads out of `root`."""
    flags |= _NO_WAIT
    if root is None:
        return os.open(path, flags)
    try:
        return os.open(path, flags | _NO_FOLLOW)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    if not is_inside(path, root):
        raise OSError(errno.EPERM, f"a link out of {root}", path)
    return os.open(path, flags)


def read_bytes(path: Path | str, most: int, root: Path | str | None = None) -> bytes:
    """Return the contents of a regular file of at most `most` bytes.

    The size is compared before anything is read. Raises `OSError`.
    """
    with open_regular(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            return file.read(size)
    raise OSError(errno.EFBIG, f"{size} bytes, expected at most {most}", str(path))


def is_inside(path: Path | str, root: Path | str) -> bool:
    """Return whether `path`, after following all links, is `root` or lies below it."""
    return _is_above(os.path.realpath(root), os.path.realpath(path))


def _is_above(folder: str, other: str) -> bool:
    return f"{other}/".startswith(f"{folder.rstrip('/')}/")


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts frame2 before frame10."""
    return [
        (int(part), "") if part.isdecimal() and part.isascii() else (-1, part)
        for part in re.split(r"([0-9]+)", name)
    ]


def walk(root: Path | str, within: Path | str | None = None) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, names of its files) at and below `root`, folders in natural order.

    Nothing is yielded if `root` is no folder. Hidden folders are left out. Links are followed within `within`
    (default: `root`), but not in circles.

    Raises `InputError` for a folder that cannot be listed, for a link to anywhere else, and for a folder that
    is reached a second time through a link: trees of such links can be endless.
    """
    within = os.path.realpath(root if within is None else within)
    # By device and inode, the path of a folder and whether a link led there.
    reached: dict[tuple[int, int], tuple[str, bool]] = {}
    pending = [(os.fspath(root), False)]
    while pending:
        folder, linked = pending.pop()
        try:
            status = os.stat(folder)
            if folder == os.fspath(root) and not stat.S_ISDIR(status.st_mode):
                return
            with os.scandir(folder) as listed:
                entries = list(listed)
        except FileNotFoundError:
            if folder == os.fspath(root):
                return
            raise InputError(f"{folder}: was removed while it was read; run this again") from None
        except OSError as error:
            reason = f"cannot be listed ({error.strerror})"
            raise InputError(f"{folder}: {reason}; get the rights to it or move it away") from None
        first, first_linked = reached.setdefault((status.st_dev, status.st_ino), (folder, linked))
        if first != folder and (linked or first_linked):
            raise InputError(f"{folder}: is the same folder as {first} (a link); remove one of them")
        folders, files = [], []
        for entry in entries:
            is_link = entry.is_symlink()
            is_folder = entry.is_dir()
            if is_folder and entry.name.startswith("."):
                continue
            if is_link:
                target = os.path.realpath(entry.path)
                if not _is_above(within, target):
                    advice = "copy what it points to (`cp -rL` does)"
                    raise InputError(f"{entry.path}: a link out of {within}, to {target}; {advice}")
                if is_folder and _is_above(target, os.path.realpath(folder)):
                    continue
            if is_folder:
                folders.append((entry.path, linked or is_link))
            else:
                files.append(entry.name)
        yield folder, sorted(files)
        # The last one is taken first.
        pending += sorted(folders, key=lambda entry: natural_key(os.path.basename(entry[0])), reverse=True)


# ---------------------------------------------------------------------------------------------------- writing


def folder_in(parent: Path, name: str) -> Path:
    """Return the folder `name` of a run, and make it if it is not there.

    Raises `InputError` if it is a link: runs are passed on, and files elsewhere would be replaced through it.
    """
    folder = parent / name
    if folder.is_symlink():
        advice = "remove the link, or copy what it points to"
        raise InputError(f"{folder}: is a link, expected a folder of its own; {advice}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def temporary_beside(path: Path) -> Path:
    """Return the random temporary path that is written first, then renamed to `path`."""
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}{TEMPORARY}")


def create(path: Path) -> BinaryIO:
    """Open a new file for writing. Raises `OSError` if the name is taken, even by a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o666), "wb")


@contextlib.contextmanager
def whole_file(path: Path) -> Generator[BinaryIO]:
    """Yield a file to write, which is flushed to the disk and gets its name at the end of the ``with``.

    After an error nothing is left. A process that is killed meanwhile, or a loss of power, leaves `path` as
    it was. Raises `OSError` naming the path if it cannot be written.
    """
    with whole_files([path]) as (file,):
        yield file


@contextlib.contextmanager
def whole_files(paths: list[Path]) -> Generator[list[BinaryIO]]:
    """Yield files that belong together, like `whole_file`. The first gets its name when all are complete."""
    temporaries = [temporary_beside(path) for path in paths]
    with contextlib.ExitStack() as stack:
        files = []
        for path, temporary in zip(paths, temporaries, strict=True):
            with naming(path):
                files.append(create(temporary))
            stack.callback(_remove_file, temporary)
            stack.callback(_close, files[-1])
        with naming(paths[0]):
            yield files
        for path, file in zip(paths, files, strict=True):
            with naming(path):
                file.flush()
                os.fsync(file.fileno())
                file.close()
        for path, temporary in zip(paths, temporaries, strict=True):
            with naming(path):
                os.replace(temporary, path)
        for folder in {path.parent for path in paths}:
            flush_names(folder)


def _close(file: BinaryIO) -> None:
    with contextlib.suppress(OSError):
        file.close()


def _remove_file(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


@contextlib.contextmanager
def whole_folder(folder: Path) -> Generator[Path]:
    """Yield a temporary folder to write into, which becomes `folder` at the end of the ``with``.

    After an error nothing is left, and a process that is killed leaves no folder under that name. The files
    are not flushed one by one: after a loss of power `svg-data index` names those that are empty. Raises
    `OSError` naming the folder if it cannot be written.
    """
    temporary = temporary_beside(folder)
    try:
        with naming(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary.mkdir()
            yield temporary
            os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_leftovers(folder: Path) -> list[str]:
    """Remove the temporary files and folders of interrupted writers from a folder.

    Return a line for each that cannot be removed. These do no harm: later writers draw other names.
    """
    kept = []
    for leftover in sorted(folder.glob(f".*{TEMPORARY}")):
        try:
            remove(leftover)
        except OSError as error:
            reason = f"left by a writer that was stopped, cannot be removed ({error.strerror})"
            kept.append(f"{leftover}: {reason}; remove it by hand")
    return kept


def check_writable(folder: Path, advice: str = OTHER_PLACE) -> None:
    """Make a folder for results, and raise `InputError` if no file can be written there.

    Call it before hours of work whose results are for this folder.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder; {advice}")
    probe = temporary_beside(folder / "x")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        create(probe).close()
        probe.unlink()
    except OSError as error:
        raise InputError(f"{folder}: no file can be written there ({error.strerror}); {advice}") from None


def check_file_writable(path: Path) -> None:
    """Make the folder of a file, and raise `InputError` if the file cannot be written there."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file; add it")
    check_writable(path.parent)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all its contents. The target of a link stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def flush_names(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can, so that they survive a loss of power."""
    with contextlib.suppress(OSError):  # Windows opens no folders, and some file systems flush none
        flush_file(folder)


def flush_file(path: Path) -> None:
    """Flush a file that another program has written to the disk, so that it survives a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all. Raises `OSError` naming it."""
    write_texts({path: text})


def write_texts(texts: dict[Path, str]) -> None:
    """Write text files that belong together; see `whole_files`."""
    with whole_files(list(texts)) as files:
        for file, text in zip(files, texts.values(), strict=True):
            file.write(text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def naming(path: Path) -> Generator[None]:
    """Let each `OSError` name the path that is written: of a full disk it names none or a temporary one."""
    try:
        yield
    except OSError as error:
        other = error.filename and TEMPORARY not in str(error.filename)
        raise OSError(
            error.errno, error.strerror or str(error), str(error.filename if other else path)
        ) from None
