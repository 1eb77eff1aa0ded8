"""Bad input for every reader: damaged, truncated, lying and hostile files, thousands of each.

    python -m tests.hardening.fuzz                       12,000 bad files: some minutes
    python -m tests.hardening.fuzz --inputs 500 png      500 for one reader

Each file is also replaced once by each of `KINDS`: a pipe, a device, a folder, links, files with huge holes.

Each reader has a valid file and two ways to damage it. `random` damage (flipped bits, cut ends, extreme
numbers, parts of other files) is bad wherever a checksum covers the file. `knowing` damage is bad by
construction and, where there are checksums, signed again as a stranger would. The reader must refuse with the
one line that a user sees, or read the same as before (a space in JSON does no harm). Where no checksum covers
a file and random damage may make another valid one (a digit of a table), only crashes count, and such files
are not counted as bad. Memory is limited: a reader that trusts a huge size crashes.
"""

import argparse
import contextlib
import copy
import hashlib
import importlib.util
import io
import itertools
import json
import math
import os
import random
import resource
import shutil
import signal
import stat
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools import files, layout
from data_tools.claim import claimed
from data_tools.converters import bair, rlds, videos
from data_tools.converters.records import convert_records
from data_tools.errors import InputError
from data_tools.files import write_text
from data_tools.folders import write_sequence
from data_tools.index import build_index
from data_tools.pack import pack
from data_tools.png import read_frame
from data_tools.store import open_store
from data_tools.tables import read_table
from experiments import evaluate as evaluate_command
from experiments import train as train_command
from svg import fingerprint
from svg.evaluation.results import load_evaluation
from svg.runs import checkpoint
from svg.runs.metrics_log import read_metrics
from svg.sequences import SequenceDataset
from svg.training.loop import Training
from svg.training.optimizers import state_tensors
from tests.support import tfrecords
from tests.support.places import VERSIONS
from tests.support.recordings import write_version
from tests.support.samples import moving_square

SPARSE = 2**40  # bytes of a file that is a hole for the most part
PATIENCE = 20  # seconds that a reader may take
ROOM = 3 << 30  # bytes that a reader may take beyond what the process has
OUTCOMES = ("refused", "same", "accepted", "crashed", "hung", "other sound file")
Spoil = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Reader:
    """A file, a function that reads it (a value that can be compared), and how it is damaged.

    covered     a checksum covers the file: random damage is bad
    signed      knowing damage is random, too, but with a right checksum: it can make another valid file
    """

    path: Path
    read: Callable[[], Any]
    knowing: Spoil | None = None
    covered: bool = False
    random: bool = True
    signed: bool = False


# ----------------------------------------------------------------------------------------------------- damage


