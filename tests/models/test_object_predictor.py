"""The model objects: its geometry by hand, and the contract of `Predictor`."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from data_tools.camera import Camera
from svg.config import ModelConfig
from svg.models.build import make_model
from svg.models.compositor import Compositor
from svg.models.freezing import freeze
from svg.models.grid import cell_centres
from svg.models.hand import LIGHT, UNIT, Hand, Integrator, carried_from, offset_maps
from svg.models.object_motion import _inverse, find_owners, sample
from svg.models.recurrent import Gaussian
from svg.models.scene import CODE, DESCRIPTION, FEATURES, Layers, Objects, find_objects
from svg.models.sprites import Sprites, put_together
from svg.training.object_losses import arm_points
from svg.training.truth import project

SIZES = {"g_dim": 16, "z_dim": 2, "rnn_size": 16, "slots": 3, "condition_dim": 7, "action_dim": 4}


def small(**changes):
    torch.manual_seed(1)
    model = make_model(ModelConfig(model="objects", **SIZES | changes))
    with torch.no_grad():
        # objects are found and move, whatever untrained weights see
        model.encoder.half_head.bias[0] = 6
        outline = 2 * model.config.channels + 2
        model.encoder.full_head.bias[4 * outline : 4 * outline + 4] = 6
        model.encoder.full_head.weight[4 * outline + 4 : 4 * outline + 12] = 0  # pixels vote for themselves
        head = model.motion.output[-1]
        head.weight.mul_(20)
        head.weight[6] = 0
        head.bias[6] = 2
    return model.eval()


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, 7, 3, 64, 64, generator=generator), torch.randn(2, 7, 7, generator=generator)


def objects_at(*centres, spread=25.0) -> Objects:
    count = len(centres)
    places = torch.tensor([centres], dtype=torch.float32)
    ones = torch.ones(1, count)
    return Objects(places, ones, spread * ones, torch.zeros(1, count, DESCRIPTION))


def described(objects: Objects) -> Objects:
    """Objects as they are found, with nothing to say about their surroundings."""
    return replace(objects, features=F.pad(objects.features, (0, CODE)))


def upright(count) -> torch.Tensor:
    return torch.eye(2).expand(1, count, 2, 2)


# ------------------------------------------------------------------------------------------------------ hand


def test_motion_of_the_hand_is_fitted_though_it_is_jammed_now_and_then():
    """Two columns move by what the actions say, a third one goes to where they say, by at most 0.5."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.randn(200, 20, 3, generator=generator)
    positions = torch.zeros(200, 20, 3)
    for time in range(19):
        moves = torch.stack([0.3 * actions[:, time, 0], -0.2 * actions[:, time, 1]], 1)
        jammed = torch.rand(200, 1, generator=generator) < 0.05
        positions[:, time + 1, :2] = positions[:, time, :2] + torch.where(jammed, 0.0, moves)
        way = actions[:, time, 2] - positions[:, time, 2]
        positions[:, time + 1, 2] = positions[:, time, 2] + way.clamp(-0.5, 0.5)
    integrator = Integrator(3, 3)
    integrator.fit(actions, positions, torch.Generator().manual_seed(1))
    assert integrator.straight[0].tolist() == pytest.approx([0.3, 0, 0], abs=0.003)
    assert integrator.straight[1].tolist() == pytest.approx([0, -0.2, 0], abs=0.003)
    assert not any(parameter.requires_grad for parameter in integrator.parameters())
    moved = integrator(torch.zeros(3), torch.tensor([1.0, 1.0, 0.3]))
    assert moved.tolist() == pytest.approx([0.3, -0.2, 0.3], abs=0.05)
    far = integrator(torch.zeros(3), torch.tensor([1.0, 1.0, 1.2]))
    assert far[2].item() == pytest.approx(0.5, abs=0.05)


def test_a_column_that_never_changes_stays_where_it_is():
    actions = torch.randn(20, 6, 2, generator=torch.Generator().manual_seed(0))
    actions[..., 1] = 0
    positions = torch.full((20, 6, 2), 0.7)
    positions[..., 0] = torch.nn.functional.pad(actions[:, :-1, 0].cumsum(1), (1, 0))
    integrator = Integrator(2, 2)
    integrator.fit(actions, positions, torch.Generator())
    moved = integrator(torch.tensor([0.0, 0.7]), torch.tensor([0.5, 0.0]))
    assert moved.tolist() == pytest.approx([0.5, 0.7], abs=0.02)


