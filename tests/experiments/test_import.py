"""svg-import: published checkpoints become runs, and nothing that a file names is ever run."""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

import svg
from experiments import evaluate, import_published, train
from svg.runs.checkpoint import load_config, load_model
from svg.runs.published import read_published
from svg.runs.torch_files import LEGACY_MAGIC
from tests.support import published
from tests.support.limits import deadline, peak_memory
from tests.support.places import ROOT
from tests.support.runs import assert_same, weights

CLONE = os.environ.get("SVG_PUBLISHED", "")
FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["archive", "legacy"])
slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
"""The legacy format holds the source code of modules, which stand-ins do not have."""


@pytest.fixture
def stand_ins(monkeypatch):
    published.install(monkeypatch)


@pytest.fixture
def small_file(stand_ins, tmp_path) -> Path:
    """A published checkpoint of the smallest kind."""
    return published.save(published.make_checkpoint("dcgan_64", "learned"), tmp_path / "model.pth", True)


def imported(path: Path, out: Path) -> Path:
    assert import_published.main([str(path), str(out)]) == 0
    return out


def refusal(path: Path, capsys) -> str:
    """Return the one line with which a file is refused."""
    out = path.parent / "out"
    assert import_published.main([str(path), str(out)]) == 2
    printed = capsys.readouterr()
    assert not out.exists() and not printed.out and len(printed.err.splitlines()) == 1
    assert printed.err.startswith(f"svg-import: {path}: ")
    return printed.err


# -------------------------------------------------------------------------------------------- equal outputs


@pytest.mark.parametrize(
    ("name", "prior", "flags", "legacy"),
    [
        ("dcgan_64", "learned", {"last_frame_skip": True, "channels": 1}, False),
        ("dcgan_64", "fixed", {"n_past": 3}, True),
        ("vgg_64", "learned", {}, True),
        pytest.param("dcgan_64", "learned", {}, True, marks=slow),
        pytest.param("vgg_64", "fixed", {"n_past": 4, "n_eval": 8}, False, marks=slow),
        pytest.param("dcgan_128", "learned", {}, False, marks=slow),
        pytest.param("dcgan_128", "fixed", {}, True, marks=slow),
        pytest.param("vgg_128", "learned", {}, False, marks=slow),
        pytest.param("vgg_128", "fixed", {"n_past": 3}, True, marks=slow),
    ],
)
def test_an_imported_run_predicts_what_the_modules_do(stand_ins, tmp_path, name, prior, flags, legacy):
    checkpoint = published.make_checkpoint(name, prior, **flags)
    run = imported(published.save(checkpoint, tmp_path / "model.pth", legacy), tmp_path / "run")
    model, config = load_model(run)
    opt = checkpoint["opt"]
    frames = torch.rand(2, opt.n_past, opt.channels, opt.image_width, opt.image_width)
    noise = torch.randn(2, 3, opt.z_dim)
    expected = published.rollout(checkpoint, frames, noise)
    predicted = model.advance(model.observe(frames, None), None, noise[:, None])[0][0]
    assert expected.std() > 0.02
    torch.testing.assert_close(predicted, expected, atol=1e-5, rtol=0)
    assert config.model.prior == prior and config.model.condition_dim == 0
    frozen = svg.load(run, device="cpu", precision="float32")
    folded = frozen.advance(frozen.observe(frames, None), None, noise[:, None])[0][0]
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=0)


def test_skips_are_the_published_ones(small_file, tmp_path):
    run = imported(small_file, tmp_path / "run")
    config = load_config(run)
    assert config.model.skips == "published" and config.data.conditions == "none"
    assert (config.data.n_past, config.data.n_eval, config.train.optimizer) == (2, 6, "adam")


