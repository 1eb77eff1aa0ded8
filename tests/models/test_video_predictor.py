import itertools

import pytest
import torch
from torch.nn import functional as F

from svg.config import ModelConfig
from svg.models.backbones import FLOW_SCALE, Decoder, carry_all
from svg.models.recurrent import ConvLSTM, Gaussian, repeat_state
from svg.models.video_predictor import VideoPredictor, as_images
from tests.support.samples import small_model

FORMS = list(itertools.product(("vgg", "dcgan"), ("vector", "spatial")))


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 7, 3, 64, 64, generator=generator), torch.randn(2, 7, 4, generator=generator)


def noise_of(rollout) -> torch.Tensor:
    """Return the noise with which samples of the prior are the posterior's means."""
    prior, posterior = rollout.prior, rollout.posterior
    return (posterior.mu - prior.mu) / torch.exp(0.5 * prior.logvar)


def millions(module: torch.nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2)


def test_published_sizes():
    # Layer by layer from the published definition: a VGG layer of a -> b channels has 9ab + b weights, and
    # 2b of batch norm.
    model = VideoPredictor(ModelConfig())
    parts = (model.encoder, model.decoder, model.predictor, model.posterior, model.prior)
    assert [millions(part) for part in parts] == [8.69, 11.82, 1.13, 0.59, 0.59]
    assert millions(model) == 22.83

    def vgg(*channels):
        return sum(9 * a * b + 3 * b for a, b in itertools.pairwise(channels))

    encoder = vgg(3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512) + 512 * 128 * 16 + 3 * 128
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == encoder


def test_published_decoder_shapes():
    decoder = Decoder("vgg", 64, 3, 128, 1.0, "batch", grid=0, blend=False)
    shapes = [tuple(p.shape) for p in decoder.parameters() if p.dim() == 4]
    expected = [(128, 512, 4, 4), (512, 1024, 3, 3), (256, 512, 3, 3), (128, 256, 3, 3), (64, 128, 3, 3)]
    expected += [
        (512, 512, 3, 3),
        (256, 512, 3, 3),
        (256, 256, 3, 3),
        (128, 256, 3, 3),
        (64, 128, 3, 3),
        (64, 3, 3, 3),
    ]
    assert sorted(shapes) == sorted(expected)