def test_reach_of_the_hand_is_that_of_the_fingers_in_the_picture():
    hand = Hand(4, 3, 3, 64)
    with torch.no_grad():
        hand.places.weight.zero_()
        hand.bend[2].weight.zero_()
        hand.places.weight[:4, 0] = torch.tensor([3.0, 4.0, 3.0, 4.0]) / UNIT  # both fingers, right and down
        hand.places.weight[4:, 1] = 1.0
    assert hand.reach.tolist() == pytest.approx([5, 0, 0])
    states = torch.eye(2, 7)[[1, 0]]
    moved = hand.project(states)[:, 0].diff(dim=0)
    assert moved[0].tolist() == pytest.approx([3, 4], abs=1e-4)


def test_points_of_the_hand_and_its_reach_may_be_those_of_a_pinhole_camera():
    """What moves with the hand appears where the simulator's camera has it; the reach is the slope there."""
    hand = Hand(4, 3, 3, 64)
    matrix = torch.from_numpy(Camera().matrix(64, 64)).float()
    points = arm_points(torch.zeros(3))[:6]  # those that move with the hand
    homogeneous = points @ matrix[:, :3].T + matrix[:, 3]
    with torch.no_grad():
        hand.bend[2].weight.zero_(), hand.bend[2].bias.zero_(), hand.places.weight.zero_()
        for number, (right, down, depth) in enumerate(homogeneous):
            rows = slice(2 * number, 2 * number + 2)
            hand.places.weight[rows, :3] = matrix[:2, :3] / depth / UNIT
            hand.places.bias[rows] = torch.stack([right, down]) / depth / UNIT
            hand.depth.weight[number] = matrix[2, :3] / depth
    positions = torch.tensor([[0.0, 0.0, 0.0], [0.2, -0.1, 0.05], [-0.25, 0.15, 0.1]])
    states = torch.cat([positions, torch.randn(3, 4)], 1)
    expected = project(arm_points(positions), 64, 64)[:, :6]
    torch.testing.assert_close(hand.project(states)[:, :6], expected, atol=1e-3, rtol=1e-4)
    step = 1e-3 * torch.eye(3)
    slopes = (project(arm_points(step), 64, 64) - project(arm_points(-step), 64, 64))[:, :2] / 2e-3
    torch.testing.assert_close(hand.reach, slopes.square().sum((1, 2)).div(2).sqrt(), atol=0.1, rtol=1e-3)


def test_cells_and_offsets_by_hand():
    assert cell_centres(64)[:, 0, 0].tolist() == [0, 0]
    assert cell_centres(32)[:, 1, 0].tolist() == [0.5, 2.5]
    assert cell_centres(128)[:, 0, 127].tolist() == [63.25, -0.25]
    maps = offset_maps(torch.tensor([[[0.5, 2.5]]]), 32)
    assert maps.shape == (1, 7, 32, 32)
    assert maps[0, :, 1, 0].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert maps[0, 2, 1, 4].item() == pytest.approx(math.tanh(1))  # 8 to the right, over the distance 8
    assert maps[0, 6, 1, 3].item() == pytest.approx(math.exp(-0.5))  # 6 to the right


def test_cells_are_carried_by_the_points_about_them():
    points = torch.tensor([[[10.5, 10.5], [50.5, 50.5]]])
    origins = points + torch.tensor([[[3.0, -2.0], [0.0, 5.0]]])
    sources = carried_from(points, origins, 64)
    offsets = sources - cell_centres(64)
    assert offsets[0, :, 12, 8].tolist() == pytest.approx([3, -2], abs=1e-3)
    assert offsets[0, :, 50, 50].tolist() == pytest.approx([0, 5], abs=1e-3)
    between = (offsets[0, :, 30, 30] + offsets[0, :, 31, 31]) / 2
    assert between.tolist() == pytest.approx([1.5, 1.5], abs=1e-3)  # as near to both


# --------------------------------------------------------------------------------------------- moving objects


def test_what_does_not_move_comes_from_where_it_is():
    objects = objects_at((10.0, 20.0), (40.0, 30.0))
    owned = find_owners(objects.centres, upright(2), objects, 64)
    torch.testing.assert_close(owned.sources[0], cell_centres(64), atol=1e-4, rtol=0)
    assert owned.owners.sum(1).unique().tolist() == [1]
    assert owned.owners.unique().tolist() == [0, 0.5, 1]
    assert owned.owners[0, :, 20, 10].tolist() == [1, 0] and owned.owners[0, :, 30, 41].tolist() == [0, 1]


