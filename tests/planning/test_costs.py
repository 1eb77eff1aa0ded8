"""Costs by hand, on imaginations that are given as numbers."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import ndimage

from data_tools.errors import InputError
from svg.planning.costs import Effort, GoalImage, HandAt, HandNear, ThingsAt, Total, cautious, of
from svg.planning.world import Imagined


class Fixed(Imagined):
    """What is said here: one scene, two plans of four frames."""

    def __init__(self, hand=None, points=None, frames=None):
        self.plans = torch.tensor([[0.1, -0.2, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0]])[None, :, None].expand(
            1, 2, 4, 4
        )
        self.hand = torch.zeros(1, 2, 4, 3) if hand is None else hand
        self.points = points
        self._frames = frames

    def frames(self, times: Sequence[int]) -> torch.Tensor:
        return self._frames[:, :, list(times)]


@pytest.fixture
def pictures():
    return torch.rand(1, 2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_the_goal_image_of_vp2_is_a_sum_over_everything(pictures):
    goal = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    errors = (pictures[0].double().numpy() - goal[0].double().numpy() / 255) ** 2
    torch.testing.assert_close(
        GoalImage(goal)(Fixed(frames=pictures))[0], torch.from_numpy(errors.sum((1, 2, 3, 4))).float()
    )


def test_the_last_frames_blurred(pictures):
    cost = GoalImage(torch.zeros(1, 3, 8, 8), (-1,), blur=1)(Fixed(frames=pictures))
    last = pictures[0, :, -1].double().numpy()
    for _ in range(2):
        last = ndimage.uniform_filter(last, (0, 0, 3, 3), mode="constant")
    np.testing.assert_allclose(cost[0], (last**2).sum((1, 2, 3)), rtol=1e-5)


def test_things_at_their_goals():
    points = torch.zeros(1, 2, 4, 2, 2)
    points[0, 0, :, 0, 0] = torch.tensor(
        [4.0, 3.0, 2.0, 0.0]
    )  # the first thing comes nearer, the second stays
    points[0, :, :, 1] = torch.tensor([3.0, 4.0])
    goals = torch.zeros(1, 2, 2)
    cost = ThingsAt(goals, last=2, share=0.6)(Fixed(points=points))
    first = 0.6 * (2.0 + 0.0) / 2 + 0.4 * 9.0 / 4
    torch.testing.assert_close(cost[0, 0], torch.tensor((first + 5) / 2))
    torch.testing.assert_close(cost[0, 1], torch.tensor(2.5))
    twice = ThingsAt(goals, lambda pixels: 2 * pixels, last=2, share=0.6)(Fixed(points=points))
    torch.testing.assert_close(twice, 2 * cost)


def test_things_want_marks():
    with pytest.raises(InputError, match="marks: found none"):
        ThingsAt(torch.zeros(1, 1, 2))(Fixed())


def test_the_hand():
    hand = torch.zeros(1, 2, 4, 3)
    hand[0, 0, :, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    things = torch.tensor([[[2.0, 0.5], [0.0, 9.0]]])
    near = HandNear(things)(Fixed(hand))
    torch.testing.assert_close(near[0], torch.tensor([0.5, (4 + 0.25) ** 0.5]))
    torch.testing.assert_close(
        HandNear(things, torch.tensor([[False, True]]))(Fixed(hand))[0], torch.tensor([9.0, 9.0])
    )
    at = HandAt(torch.tensor([[3.0, 0.0]]), last=1, share=0.5)(Fixed(hand))
    torch.testing.assert_close(at[0], torch.tensor([0.5 * 0 + 0.5 * 1.5, 3.0]))


def test_sums():
    effort = Effort()
    torch.testing.assert_close(effort(Fixed())[0], torch.tensor([1.2, 0.0]))
    total = Total([(2.0, effort), (1.0, lambda imagined: imagined.plans[..., 3].sum(2))])
    torch.testing.assert_close(total(Fixed())[0], torch.tensor([2.4 + 4, 0.0]))
    even = Total([(2.0, effort)], evenly=True)(Fixed())  # quartiles of 0 and 1.2 are 0.3 and 0.9
    torch.testing.assert_close(even[0], torch.tensor([4.0, 0.0]))


def test_plans_that_models_disagree_about_cost_more():
    first, second = (of(lambda plans, factor=factor: plans * factor, lambda x: x.sum(2)) for factor in (1, 3))
    plans = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    cost = cautious([first, second], caution=2.0)(plans)
    torch.testing.assert_close(cost, torch.tensor([[2.0 + 2 * 1.0, 0.0]]))