def test_initialisation_is_the_published_one():
    model = VideoPredictor(ModelConfig(width=0.5))
    conv = model.encoder.levels[2][1][0]
    assert conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not conv.bias.any()
    norm = model.encoder.levels[2][1][1]
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert (
        model.predictor.core.lstm.weight_ih_l0.abs().max().item() <= 1 / 256**0.5
    )  # PyTorch's default: uniform


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize(("backbone", "recurrence"), FORMS)
def test_every_form_predicts(backbone, recurrence, width):
    model = small_model(model=backbone, recurrence=recurrence, image_width=width, condition_dim=0, channels=1)
    frames = (torch.rand(2, 5, 1, width, width) * 255).byte()
    rollout = model(frames, None, 2)
    assert rollout.frames.shape == (2, 4, 1, width, width)
    assert rollout.posterior.mu.shape == (2, 4, *model.latent_shape) == rollout.prior.logvar.shape
    futures = model.predict(frames[:, :2], None, 3, n_samples=4, generator=torch.Generator().manual_seed(1))
    assert futures.shape == (4, 2, 3, 1, width, width)
    assert futures.min() >= 0 and futures.max() <= 1
    assert (futures[0] - futures[1]).abs().max() > 1e-4  # samples differ


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("backbone", ["vgg", "dcgan"])
def test_a_finer_grid_of_features(backbone, width):
    shape = {"model": backbone, "recurrence": "spatial", "image_width": width}
    coarse, fine = (small_model(**shape, grid=grid) for grid in (8, 16))
    assert (coarse.latent_shape[1:], fine.latent_shape[1:]) == ((8, 8), (16, 16))
    assert len(fine.encoder.levels) == len(coarse.encoder.levels) - 1 == len(fine.decoder.levels)
    frames, conditions = torch.rand(2, 5, 3, width, width), torch.randn(2, 5, 4)
    rollout = fine(frames, conditions, 2)
    assert rollout.frames.shape == (2, 4, 3, width, width)
    noise = noise_of(rollout)[:, 1:]
    start = fine.observe(frames[:, :2], conditions)
    assert start.h.shape[-2:] == (16, 16)
    torch.testing.assert_close(
        fine.imagine(start, conditions[:, 1:], noise[:, None])[0], rollout.frames[:, 1:], atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("feedback", ["frame", "feature"])
@pytest.mark.parametrize(("backbone", "recurrence"), FORMS)
def test_batched_passes_equal_steps(clip, backbone, recurrence, feedback):
    """Compare teacher forcing with free running over an observed clip, and sequences with single steps."""
    frames, conditions = clip
    model = small_model(model=backbone, recurrence=recurrence, feedback=feedback)
    steps = frames.shape[1] - 1
    forced = model(frames, conditions, steps, teacher_forcing=True)
    free = model(frames, conditions, steps, teacher_forcing=False)
    assert torch.equal(forced.frames, free.frames)
    # The same through observe and imagine, a step at a time from true frames: frame t from 0..t-1.
    for time in range(1, steps + 1):
        start = model.observe(frames[:, :time], conditions)
        z = forced.posterior[:, time - 1 : time].mu
        prior, _ = model._prior(start.h, model._spread(conditions[:, time - 1 :], 1, frames), start.prior)
        noise = (z - prior.mu) / torch.exp(0.5 * prior.logvar)
        frame = model.imagine(start, conditions[:, time - 1 :], noise[:, None])[0, :, 0]
        torch.testing.assert_close(frame, forced.frames[:, time - 1], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(prior.mu, forced.prior.mu[:, time - 1 : time], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("warp", ["none", "observed", "before", "carried"])
@pytest.mark.parametrize(
    ("feedback", "last_frame_skip"), [("frame", False), ("frame", True), ("feature", False)]
)
def test_free_running_equals_imagination(clip, feedback, last_frame_skip, warp):
    """`forward` without teacher forcing and `observe` + `imagine` are the same recurrence."""
    frames, conditions = clip
    shape = {
        "recurrence": "spatial",
        "model": "dcgan",
        "feedback": feedback,
        "last_frame_skip": last_frame_skip,
    }
    model = small_model(**shape, blend=True, warp=warp)
    if warp == "carried":  # far flows in a picture of noise would make much of rounding
        torch.nn.init.normal_(model.decoder.flow.weight, std=0.05)
    rollout = model(frames, conditions, 2)
    noise = noise_of(rollout)[:, 1:]
    imagined = model.imagine(model.observe(frames[:, :2], conditions), conditions[:, 1:], noise[:, None])[0]
    torch.testing.assert_close(imagined, rollout.frames[:, 1:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("teacher_forcing", [True, False])
@pytest.mark.parametrize(
    ("recurrence", "blend", "last_frame_skip"), [("vector", False, False), ("spatial", True, True)]
)
def test_no_frame_depends_on_the_future(clip, recurrence, blend, last_frame_skip, teacher_forcing):
    frames, conditions = clip
    frames.requires_grad_(), conditions.requires_grad_()
    model = small_model(
        recurrence=recurrence,
        blend=blend,
        warp="before" if blend else "none",
        last_frame_skip=last_frame_skip,
        model="dcgan",
    )
    rollout = model(frames, conditions, 3, teacher_forcing)
    for time in range(1, frames.shape[1]):
        of_frames, of_conditions = torch.autograd.grad(
            rollout.frames[:, time - 1].sum(), (frames, conditions), retain_graph=True
        )
        depends = of_frames.flatten(2).abs().sum((0, 2)) > 0
        # The posterior of step t sees frame t itself; with teacher forcing no other frame is hidden.
        given = range(frames.shape[1]) if teacher_forcing or time <= 3 else [0, 1, 2]
        assert not depends[time + 1 :].any()
        assert depends[[t for t in given if t <= time]].all()
        assert not (of_conditions[:, time:] != 0).any(), "frame t must not see actions[t]"
        assert (of_conditions[:, time - 1] != 0).any(), "frame t must see actions[t-1]"


@pytest.mark.parametrize("recurrence", ["vector", "spatial"])
def test_prediction_sees_past_and_actions_only(clip, recurrence):
    frames, conditions = clip
    model = small_model(recurrence=recurrence, model="dcgan")
    conditions.requires_grad_()
    start = model.observe(frames[:, :2], conditions)
    future = model.imagine(start, conditions[:, 1:], torch.zeros(2, 1, 4, *model.latent_shape))[0]
    (gradient,) = torch.autograd.grad(future[:, 1].sum(), conditions)  # frame 3
    used = gradient.abs().sum((0, 2)) > 0
    assert used.tolist() == [True, True, True, False, False, False, False]  # actions[2] leads to frame 3


@pytest.mark.parametrize("recurrence", ["vector", "spatial"])
def test_other_actions_give_another_future(clip, recurrence):
    frames, conditions = clip
    model = small_model(recurrence=recurrence, model="dcgan", feedback="feature")
    start = model.observe(frames[:, :2], conditions)
    choices = torch.stack(
        [conditions[:, 1:5], conditions[:, 1:5] + 1], 1
    )  # [B,S,F,D]: one sequence for each future
    futures = model.imagine(start, choices, torch.zeros(2, 2, 4, *model.latent_shape))
    assert (futures[0] - futures[1]).abs().amax((1, 2, 3, 4)).min() > 1e-3
    alone = model.imagine(start, choices[:, 1], torch.zeros(2, 1, 4, *model.latent_shape))
    torch.testing.assert_close(futures[1:], alone, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_result_does_not_depend_on_batch_neighbours(clip, norm):
    frames, conditions = clip
    model = small_model(norm=norm, model="dcgan")
    together = model.reconstruct(frames, conditions, 2)
    alone = model.reconstruct(frames[:1], conditions[:1], 2)
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-4)


def test_conditions_are_standardised_inside(clip):
    frames, conditions = clip
    model = small_model()
    raw = VideoPredictor(model.config, [1.0, 2.0, 3.0, 4.0], [2.0, 0.5, 1.0, 0.0]).eval()
    raw.load_state_dict(
        {**model.state_dict(), "condition_mean": raw.condition_mean, "condition_std": raw.condition_std}
    )
    in_metres = conditions * torch.tensor([2.0, 0.5, 1.0, 1.0]) + torch.tensor([1.0, 2.0, 3.0, 4.0])
    torch.testing.assert_close(
        raw.reconstruct(frames, in_metres, 2), model.reconstruct(frames, conditions, 2), atol=1e-5, rtol=1e-4
    )


def test_fixed_prior_is_standard_normal(clip):
    frames, conditions = clip
    model = small_model(prior="fixed")
    assert model.prior is None
    prior = model(frames, conditions, 2).prior
    assert not prior.mu.any() and not prior.logvar.any()


def test_skips_come_from_the_last_observed_frame(clip):
    """With a mask of 0, each frame is the observed one before it, after n_past the last observed one."""
    frames, conditions = clip
    for last_frame_skip, sources in ((False, [0, 1, 2, 2, 2, 2]), (True, [0, 1, 2, 3, 4, 5])):
        model = small_model(blend=True, last_frame_skip=last_frame_skip, model="dcgan", recurrence="spatial")
        with torch.no_grad():
            model.decoder.skip_convs[-1].conv.weight[:, -1] = 0
            model.decoder.skip_convs[-1].conv.bias[-1] = -100
        forced = model(frames, conditions, 3, teacher_forcing=True).frames
        torch.testing.assert_close(forced, frames[:, sources], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n_past", "sources"), [(1, [0]), (2, [0]), (4, [0, 1, 2])])
def test_published_skips_come_from_the_frame_before_the_last_observed_one(clip, n_past, sources):
    frames, conditions = clip
    model = small_model(skips="published", model="dcgan")
    prepared = []
    prepare = model.decoder.prepare
    model.decoder.prepare = lambda skips: prepared.append(skips) or prepare(skips)
    rollout = model(frames, conditions, n_past)
    start = model.observe(frames[:, :n_past], conditions)
    noise = noise_of(rollout)[:, n_past - 1 :]
    imagined = model.imagine(start, conditions[:, n_past - 1 :], noise[:, None])[0]
    torch.testing.assert_close(imagined, rollout.frames[:, n_past - 1 :], atol=2e-5, rtol=1e-4)
    _, expected = model.encoder(frames, len(sources))
    torch.testing.assert_close(prepared[0], expected)
    torch.testing.assert_close(prepared[1], [skip[:, -1:] for skip in expected])


def moving_right(**flags) -> VideoPredictor:
    """Draws nothing and lets every pixel come from 8 pixels to the left."""
    model = small_model(blend=True, model="dcgan", recurrence="spatial", **flags)
    with torch.no_grad():
        last = model.decoder.skip_convs[-1].conv
        drawn = torch.tensor([-100.0, 100.0, -8 / FLOW_SCALE, 0.0])
        if model.decoder.flow is not None:  # of places, under a third mask; the other flow leads elsewhere
            model.decoder.flow = torch.nn.Conv2d(model.decoder.flow.in_channels, 2, 1)
            model.decoder.flow.weight.zero_()
            model.decoder.flow.bias.copy_(drawn[2:])
            drawn = torch.tensor([-100.0, 100.0, 3.0, 3.0, 100.0])
        last.weight[:, -len(drawn) :] = 0
        last.bias[-len(drawn) :] = drawn
    return model


def test_a_warped_frame_comes_from_the_last_observed_one(clip):
    frames, conditions = clip
    predicted = moving_right(warp="observed")(frames, conditions, 3, teacher_forcing=True).frames
    torch.testing.assert_close(predicted[..., 8:], frames[:, [0, 1, 2, 2, 2, 2]][..., :-8], atol=1e-5, rtol=0)


@pytest.mark.parametrize("feedback", ["feature", "frame"])
def test_a_warped_frame_comes_from_the_one_before(clip, feedback):
    frames, conditions = clip
    model = moving_right(warp="before", feedback=feedback)
    predicted = model(frames, conditions, 3, teacher_forcing=True).frames
    torch.testing.assert_close(predicted[..., 8:], frames[:, :-1, ..., :-8], atol=1e-5, rtol=0)
    predicted = model(
        frames, conditions, 3
    ).frames  # three frames from true ones, then from what was predicted
    for time, steps in enumerate([1, 1, 1, 2, 3, 4]):
        moved = frames[:, time + 1 - steps, ..., : -8 * steps]
        torch.testing.assert_close(predicted[:, time, ..., 8 * steps :], moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize("feedback", ["feature", "frame"])
def test_a_carried_frame_comes_from_the_last_observed_one_by_the_sum_of_flows(clip, feedback):
    frames, conditions = clip
    model = moving_right(warp="carried", feedback=feedback)
    predicted = model(frames, conditions, 3).frames
    for time, (source, steps) in enumerate([(0, 1), (1, 1), (2, 1), (2, 2), (2, 3), (2, 4)]):
        moved = frames[:, source, ..., : -8 * steps]
        torch.testing.assert_close(predicted[:, time, ..., 8 * steps :], moved, atol=1e-5, rtol=0)


def test_carried_places_lose_nothing_under_rigid_motion():
    """Places are a linear function of the pixel; interpolating between them is exact, whatever the flows."""
    flows = torch.rand(1, 5, 2, 1, 1).expand(-1, -1, -1, 16, 16) * 3 - 1.5
    places = carry_all(flows, observed=2)
    centre = (slice(None), slice(None), slice(None), slice(6, 10), slice(6, 10))
    sums = torch.cat([flows[:, :1], flows[:, 1:].cumsum(1)], 1)  # the second frame is observed, too
    torch.testing.assert_close(places[centre], sums[centre])


def test_convlstm_whole_sequence_equals_steps_and_gates():
    torch.manual_seed(1)
    module, x = ConvLSTM(3, 4, 2), torch.randn(2, 5, 3, 8, 8)
    whole, state = module(x)
    carried, steps = None, []
    for time in range(5):
        step, carried = module(x[:, time : time + 1], carried)
        steps.append(step)
    torch.testing.assert_close(torch.cat(steps, 1), whole)
    torch.testing.assert_close(carried, state)
    # One layer, two steps, written out from Shi et al. 2015, eq. 3 without peepholes.
    module = ConvLSTM(3, 4, 1)
    hidden = cell = torch.zeros(2, 4, 8, 8)
    for time in range(2):
        embedded = F.leaky_relu(module.embed(x[:, time]), 0.2)
        i, f, o, g = module.gates[0](torch.cat([embedded, hidden], 1)).split(4, 1)
        cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
    torch.testing.assert_close(module(x[:, :2])[0][:, 1], hidden)


def test_repeat_state_keeps_neighbours_together():
    state = (torch.arange(2.0).view(1, 2, 1), torch.arange(2.0).view(1, 2, 1) + 10)
    hidden, cell = repeat_state(state, 2)
    assert hidden.flatten().tolist() == [0, 0, 1, 1] and cell.flatten().tolist() == [10, 10, 11, 11]
    assert repeat_state(None, 3) is None


def test_reparameterisation():
    gaussian = Gaussian(
        torch.full((4000,), 3.0), torch.full((4000,), 2 * torch.log(torch.tensor(0.5)).item())
    )
    sample = gaussian.sample(torch.randn(4000, generator=torch.Generator().manual_seed(0)))
    assert sample.mean().item() == pytest.approx(3, abs=0.03) and sample.std().item() == pytest.approx(
        0.5, abs=0.02
    )


def test_uint8_frames_are_images_in_unit_range():
    assert as_images(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    half = torch.tensor([0.5])
    assert as_images(half) is half


@pytest.mark.parametrize("conditions", [None, torch.zeros(2, 3, 4), torch.zeros(2, 7, 5)])
def test_conditions_that_do_not_fit(clip, conditions):
    with pytest.raises(ValueError, match=r"conditions: found .*, expected at least 6 of width 4"):
        small_model()(clip[0], conditions, 2)