def test_moved_and_turned_objects_by_hand():
    """One object has moved by (4, -6), another one has turned by 90 degrees."""
    objects = objects_at((10.0, 20.0), (40.0, 30.0))
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # to the right -> down
    turns = torch.stack([torch.eye(2), quarter])[None]
    centres = torch.tensor([[[14.0, 14.0], [40.0, 30.0]]])
    owned = find_owners(centres, turns, objects, 64, more=torch.tensor([[[5.0], [7.0]]]))
    assert owned.sources[0, :, 15, 16].tolist() == pytest.approx([12, 21], abs=1e-4)
    # what is 3 below the centre now was 3 to the right of it
    assert owned.sources[0, :, 33, 40].tolist() == pytest.approx([43, 30], abs=1e-4)
    assert owned.own[0, :, 33, 40].tolist() == [40, 30, 7]


def test_a_large_object_owns_more_than_a_small_one_and_an_absent_one_nothing():
    objects = objects_at((20.0, 32.0), (40.0, 32.0))
    wide = Objects(objects.centres, objects.present, torch.tensor([[36.0, 4.0]]), objects.features)
    owners = find_owners(wide.centres, upright(2), wide, 64).owners
    assert owners[0, 0, 32, 34] == 1 and owners[0, 1, 32, 36] == 1  # 14/6 < 6/2, 16/6 > 4/2
    gone = Objects(objects.centres, torch.tensor([[1.0, 0.0]]), objects.spread, objects.features)
    assert find_owners(gone.centres, upright(2), gone, 64).owners[0, 1].sum() == 0


def test_inverse_and_sample_by_hand():
    turns = torch.tensor([[[2.0, 1.0], [0.5, 1.5]]])
    np.testing.assert_allclose(_inverse(turns)[0], np.linalg.inv(turns[0].numpy()), rtol=1e-5)
    row = torch.arange(64.0).expand(1, 1, 64, 64)
    places = torch.tensor([10.25, 3.0]).view(1, 2, 1, 1)
    assert sample(row, places).item() == pytest.approx(10.25, abs=1e-4)
    assert sample(row, torch.tensor([99.0, 3.0]).view(1, 2, 1, 1)).item() == 63
    assert sample(row, torch.tensor([99.0, 3.0]).view(1, 2, 1, 1), "zeros").item() == 0


def square_scene(centres, half=3):
    """A grey table with squares, each of its own brightness."""
    outline = torch.full((1, 1, 64, 64), -20.0)
    votes = torch.zeros(1, 2, 64, 64)
    surface = torch.zeros(1, 3, 64, 64)
    last = torch.full((1, 3, 64, 64), 0.5)
    cells = cell_centres(64)
    for number, centre in enumerate(centres):
        offsets = torch.tensor(centre)[:, None, None] - cells
        inside = (offsets.abs() <= half).all(0)
        outline[0, 0][inside] = 20
        votes[0][:, inside] = offsets[:, inside]
        last[0][:, inside] = 0.2 * (number + 1)
    still = torch.full((1, 3, 64, 64), 0.5)
    shade = torch.ones(1, 1, 64, 64)
    features = torch.zeros(1, FEATURES, 32, 32)
    light, state = torch.zeros(1, LIGHT), torch.zeros(1, 7)
    arm = torch.full_like(outline, -20.0)
    return Layers(still, surface, outline, votes, shade, arm, shade, last, state, features, light)


def test_objects_are_found_where_pixels_point():
    layers = square_scene([(12.0, 20.0), (40.0, 41.0)])
    logits = torch.full((1, 1, 32, 32), -9.0)
    logits[0, 0, 9, 6] = 2  # near (12.5, 18.5)
    logits[0, 0, 20, 20] = 1
    logits[0, 0, 20, 21] = 0.5  # no peak beside a higher one
    logits[0, 0, 2, 28] = 3  # where nothing is
    objects = find_objects(layers, logits, 4)
    assert objects.present[0].tolist() == [0, 1, 1, 0]
    np.testing.assert_allclose(objects.centres[0, 1:3], [[12, 20], [40, 41]], atol=0.05)
    # a square of 7 pixels: (49 - 1) / 12 in each direction
    assert objects.spread[0, 1].item() == pytest.approx(8, rel=0.02)


def bare_hand() -> Hand:
    """A hand without an arm and a shadow in the picture, its points in the middle."""
    torch.manual_seed(0)
    hand = Hand(4, 3, 3, 64)
    with torch.no_grad():
        for part in hand.parameters():
            part.zero_()
        hand.places.bias.fill_(31.5 / UNIT)
        hand.shadow_places.bias.fill_(31.5 / UNIT)
        for sprites in (hand.arm, hand.shadow):
            sprites.pictures[:, -1] = -1.0  # 40 logits
            sprites.straight.bias.copy_(torch.tensor([1 / 3, 0, 0, 1 / 3, 1, 0, 0] * 4))
    return hand


def compositor() -> Compositor:
    torch.manual_seed(0)
    return Compositor(3, 8, "none", 7).eval()


