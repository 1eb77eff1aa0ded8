"""Data sets in object storage: their roots, such as ``s3://bucket/prefix``, and the local cache.

A remote root becomes a local one in one place, `local_root`: a folder of the cache that holds the index and
the lists of chunks. The chunks come when they are read (`fetch`) and go when the cache is full, those first
that were not used for longest. A folder of the cache belongs to one address and one ``dataset.json``, which
names the digest of all the rest: data that change at that address get another folder.

Where the cache is and how large it may become say the environment variables `CACHE` and `CACHE_GB`;
credentials and endpoint come from where boto3 takes them, such as AWS_ACCESS_KEY_ID, AWS_PROFILE and
AWS_ENDPOINT_URL.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from . import layout
from .errors import InputError
from .files import whole_file, write_text
from .json_files import read_dataclass, read_json
from .lock import queued

CACHE = "SVG_CACHE"
"""The environment variable with the folder of the cache; by default ``~/.cache/svg-push``."""
CACHE_GB = "SVG_CACHE_GB"
"""The environment variable with the most gigabytes (10^9 bytes) of chunks that the cache keeps."""
DEFAULT_GB = 50.0
NEEDS = "needs the package litdata; run `pip install litdata`, or install this project's extra `stream`"
SCHEME = "s3:"  # a path has lost slashes
STORE = "litdata"  # the only store that can be read from object storage
ORIGIN_FILE = "remote.json"  # in a folder of the cache: the address
CHUNKS_FILE = "index.json"  # in the folder of a split: the list of its chunks
CHUNKS = "*.bin"
UPLOAD_HINT = "upload the data set again"
PATIENCE = 300.0  # seconds for a chunk that another process downloads
RETRIES = 5  # attempts at a request; LitData makes a thousand, and a wrong endpoint would seem to hang
_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


class _Writable(Protocol):
    def write(self, data: bytes, /) -> int: ...


def is_remote(root: str | Path) -> bool:
    """Return whether a data root lies in object storage; a `Path` may have lost a slash of its address."""
    return str(root).startswith(SCHEME)


def address(root: str | Path) -> str:
    """Return a data root in words: of a remote one its address with both slashes."""
    return f"s3://{str(root).removeprefix(SCHEME).strip('/')}" if is_remote(root) else str(root)


def local_root(root: str | Path) -> Path:
    """Return the local data root of `root`: itself, or of a remote one its folder in the cache.

    ``dataset.json`` is downloaded each time; index and lists of chunks if they are not in the cache. Raises
    `InputError` if the remote root cannot be reached, is incomplete or is no data set that
    ``svg-data pack --format litdata`` has written.
    """
    if not is_remote(root):
        return Path(root)
    url = address(root)
    if not re.fullmatch(r"s3://[^/\s]+(/[^/\s]+)*", url):
        raise InputError(f"{root}: found no address of a data set, expected s3://BUCKET/PREFIX")
    contents = _download_bytes(url, layout.INFO_FILE)
    info = _read_info(f"{url}/{layout.INFO_FILE}", contents)
    name = hashlib.sha256(url.encode() + b"\n" + contents).hexdigest()[:24]
    folder = _cache_folder() / name
    if not (folder / layout.INFO_FILE).exists():
        _fill(folder, url, info, contents)
    return folder


def _read_info(place: str, contents: bytes) -> layout.DatasetInfo:
    try:
        values = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: damaged ({error}); {UPLOAD_HINT}") from None
    info = read_dataclass(layout.DatasetInfo, values, place, UPLOAD_HINT)
    if info.store != STORE:
        found = f"found the store {info.store!r}, expected {STORE!r}"
        raise InputError(f"{place}: {found}; write it with `svg-data pack --format {STORE}` and upload that")
    return info


def _fill(folder: Path, url: str, info: layout.DatasetInfo, contents: bytes) -> None:
    """Download index and lists of chunks; ``dataset.json`` comes last and says that they are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / ORIGIN_FILE, json.dumps({"url": url}) + "\n")
    index = _download_bytes(url, layout.INDEX_FILE)
    _write(folder / layout.INDEX_FILE, index)
    lists = []
    for split in layout.SPLITS:
        if (layout.read_index(folder)["split"] == split).any():
            lists.append(_download_bytes(url, f"{split}/{CHUNKS_FILE}"))
            (folder / split).mkdir(exist_ok=True)
            _write(folder / split / CHUNKS_FILE, lists[-1])
    if content_digest(index, lists) != info.digest:
        found = f"found another {layout.INDEX_FILE} or {CHUNKS_FILE} than {layout.INFO_FILE} was written with"
        raise InputError(f"{url}: {found}; {UPLOAD_HINT}")
    _write(folder / layout.INFO_FILE, contents)


def _write(path: Path, contents: bytes) -> None:
    with whole_file(path) as file:
        file.write(contents)


