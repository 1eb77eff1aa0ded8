"""Recording of Gymnasium environments."""

# ruff: noqa: E402

import sys

import numpy as np
import pytest

pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")


from data_tools import __main__ as svg_data
from data_tools import layout, tables
from data_tools.errors import InputError
from data_tools.simulators import record, registration
from data_tools.simulators.environment import PushEnv
from data_tools.simulators.record import Recording, record_episode
from tests.support.recordings import contents

PUSH = "svg_push/Push-v0"
STRIPES = "tests.data_tools.simulators.test_record:svg_test/Stripes-v0"


class Stripes(gymnasium.Env):
    """A picture whose brightness is the sum of all actions; it ends when that is 90 or more."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 as Gymnasium has it
    action_space = gymnasium.spaces.Box(0, 30, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(0, 255, (1,), np.float32)

    def __init__(self, render_mode: str = "rgb_array", picture: type = np.uint8):
        self.render_mode = render_mode
        self.total = 0.0
        self.picture = picture

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.total = float(self.np_random.integers(5))
        return np.array([self.total], np.float32), {}

    def step(self, action):
        self.total += float(action[0])
        return np.array([self.total], np.float32), 0.0, self.total >= 90, False, {}

    def render(self):
        return np.full((20, 30, 3), self.total, self.picture)


class Broken(Stripes):
    def step(self, action):
        raise RuntimeError("the robot\nis away")


class Worn(Stripes):
    """Its picture is as bright as it has been reset often."""

    resets = 0

    def reset(self, *, seed=None, options=None):
        observation = super().reset(seed=seed)
        self.resets += 1
        self.total = float(self.resets)
        return observation


class Seedless(Stripes):
    """It ignores the seed of a reset, and draws from its generator all the same."""

    def reset(self, *, seed=None, options=None):
        observation = super().reset()
        self.total = float(self.np_random.integers(80))
        return observation


def forty(env):
    """A policy: always 40, which is more than the space allows, as some policies give."""
    return lambda observation: np.array([40.0])


@pytest.fixture(autouse=True, scope="module")
def registered():
    assert PUSH in registration.gymnasium.registry
    if "svg_test/Stripes-v0" not in gymnasium.registry:
        for kind in (Stripes, Broken, Worn, Seedless):
            place = f"{__name__}:{kind.__name__}"
            gymnasium.register(f"svg_test/{kind.__name__}-v0", entry_point=place, disable_env_checker=True)


def test_pictures_actions_and_states_belong_together():
    recording = Recording(STRIPES, state_key=".", frames=12, image_width=8)
    frames, actions, states = record_episode(recording, 0)
    assert frames.shape == (len(frames), 8, 8, 3) and actions.shape == states.shape == (len(frames), 1)
    np.testing.assert_array_equal(frames[:, 0, 0, 0], states[:, 0].astype(np.uint8))
    np.testing.assert_allclose(np.diff(states[:, 0]), actions[:-1, 0], rtol=1e-5)
    assert (states[:-1] < 90).all() and (states[-1] >= 90 or len(frames) == 12)
    assert len(set(actions[:, 0].tolist())) == len(actions)


def test_actions_are_held_and_episodes_depend_on_seed_and_number_alone():
    recording = Recording(STRIPES, hold=2, image_width=8)
    one, other = record_episode(recording, 3), record_episode(recording, 3)
    np.testing.assert_array_equal(one[1], other[1])
    assert one[1][0] == one[1][1] != one[1][2]
    assert not np.array_equal(one[1][:2], record_episode(recording, 4)[1][:2])
    assert one[2] is None


@pytest.mark.parametrize("kind", ["Worn", "Seedless"])
def test_an_episode_does_not_depend_on_those_before(kind):
    recording = Recording(f"svg_test/{kind}-v0", frames=4, image_width=8)
    alone = record_episode(recording, 7)
    record_episode(recording, 3)
    after = record_episode(recording, 7)
    np.testing.assert_array_equal(alone[0], after[0])
    firsts = [record_episode(recording, number)[0][0, 0, 0, 0] for number in range(5)]
    assert firsts == [1] * 5 if kind == "Worn" else len(set(firsts)) > 1


def test_our_own_environment_with_a_policy(tmp_path):
    recording = Recording(
        PUSH,
        '{"obs_type": "pixels_state", "task": "reach"}',
        "data_tools.simulators.policies:PushThrough",
        state_key="state",
        frames=20,
    )
    frames, actions, states = record_episode(recording, 0)
    seed = int(np.random.SeedSequence([0, 0]).generate_state(1)[0])
    env = PushEnv(task="reach")
    observation, _ = env.reset(seed=seed)
    np.testing.assert_array_equal(frames[0], observation["pixels"])
    observation, *_ = env.step(actions[0])
    np.testing.assert_array_equal(frames[1], observation["pixels"])
    np.testing.assert_array_equal(states[1], observation["state"])
    assert len(frames) < 20  # it got there


@pytest.mark.slow
def test_a_data_set_by_command_and_again(tmp_path, capsys):
    root = tmp_path / "data"
    words = ["record", str(root), "--env", STRIPES, "--state_key", ".", "--frames", "5", "--workers", "1"]
    assert svg_data.main([*words, "--episodes", "4"]) == 0
    assert "4 sequences written, 0 were there already" in capsys.readouterr().out
    before = contents(root)
    info, index = layout.read_info(root), layout.read_index(root)
    assert (info.name, info.source) == ("svg_test/Stripes-v0", "Gymnasium, svg_test/Stripes-v0")
    assert index["split"].tolist() == ["train", "train", "validate", "test"]
    assert (index["action_dim"] == 1).all() and (index["position_dim"] == 1).all()
    table = tables.read_conditions(root / "train" / "00000", int(index["frames"].iat[0]))
    np.testing.assert_allclose(np.diff(table["positions"][:, 0]), table["actions"][:-1, 0], rtol=1e-5)
    assert svg_data.main([*words, "--episodes", "6"]) == 0
    assert "2 sequences written, 4 were there already" in capsys.readouterr().out
    after = contents(root)
    assert {name: after[name] for name in before if "0000" in name} == {
        name: data for name, data in before.items() if "0000" in name
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"env": "no_such/Env-v0"}, "--env: no_such/Env-v0: cannot be made"),
        ({"env": "no_such_module:Env-v0"}, "--env: no_such_module: cannot be imported"),
        ({"env": "CartPole-v1"}, "expected a Box of numbers|cannot be made"),
        (
            {"policy": "tests.data_tools.simulators.test_record:nothing"},
            "--policy: .*: cannot be used",
        ),
        (
            {"state_key": "pose"},
            "--state_key: found pose, expected one of the .* an array: give `.`",
        ),
        ({"state_key": ".", "state_columns": (0, 1)}, "--state_columns: found 1, expected 0 to 0"),
        ({"state_columns": (0,)}, "--state_columns: expected --state_key beside it"),
        ({"env_args": '{"picture": "f4"}'}, r"render\(\) gave \(20, 30, 3\), expected uint8"),
        ({"env": "svg_test/Broken-v0"}, "--env: svg_test/Broken-v0: RuntimeError: the robot"),
        ({"frames": 1}, "--frames: found 1, expected 2 or more"),
        ({"hold": 0}, "--hold: found 0, expected 1 or more"),
    ],
)
def test_mistakes_are_one_line(tmp_path, changes, expected):
    values = {"env": STRIPES, "frames": 4} | changes
    with pytest.raises(InputError, match=expected) as caught:
        record.record(tmp_path / "data", Recording(**values), 2, workers=1)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_policy_in_a_file_of_the_current_folder(tmp_path, monkeypatch, capsys):
    """As a user types it: `svg-data` alone does not look for modules in the current folder."""
    text = "def lift(env):\n    return lambda observation: [0.01, 0, 2, 0]\n"
    (tmp_path / "my_policy.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    words = [
        "record",
        "data",
        "--env",
        PUSH,
        "--policy",
        "my_policy:lift",
        "--episodes",
        "3",
        "--frames",
        "3",
    ]
    assert svg_data.main([*words, "--splits", "1", "0", "0", "--workers", "2"]) == 0
    assert f"{PUSH}: my_policy:lift" in capsys.readouterr().out
    table = tables.read_conditions(tmp_path / "data" / "train" / "00002", 3)
    np.testing.assert_allclose(table["actions"], [[0.01, 0, 2, 0]] * 3, rtol=1e-6)


def test_columns_of_the_state():
    arguments = '{"obs_type": "pixels_state"}'
    every = record_episode(Recording(PUSH, arguments, state_key="state", frames=3), 0)[2]
    chosen = record_episode(Recording(PUSH, arguments, state_key="state", state_columns=(2, 0), frames=3), 0)[
        2
    ]
    np.testing.assert_array_equal(chosen, every[:, [2, 0]])


def test_a_policy_of_ones_own():
    frames, actions, _ = record_episode(
        Recording(STRIPES, policy="tests.data_tools.simulators.test_record:forty", frames=9), 0
    )
    assert actions.tolist() == [[40.0]] * len(frames) and len(frames) == 4  # 40, 80, 120: over