def test_a_moved_object_is_drawn_with_its_own_pixels():
    layers = square_scene([(12.0, 20.0), (40.0, 40.0)])
    logits = torch.full((1, 1, 32, 32), -9.0)
    logits[0, 0, 10, 6] = logits[0, 0, 20, 20] = 3
    objects = described(find_objects(layers, logits, 2))
    first = int((objects.centres[0, :, 0] < 20).nonzero())
    centres = objects.centres.clone()
    centres[0, first] += torch.tensor([5.0, 3.0])
    hand = bare_hand()
    with torch.no_grad():
        material = compositor().prepare(layers, objects, hand)
        scene, masks = compositor()._put_together(material, objects, centres, upright(2), hand, layers.state)
    assert scene[0, 0, 23, 17].item() == pytest.approx(0.2, abs=1e-3)
    assert scene[0, 0, 20, 12].item() == pytest.approx(0.5, abs=1e-3)  # the table where it was
    assert scene[0, 0, 40, 40].item() == pytest.approx(0.4, abs=1e-3)
    assert masks[0, 0].sum().item() == pytest.approx(2 * 49, rel=0.02)
    assert masks[0, 1:].max() < 1e-3


def test_what_moves_leaves_the_pixels_of_its_neighbours_behind():
    """Of two squares, 8 apart, one goes far away: nothing of the other goes with it."""
    layers = square_scene([(12.0, 20.0), (20.0, 20.0)])
    objects = objects_at((12.0, 20.0), (20.0, 20.0))
    centres = torch.tensor([[[12.0, 44.0], [20.0, 20.0]]])
    with torch.no_grad():
        material = compositor().prepare(layers, objects, bare_hand())
        scene, masks = compositor()._put_together(
            material, objects, centres, upright(2), bare_hand(), layers.state
        )
    assert masks[0, 0, 30:].sum().item() == pytest.approx(49, rel=0.02)
    assert masks[0, 0, :30].sum().item() == pytest.approx(49, rel=0.02)
    shown = scene[0, 0, 36:53, 4:29]
    expected = torch.full_like(shown, 0.5)
    expected[5:12, 5:12] = 0.2
    torch.testing.assert_close(shown, expected, atol=0.01, rtol=0)


def squares(sprites, colour) -> None:
    """The first part is a square of 10 units, the others are nothing."""
    with torch.no_grad():
        sprites.pictures[:, -1] = -1.0
        pictures = sprites.pictures.unflatten(2, (56, 56))
        pictures[0, -1, 23:33, 23:33] = 1.0
        sprites.pictures[0, :-1] = math.log(colour / (1 - colour)) / 40