def content_digest(index: bytes, lists: list[bytes]) -> str:
    """Return the digest of ``index.csv`` and of the lists of chunks, which hold the digests of the chunks."""
    digests = [hashlib.sha256(contents).hexdigest() for contents in (index, *lists)]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


# ---------------------------------------------------------------------------------------------------- caching


def _cache_folder() -> Path:
    """Return the folder of the cache for data sets."""
    return Path(os.environ.get(CACHE) or "~/.cache/svg-push").expanduser().absolute() / "data"


def _cache_bytes() -> float:
    """Return how many bytes of chunks the cache may keep. Raises `InputError`."""
    text = os.environ.get(CACHE_GB) or str(DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not gigabytes >= 0:
        raise InputError(f"{CACHE_GB}: found {text!r}, expected a number of gigabytes such as {DEFAULT_GB:g}")
    return gigabytes * 1e9


def origin(root: Path) -> str | None:
    """Return the address that a data root in the cache was downloaded from; None for any other root."""
    if root.parent != _cache_folder() or not (root / ORIGIN_FILE).exists():
        return None
    url = read_json(root / ORIGIN_FILE, f"remove the folder {root}").get("url")
    return url if isinstance(url, str) else None


def fetch(root: Path, name: str, sha256: str) -> Path:
    """Return the path of the chunk `name` of a data root, after downloading it if it is not there.

    Raises `InputError` if it is missing, cannot be downloaded, or is not the chunk with this digest.
    """
    path = root / name
    if path.exists():
        return path
    url = origin(root)
    if url is None:
        raise InputError(f"{path}: missing chunk; restore it or pack the data set again")
    with queued(path.with_name(f".{path.name}.lock"), PATIENCE):
        if path.exists():  # another process has downloaded it meanwhile
            return path
        with whole_file(path) as file:
            hashing = _Hashing(file)
            _download(url, name, hashing)
            if hashing.digest.hexdigest() != sha256:
                found = "the checksum does not match"
                raise InputError(f"{url}/{name}: {found}: changed or damaged; {UPLOAD_HINT}")
    _evict(path)
    return path


def touch(path: Path) -> None:
    """Note that a chunk is in use, so that others leave the cache before it."""
    with contextlib.suppress(OSError):
        now = time.time_ns()  # the kernel's own stamp is as coarse as 4 ms
        os.utime(path, ns=(now, now))


def _evict(newest: Path) -> None:
    """Remove the chunks that were not used for longest from the cache while it is too large."""
    limit = _cache_bytes()
    chunks = []
    for path in _cache_folder().glob(f"*/*/{CHUNKS}"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            status = path.stat()
            chunks.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in chunks)
    for _, size, path in sorted(chunks):
        if total <= limit:
            return
        if path != newest:
            path.unlink(missing_ok=True)
            path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
            total -= size


class _Hashing:
    """A file that is written from its start to its end, and the digest of what was written."""

    def __init__(self, file: _Writable):
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


# ------------------------------------------------------------------------------------------------ downloading


def _download_bytes(url: str, name: str) -> bytes:
    """Return the contents of a small object. Raises `InputError`."""
    file = io.BytesIO()
    _download(url, name, file)
    return file.getvalue()


def _download(url: str, name: str, file: _Writable) -> None:
    """Write the contents of the object ``url/name`` to a file. Raises `InputError`."""
    place = f"{url}/{name}"
    downloader = _downloader(url)
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        downloader.download_fileobj(place, file)
    except NoCredentialsError:
        raise InputError(f"{place}: found no credentials; {_CREDENTIALS}") from None
    except ClientError as error:
        raise InputError(f"{place}: {_explain(error.response)}") from None
    except (BotoCoreError, Boto3Error) as error:
        advice = "check the network and AWS_ENDPOINT_URL"
        raise InputError(f"{place}: cannot be downloaded ({error}); {advice}") from None


def _explain(response: Any) -> str:
    """Return the refusal of the storage in words, with advice."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if status == 404:
        return "not found: no such bucket or object; check the address, or upload the data set again"
    if status in (400, 401, 403):
        return f"access refused ({code}); check the credentials ({_CREDENTIALS}) and their rights"
    return f"cannot be downloaded ({code or status}); try again"


@lru_cache(maxsize=8)
def _downloader(url: str) -> Any:
    """Return what downloads objects below an address. Raises `InputError` if LitData is not installed."""
    try:
        from botocore.config import Config
        from litdata.streaming.downloader import get_downloader
    except ImportError:
        raise InputError(f"{url}: reading it {NEEDS}") from None
    config = Config(
        retries={"max_attempts": RETRIES, "mode": "standard"}, connect_timeout=10, read_timeout=60
    )
    return get_downloader(url, "", [], {"config": config})
