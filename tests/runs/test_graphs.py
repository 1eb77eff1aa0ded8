"""Models as graphs: what they predict beside PyTorch, how small they are, and how to call them."""

import json
import sys

import numpy as np
import pytest
import torch

from data_tools.errors import InputError
from experiments import export
from svg.models.freezing import freeze
from svg.runs import graphs
from svg.runs.checkpoint import load_model
from svg.runs.pretrained import named_folder
from tests.models import test_pose_cvae
from tests.support.samples import small_model

MODELS = {
    "vector": lambda: small_model(prior="fixed", condition_dim=0),
    "spatial": lambda: small_model(
        recurrence="spatial", feedback="feature", blend=True, warp="carried", g_dim=8, backbone="dcgan"
    ),
    # a trained one: of untrained ones, which see objects anywhere, rounding chooses the places
    "objects": lambda: load_model(named_folder("push-objects"))[0],
    "pose_cvae": test_pose_cvae.small,
}
PAST = {"pose_cvae": 1}


def onnx_video(folder, frames, observed, conditions, noise) -> np.ndarray:
    """Call the graphs as docs/python.md does."""
    import onnxruntime

    about = json.loads((folder / "model.json").read_text())
    observe, step = (onnxruntime.InferenceSession(folder / f"{part}.onnx") for part in ("observe", "step"))
    inputs = {"frames": frames} | ({} if observed is None else {"conditions": observed})
    state = dict(zip(about["state"], observe.run(None, inputs), strict=True))
    video = []
    for time in range(noise.shape[1]):
        now = {} if conditions is None else {"conditions": conditions[:, time]}
        frame, *changed = step.run(None, state | now | {"noise": noise[:, time]})
        state |= zip(about["changed"], changed, strict=True)
        video.append(frame)
    return np.stack(video, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_onnx_predicts_what_pytorch_does(kind, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = freeze(MODELS[kind](), "float32")
    n_past = PAST.get(kind, 2)
    manifest = graphs.write_graphs(model, tmp_path, "onnx", kind, "some", n_past)
    assert manifest.largest_difference < 10 * graphs.TOLERANCE
    assert set(manifest.changed) <= set(manifest.state) and manifest.n_past == n_past
    for clips in (1, 4):  # neither is the number that was traced
        frames, conditions = graphs.example(model, n_past, clips, 6)
        noise = torch.randn(clips, 6, *model.latent_shape, generator=torch.Generator().manual_seed(5))
        start = model.observe(frames, conditions)
        future = None if conditions is None else conditions[:, n_past - 1 :]
        expected = model.imagine(start, future, noise[:, None])[0].numpy()
        observed = None if conditions is None or kind == "pose_cvae" else conditions[:, :n_past].numpy()
        now = None if future is None else future.numpy()
        found = onnx_video(tmp_path, frames.numpy(), observed, now, noise.numpy())
        assert found.shape == expected.shape and found.std() > 0.01
        assert np.abs(found - expected).max() < 10 * graphs.TOLERANCE
        assert np.abs(np.diff(expected, axis=1)).max() > 1e-3  # something moves


@pytest.mark.slow
def test_half_the_size(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = freeze(small_model(width=0.3), "float32")
    half = graphs.write_graphs(model, tmp_path, "onnx", "a", "some", 2, half=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sizes = [(tmp_path / f"{part}.onnx").stat().st_size for part in ("observe", "step")]
    assert parameters < sum(sizes) < 2 * 3.2 * parameters  # bytes; many are in both graphs
    # weights are off by up to 2^-11 of themselves; the pictures are not the same, but near
    assert 1e-5 < half.largest_difference < 0.02


@pytest.mark.slow
def test_a_program_of_torch_export(tmp_path):
    model = freeze(small_model(), "float32")
    manifest = graphs.write_graphs(model, tmp_path, "torch", "a", "some", 2)
    assert manifest.largest_difference < 1e-6
    step = torch.export.load(tmp_path / "step.pt2").module()
    observe = torch.export.load(tmp_path / "observe.pt2").module()
    frames, conditions = graphs.example(model, 2, 3, 1)
    state = observe(frames, conditions[:, :2])
    noise = torch.zeros(3, *model.latent_shape)
    expected = model.imagine(model.observe(frames, conditions), conditions[:, 1:])[0, :, 0]
    torch.testing.assert_close(step(state, noise, conditions[:, 1])["predicted"], expected, rtol=0, atol=1e-5)


def test_names_of_a_state_and_back():
    model = small_model(feedback="feature")
    frames, conditions = graphs.example(model, 2, 3, 1)
    state = model.observe(frames, conditions)
    tensors = graphs.state_tensors(state)
    assert {"h", "last", "predictor_0", "predictor_1", "skips_0_term"} <= set(tensors)
    doubled = graphs.with_tensors(state, {"predictor_1": 2 * tensors["predictor_1"]})
    assert torch.equal(doubled.predictor[1], 2 * state.predictor[1]) and doubled.h is state.h
    assert doubled.skips[0].folded == state.skips[0].folded and doubled.places is None
    assert graphs.state_tensors(doubled).keys() == tensors.keys()


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys, monkeypatch):
    with pytest.raises(InputError, match="n_past: found 1, expected at least 2"):
        graphs.write_graphs(freeze(small_model(), "float32"), tmp_path, "torch", "a", "some", 1)
    for flags, words in (
        (
            ["push-sim", "--half", "--format", "torch"],
            "--half: found --format torch beside it, expected onnx",
        ),
        (["push-sim", "--n_past", "0"], "--n_past: found 0, expected at least 1"),
        (["nowhere"], "found 'nowhere', expected a run folder or the name of a released model"),
    ):
        assert export.main([*flags, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert words in error and len(error.splitlines()) == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert export.main(["push-sim", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "found no onnx; pip install 'svg-push[export]'" in error and len(error.splitlines()) == 1


@pytest.mark.slow
def test_command(tmp_path, capsys):
    assert export.main(["push-sim", "--format", "torch", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "observe.pt2" in printed and "off in 28 frames" in printed
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert about["name"] == "push-sim" and about["conditions"] == [7] and "sha256" in about["weights"]