def test_the_arm_and_its_shadow_follow_the_hand_and_an_object_may_be_before_them():
    """The hand moves by one standard deviation: the arm by (6, -4), its shadow by (-6, 4)."""
    hand = bare_hand()
    squares(hand.arm, 0.1)
    squares(hand.shadow, 0.5)
    with torch.no_grad():
        for places, sign, place in ((hand.places, 1, (25.5, 25.5)), (hand.shadow_places, -1, (25.5, 45.5))):
            places.weight[0::2, 0] = sign * 6 / UNIT
            places.weight[1::2, 0] = sign * -4 / UNIT
            places.bias.copy_(torch.tensor(place).repeat(len(places.bias) // 2) / UNIT)
        hand.darkness.bias.fill_(0)  # half
    layers = square_scene([(31.0, 16.0)])
    layers = replace(layers, table=torch.full((1, 3, 64, 64), 0.8), last=layers.last + 0.3)
    objects = objects_at((31.0, 16.0))
    state = torch.zeros(1, 7)
    state[0, 0] = 1
    decoder = compositor()
    with torch.no_grad():
        material = decoder.prepare(layers, objects, hand)
        places = objects.centres, upright(1)
        scene, masks = decoder._put_together(material, objects, *places, hand, state)
        decoder.before.bias.fill_(20)
        before, _ = decoder._put_together(material, objects, *places, hand, state)
    arm, shadow = masks[0, 1] > 0.5, masks[0, 2] > 0.5
    assert arm.sum() == shadow.sum() == 100
    assert arm[17:27, 27:37].all() and shadow[45:55, 15:25].all()
    assert scene[0, 0, 22, 31].item() == pytest.approx(0.1, abs=1e-3)
    assert scene[0, 0, 50, 20].item() == pytest.approx(0.4, abs=1e-3)
    assert scene[0, 0, 25, 22].item() == pytest.approx(0.8, abs=1e-3)  # where the arm was
    # the object, at y = 13 to 19, is hidden by an arm before it and hides one behind it
    assert scene[0, 0, 14, 31].item() == pytest.approx(0.5, abs=1e-3)
    assert scene[0, 0, 18, 31].item() < 0.2
    assert before[0, 0, 18, 31].item() == pytest.approx(0.5, abs=1e-3)
    assert before[0, 0, 22, 31].item() == pytest.approx(0.1, abs=1e-3)


def test_sprites_are_stretched_turned_and_blended():
    sprites = Sprites(1, 1, 64)
    with torch.no_grad():
        for part in (*sprites.bend.parameters(), sprites.pictures):
            part.zero_()
        sprites.pictures[:, -1] = -1.0
        pictures = sprites.pictures.unflatten(2, (56, 56))
        pictures[0, -1, 26:30, 20:36] = 1.0  # 16 to the right, 4 down
        sprites.pictures[0, 0] = 0.5 / 40
        sprites.pictures[1, 0] = 1.0 / 40
        sprites.pictures[1, -1] = 0.0
        # what is at p is sampled at (y, -x / 2): turned by 90 degrees, twice as wide
        sprites.straight.bias[:7] = torch.tensor([0, 1 / 3, -0.5 / 3, 0, 1, 2, 0])
        places = torch.full((1, 4, 2), 31.5)
        colours, masks = sprites(places, torch.zeros(1, 1), 64)
    shown = masks[0, 0, 0] > 0.5
    assert shown.sum() == 16 * 8 and shown[24:40, 28:36].all()
    assert not masks[0, 1:].max() > 1e-3
    # logits 0.5 of the first picture and 2 times 1 of the second
    assert colours[0, 0, 0, 31, 31].item() == pytest.approx(1 / (1 + math.exp(-2.5)), abs=1e-4)


def test_parts_cover_those_after_them():
    colours = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1, 1)
    masks = torch.tensor([0.0, 0.25, 1.0, 1.0]).view(1, 4, 1, 1, 1)
    picture, mask = put_together(colours, masks)
    assert picture.item() == 0.25 * 2 + 0.75 * 3 and mask.item() == 1
    assert put_together(colours, 0.5 * masks)[1].item() == pytest.approx(1 - 0.875 * 0.25)


def test_what_stays_comes_back_to_the_last_digit_edges_and_shadows_included():
    """Whatever the encoder takes the frame for, as long as the decoder draws nothing; it fades with moves."""
    layers = square_scene([(12.0, 20.0), (40.0, 40.0)])
    generator = torch.Generator().manual_seed(0)
    logits = {name: torch.randn(1, 1, 64, 64, generator=generator) for name in ("outline", "arm")}
    factors = {
        name: 0.5 + 0.5 * torch.rand(1, 1, 64, 64, generator=generator) for name in ("shade", "arm_shade")
    }
    colours = {name: torch.rand(1, 3, 64, 64, generator=generator) for name in ("last", "table", "surface")}
    layers = replace(layers, **logits, **factors, **colours)
    objects = objects_at((12.0, 20.0), (40.0, 40.0))
    decoder = compositor()
    with torch.no_grad():
        decoder.output.weight.zero_()
        decoder.output.bias[12:] = -40
        hand = Hand(4, 3, 3, 64)
        material = decoder.prepare(layers, objects, hand)
        places = objects.centres, upright(2), hand
        picture = decoder(material, objects, *places, layers.state)
        torch.testing.assert_close(picture.frames, layers.last, atol=1e-6, rtol=0)
        far = layers.state + 99
        moved = decoder(material, objects, *places, far)
    torch.testing.assert_close(moved.frames, moved.carried.clamp(0, 1), atol=1e-6, rtol=0)
    assert not torch.allclose(moved.frames, layers.last, atol=0.1)


# ----------------------------------------------------------------------------------------------- the contract


@pytest.mark.parametrize(("width", "channels"), [(64, 3), (128, 1)])
def test_shapes(width, channels):
    model = small(image_width=width, channels=channels)
    frames = (torch.rand(2, 5, channels, width, width) * 255).byte()
    conditions = torch.randn(2, 5, 7)
    noise = torch.randn(2, 4, *model.latent_shape)
    rollout = model(frames, conditions, 2, noise=noise)
    assert rollout.frames.shape == (2, 4, channels, width, width)
    assert rollout.posterior.mu.shape == rollout.prior.logvar.shape == (2, 4, 3, 2)
    assert rollout.tracks.centres.shape == (2, 3, 3, 2)
    assert model.predict(frames[:, :2], conditions, 3, seed=1).shape == (1, 2, 3, channels, width, width)


@pytest.mark.parametrize("n_past", [1, 2, 3])
def test_prediction_with_the_posteriors_latents_is_the_reconstruction(clip, n_past):
    frames, conditions = clip
    model = small()
    with torch.no_grad():
        rollout = model(frames, conditions, n_past)
        assert rollout.tracks.present.any() and rollout.tracks.centres.var(1).max() > 0.01
        q, p = rollout.posterior[:, n_past - 1 :], rollout.prior[:, n_past - 1 :]
        noise = (q.mu - p.mu) / torch.exp(0.5 * p.logvar)
        start = model.observe(frames[:, :n_past], conditions)
        predicted, _ = model.advance(start, conditions[:, n_past - 1 :], noise[:, None])
    torch.testing.assert_close(predicted[0], rollout.frames[:, n_past - 1 :], atol=1e-4, rtol=0)
    assert torch.equal(rollout.frames[:, : max(0, n_past - 2)], frames[:, 1 : max(1, n_past - 1)])


def test_a_video_in_pieces_is_the_same(clip):
    frames, conditions = clip
    model = small()
    noise = torch.randn(2, 3, 5, *model.latent_shape)
    with torch.no_grad():
        start = model.observe(frames[:, :2], conditions)
        whole, _ = model.advance(start, conditions[:, 1:6], noise)
        first, state = model.advance(start, conditions[:, 1:3], noise[:, :, :2])
        rest = conditions[:, None, 3:6].expand(-1, 3, -1, -1).flatten(0, 1)
        second, _ = model.advance(state, rest, noise[:, :, 2:].flatten(0, 1)[:, None])
    second = second[0].unflatten(0, (2, 3)).transpose(0, 1)
    torch.testing.assert_close(torch.cat([first, second], 2), whole, atol=1e-5, rtol=0)
    assert not torch.allclose(whole[0], whole[1], atol=1e-3)


def test_frames_that_are_asked_for_are_those_of_all(clip):
    frames, conditions = clip
    model = small()
    noise = torch.randn(2, 3, 4, *model.latent_shape)
    with torch.no_grad():
        start = model.observe(frames[:, :2], conditions)
        whole = model.imagine(start, conditions[:, 1:], noise)
        some = model.imagine(start, conditions[:, 1:], noise, times=[3, 1])
        path = model.track(start, conditions[:, 1:], noise)
    assert torch.equal(some, whole[:, :, [3, 1]])
    assert path.centres.shape == (6, 4, 3, 2) and path.motions[3].hand.shape == (6, 7)


def test_positions_of_the_future_change_nothing_actions_do(clip):
    frames, conditions = clip
    model = small()
    other = conditions.clone()
    other[:, 2:, 4:] += 9
    with torch.no_grad():
        start = model.observe(frames[:, :2], conditions)
        usual = model.imagine(start, conditions[:, 1:])
        assert torch.equal(model.imagine(start, other[:, 1:]), usual)
        assert torch.equal(model.observe(frames[:, :2], other).motion.hand, start.motion.hand)
        other[:, 2:, :4] += 1
        assert not torch.allclose(model.imagine(start, other[:, 1:]), usual, atol=1e-3)


def test_without_the_last_position_it_follows_from_the_action_before(clip):
    frames, conditions = clip
    model = small()
    with torch.no_grad():
        whole = model.observe(frames[:, :2], conditions).motion.hand
        model.hand.integrator.straight.normal_()
        short = model.observe(frames[:, :2], conditions[:, :1]).motion.hand
        moved = conditions[:, 1].clone()
        moved[:, 4:] = conditions[:, 0, 4:] + conditions[:, 0, :4] @ model.hand.integrator.straight.T
        expected = model.observe(frames[:, :2], torch.stack([conditions[:, 0], moved], 1)).motion.hand
    torch.testing.assert_close(short, expected)
    assert not torch.allclose(short, whole)
    with pytest.raises(ValueError, match="conditions: found none, expected at least 1 of width 7"):
        model.observe(frames[:, :1], None)


def test_some_drawn_frames_are_those_of_all(clip):
    frames, conditions = clip
    model = small()
    noise = torch.randn(2, 6, *model.latent_shape)
    drawn = torch.tensor([[4, 0], [2, 3]])
    with torch.no_grad():
        whole = model(frames, conditions, 2, noise=noise)
        some = model(frames, conditions, 2, False, noise, drawn)
    expected = whole.frames[torch.arange(2)[:, None], drawn]
    torch.testing.assert_close(some.frames, expected, atol=1e-5, rtol=0)
    assert torch.equal(some.posterior.mu, whole.posterior.mu)


def test_clips_that_are_not_drawn_are_predicted_and_teach_the_encoder_nothing(clip):
    frames, conditions = clip
    model = small()
    noise = -torch.ones(2, 6, *model.latent_shape)  # all by the prior
    whole = model(frames, conditions, 2, noise=noise, drawn=torch.tensor([[4], [2]]))
    one = model(frames, conditions, 2, noise=noise, drawn=torch.tensor([[4]]))
    torch.testing.assert_close(one.frames, whole.frames[:1], atol=2e-4, rtol=0)
    assert one.posterior.mu.shape == (1, 6, 3, 2) and len(one.tracks.layers.last) == 1
    torch.testing.assert_close(one.tracks.centres, whole.tracks.centres, atol=1e-3, rtol=0)
    torch.testing.assert_close(one.tracks.slips, whole.tracks.slips, atol=1e-3, rtol=0)
    one.tracks.centres[1].sum().backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in model.encoder.parameters())
    assert model.motion.crop[0].weight.grad.any() and model.motion.prior[0].weight.grad.any()
    noise = -noise  # all by the posterior, but for what is not drawn
    other = model(frames, conditions, 2, noise=noise, drawn=torch.tensor([[4]]))
    torch.testing.assert_close(other.tracks.centres[1], whole.tracks.centres[1], atol=1e-3, rtol=0)
    assert not torch.allclose(other.tracks.centres[0], whole.tracks.centres[0], atol=1e-3)


