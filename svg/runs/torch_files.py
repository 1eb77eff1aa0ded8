"""Objects that `torch.save` has written, whole modules among them, read as plain data.

A pickle is a program: it may name any function and have it called. Here it is interpreted operation by
operation, and nothing that it names is imported or called. What comes out are numbers, texts, containers,
descriptions of tensors (`StoredTensor`) and modules without behaviour (`Shell`). Names out of a closed list
are all that it may use, and memory is taken for what the file holds, not for what it claims: a tensor is
read (`SavedObject.read`) only when somebody asks for it.

Both formats are read: archives, and what PyTorch wrote before version 1.6 (``legacy``).
"""

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

MAX_PICKLE = 2**20
"""Bytes of the pickles in a file: a whole SVG takes 100,000. Each may ask for a hundred bytes of memory."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Types of storages, in ``torch`` or ``torch.cuda``."""
REBUILT_TENSORS = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
WRAPPERS = (
    "torch._utils _rebuild_parameter",
    "torch.nn.parameter Parameter",
    "torch.autograd.variable Variable",
)
"""Functions and classes whose first argument is the tensor that they wrap."""
EMPTY: dict[str, Callable[[], Any]] = {
    "collections OrderedDict": dict,
    "__builtin__ set": set,
    "builtins set": set,
    "torch.nn.backends.thnn _get_thnn_function_backend": lambda: None,
}
"""Functions and classes that stand for something empty here, whatever they are called with."""
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE")
CONTAINERS = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, ``module name``; it is never looked up."""

    text: str


@dataclass
class Shell:
    """An object of a class that the reader was told of, without its behaviour."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Storage:
    """The numbers of tensors: their type, the storage's name in the file, and how many there are."""

    dtype: torch.dtype
    key: str
    length: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that has not been read: a part of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor by itself."""
        return math.prod(self.shape) * self.storage.dtype.itemsize


@dataclass(frozen=True)
class SavedObject:
    """What a file holds: the object, and the bytes of its storages by their names."""

    value: Any
    storages: Mapping[str, bytes | memoryview]

    def read(self, tensor: StoredTensor) -> Tensor:
        """Return a tensor. Raises `ValueError` if it reaches beyond its storage."""
        storage = tensor.storage
        data = self.storages.get(storage.key, b"")
        pairs = zip(tensor.shape, tensor.stride, strict=True)
        last = tensor.offset + sum((size - 1) * step for size, step in pairs)
        count = math.prod(tensor.shape)
        if len(data) != storage.length * storage.dtype.itemsize or count > storage.length:
            raise ValueError("a tensor that is larger than what is stored of it")
        if count == 0:
            return torch.empty(tensor.shape, dtype=storage.dtype)
        if last >= storage.length:
            raise ValueError("a tensor that reaches beyond its storage")
        numbers = torch.frombuffer(bytearray(data), dtype=storage.dtype)
        return numbers.as_strided(tensor.shape, tensor.stride, tensor.offset).clone()


def read_state(path: Path) -> Any:
    """Return an object without modules, such as an optimiser's state, with all its tensors read.

    Raises `ValueError` for anything else than a file of `torch.save`, and `OSError`.
    """
    saved = read_saved(path.read_bytes(), ())
    left = sum(map(len, saved.storages.values()))

    def whole(value: Any) -> Any:
        nonlocal left
        if isinstance(value, dict):
            return {key: whole(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(whole, value))
        if not isinstance(value, StoredTensor):
            return value
        left -= value.nbytes
        if left < 0:
            raise ValueError("tensors that are larger together than what is stored of them")
        return saved.read(value)

    return whole(saved.value)


def read_saved(data: bytes, classes: Collection[str]) -> SavedObject:
    """Return the object in the contents of a file that `torch.save` has written.

    `classes` are those whose objects become `Shell`, as ``module name``; others are refused.

    Raises `ValueError` for anything else than such a file.
    """
    try:
        read = _read_archive if data.startswith(b"PK\x03\x04") else _read_legacy
        return read(data, classes)
    except (LookupError, TypeError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(f"damaged: {error}") from None
    except (NotImplementedError, RuntimeError, EOFError) as error:  # of zipfile: other methods, encryption
        raise ValueError(f"an archive that torch.save does not write: {error}") from None


# ---------------------------------------------------------------------------------------------------- formats


def _read_archive(data: bytes, classes: Collection[str]) -> SavedObject:
    """Read an archive, which holds the pickle and a file for each storage."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("compressed, which torch.save never does")
        if sum(max(entry.file_size, entry.compress_size) for entry in entries) > len(data):
            raise ValueError("an archive that claims to hold more than its size")
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE:
            raise ValueError(f"no object of at most {MAX_PICKLE} bytes")
        folder = pickles[0].filename.removesuffix("data.pkl")
        contents = {entry.filename.removeprefix(folder): archive.read(entry) for entry in entries}
    _check_byte_order(contents.get("byteorder", b"little") == b"little")
    value = _Interpreter(classes).run(BytesIO(contents["data.pkl"]))
    storages = {name.removeprefix("data/"): contents[name] for name in contents if name.startswith("data/")}
    return SavedObject(value, storages)


