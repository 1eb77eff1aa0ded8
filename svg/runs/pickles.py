"""Optimiser states as `torch.save` wrote them in checkpoints of version 1, read as plain data.

``torch.load(weights_only=True)`` runs no code either, but lets a small file ask for any amount of memory:
``bytearray(8_000_000_000)``.
"""

import pickle
import pickletools
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

STORAGES = {"FloatStorage": torch.float32, "LongStorage": torch.int64, "BFloat16Storage": torch.bfloat16}
OPERATIONS = frozenset(
    "PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINFLOAT BINUNICODE EMPTY_DICT "  # noqa: SIM905
    "EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS BINPUT LONG_BINPUT "
    "BINGET LONG_BINGET GLOBAL BINPERSID REDUCE".split()
)
"""The pickle operations that such a file consists of."""


def read_version_1(path: Path) -> dict[str, Any]:
    """Return the state in the file.

    Raises `ValueError`, `OSError` or `zipfile.BadZipFile` for anything else.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed, which torch.save never does")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("it holds more than its size")
        name = next((entry.filename for entry in entries if entry.filename.endswith("/data.pkl")), None)
        if name is None:
            raise ValueError("it holds no state")
        data = archive.read(name)
        _check_operations(data)
        return _Reader(BytesIO(data), archive, name.removesuffix("data.pkl")).load()


def _check_operations(data: bytes) -> None:
    """Raise `ValueError` for a pickle with other operations, or with a memo larger than the pickle."""
    for operation, argument, _ in pickletools.genops(data):
        is_large = operation.name == "LONG_BINPUT" and int(argument or 0) > len(data)
        if operation.name not in OPERATIONS or is_large:
            raise ValueError(f"it holds {operation.name} {str(argument)[:20]}")


class _Reader(pickle.Unpickler):
    """Unpickles tensors from the archive's entries; no other object can be named."""

    def __init__(self, data: BytesIO, archive: zipfile.ZipFile, prefix: str):
        super().__init__(data)
        self._archive = archive
        self._prefix = prefix

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few things that such a file names. Raises `ValueError`."""
        known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): dict,
        }
        known |= {("torch", storage): dtype for storage, dtype in STORAGES.items()}
        if (module, name) not in known:
            raise ValueError(f"it names {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> torch.Tensor:
        """Return the numbers of a storage, which is an entry of the archive."""
        _, dtype, key, _, _ = pid
        return torch.frombuffer(bytearray(self._archive.read(f"{self._prefix}data/{key}")), dtype=dtype)


def _tensor(
    storage: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> torch.Tensor:
    return storage.as_strided(size, stride, offset)