def test_an_object_is_described_by_its_surroundings_wherever_it_is():
    model = small()
    alone, other = square_scene([(20.0, 20.0)]), square_scene([(40.0, 36.0)])
    beside = square_scene([(20.0, 20.0), (29.0, 20.0)])
    codes = []
    for layers, place in ((alone, (20.0, 20.0)), (other, (40.0, 36.0)), (beside, (20.0, 20.0))):
        objects = objects_at(place)
        objects = replace(objects, features=objects.features[..., :-CODE])
        with torch.no_grad():
            codes.append(model.motion.describe(objects, layers, layers.last).features)
            moved = model.motion.describe(objects, layers, layers.last.roll(1, 3)).features
        assert codes[-1].shape == (1, 1, DESCRIPTION) and not codes[-1][..., :-CODE].any()
        assert not torch.allclose(codes[-1], moved, atol=1e-3)  # what has moved between the two frames
    torch.testing.assert_close(codes[0], codes[1], atol=1e-4, rtol=0)
    assert not torch.allclose(codes[0], codes[2], atol=1e-3)


def test_what_an_object_hears_of_the_others_follows_from_where_they_are_beside_it():
    """An absent one and one far off are not heard, and the numbers of objects mean nothing."""
    model = small()
    hand = bare_hand()

    def heard(*rows, present=(1, 1, 1)):
        objects = replace(objects_at(*rows), present=torch.tensor([present], dtype=torch.float32))
        motion = model.motion.begin(objects, torch.zeros(1, 7), torch.zeros(1, 3))
        with torch.no_grad():
            index, _, seen = model.motion.see(motion, objects, hand, torch.zeros(1, 7))
        return seen[0, index[0].tolist().index(0)]

    here, near, far = (20.0, 20.0), (26.0, 22.0), (60.0, 60.0)
    both = heard(here, near, far)
    torch.testing.assert_close(both, heard(here, far, near))
    torch.testing.assert_close(both, heard(here, near, far, present=(1, 1, 0)), atol=1e-3, rtol=0)
    assert not torch.allclose(both, heard(here, near, far, present=(1, 0, 1)), atol=1e-3)
    assert not torch.allclose(both, heard(here, (22.0, 26.0), far), atol=1e-3)


