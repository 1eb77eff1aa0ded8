"""The environment: scenes of the data set, tasks, states, and what Gymnasium's own checks say."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from data_tools.simulators.environment import PushEnv  # noqa: E402
from data_tools.simulators.policies import PushThrough  # noqa: E402
from data_tools.simulators.push import simulate_sequence  # noqa: E402
from data_tools.simulators.pusher import REACH  # noqa: E402
from data_tools.simulators.tasks import SUCCESS, TASKS  # noqa: E402
from data_tools.truth import FIRST_OBJECT  # noqa: E402
from tests.support.places import ROOT  # noqa: E402

ID = "data_tools.simulators.registration:svg_push/Push-v0"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("obs_type", ["pixels", "pixels_state", "state"])
def test_gymnasium_finds_no_fault(task, obs_type):
    """Its one warning is of `lift`, which counts from 0 to 3 as in the data; rescaled there is none."""
    env = gymnasium.make(ID, task=task, obs_type=obs_type, render_mode="rgb_array").unwrapped
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_env(env)
    assert ["normalized space" in str(warning.message) for warning in told] == [True]
    low, high = env.action_space.low, env.action_space.high
    np.testing.assert_array_equal(low, np.float32([-0.05, -0.05, 0, 0]))
    np.testing.assert_array_equal(high, np.float32([0.05, 0.05, 3, 1]))
    assert len(env.action_names) == len(env.action_units) == len(low)


def test_scenes_are_those_of_the_data_set():
    env = PushEnv(obs_type="pixels", scenes=3, image_width=32)
    for number in (0, 5):
        sequence = simulate_sequence(3, number, 6, 32)
        frames, actions = sequence.frames, sequence.actions
        observation, info = env.reset(seed=number)
        np.testing.assert_array_equal(observation, frames[0])
        for time in range(5):
            np.testing.assert_array_equal(info["hand"].astype(np.float32), sequence.positions[time])
            observation, _, _, _, info = env.step(actions[time])
            np.testing.assert_array_equal(observation, frames[time + 1])


def test_seeds_deal_the_same_scene_and_task_and_later_resets_others():
    first, second = PushEnv(obs_type="state"), PushEnv(obs_type="state")
    for _ in range(2):
        np.testing.assert_array_equal(first.reset(seed=4)[0], second.reset(seed=4)[0])
        np.testing.assert_array_equal(first.goal.places, second.goal.places)
        assert first.reset()[0].tolist() == second.reset()[0].tolist()
        assert first.sequence == second.sequence != 4


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_tasks_that_are_dealt_are_not_solved_and_lie_on_the_table(task):
    env = PushEnv(task=task, obs_type="state")
    for seed in range(60):
        _, info = env.reset(seed=seed)
        assert not info["success"]
        assert (np.abs(info["goal"]) <= [0.34, 0.25]).all()
        if task == "reach":
            assert info["targets"].tolist() == [-1]
            start = info["hand"][:2]
            assert info["distances"] == pytest.approx(np.linalg.norm(info["goal"][0] - start))
        else:
            assert len(set(info["targets"])) == len(info["targets"]) == (1 if task == "push" else 2)
            for number, place, distance in zip(info["targets"], info["goal"], info["distances"], strict=True):
                assert distance == pytest.approx(np.linalg.norm(place - info["objects"][number, :2]))
                assert distance > 0.06 - 1e-9


def test_success_ends_the_episode_and_the_reward_is_minus_the_distance():
    env = PushEnv(task="reach", obs_type="state")
    _, info = env.reset(seed=0, options={"hand": [0.0, 0.0], "goal": [0.06, 0.0]})
    _, reward, done, cut, info = env.step(np.array([0.02, 0, 3, 0]))
    assert (done, cut) == (False, False)
    assert reward == pytest.approx(-np.linalg.norm(info["hand"][:2] - [0.06, 0.0]))
    _, reward, done, _, info = env.step(np.array([0.035, 0, 3, 0]))
    assert done and info["success"] and -reward < SUCCESS["reach"]


def test_an_object_to_a_place_by_options():
    env = PushEnv(obs_type="pixels_state")
    env.reset(seed=1)
    start = env.simulator.object_positions[2, :2]
    goal = np.clip(start + 0.05, -0.2, 0.2)
    _, info = env.reset(seed=1, options={"task": "push", "object": 2, "goal": goal})
    assert info["targets"].tolist() == [2]
    np.testing.assert_array_equal(info["goal"], [goal])
    values = dict(zip(env.state_names, env._state(), strict=True))
    assert values["object2_goal_dx"] == pytest.approx(goal[0] - start[0], abs=1e-6)
    assert values["object2_x"] == pytest.approx(start[0], abs=1e-6)
    assert values["object2_present"] == 1 and values["object7_present"] == (info["count"] == 8)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"task": "fly"}, "task: found 'fly', expected one of 'reach', 'push', 'push_many'"),
        ({"hand": [9, 0]}, "hand: found"),
        ({"object": 44, "goal": [0, 0]}, "object: found 44"),
        ({"object": [0, 1], "goal": [0, 0]}, "goal: found 1 places for 2 objects"),
        ({"goal": [[np.nan, 0]]}, "goal: found"),
        ({"light": 1}, "options: found light"),
    ],
)
def test_options_that_cannot_be(options, expected):
    with pytest.raises(ValueError, match=expected.replace("[", r"\[")):
        PushEnv(obs_type="state").reset(seed=0, options=options)


def test_a_start_that_is_solved_is_refused():
    env = PushEnv(task="reach", obs_type="state")
    with pytest.raises(ValueError, match="solved at the start"):
        env.reset(seed=0, options={"hand": [0.1, 0.1], "goal": [0.11, 0.1]})


def test_saved_states_come_back_bit_for_bit():
    env = PushEnv(obs_type="pixels_state")
    env.reset(seed=2)
    env.action_space.seed(0)
    states, pictures = [], []
    for _ in range(25):
        env.step(env.action_space.sample())
        states.append(env.save())
        pictures.append(env.render())
    for number in np.random.default_rng(0).permutation(25):
        env.restore(states[number])
        np.testing.assert_array_equal(env.save(), states[number])
        np.testing.assert_array_equal(env.render(), pictures[number])


def test_a_pickled_environment_goes_on_as_the_original():
    env = PushEnv(obs_type="pixels_state")
    env.reset(seed=2)
    env.action_space.seed(0)
    for _ in range(3):
        env.step(env.action_space.sample())
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(3):
        action = env.action_space.sample()
        one, other = env.step(action), copy.step(action)
        np.testing.assert_array_equal(one[0]["pixels"], other[0]["pixels"])
        np.testing.assert_array_equal(one[0]["state"], other[0]["state"])
        assert one[1:4] == other[1:4]
    assert env.reset()[0]["state"].tolist() == copy.reset()[0]["state"].tolist()


def test_segments_and_pixels_of_objects():
    env = PushEnv()
    _, info = env.reset(seed=0)
    labels = env.segment()
    for number in range(info["count"]):
        centre = info["objects"][number]
        right, down = env.project(centre).round().astype(int)
        if 0 <= right < 64 and 0 <= down < 64:
            assert labels[down, right] in (FIRST_OBJECT + number, 1)  # the arm may hide it
    pixels = np.array([[10.0, 30.0], [40.0, 50.0]])
    np.testing.assert_allclose(env.project(env.unproject(pixels, 0.02)), pixels)


def test_the_goal_as_a_picture():
    env = PushEnv(obs_type="pixels")
    before, info = env.reset(seed=0)
    state = env.save()
    picture = env.goal_image()
    np.testing.assert_array_equal(env.save(), state)
    np.testing.assert_array_equal(env.render(), before)
    number, place = info["targets"][0], info["goal"][0]
    env.simulator.place_object(number, place)
    env.simulator.place_hand(np.array([-REACH[0], REACH[1]]))
    moved = env.render()
    right, down = env.project([*place, 0.02]).round().astype(int)
    window = slice(max(down - 1, 0), down + 2), slice(max(right - 1, 0), right + 2)
    assert np.abs(picture[window].astype(int) - moved[window]).mean() < 30
    assert np.abs(picture.astype(int) - before).max() > 60


@pytest.mark.parametrize("mode", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_vectorised(mode):
    envs = gymnasium.make_vec(ID, num_envs=2, vectorization_mode=mode, obs_type="pixels_state")
    try:
        observations, info = envs.reset(seed=[0, 1])
        assert observations["pixels"].shape == (2, 64, 64, 3)
        assert info["objects"].shape == (2, 8, 3)
        alone = PushEnv()
        np.testing.assert_array_equal(observations["pixels"][1], alone.reset(seed=1)[0]["pixels"])
        action = np.array([0.02, 0.01, 0, 0], np.float32)
        observations, rewards, *_ = envs.step(np.stack([action, action]))
        expected = alone.step(action)
        np.testing.assert_array_equal(observations["pixels"][1], expected[0]["pixels"])
        assert rewards[1] == expected[1]
    finally:
        envs.close()


@pytest.mark.parametrize(("task", "least"), [("reach", 8), ("push", 6)])
def test_going_behind_and_pushing_through_solves_tasks(task, least):
    solved = 0
    for seed in range(8):
        env = PushEnv(task=task, obs_type="state")
        env.reset(seed=seed)
        policy = PushThrough(env)
        solved += any(env.step(policy())[2] for _ in range(50))
    assert solved >= least


def test_without_gymnasium():
    code = """
import sys
sys.modules["gymnasium"] = None
import numpy as np
from data_tools.simulators.environment import PushEnv
env = PushEnv(obs_type="state")
one, _ = env.reset(seed=1)
two, *_ = env.step(np.array([0.01, 0, 0, 0]))
env.reset(); env.reset(seed=1)
print(np.array_equal(env.step(np.array([0.01, 0, 0, 0]))[0], two), hasattr(env, "action_space"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "True False\n"


def test_the_goal_of_reaching_as_a_picture():
    env = PushEnv(task="reach", obs_type="pixels")
    before, info = env.reset(seed=0)
    picture = env.goal_image()
    np.testing.assert_array_equal(env.render(), before)
    env.simulator.place_hand(info["goal"][0])
    np.testing.assert_array_equal(env.render(), picture)