def _read_legacy(data: bytes, classes: Collection[str]) -> SavedObject:
    """Read five pickles: magic number, version, system, object and names of storages; then the storages."""
    stream = BytesIO(data[:MAX_PICKLE])
    if not data.startswith(b"\x80\x02") or _Interpreter(()).run(stream) != LEGACY_MAGIC:
        raise ValueError("not written by torch.save")
    _Interpreter(()).run(stream)
    system = _Interpreter(()).run(stream)
    _check_byte_order(isinstance(system, dict) and system.get("little_endian") is True)
    interpreter = _Interpreter(classes)
    value = interpreter.run(stream)
    keys = _Interpreter(()).run(stream)
    place = stream.tell()
    view = memoryview(data)
    storages = {}
    for key in keys:
        (count,) = struct.unpack_from("<q", data, place)
        size = count * interpreter.storages[key].dtype.itemsize
        place += 8
        if not 0 <= size <= len(data) - place:
            raise ValueError("cut off, or with a storage that claims to be larger than the file")
        storages[key] = view[place : place + size]
        place += size
    return SavedObject(value, storages)


def _check_byte_order(is_little: bool) -> None:
    if not is_little:
        raise ValueError("numbers of a big-endian machine")


# ----------------------------------------------------------------------------------------------- the pickle


class _Interpreter:
    """A machine for the pickle operations of such files, which can call nothing."""

    def __init__(self, classes: Collection[str]):
        self.storages: dict[str, Storage] = {}
        self._classes = classes
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def run(self, stream: BytesIO) -> Any:
        """Return the object that the pickle describes; the stream is then behind it."""
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name == "STOP":
                return self._stack.pop()
            self._step(operation.name, argument)
        raise ValueError("cut off")

    def _step(self, name: str, argument: Any) -> None:
        """Carry out an operation. Raises `ValueError` for one that such files do not have."""
        stack = self._stack
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in LITERALS:
            stack.append(argument)
        elif name in CONTAINERS:
            stack.append(CONTAINERS[name]())
        elif name in SHORT_TUPLES:
            stack.append(tuple([stack.pop() for _ in range(SHORT_TUPLES[name])][::-1]))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in ("MARK", "TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self._collect(name)
        elif name == "GLOBAL":
            stack.append(self._name(argument))
        elif name in ("REDUCE", "NEWOBJ", "BINPERSID", "BUILD"):
            self._construct(name)
        elif name != "PROTO":
            _refuse(f"the operation {name}")

    def _collect(self, name: str) -> None:
        """Carry out an operation on the objects above the last mark, or on the last one or two."""
        if name == "MARK":
            self._outer.append(self._stack)
            self._stack = []
            return
        if name in ("APPEND", "SETITEM"):
            count = 1 if name == "APPEND" else 2
            items = [self._stack.pop() for _ in range(count)][::-1]
        else:
            items = self._stack
            self._stack = self._outer.pop()
        if name == "TUPLE":
            self._stack.append(tuple(items))
        elif name.startswith("APPEND"):
            _expect(self._stack[-1], list).extend(items)
        else:
            keys = items[::2]
            if not all(type(key) in (str, int) for key in keys):
                raise ValueError("a key that is neither a text nor a number")
            _expect(self._stack[-1], dict).update(zip(keys, items[1::2], strict=True))

    def _name(self, argument: str) -> Name:
        """Return a name of the closed list."""
        module, _, name = argument.partition(" ")
        is_storage = module in ("torch", "torch.cuda") and name in STORAGES
        if not (is_storage or argument in (*REBUILT_TENSORS, *WRAPPERS, *EMPTY) or argument in self._classes):
            _refuse(argument.replace(" ", "."))
        return Name(argument)

    def _construct(self, name: str) -> None:
        """Make what `torch.load` would make by a call, from descriptions alone."""
        top = self._stack.pop()
        if name == "BINPERSID":
            self._stack.append(self._persistent(_expect(top, tuple)))
        elif name == "BUILD":
            if isinstance(self._stack[-1], Shell):
                self._stack[-1].state = _expect(top, dict)
        elif name == "REDUCE":
            made_by = _expect(self._stack.pop(), Name).text
            self._stack.append(_reduce(made_by, _expect(top, tuple)))
        else:
            kind = _expect(self._stack.pop(), Name).text
            if kind not in self._classes:
                _refuse(f"an object of {kind}")
            self._stack.append(Shell(kind))

    def _persistent(self, description: tuple[Any, ...]) -> Any:
        """Return the storage, or the class, that is described beside its source code in legacy files."""
        if description[0] == "module":
            return _expect(description[1], Name)
        what, kind, key, _, length = description[:5]
        if what != "storage" or any(view is not None for view in description[5:]):
            raise ValueError("something else than a storage")
        module, _, name = _expect(kind, Name).text.partition(" ")
        if not module.startswith("torch") or name not in STORAGES:
            raise ValueError("a storage of an unknown type")
        storage = Storage(STORAGES[name], _expect(key, str), _expect(length, int))
        return self.storages.setdefault(storage.key, storage)


def _reduce(made_by: str, arguments: tuple[Any, ...]) -> Any:
    """Return what stands for the result of a call."""
    if made_by in EMPTY:
        return EMPTY[made_by]()
    if made_by in WRAPPERS:
        return _expect(arguments[0], StoredTensor)
    if made_by not in REBUILT_TENSORS:
        _refuse(f"a call of {made_by}")
    storage, offset, shape, stride = arguments[:4]
    sizes = [offset, *_expect(shape, tuple), *_expect(stride, tuple)]
    if len(shape) != len(stride) or not all(type(size) is int and 0 <= size < 2**40 for size in sizes):
        raise ValueError("a tensor of an impossible shape")
    if len(shape) > 8:
        raise ValueError("a tensor of too many dimensions")
    return StoredTensor(_expect(storage, Storage), offset, shape, stride)


def _expect(value: Any, kind: type) -> Any:
    """Return a value of the type. Raises `ValueError` for others."""
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} in place of a {kind.__name__}")
    return value


def _refuse(what: str) -> NoReturn:
    raise ValueError(f"it names {what[:80]}, which no such file needs")