def test_about_half_of_the_clips_are_trained_with_the_priors_means_and_their_own_hand(clip):
    """The others are trained with the posterior's latents and the hand where it was recorded."""
    frames, conditions = clip
    model = small()
    with torch.no_grad():
        model.motion.slips[-1].weight.zero_()
        model.motion.slips[-1].bias.fill_(1)
    by_prior = torch.zeros(2, 6, *model.latent_shape)
    by_prior[0] += 1  # its first number is above the median
    by_prior[1] -= 1
    with torch.no_grad():
        rollout = model(frames, conditions, 2, noise=by_prior)
        start = model.observe(frames[:, :2], conditions)
        path = model.track(start, conditions[:, 1:], model.zero_noise(conditions[:, 1:]))
    torch.testing.assert_close(rollout.tracks.centres[1], path.centres[1, :5], atol=1e-4, rtol=0)
    assert not torch.allclose(rollout.tracks.centres[0], path.centres[0, :5], atol=1e-2)
    own = torch.stack([motion.hand[:, :3] for motion in path.motions[:5]], 1)
    reached = rollout.tracks.slips / model.hand.reach + conditions[:, 2:7, 4:]
    torch.testing.assert_close(reached[1], own[1], atol=1e-3, rtol=0)
    # actions that are not fitted yet lead nowhere: each step begins where the hand was recorded and ends with
    # a slip of SLIP tanh(1 / SLIP)
    slips = reached[0] - conditions[0, 1:6, 4:]
    torch.testing.assert_close(slips, torch.full_like(slips, 4 * math.tanh(1 / 4)), atol=1e-3, rtol=0)