def test_an_imported_run_is_evaluated(small_file, data_root, tmp_path, capsys):
    run = imported(small_file, tmp_path / "run")
    assert "SVG-LP, dcgan, 64 pixels, 3 channels" in capsys.readouterr().out
    assert evaluate.main([str(run), "--device", "cpu", "--n_sample", "1"]) == 2
    assert "name its place with --data_root" in capsys.readouterr().err
    flags = ["--data_root", str(data_root), "--device", "cpu", "--n_sample", "2"]
    assert evaluate.main([str(run), *flags]) == 0
    assert import_published.main([str(small_file), str(run)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_an_imported_run_is_not_replaced_by_a_training(small_file, data_root, tmp_path, capsys):
    run = imported(small_file, tmp_path / "run")
    before = weights(run, "best")
    assert train.main(["--resume", "--log_dir", str(run), "--data_root", str(data_root)]) == 2
    error = capsys.readouterr().err
    assert "has its best weights, of step 0, but nothing to go on from" in error
    assert f"--init_from {run}" in error
    assert_same(weights(run, "best"), before)


def test_files_of_older_versions_of_pytorch(stand_ins, tmp_path):
    """Before version 0.4.1: no counts of batches, a backend with each module, tensors by other functions."""
    checkpoint = published.make_checkpoint("dcgan_64", "fixed")
    for name in ("encoder", "decoder"):
        for module in checkpoint[name].modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                del module.num_batches_tracked
    path = published.save(checkpoint, tmp_path / "model.pth", True)
    content = path.read_bytes().replace(b"ctorch\nFloatStorage", b"ctorch.cuda\nFloatStorage")
    path.write_bytes(content.replace(b"ctorch._utils\n_rebuild_parameter", b"ctorch.nn.parameter\nParameter"))
    config, weights = read_published(path)
    assert config.model.prior == "fixed"
    counts = [value for name, value in weights.items() if name.endswith("num_batches_tracked")]
    assert len(counts) == 9 and not any(counts)
    expected = checkpoint["encoder"].c1.main[0].weight
    torch.testing.assert_close(weights["encoder.levels.0.0.0.weight"], expected.data)


# ---------------------------------------------------------------------------------------------- other files


class Runs:
    """An object whose pickle runs a command when it is loaded."""

    def __init__(self, sentinel: Path):
        self.command = f"touch {sentinel}"

    def __reduce__(self):
        return os.system, (self.command,)


def as_legacy(content: bytes, keys: tuple[str, ...] = (), rest: bytes = b"") -> bytes:
    """Return a pickled object in the form that PyTorch wrote before version 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    heads = [pickle.dumps(value, 2) for value in (LEGACY_MAGIC, 1001, system)]
    return b"".join([*heads, content, pickle.dumps(list(keys), 2), rest])


def as_archive(content: bytes, method: int = zipfile.ZIP_STORED, **storages: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        archive.writestr("model/data.pkl", content)
        for key, numbers in storages.items():
            archive.writestr(f"model/data/{key}", numbers)
    return data.getvalue()


def hostile_pickles(sentinel: Path) -> dict[str, bytes]:
    command = f"touch {sentinel}".encode()
    text = b"X" + struct.pack("<I", len(command)) + command
    shell = b"cmodels.lstm\nlstm\n)\x81"
    return {
        "reduce": pickle.dumps(Runs(sentinel), 2),
        "stack_global": pickle.dumps(Runs(sentinel), 4),
        "in a module": b"\x80\x02" + shell + b"}X\x06\x00\x00\x00hiddencposix\nsystem\n" + text + b"\x85Rsb.",
        "setstate": b"\x80\x02" + shell + b"}X\x0c\x00\x00\x00__setstate__cposix\nsystem\nsb" + text + b"b.",
        "inst": b"\x80\x02(" + text + b"iposix\nsystem\n.",
        "obj": b"\x80\x02(cposix\nsystem\n" + text + b"o.",
        "persistent": b"\x80\x02(X\x06\x00\x00\x00modulecposix\nsystem\nNNtQ" + text + b"\x85R.",
        "builtin": b"\x80\x02c__builtin__\neval\n" + text + b"\x85R.",
        "a module called": b"\x80\x02ctorch.nn.modules.container\nSequential\n" + text + b"\x85R.",
        "extension": b"\x80\x02\x82\x01.",
    }


@pytest.mark.parametrize("wrap", [as_legacy, as_archive, bytes], ids=["legacy", "archive", "bare"])
@pytest.mark.parametrize("kind", hostile_pickles(Path("x")))
def test_a_hostile_file_is_refused_and_nothing_runs(tmp_path, capsys, kind, wrap):
    sentinel = tmp_path / "sentinel"
    path = tmp_path / "model.pth"
    path.write_bytes(wrap(hostile_pickles(sentinel)[kind]))
    assert "train_svg_lp.py" in refusal(path, capsys)
    assert not sentinel.exists()


@pytest.mark.parametrize("kind", ["reduce", "stack_global", "inst", "obj"])
def test_the_sentinel_would_show_that_it_ran(tmp_path, kind):
    sentinel = tmp_path / "sentinel"
    pickle.loads(hostile_pickles(sentinel)[kind])
    assert sentinel.exists()


def tensor_of(length: int, shape: str, stride: str) -> bytes:
    """Return the pickle of a tensor that is a part of the storage "0"."""
    lines = (
        "ctorch._utils\n_rebuild_tensor\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000X\3\0\0\0cpu"
    )
    number = b"\x8a\x06" + struct.pack("<q", length)[:6]
    return lines.encode() + number + f"NtQK\0{shape}{stride}tR".encode()


def test_sizes_are_not_believed(small_file, tmp_path, capsys):
    """Storages and tensors that claim terabytes are refused before memory is taken for them."""
    tensor = b"\x80\x02" + tensor_of(2**40, "J\xff\xff\xff\x7f\x85", "K\0\x85") + b"."
    content = small_file.read_bytes()
    keys = content.index(b".\x80\x02]", 1000)
    first = content.index(b"e.", keys) + 2  # where the first storage says how many numbers it has
    files = {
        "claims": as_legacy(tensor, ("0",), struct.pack("<q", 2**40)),
        "negative": as_legacy(tensor, ("0",), struct.pack("<q", -1)),
        "count": content[:first] + struct.pack("<q", 2**40) + content[first + 8 :],
        "bomb": as_archive(b"\x80\x02" + b"N0" * 2**21 + b".", zipfile.ZIP_DEFLATED),
        "long": as_archive(b"\x80\x02" + b"N0" * 2**21 + b"."),
        "memo": as_archive(b"\x80\x02Nr\xff\xff\xff\x7f."),
        "text": as_archive(b"\x80\x02X\xff\xff\xff\x7f."),
        "nested": as_archive(b"\x80\x02}N" + b"\x85" * 500_000 + b"Ns."),
    }
    for name, data in files.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(data)
        with deadline(60):
            assert peak_memory(lambda path=path: refusal(path, capsys)) < 4 * len(data) / 1e6 + 200, name


@FORMATS
def test_damaged_files_are_one_line(stand_ins, tmp_path, capsys, legacy):
    content = published.save(
        published.make_checkpoint("dcgan_64", "learned"), tmp_path / "x.pth", legacy
    ).read_bytes()
    path = tmp_path / "model.pth"
    for size in (0, 1, 3, 100, 5000, 40_000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert "found no checkpoint of edenton/svg" in refusal(path, capsys)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "cannot be read" in refusal(path, capsys)
    path.unlink()
    assert "cannot be read" in refusal(path, capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("posterior"), "expected encoder, decoder, frame_predictor, posterior, opt"),
        (lambda c: c.update(opt={}), "something else than modules"),
        (lambda c: setattr(c["opt"], "g_dim", 17), "where its flags say"),
        (lambda c: setattr(c["opt"], "g_dim", "16"), "g_dim: found '16', expected"),
        (lambda c: setattr(c["opt"], "rnn_size", 10**12), "rnn_size: found 1000000000000, expected at most"),
        (lambda c: setattr(c["opt"], "image_width", 128), "where its flags say models.dcgan_128 encoder"),
        (lambda c: setattr(c["opt"], "n_eval", 1), "n_eval: found 1, expected more than"),
        (lambda c: setattr(c["opt"], "predictor_rnn_layers", 1), "frame_predictor.lstm.1.bias_hh, for which"),
        (lambda c: setattr(c["opt"], "predictor_rnn_layers", 3), "no frame_predictor.lstm.2.weight_ih"),
        (lambda c: c["encoder"].c1.main[1].__setattr__("eps", 1e-3), "encoder.c1.main.1 has another eps"),
        (lambda c: c["posterior"].mu_net.double(), "posterior.mu_net.weight [3, 12] torch.float64 where"),
        (
            lambda c: c["decoder"].add_module("more", torch.nn.GRUCell(2, 2)),
            "names torch.nn.modules.rnn.GRUCell",
        ),
    ],
)
def test_other_models_are_refused(stand_ins, tmp_path, capsys, change, message):
    checkpoint = published.make_checkpoint("dcgan_64", "learned")
    change(checkpoint)
    path = published.save(checkpoint, tmp_path / "model.pth", False)
    assert message in refusal(path, capsys)


# ----------------------------------------------------------------------------------------- the published code

GENUINE = """
import argparse, sys, torch
sys.path.insert(0, sys.argv[1])
torch.Tensor.cuda = lambda self, *_: self
import models.lstm, models.{name} as model
encoder, decoder = model.encoder(16, 3), model.decoder(16, 3)
for part in (encoder, decoder):
    for module in part.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
frames = torch.rand(2, 3, {width}, {width})
with torch.no_grad():
    for _ in range(3):
        decoder(encoder(frames))
predictor = models.lstm.lstm(19, 16, 12, 2, 2)
posterior, prior = (models.lstm.gaussian_lstm(16, 3, 12, 1, 2) for _ in range(2))
opt = argparse.Namespace(image_width={width}, channels=3, g_dim=16, z_dim=3, rnn_size=12,
    predictor_rnn_layers=2, posterior_rnn_layers=1, prior_rnn_layers=1, n_past=2, n_eval=6,
    last_frame_skip=False, dataset="bair", optimizer=torch.optim.Adam)
parts = dict(encoder=encoder, decoder=decoder, frame_predictor=predictor, posterior=posterior, prior=prior)
torch.save(parts | dict(opt=opt), sys.argv[2], _use_new_zipfile_serialization={archive})
for part in parts.values():
    part.eval()
with torch.no_grad():
    h, skips = encoder(frames)
    z = posterior(h)[1]
    g = predictor(torch.cat([h, z], 1))
    torch.save(dict(frames=frames, h=h, z=z, g=g, drawn=decoder([g, skips])), sys.argv[3])
"""


@pytest.mark.skipif(not CLONE, reason="SVG_PUBLISHED names no clone of edenton/svg")
@FORMATS
@pytest.mark.parametrize("name", ["dcgan_64", "vgg_64", "dcgan_128", "vgg_128"])
def test_modules_of_the_published_code(tmp_path, name, legacy):
    """Its modules, made and run by itself in another process."""
    code = GENUINE.format(name=name, width=name.split("_")[1], archive=not legacy)
    path, outputs = tmp_path / "model.pth", tmp_path / "outputs.pt"
    command = [sys.executable, "-W", "ignore", "-c", code, CLONE, str(path), str(outputs)]
    subprocess.run(command, check=True, cwd=ROOT.parent)
    expected = torch.load(outputs)
    model, _ = load_model(imported(path, tmp_path / "run"))
    h, skips = model.encoder(expected["frames"][:, None], 1)
    posterior, _ = model.posterior(h)
    g, _ = model.predictor(torch.cat([h, posterior.mu], 2))
    drawn, _ = model.decoder(
        g, model.decoder.prepare(skips), expected["frames"][:, None], expected["frames"][:, None]
    )
    for found, of in ((h, "h"), (posterior.mu, "z"), (g, "g"), (drawn, "drawn")):
        torch.testing.assert_close(found[:, 0], expected[of], atol=1e-5, rtol=0)