def spoil_bytes(data: bytes, chance: random.Random) -> bytes:
    """Return a file with random damage."""
    spoiled = bytearray(data)
    place = chance.randrange(len(spoiled)) if spoiled else 0
    kind = chance.randrange(9)
    if kind == 0:
        for _ in range(chance.choice((1, 1, 1, 4, 64))):
            spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del spoiled[place:]
    elif kind == 2:
        del spoiled[place : place + chance.choice((1, 2, 8, 100))]
    elif kind == 3:
        spoiled[place:place] = chance.randbytes(chance.choice((1, 2, 8, 100)))
    elif kind == 4:
        extreme = chance.choice(
            (0, 1, 2**7, 2**15 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
        )
        size = chance.choice("BHIQ")
        packed = struct.pack(chance.choice("<>") + size, extreme % 2 ** (8 * struct.calcsize(size)))
        spoiled[place : place + len(packed)] = packed
    elif kind == 5:
        length = chance.choice((1, 16, 300))
        spoiled[place : place + length] = bytes(len(spoiled[place : place + length]))
    elif kind == 6:
        other = chance.randrange(len(spoiled))
        spoiled[place : place + 50] = spoiled[other : other + 50]
    elif kind == 7:
        spoiled[:] = chance.choice(
            (
                b"",
                b"\0" * 100,
                chance.randbytes(200),
                b"PK\3\4" + bytes(60),
                b"\x89PNG\r\n\x1a\n",
                b"[" * 10**5,
            )
        )
    else:
        spoiled[: place // 2] = chance.randbytes(place // 2)
    return bytes(spoiled)


OF_ANOTHER_TYPE = {
    str: (None, 7.5, [], {}, True, ["x"]),
    bool: (None, "x", [], 7.5, "true"),
    int: (None, "x", [], {}, 1.5, True, 10**30, -(10**30), math.nan, math.inf, "1"),
    float: (None, "x", [], {}, math.nan, math.inf, -math.inf, "0.5", [0.5]),
    list: (None, "x", {}, 7),
    dict: (None, "x", [], 7),
    type(None): ("x", [], {}, {"a": 1}),
}


def spoil_json(required: bool = True) -> Spoil:
    """Return damage of JSON: another type, a huge number or, if all keys are `required`, a missing key."""

    def spoil(data: bytes, chance: random.Random) -> bytes:
        values = json.loads(data)
        for _ in range(100):
            holder, key = chance.choice(list(places(values)))
            if required and isinstance(holder, dict) and chance.random() < 0.2:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(chance.choice(OF_ANOTHER_TYPE[type(holder[key])]))
            if chance.random() < 0.8:
                break
        return json.dumps(values).encode()

    return spoil


def places(values: Any) -> Any:
    """Yield all (holder, key) of a JSON document."""
    keys = (
        values.keys() if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()
    )
    for key in keys:
        yield values, key
        yield from places(values[key])


def spoil_index(data: bytes, chance: random.Random) -> bytes:
    """Return an index with an impossible value, a path out of the root, or a missing column."""
    lines = [line.split(",") for line in data.decode().splitlines()]
    row, names = chance.randrange(1, len(lines)), lines[0]
    column = chance.choice(names)
    place = names.index(column)
    if column == "split":
        lines[row][place] = chance.choice(("", "training", "Test", "train ", "0", "../train", "nan"))
    elif column == "path":
        bad = (
            "",
            "/etc",
            "../../etc",
            "train/../../x",
            "a\\..\\..\\b",
            "C:/x",
            "C:\\x",
            "..",
            "train/none",
            "train/0/0.png",
            "x\0y",
        )
        lines[row][place] = chance.choice(bad)
    elif column == "sequence":
        del lines[row][place]
    elif chance.random() < 0.1:
        for line in lines:
            del line[place]
    else:
        bad = (
            "",
            "x",
            "-1",
            "1.5",
            "nan",
            "inf",
            "99999999999999999999",
            "2147483648",
            "1e3",
            "0x10",
            "17",
            "16385",
            "1000000000",
        )
        lines[row][place] = chance.choice(bad)
    return "\n".join(map(",".join, lines)).encode()


def spoil_table(data: bytes, chance: random.Random) -> bytes:
    """Return a table with a cell that is no finite number, a missing row, or a column too many or too few."""
    lines = [line.split(",") for line in data.decode().splitlines()]
    row = chance.randrange(len(lines))
    cell = chance.randrange(len(lines[row]))
    kind = chance.randrange(5)
    if kind == 0:
        del lines[row]
    elif kind == 1:
        del lines[row][cell]
    elif kind == 2:
        lines[row].insert(cell, "1")
    else:
        bad = (
            "",
            "x",
            "nan",
            "inf",
            "-inf",
            "1e999",
            "1_000",
            "0x1",
            "1;2",
            "1 2",
            "--1",
            "1e",
            "\u0661",
            "True",
            "1e39",
            "'1'",
            "\0",
        )
        lines[row][cell] = chance.choice(bad)
    return "\n".join(map(",".join, lines)).encode()


def spoil_head(head: Callable[[bytes], int]) -> Spoil:
    """Return a random damage of the first bytes alone, as any numbers may follow."""

    def spoil(data: bytes, chance: random.Random) -> bytes:
        size = head(data)
        return spoil_bytes(data[:size], chance) + data[size:]

    return spoil


def spoil_length(data: bytes, chance: random.Random) -> bytes:
    """Return a file that is cut or longer."""
    return (
        data[: chance.randrange(len(data))]
        if chance.random() < 0.7
        else data + chance.randbytes(chance.choice((1, 7, 4096)))
    )


def spoil_flags(data: bytes, chance: random.Random) -> bytes:
    """Return flags with an unknown one, one without its value, or one with an impossible value."""
    flag, values = chance.choice(
        [
            ("n_past", ("0", "-1", "x", "1.5", "nan", "", "9999999999", "'")),
            ("lr", ("0", "-1", "x", "nan", "inf", "1,5", "")),
            ("model", ("resnet", "", "vgg16")),
            ("batch_size", ("0", "1e3", "two", "0x10")),
            ("image_width", ("63", "0", "-64", "1000000")),
            ("recurrence", ("both", "0")),
            ("tfr", ("2", "-0.1", "nan")),
            ("seed", ("-1", "9999999999999999999999")),
            ("no_such_flag", ("1", "")),
            ("rnn_size", ("0", "100000", "1e9")),
        ]
    )
    return data + f"\n--{flag} {chance.choice(values)}\n".encode()


# ---------------------------------------------------------------------------------------------------- readers


def make_readers(folder: Path) -> dict[str, Reader]:
    """Write a valid file of every kind below `folder`, and return their readers by name."""
    generator = np.random.default_rng(0)
    data, run = folder / "data", folder / "run"
    for split, count in (("train", 3), ("validate", 2), ("test", 2)):
        for number in range(count):
            write_sequence(data / split / str(number), *moving_square(generator, 7))
    build_index(data, "squares")
    pack(data, folder / "packed", workers=1)
    has_litdata = importlib.util.find_spec("litdata") is not None
    if has_litdata:
        pack(data, folder / "chunks", workers=1, form="litdata")
    flags = (
        f"--data_root {data} --log_dir {run} --model dcgan --recurrence spatial --width 0.05 --norm group "
        "--g_dim 8 --z_dim 1 --rnn_size 4 --n_past 2 --n_future 4 --n_eval 6 --batch_size 2 --niter 1 "
        "--epoch_size 2 --precision float32 --device cpu"
    )
    assert train_command.main(flags.split()) == 0
    assert evaluate_command.main([str(run), "--n_sample", "2", "--device", "cpu"]) == 0
    (folder / "some.args").write_text(flags)
    checkpoints = run / "checkpoints"
    step = checkpoints / "step-00000002.json"
    weights, optimizer = (checkpoint.find(run, "last").files[part] for part in ("weights", "optimizer"))
    config = checkpoint.load_config(run)

    def load_weights() -> Any:
        return value_of(checkpoint.load_model(run, "last")[0].state_dict())

    def resume(training: Training) -> Callable[[], Any]:
        """Return a function that loads the optimiser's state, with which a step must be possible."""

        def read() -> Any:
            training.learner.load(checkpoint.find(training.run, "last"))
            value = value_of(state_tensors(training.learner.model, training.learner.optimizer))
            training.learner.model.train()
            training.learner.step(0, [training.batches.from_disk[0]], 0.0, 1e-4, 1.0)
            return value

        return read

    def resumed() -> Any:
        """Return the progress and weights of a run that is resumed at its end."""
        training = Training(config, resume=True)
        with contextlib.redirect_stdout(io.StringIO()):
            training.fit()
        return training.progress, load_weights()

    def signed(part: str, spoil: Spoil) -> Spoil:
        """Return a damage of one part of a checkpoint that is then signed again."""

        def spoil_and_sign(content: bytes, chance: random.Random) -> bytes:
            spoiled = spoil(content, chance)
            values = json.loads(step.read_bytes())
            del values["checksum"]
            values["sha256"][part] = hashlib.sha256(spoiled).hexdigest()
            step.write_text(json.dumps(values | {"checksum": checkpoint.checksum(values)}))
            return spoiled

        return spoil_and_sign

    def sign_json(spoil: Spoil) -> Spoil:
        def spoil_and_sign(content: bytes, chance: random.Random) -> bytes:
            values = json.loads(content)
            del values["checksum"]
            values = json.loads(spoil(json.dumps(values).encode(), chance))
            return json.dumps(values | {"checksum": checkpoint.checksum(values)}).encode()

        return spoil_and_sign

    old = folder / "old" / "run"
    shutil.copytree(VERSIONS / "1" / "run", old)
    old_config = checkpoint.load_config(old)
    old_training = Training(
        type(config)(
            type(config.data)(**vars(old_config.data) | {"data_root": str(VERSIONS / "1" / "data")}),
            old_config.model,
            type(config.train)(**vars(old_config.train) | {"log_dir": str(old)}),
        ),
        resume=True,
    )

    png = data / "train" / "0" / "3.png"
    table = data / "train" / "0" / "actions.csv"
    shard, example = folder / "bair.tfrecords", folder / "example.tfrecords"
    features = tfrecords.bair_features(
        {"image_aux1": np.full((3, 8, 8, 3), 7, np.uint8)}, np.ones((3, 4)), np.ones((3, 3))
    )
    shard.write_bytes(tfrecords.record(tfrecords.example(features)) * 2)
    example.write_bytes(tfrecords.record(tfrecords.example(features)))

    def convert(path: Path, expected: int) -> Any:
        out = folder / "converted"
        shutil.rmtree(out, ignore_errors=True)
        report = convert_records(
            path, lambda number: {"image_aux1": out / str(number)}, bair.read_recording, False, expected
        )
        return report.written, {file.name: file.read_bytes() for file in sorted(out.glob("0/*"))}

    def spoil_example(_: bytes, chance: random.Random) -> bytes:
        """Return a record with right checksums and impossible features."""
        spoiled = dict(features)
        name = chance.choice(
            sorted(name for name in spoiled if not name.startswith("0/") or chance.random() < 0.5)
        )
        kind = chance.randrange(5)
        if kind == 0 and name.split("/")[0] != "2":
            del spoiled[name]
        elif isinstance(spoiled[name], list):
            spoiled[name] = chance.choice(
                (
                    [],
                    [b""],
                    [b"x" * 191],
                    [b"x" * 193],
                    [b"x" * 192] * 2,
                    np.ones(3, np.float32),
                    [b"x" * 10**6],
                )
            )
        else:
            bad = [np.ones(size, np.float32) for size in (0, 1, 40)] + [[b"x"], np.ones(4, np.int64)]
            if name != "2/action":  # the last action is never used, so it may be NaN
                bad += [np.full(4, value, np.float32) for value in (np.nan, np.inf)]
            spoiled[name] = chance.choice(bad)
        return tfrecords.record(tfrecords.example(spoiled))

    def spoil_framing(content: bytes, chance: random.Random) -> bytes:
        """Return a record with a damaged message in intact framing, so that the checksums match."""
        return tfrecords.record(spoil_bytes(content[12:-4], chance))

    version = folder / "rlds"
    write_version(version, {"train": [2, 2]})
    selection = rlds.select(rlds.read_step_features(version / "features.json"), None, None, None)

    def read_features() -> Any:
        steps = rlds.read_step_features(version / "features.json")
        chosen = rlds.select(steps, None, None, None)
        return (
            chosen if chosen != selection else (chosen, [steps[key] for keys in chosen[1:] for key in keys])
        )

    pictures = folder / "pictures"
    pictures.mkdir()
    noise = Image.fromarray(generator.integers(0, 256, (40, 30, 3), np.uint8))
    for name in ("a.jpg", "b.png", "c.bmp", "d.webp", "e.tif"):
        (pictures / name[0]).mkdir()
        noise.save(pictures / name[0] / name)
    noise.save(folder / "one.gif", save_all=True, append_images=[noise.rotate(90), noise])
    recipe = folder / "claim" / "recipe.json"
    wanted = {"converter": "x", "version": 1, "shards": {"train": ["a", "b"]}, "fit": "crop"}
    (folder / "claim" / "train").mkdir(parents=True)
    write_text(recipe, json.dumps(wanted, indent=2) + "\n")

    def claim() -> Any:
        with claimed(recipe.parent, recipe.name, wanted):
            return "claimed"

    def parse() -> Any:
        try:
            return str(
                vars(train_command.config_from_arguments(train_command.parse([f"@{folder / 'some.args'}"])))
            )
        except SystemExit as end:
            assert end.code == 2
            raise InputError("parser") from None

    def store(root: Path) -> Callable[[], Any]:
        def read() -> Any:
            opened = open_store(root, "train")
            datasets = [SequenceDataset(root, split, 6) for split in layout.SPLITS]
            items = [dataset[number] for dataset in datasets for number in range(len(dataset))]
            table = opened.index.drop(columns="sequence")
            return (
                [(item["frames"].tobytes(), item["conditions"].tobytes()) for item in items],
                table.to_csv(),
                opened.info,
            )

        return read

    def recording(name: str) -> Reader:
        path = pictures / name[0] / name
        return Reader(
            path, lambda: [frame.tobytes() for frame in videos.read_recording(path.parent, 16, "crop", 1)]
        )

    def animation() -> Any:
        found = [frame.tobytes() for frame in videos.read_recording(folder / "one.gif", 16, "crop", 1)]
        if not found:  # a folder, in which pictures would be looked for
            raise InputError("no frames, which its users are told")
        return found

    evaluation = run / "evaluation"

    def scores() -> Any:
        found = load_evaluation(run, "test_n2")
        if found is None:
            raise InputError("none, which its users are told")
        return (
            found.report(),
            found.scores.to_csv(),
            found.setting.scored,
            found.setting.data_digest,
            found.setting.weights,
        )

    npy_head = lambda content: 128  # noqa: E731
    chunk_head = lambda content: 4 + 4 * (3 + 1)  # noqa: E731 number and offsets of the three samples
    chunks, list_file = store(folder / "chunks"), folder / "chunks" / "train" / "index.json"
    chunk = list_file.with_name("chunk-0-0.bin")
    of_chunks = {
        "list of chunks": Reader(list_file, chunks, spoil_json(required=False)),
        "chunk head": Reader(chunk, chunks, spoil_head(chunk_head), random=False),
        "chunk length": Reader(chunk, chunks, spoil_length, random=False),
    }
    tensors_head = lambda content: 8 + struct.unpack("<Q", content[:8])[0]  # noqa: E731
    return {
        "png": Reader(png, lambda: read_frame(png, (64, 64, 3)).tobytes(), covered=True),
        "table": Reader(table, lambda: read_table(table, 7).tobytes(), spoil_table),
        "index": Reader(data / "index.csv", store(data), spoil_index),
        "dataset": Reader(data / "dataset.json", store(data), spoil_json()),
        "packed frames": Reader(
            folder / "packed" / "train" / "frames.npy",
            store(folder / "packed"),
            spoil_head(npy_head),
            random=False,
        ),
        "packed length": Reader(
            folder / "packed" / "train" / "conditions.npy",
            store(folder / "packed"),
            spoil_length,
            random=False,
        ),
        **(of_chunks if has_litdata else {}),
        "tfrecord": Reader(shard, lambda: convert(shard, 2), covered=True),
        "example": Reader(example, lambda: convert(example, 1), spoil_example, random=False),
        "protobuf": Reader(example, lambda: convert(example, 1), spoil_framing, signed=True),
        "rlds features": Reader(version / "features.json", read_features, spoil_json(required=False)),
        "rlds info": Reader(version / "dataset_info.json", lambda: rlds.find_shards(version), spoil_json()),
        "jpeg": recording("a.jpg"),
        "picture png": recording("b.png"),
        "bmp": recording("c.bmp"),
        "webp": recording("d.webp"),
        "tiff": recording("e.tif"),
        "gif": Reader(folder / "one.gif", animation),
        "recipe": Reader(recipe, claim, spoil_json()),
        "config": Reader(run / "config.json", load_weights, spoil_json(required=False)),
        "checkpoint": Reader(step, resumed, sign_json(spoil_json()), covered=True),
        "weights": Reader(weights, load_weights, signed("weights", spoil_head(tensors_head)), covered=True),
        "optimizer": Reader(
            optimizer,
            resume(Training(config, resume=True)),
            signed("optimizer", spoil_head(tensors_head)),
            covered=True,
        ),
        "optimizer v1": Reader(old / "checkpoints" / "last-00000002.optimizer.pt", resume(old_training)),
        "fingerprints": Reader(run / "data.json", lambda: fingerprint.read(run), spoil_json(required=False)),
        "metrics": Reader(run / "metrics.jsonl", lambda: read_metrics(run), spoil_json(required=False)),
        "evaluation": Reader(evaluation / "test_n2.json", scores, spoil_json()),
        "scores": Reader(evaluation / "test_n2.csv", scores, covered=True),
        "flags": Reader(folder / "some.args", parse, spoil_flags),
    }


def value_of(tensors: dict[str, Any]) -> str:
    return hashlib.sha256(
        b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(tensors.items()))
    ).hexdigest()


# ------------------------------------------------------------------------------------------------------ trial


class Hung(BaseException):
    """A reader took longer than `PATIENCE`."""


def with_hole(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.truncate(path, SPARSE)


def all_hole(path: Path, _: bytes) -> None:
    with_hole(path, b"")


def linked(target: str) -> Callable[[Path, bytes], None]:
    return lambda path, _: path.symlink_to(target)


def link_with_its_content(path: Path, data: bytes) -> None:
    other = Path(tempfile.gettempdir(), f"svg-fuzz-{os.getpid()}")
    other.write_bytes(data)
    path.symlink_to(other)


KINDS: dict[str, Callable[[Path, bytes], None]] = {
    "pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
    "socket": lambda path, _: os.mknod(path, 0o600 | stat.S_IFSOCK),
    "endless device": linked("/dev/zero"),
    "empty device": linked("/dev/null"),
    "terminal": linked("/dev/tty"),
    "link to a folder": linked("/"),
    "link to nothing": linked("/nonexistent"),
    "link to itself": lambda path, _: path.symlink_to(path.name),
    "link to a file elsewhere": link_with_its_content,
    "sound, then a hole": with_hole,
    "hole": all_hole,
}
"""What may stand in a file's place, by name; each is put there by its function of path and sound content."""


def try_reader(
    reader: Reader, spoil: Spoil, bad: bool, sound: Any, chance: random.Random, kind: str = ""
) -> tuple[str, str]:
    """Return (outcome, description) of a damaged file, or of a `kind` in its place; then restore the file."""
    kept = {path: path.read_bytes() for path in reader.path.parent.iterdir() if path.is_file()}
    data = kept[reader.path]
    spoiled = kind.encode() if kind else spoil(data, chance)
    try:
        if spoiled == data:
            return "same", ""
        if kind:
            reader.path.unlink()
            KINDS[kind](reader.path, data)
        else:
            reader.path.write_bytes(spoiled)
        signal.alarm(PATIENCE)
        try:
            value = reader.read()
        finally:
            signal.alarm(0)
        if value == sound:
            return "same", ""
        return ("accepted" if bad else "other sound file"), what_differs(data, spoiled)
    except InputError as error:
        if len(str(error).splitlines()) != 1:
            return "crashed", f"several lines: {error}"
        return "refused", str(error)
    except Hung:
        return "hung", what_differs(data, spoiled)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "crashed", f"{type(error).__name__}: {error}; {what_differs(data, spoiled)}"
    finally:
        if kind:
            files.remove(reader.path)
        for path, content in kept.items():
            path.write_bytes(content)


def what_differs(data: bytes, spoiled: bytes) -> str:
    """Return where two files begin to differ, apart from the spaces of JSON."""
    with contextlib.suppress(ValueError):
        data = json.dumps(json.loads(data)).encode()
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(data, spoiled, strict=False))
    place = max(0, sum(1 for _ in alike) - 40)
    return f"{data[place : place + 120]!r} -> {spoiled[place : place + 120]!r}"


def fuzz(readers: dict[str, Reader], inputs: int, seed: int = 0) -> dict[str, Counter]:
    """Return the outcomes of so many damaged files for each reader; print those that are wrong."""

    def hang(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, hang)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, limits[1]))
    counts: dict[str, Counter] = {}
    try:
        for name, reader in readers.items():
            chance, counts[name], sound = random.Random(f"{seed} {name}"), Counter(), reader.read()
            ways = [(reader.knowing, not reader.signed)] if reader.knowing else []
            ways += [(spoil_bytes, reader.covered)] if reader.random else []
            for number in range(inputs + len(KINDS)):
                spoil, bad = ways[number % len(ways)]
                kind = "" if number < inputs else list(KINDS)[number - inputs]
                outcome, told = try_reader(reader, spoil, bad or bool(kind), sound, chance, kind)
                counts[name][outcome] += 1
                if outcome in ("accepted", "crashed", "hung"):
                    print(f"{name} {outcome}: {told}", file=sys.stderr)
            assert reader.read() == sound, f"{name}: not put right"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
    return counts


def main() -> int:
    """Fuzz the readers and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", help="some of them (default: all)")
    parser.add_argument("--inputs", type=int, default=500, help="for each reader (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        with contextlib.redirect_stdout(io.StringIO()):
            readers = make_readers(Path(name))
        counts = fuzz({name: readers[name] for name in args.readers or readers}, args.inputs, args.seed)
    print(f"{'':16s}" + "".join(f"{outcome:>17s}" for outcome in OUTCOMES))
    for name, found in counts.items():
        print(f"{name:16s}" + "".join(f"{found[outcome]:17d}" for outcome in OUTCOMES))
    total = sum(counts.values(), Counter())
    print(f"{'all':16s}" + "".join(f"{total[outcome]:17d}" for outcome in OUTCOMES))
    wrong = total["accepted"] + total["crashed"] + total["hung"]
    bad = total.total() - total["other sound file"]
    print(f"{bad} bad inputs, {wrong} wrong, {time.monotonic() - began:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