def test_a_step_moves_what_is_near_the_fingers_or_rolls():
    model = small(slots=8)
    hand = bare_hand()  # its points are at (31.5, 31.5), before the step and after it
    rows = [(31.5, 20.0), (31.5, 40.0), (10.0, 31.5), (31.5, 50.0), (60.0, 31.5), (31.5, 5.0), (31.5, 30.0)]
    objects = objects_at(*rows, (31.0, 31.0))
    objects = replace(objects, present=torch.tensor([[1.0] * 7 + [0.0]]))
    motion = model.motion.begin(objects, torch.zeros(1, 7), torch.zeros(1, 3))
    index = model.motion.see(motion, objects, hand, torch.zeros(1, 7))[0]
    assert index.tolist() == [[6, 1, 0, 3]]
    moves = torch.zeros(1, 8, 2)
    moves[0, 4, 1] = 5.0  # 28.5 away, and 20 nearer by its last move
    motion = replace(motion, moves=moves)
    index = model.motion.see(motion, objects, hand, torch.zeros(1, 7))[0]
    assert index.tolist() == [[6, 1, 4, 0]]
    moved = replace(motion.of(index), centres=motion.of(index).centres + 1, moves=torch.ones(1, 4, 2))
    after = motion.after(index, moved)
    chosen = torch.tensor([1, 1, 0, 0, 1, 0, 1, 0])[None, :, None]
    assert torch.equal(after.centres, objects.centres + chosen)
    assert torch.equal(after.moves, chosen.expand(-1, -1, 2).float())


def test_the_hand_is_kept_from_where_its_actions_lead_and_starts_from_there():
    model = small()
    objects = objects_at((12.0, 20.0))
    hand = torch.randn(1, 7)
    with torch.no_grad():
        model.hand.integrator.straight[:, 0] = 1.0  # an action moves the hand as far, to all sides
        head = model.motion.slips[-1]
        head.weight.zero_()
        head.bias.copy_(torch.tensor([-2.0, 0.0, 0.8]))
        motion = model.motion.begin(objects, hand, torch.zeros(1, 3))
        after, slips = model.motion.move_hand(motion, objects, model.hand, torch.tensor([[0.4, 0, 0, 0]]))
    expected = 4 * torch.tensor([-math.tanh(0.5), 0.0, math.tanh(0.2)])
    torch.testing.assert_close(slips[0], expected)
    torch.testing.assert_close(after[0, :3], hand[0, :3] + 0.4 + expected)


def test_gradients_reach_the_actions(clip):
    frames, conditions = clip
    model = freeze(small(), "float32")
    with torch.no_grad():
        model.hand.integrator.straight.normal_(0, 0.1)
        start = model.observe(frames[:, :2], conditions)
    future = conditions[:, 1:].clone().requires_grad_()
    model.imagine(start, future)[..., 20:40].mean().backward()
    assert (future.grad[:, 0, :4] != 0).any() and not future.grad[..., 4:].any()


def test_frozen_in_bfloat16_places_stay_exact(clip):
    frames, conditions = clip
    model = small()
    with torch.no_grad():
        model.hand.integrator.straight.normal_(0, 0.1)
        exact = freeze(model, "float32")
        half = freeze(model, "bfloat16")
        start = exact.observe(frames[:, :2], conditions)
        rounded = half.observe(frames[:, :2], conditions)
        assert torch.equal(start.motion.hand, rounded.motion.hand)
        assert half.encoder.stem.weight.dtype == torch.bfloat16
        points = half.hand.project(rounded.motion.hand)
        assert points.dtype == torch.float32 and torch.equal(points, exact.hand.project(start.motion.hand))
        noise = half.zero_noise(conditions[:, 1:])
        path = half.track(rounded, conditions[:, 1:], noise)
        assert (path.centres - exact.track(start, conditions[:, 1:], noise).centres).abs().mean() < 0.2
        difference = half.imagine(rounded, conditions[:, 1:]) - exact.imagine(start, conditions[:, 1:])
    assert difference.abs().mean() < 0.03


def test_latents_of_observed_frames_cost_nothing(clip):
    frames, conditions = clip
    rollout = small()(frames, conditions, 3)
    for part in (rollout.posterior, rollout.prior):
        assert isinstance(part, Gaussian)
        assert not part.mu[:, :2].any() and not part.logvar[:, :2].any()
        assert not (part.mu * (rollout.tracks.present[:, None, :, None] == 0)).any()
