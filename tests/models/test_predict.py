"""The public prediction: equal inputs in every form give equal futures, senseless ones a clear error."""

import inspect
import json

import numpy as np
import pytest
import torch

from data_tools.errors import InputError
from svg.config import ModelConfig
from svg.evaluation.futures import latent_noise
from svg.models.freezing import freeze
from svg.models.pose_cvae import PoseCVAE
from svg.models.video_predictor import VideoPredictor
from tests.support.samples import small_model

PAST, FUTURE = 2, 3


@pytest.fixture(scope="module")
def model() -> VideoPredictor:
    return small_model(model="dcgan", recurrence="spatial", feedback="feature", blend=True)


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randint(
        0, 256, (2, PAST, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module")
def conditions() -> torch.Tensor:
    """Return a row more than is needed, with nan in it: it must not be read."""
    values = torch.randint(-2, 3, (2, PAST + FUTURE, 4), generator=torch.Generator().manual_seed(1)).float()
    values[:, -1] = float("nan")
    return values


def test_without_noise_latents_are_the_means(model, frames, conditions):
    expected = model.predict(frames, conditions, FUTURE, latent="mean")
    start = model.observe(frames, conditions)
    future = conditions[:, PAST - 1 : PAST - 1 + FUTURE]
    with torch.no_grad():
        torch.testing.assert_close(model.imagine(start, future), expected)
        both = model.imagine(start, torch.stack([future, future], 1))
    torch.testing.assert_close(both, expected.expand_as(both))
    assert both.shape[:3] == (2, 2, FUTURE)


@pytest.mark.slow
def test_all_forms_of_the_same_input_give_the_same_futures(model, frames, conditions):
    expected = model.predict(frames, conditions, FUTURE, 2, seed=5)
    assert (
        isinstance(expected, torch.Tensor)
        and expected.shape == (2, 2, FUTURE, 3, 64, 64)
        and expected.dtype == torch.float32
    )
    floats, last = frames.float() / 255, frames.movedim(2, -1)
    same = {"atol": 1e-5, "rtol": 1e-4}
    for past in (floats, floats.double(), frames.flip(1).flip(1), last, (last.double() / 255)):
        for given in (conditions, conditions.double(), conditions[:, :-1].long(), conditions.numpy()):
            found = model.predict(past, given, FUTURE, 2, seed=5)
            assert isinstance(found, torch.Tensor)
            found = found.movedim(-1, -3) if past.shape[-1] == 3 else found
            torch.testing.assert_close(found, expected, **same)
    for past in (
        frames.numpy(),
        floats.numpy(),
        floats.double().numpy(),
        last.numpy()[::-1][::-1],
        frames.numpy().astype(">f8") / 255,
    ):
        found = model.predict(past, conditions.numpy()[:, :-1].astype(np.int32), FUTURE, 2, seed=5)
        assert isinstance(found, np.ndarray) and found.dtype == np.float32 and found.flags.c_contiguous
        found = np.moveaxis(found, -1, -3) if past.shape[-1] == 3 else found
        np.testing.assert_allclose(found, expected, **same)
    read_only = frames.numpy().copy()
    read_only.flags.writeable = False
    model.predict(read_only, conditions, FUTURE)


def test_one_clip_without_a_batch_dimension(model, frames, conditions):
    expected = model.predict(frames[:1], conditions[:1], FUTURE, 2, seed=5)
    found = model.predict(frames[0], conditions[0], FUTURE, 2, seed=5)
    assert found.shape == (2, FUTURE, 3, 64, 64)
    torch.testing.assert_close(found, expected[:, 0])
    found = model.predict(frames[0].movedim(1, -1).numpy(), conditions[0].numpy(), FUTURE, 2, seed=5)
    assert found.shape == (2, FUTURE, 64, 64, 3)
    np.testing.assert_allclose(found, expected[:, 0].movedim(2, -1), atol=1e-5)


def test_an_item_of_a_dataset_as_it_is(model, data_root):
    from svg.sequences import SequenceDataset

    dataset = SequenceDataset(data_root, "test", 5)
    item, batch = dataset[1], dataset.batch([(1, 0)])
    found = model.predict(item["frames"][:2], item["conditions"], 3, latent="mean")
    expected = model.predict(batch["frames"][:, :2], batch["conditions"], 3, latent="mean")
    np.testing.assert_allclose(found, expected[:, 0].movedim(2, -1), atol=1e-6)


def test_the_mean_and_the_seed(model, frames, conditions):
    """The mean is noise of zero; the seed gives the futures that evaluation samples, each clip its own."""
    start, future = model.observe(frames, conditions), conditions[:, PAST - 1 :]
    zeros = torch.zeros(2, 1, FUTURE, *model.latent_shape)
    with torch.no_grad():
        mean = model.imagine(start, future, zeros)
        (noise,) = latent_noise(model, range(2), 4, FUTURE, seed=7, group=4)
        sampled = model.imagine(start, future, noise)
    torch.testing.assert_close(model.predict(frames, conditions, FUTURE, latent="mean"), mean)
    torch.testing.assert_close(model.predict(frames, conditions, FUTURE, 4, seed=7), sampled)
    assert (sampled[0] - sampled[1]).abs().max() > 1e-3
    assert not torch.equal(model.predict(frames, conditions, FUTURE, 4, seed=8), sampled)
    alone = model.predict(frames[:1], conditions[:1], FUTURE, 4, seed=7)
    torch.testing.assert_close(alone, sampled[:, :1], atol=1e-5, rtol=1e-4)  # whatever stands beside it


def test_the_signature_of_before(model, frames, conditions):
    """Positional, with a generator of PyTorch's, which draws [B,S,F,...]."""
    found = model.predict(frames, conditions, FUTURE, 2, torch.Generator().manual_seed(3))
    noise = torch.randn(2, 2, FUTURE, *model.latent_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model.imagine(model.observe(frames, conditions), conditions[:, PAST - 1 :], noise)
    torch.testing.assert_close(found, expected)
    assert list(inspect.signature(freeze(model, "bfloat16").predict).parameters)[:5] == [
        "past", "conditions", "n_future", "n_samples", "generator"
    ]  # fmt: skip


def test_a_model_without_conditions(frames):
    model = small_model(model="dcgan", condition_dim=0)
    expected = model.predict(frames, None, FUTURE, latent="mean")
    for nothing in (torch.empty(2, PAST + FUTURE, 0), np.empty((0,))):
        torch.testing.assert_close(model.predict(frames, nothing, FUTURE, latent="mean"), expected)
    with pytest.raises(
        InputError, match=r"conditions: found \[2, 9, 4\], expected None: this model was trained without"
    ):
        model.predict(frames, np.zeros((2, 9, 4)), FUTURE)


NAN = float("nan")
PICTURES = (
    r"expected \[B,T,3,64,64\] or, of one clip, \[T,3,64,64\], uint8 or floats in \[0,1\] "
    r"\(channels may be last\)"
)
NUMBERS = r"expected numbers \[2,>=4,4\]"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"past": lambda x: x.float()}, f"past: found values from 0 to 255, {PICTURES}; divide by 255$"),
        ({"past": lambda x: x.float() / 127.5 - 1}, f"past: found values from -1 to 1, {PICTURES}$"),
        ({"past": lambda x: x.float() * NAN}, f"past: found values that are not finite, {PICTURES}$"),
        ({"past": lambda x: x.long()}, rf"past: found int64 \[2, 2, 3, 64, 64\], {PICTURES}$"),
        ({"past": lambda x: x[..., :32, :]}, rf"past: found uint8 \[2, 2, 3, 32, 64\], {PICTURES}$"),
        ({"past": lambda x: x.transpose(1, 2)}, rf"past: found uint8 \[2, 3, 2, 64, 64\], {PICTURES}$"),
        ({"past": lambda x: x[:, 0, 0]}, rf"past: found uint8 \[2, 64, 64\], {PICTURES}$"),
        ({"past": lambda x: x[:, :0]}, rf"past: found uint8 \[2, 0, 3, 64, 64\], {PICTURES}$"),
        ({"past": lambda x: x.numpy()[..., :1]}, rf"past: found uint8 \[2, 2, 3, 64, 1\], {PICTURES}$"),
        ({"past": lambda x: None}, f"past: found a NoneType, {PICTURES}$"),
        ({"past": lambda x: np.array(["a"], object)}, f"past: found an array of object, {PICTURES}$"),
        ({"conditions": lambda x: None}, rf"conditions: found None, {NUMBERS} \(2 observed, 3 predicted\)$"),
        ({"conditions": lambda x: x[:, :3]}, rf"conditions: found float32 \[2, 3, 4\], {NUMBERS}"),
        ({"conditions": lambda x: x[..., :3]}, rf"conditions: found float32 \[2, 5, 3\], {NUMBERS}"),
        ({"conditions": lambda x: x[:1]}, rf"conditions: found float32 \[1, 5, 4\], {NUMBERS}"),
        ({"conditions": lambda x: x[0]}, rf"conditions: found float32 \[5, 4\], {NUMBERS}"),
        ({"conditions": lambda x: x[0, 0, 0]}, rf"conditions: found float32 \[\], {NUMBERS}"),
        ({"past": lambda x: x[0]}, r"conditions: found float32 \[2, 5, 4\], expected numbers \[>=4,4\]"),
        ({"conditions": lambda x: x.cfloat()}, r"conditions: found complex64 \[2, 5, 4\], expected numbers"),
        ({"conditions": lambda x: "left"}, r"conditions: found a str, expected numbers"),
        (
            {"conditions": lambda x: x.double() * 1e300},
            r"conditions: found -?inf in clip 0, row 0, column 0 \(counted from 0\)",
        ),
        (
            {"conditions": lambda x: x.index_fill(1, torch.tensor([3]), NAN)},
            r"conditions: found nan in clip 0, row 3, column 0",
        ),
        ({"n_future": lambda x: 0}, "n_future: found 0, expected a whole number of at least 1"),
        ({"n_future": lambda x: 3.0}, r"n_future: found 3\.0, expected a whole number"),
        ({"n_samples": lambda x: -1}, "n_samples: found -1, expected a whole number"),
        ({"latent": lambda x: "median"}, "latent: found 'median', expected sampled or mean"),
        (
            {"latent": lambda x: "mean", "n_samples": lambda x: 2},
            "n_samples: found 2, expected 1: with the mean latent",
        ),
        (
            {"generator": lambda x: torch.Generator(), "seed": lambda x: 1},
            "seed: found a generator beside it; leave one out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_clear_error(model, frames, conditions, change, expected):
    arguments = {"past": frames, "conditions": conditions, "n_future": FUTURE}
    arguments |= {name: make(arguments.get(name)) for name, make in change.items()}
    with pytest.raises(ValueError, match=expected) as error:
        model.predict(**arguments)
    assert "--" not in str(error.value) and isinstance(error.value, InputError)


def test_poses_are_pictures():
    model = PoseCVAE(ModelConfig(
        model="pose_cvae", image_width=32, image_height=16, g_dim=8, pose_dim=4, z_dim=2, fusion_dim=8,
        levels=2, norm="group", condition_dim=3,
    )).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    past, poses = (
        torch.randint(0, 256, (2, n, 3, 16, 32), dtype=torch.uint8, generator=generator) for n in (1, 4)
    )
    expected = model.predict(past, poses, 4, latent="mean")
    torch.testing.assert_close(
        model.predict(past, poses.float() / 255, 4, latent="mean"), expected, atol=1e-5, rtol=1e-4
    )
    one = model.predict(past[0].movedim(1, -1).numpy(), poses[0].movedim(1, -1).numpy(), 4, latent="mean")
    np.testing.assert_allclose(one, expected[:, 0].movedim(2, -1), atol=1e-5)
    for changed, message in (
        (None, r"conditions: found None, expected poses \[2,>=4,3,16,32\] \(1 observed, 4 predicted\)"),
        (poses[:, :3], r"conditions: found uint8 \[2, 3, 3, 16, 32\], expected poses \[2,>=4,3,16,32\]"),
        (poses[:1], r"conditions: found uint8 \[1, 4, 3, 16, 32\], expected poses"),
        (poses[0], r"conditions: found uint8 \[4, 3, 16, 32\], expected poses"),
        (poses[..., 0, 0], r"conditions: found uint8 \[2, 4, 3\], expected \[B,T,3,16,32\]"),
        (poses.float(), "conditions: found values from 0 to 255, expected .*divide by 255"),
    ):
        with pytest.raises(InputError, match=message):
            model.predict(past, changed, 4)


def test_imagining_checks_nothing_and_lets_gradients_through(model, frames, conditions, monkeypatch):
    monkeypatch.setattr("svg.models.predictor.check_request", lambda *_: pytest.fail("checked"))
    frozen = freeze(model, "float32")
    plan = conditions[:, None, PAST - 1 : -1].repeat(1, 3, 1, 1).requires_grad_()
    frames = frozen.imagine(
        frozen.observe(frames, conditions), plan, torch.zeros(2, 3, FUTURE, *model.latent_shape)
    )
    frames.sum().backward()
    assert plan.grad.isfinite().all() and plan.grad.abs().amax((0, 1, 3)).min() > 0


def test_python_errors_name_arguments_and_commands_flags():

    error = InputError("found 'gpu', expected auto", "device")
    assert str(error) == "device: found 'gpu', expected auto" and error.line == f"--{error}"
    assert InputError("index.csv: damaged").line == "index.csv: damaged"


def test_what_is_told_in_python_speaks_of_no_flags(data_root, tmp_path, monkeypatch, capsys):
    """And the same mistake on the command line does."""
    import svg
    from experiments import evaluate
    from svg.evaluation.protocols import get_protocol
    from svg.sequences import SequenceDataset

    for call, expected in (
        (
            lambda: svg.load("push-sim", device="gpu"),
            "device: found 'gpu', expected auto, cpu, cuda or cuda:N",
        ),
        (lambda: svg.load("push-sim", precision="fp16"), "precision: found 'fp16', expected one of auto"),
        (lambda: svg.load("push-sim", checkpoint="newest"), "found no newest checkpoint"),
        (lambda: svg.load("nothing"), "found 'nothing', expected a run folder"),
        (
            lambda: SequenceDataset(data_root, "test", 99),
            "found 15 frames, expected at least 99; ask for fewer",
        ),
        (
            lambda: SequenceDataset(data_root, "test", 9, "everything"),
            "conditions: found 'everything', expected one of all",
        ),
        (lambda: SequenceDataset(data_root, "tests", 9), "found no sequence of split 'tests'"),
        (lambda: get_protocol("best"), "protocol: found 'best', expected one of own"),
    ):
        with pytest.raises(InputError, match=expected) as error:
            call()
        assert "--" not in str(error.value)
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--pretrained", "push-sim", "--protocol", "best"]) == 2
    assert "svg-evaluate: --protocol: found 'best', expected one of own" in capsys.readouterr().err


def test_a_config_file_is_told_of_its_keys(tmp_path):
    import svg

    run = tmp_path / "run"
    run.mkdir()
    for values, expected in (
        ({"data": {"n_past": 0}}, r"config\.json: damaged \(n_past: found 0, expected more than 0\)"),
        (
            {"model": {"recurrence": "round"}},
            r"config\.json: damaged \(recurrence: found 'round', expected one of vector",
        ),
        ({"model": {"warp": "before"}}, r"config\.json: damaged \(warp: expected blend beside it"),
    ):
        (run / "config.json").write_text(
            json.dumps({"schema_version": 1, "data": {}, "model": {}, "train": {}} | values)
        )
        with pytest.raises(InputError, match=expected) as error:
            svg.load(run)
        assert "--" not in str(error.value)
