"""What models imagine of plans: conditions, things that are followed, parts, memory."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import svg
from data_tools.errors import InputError
from data_tools.simulators.environment import PushEnv
from svg.planning import world as worlds
from svg.planning.perception import given
from svg.planning.world import Marks, Memory, ObjectWorld, Seen, VideoWorld, world_of
from tests.support.samples import small_model


@pytest.fixture(scope="module")
def objects():
    return svg.load("push-objects", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def video():
    return svg.load("push-sim", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def scene():
    """A hand that goes to the left of an object and then pushes it to the right, as it happens."""
    env = PushEnv(scenes=2001)
    env.reset(seed=0)
    number = env.goal.objects[0]
    radius = env.simulator.object_radii[number]
    env.simulator.place_hand(env.simulator.object_positions[number, :2] - (radius + 0.05, 0))
    frames, positions = [], []
    for _ in range(2):
        frames.append(env.render())
        positions.append(env.simulator.position)
        perceived = given(env)(frames[-1])
        env.simulator.step(np.zeros(4)) if len(frames) == 1 else None
    seen = Seen(
        torch.from_numpy(np.stack(frames)).movedim(-1, 1)[None],
        torch.zeros(1, 1, 4),
        torch.from_numpy(np.stack(positions)).float()[None],
    )
    return env, seen, perceived.marks


def pushes(steps: int = 8) -> torch.Tensor:
    """Two plans: to stay, and to go to the right."""
    plans = torch.zeros(1, 2, steps, 4)
    plans[0, 1, :, 0] = 0.02
    return plans


def test_conditions_of_plans(video, objects, scene):
    _, seen, _ = scene
    plans = pushes()
    for model in (video, objects):
        conditions = world_of(model, seen).conditions_for(plans)
        assert conditions.shape == (1, 2, 8, 7) and conditions[..., :4].equal(plans)
        start = seen.positions[0, -1]
        torch.testing.assert_close(conditions[0, 1, :, 4], start[0] + 0.02 * torch.arange(8.0))
        torch.testing.assert_close(conditions[0, :, :, 5], start[1].expand(2, 8))


@pytest.mark.parametrize("name", ["objects", "video"])
def test_what_is_pushed_is_followed(name, scene, request):
    env, seen, marks = scene
    imagined = world_of(request.getfixturevalue(name), seen, marks)(pushes())
    stays, goes = imagined.points[0, :, :, 0]
    assert (stays - marks.points[0, 0]).norm(dim=1).max() < 1.5
    state = env.save()
    true = []
    for action in pushes()[0, 1].numpy():
        env.simulator.step(action)
        true.append(env.project(env.simulator.object_positions[env.goal.objects[0]]))
    hand = env.simulator.position
    env.restore(state)
    assert true[-1][0] - true[0][0] > 5  # pixels to the right
    assert np.abs(goes.numpy() - np.array(true)).max() < 4.5
    np.testing.assert_allclose(imagined.hand[0, 1, -1], hand, atol=0.012)
    assert imagined.frames([-1, 0]).shape == (1, 2, 2, 3, 64, 64)
    torch.testing.assert_close(imagined.frames([-1]), imagined.frames([7]))


@pytest.mark.parametrize("name", ["objects", "video"])
def test_many_plans_are_imagined_in_parts(name, scene, request, monkeypatch):
    _, seen, marks = scene
    world = world_of(request.getfixturevalue(name), seen, marks)
    whole = world(pushes(3))
    monkeypatch.setattr(worlds, "MEMORY", 1)
    parts = world(pushes(3))
    torch.testing.assert_close(parts.points, whole.points, atol=1e-4, rtol=0)
    torch.testing.assert_close(parts.hand, whole.hand, atol=1e-5, rtol=0)
    torch.testing.assert_close(parts.frames([-1]), whole.frames([-1]), atol=1e-4, rtol=0)
    assert parts.plans.equal(whole.plans)


@pytest.mark.parametrize("name", ["objects", "video"])
def test_gradients_flow_to_plans(name, scene, request):
    _, seen, marks = scene
    plans = pushes(4).requires_grad_()
    imagined = world_of(request.getfixturevalue(name), seen, marks)(plans)
    imagined.points[0, 1, -1, 0, 0].backward()
    assert plans.grad[0, 1].abs().sum() > 0 and plans.grad[0, 0].abs().sum() == 0


def test_a_hidden_thing_is_remembered(objects, scene):
    _, seen, marks = scene
    memory = Memory()
    first = ObjectWorld(objects, seen, marks, memory)
    before = first(pushes()).points
    number = int((first.start.objects.centres[0] - marks.points[0, 0]).norm(dim=1).argmin())
    place = first.start.objects.centres[0, number]

    # the same scene, in which nothing shows of it: the encoder finds no such object
    hidden = replace(first.start.objects, present=first.start.objects.present.clone())
    hidden.present[0, number] = 0
    start = replace(first.start, objects=hidden)
    unseen = Marks(torch.zeros_like(marks.masks), marks.points)
    back = memory.complete(objects, start, unseen)
    assert back.objects.present.sum() == first.start.objects.present.sum()
    assert (back.objects.centres[0] - place).norm(dim=1).min() < 1e-4
    first.start = back
    torch.testing.assert_close(first(pushes()).points, before, atol=1e-3, rtol=0)
    assert Memory().complete(objects, start, unseen) is start


def test_marks_of_hidden_things_are_discs():
    masks = torch.zeros(1, 2, 8, 8, dtype=torch.bool)
    masks[0, 0, 2:4, 2:4] = True
    filled = Marks(masks, torch.tensor([[[2.5, 2.5], [5.0, 6.0]]])).filled()
    assert filled[0, 0].equal(masks[0, 0].float())
    ones = filled[0, 1].nonzero()
    assert sorted(map(tuple, ones.tolist())) == [(y, x) for y in (5, 6, 7) for x in (4, 5, 6)]


def test_models_that_move_no_pixels_cannot_follow(scene):
    _, seen, marks = scene
    with pytest.raises(InputError, match="without --blend"):
        VideoWorld(small_model(blend=False), seen, marks)


def test_masks_are_carried_like_pixels(video, scene):
    """The red channel of the picture, as a mask, is moved as the picture is where nothing is drawn."""
    seen = scene[1]
    start = video.observe(seen.frames, world_of(video, seen).conditions_for(torch.zeros(1, 1, 1, 4))[:, 0])
    conditions = world_of(video, seen).conditions_for(pushes(4))
    plain = video.imagine(start, conditions)
    marked = video.imagine(video.carrying(start, seen.frames[:, -1, :1].float() / 255), conditions)
    torch.testing.assert_close(marked[:, :, :, :3], plain)
    still = (plain[0, 0, -1] - seen.frames[0, -1].float() / 255).abs().amax(0) < 1e-3
    assert still.float().mean() > 0.3
    apart = (marked[0, 0, -1, 3] - plain[0, 0, -1, 0])[still].abs()
    assert apart.mean() < 2e-4 and apart.max() < 0.02
