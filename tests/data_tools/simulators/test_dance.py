"""The simulated person: bytes by the seed, a skeleton on the figure, a light in each sequence."""

import shutil

import numpy as np
import pytest

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.conversion import Report
from data_tools.errors import InputError
from data_tools.simulators import dance
from svg.sequences import SequenceDataset
from tests.support.recordings import sequence_files

pytest.importorskip("mujoco")

from data_tools.simulators import dancer
from data_tools.simulators.dancer import CAMERA, JOINTS, SPACE, Dancer, choreograph, project, random_light
from data_tools.simulators.raycast import Camera, Renderer, camera_rays

SMALL = {"image_width": 32, "frames": 8}


def standing(**angles: float) -> np.ndarray:
    return dancer._posture(**angles)


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers_or_interruptions(tmp_path):
    dance.simulate(tmp_path / "one", 4, workers=1, **SMALL)
    assert dance.simulate(tmp_path / "two", 2, workers=2, **SMALL) == Report(written=2, present=0)
    shutil.rmtree(
        tmp_path / "two" / "train" / "train_img"
    )  # frames are written last: what lacks them is done again
    assert dance.simulate(tmp_path / "two", 4, workers=2, **SMALL) == Report(written=3, present=1)
    assert sequence_files(tmp_path / "one") == sequence_files(tmp_path / "two")
    dance.simulate(tmp_path / "other", 4, seed=1, workers=1, **SMALL)
    assert sequence_files(tmp_path / "one") != sequence_files(tmp_path / "other")
    with pytest.raises(InputError, match="found frames 8, expected 9 as now asked for"):
        dance.simulate(tmp_path / "one", 4, workers=1, image_width=32, frames=9)


def test_the_command_writes_a_data_set(tmp_path, capsys):
    root = tmp_path / "dance"
    assert (
        svg_data.main(
            [
                "simulate_dance",
                str(root),
                "--sequences",
                "4",
                "--frames",
                "8",
                "--image_width",
                "32",
                "--workers",
                "1",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert (
        "4 sequences simulated" in printed
        and "2 train, 1 validate, 1 test" in printed
        and "16x32x3, with poses" in printed
    )
    frames, skeletons = dance.simulate_sequence(0, 2, 8, 32)  # the third one tests
    dataset = SequenceDataset(root, "test", 8)
    np.testing.assert_array_equal(dataset[0]["frames"], frames)
    np.testing.assert_array_equal(dataset[0]["conditions"][:-1], skeletons[1:])
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 0
    assert layout.read_info(root).source == "simulated person"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image_width", "60"], "--image_width: found 60, expected a multiple of 8"),
        (["--frames", "1"], "--frames: found 1, expected 2 or more"),
        (["--sequences", "0"], "--sequences: found 0"),
        (["--seed", "-1"], "--seed: found -1"),
    ],
)
def test_values_out_of_range(tmp_path, capsys, flags, message):
    assert svg_data.main(["simulate_dance", str(tmp_path / "x"), *flags]) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.splitlines()) == 1


def test_projection_by_hand():
    """From 4 m before the origin at 90 degrees: 1 m up or aside there is a quarter of half the height."""
    camera = Camera(position=(0, -4, 0), target=(0, 0, 0), field_of_view=90)
    points = np.array([(0, 0, 0), (1, 0, 0), (0, 0, 1), (1, 4, -1)], float)
    np.testing.assert_allclose(project(camera, points, 80), [(0, 0), (10, 0), (0, -10), (5, 5)], atol=1e-9)


def test_rays_go_through_what_they_see():
    """A ray through a cell meets points that are projected into its middle, in wide pictures as well."""
    rays = camera_rays(CAMERA, 16, 32)
    assert rays.shape == (16, 32, 3)
    for row, column in ((0, 0), (5, 30), (15, 16)):
        point = np.array(CAMERA.position) + 3.3 * rays[row, column]
        np.testing.assert_allclose(
            project(CAMERA, point[None], 16)[0], (column + 0.5 - 16, row + 0.5 - 8), atol=1e-9
        )
    np.testing.assert_allclose(camera_rays(CAMERA, 16, 16), rays[:, 8:24])


def test_feet_stand_on_the_floor():
    figure = Dancer()
    for angles in (
        {},
        {"left_stride": 1.2, "left_knee": 2.2},
        {"left_spread": 0.5, "right_spread": 0.5},
        {"z": 3.0},
    ):
        figure.take(standing(**angles))
        lowest = min(
            figure.data.site_xpos[place, 2]
            for name, place in figure._places.items()
            if name.endswith(("toe", "ankle", "knee"))
        )
        assert lowest == pytest.approx(0.06)


def test_joints_do_what_they_are_called():
    figure = Dancer()

    def place(name: str, **angles: float) -> np.ndarray:
        figure.take(standing(**angles))
        return figure.data.site_xpos[figure._places[name]] - figure.data.site_xpos[figure._places["pelvis"]]

    rest = {name: place(name) for name in ("left_hand", "right_hand", "left_toe", "head")}
    assert rest["left_hand"][0] > 0 > rest["right_hand"][0]  # who faces us has the left hand on our right
    assert rest["left_toe"][1] < -0.05  # toes point to us
    for side, sign in (("left", 1), ("right", -1)):
        raised = place(f"{side}_hand", **{f"{side}_abduct": np.pi / 2, f"{side}_elbow": 0})
        np.testing.assert_allclose(
            raised, (sign * (0.20 + 0.56), 0, 0.50), atol=0.01
        )  # straight out from the shoulder
        assert place(f"{side}_hand", **{f"{side}_raise": 1.0})[1] < rest[f"{side}_hand"][1] - 0.3
        assert place(f"{side}_toe", **{f"{side}_stride": 0.5})[1] < -0.3
        assert place(f"{side}_toe", **{f"{side}_knee": 1.0})[1] > 0.1
    assert place("head", lean=0.5)[1] < -0.2
    assert place("left_toe", yaw=np.pi / 2)[0] > 0.05  # turned to the right


def test_the_skeleton_lies_on_the_figure():
    """The picture differs from the empty room along the skeleton, and nowhere far from it."""
    generator = np.random.default_rng(4)
    figure = Dancer()
    figure.take(standing(x=20.0))  # out of sight
    light, _ = random_light(generator)
    renderer = Renderer(figure.model, figure.data, figure.surfaces, 128, CAMERA, light, 64)
    empty = renderer.render(figure.data).astype(int)
    for posture in choreograph(generator, 200)[::20]:
        figure.take(posture)
        bones = (figure.skeleton(64, 128) < 200).any(-1)
        changed = np.abs(renderer.render(figure.data).astype(int) - empty).max(-1) > 12
        assert 60 < bones.sum() < 900
        assert changed[bones].mean() > 0.9


def test_choreography_stays_in_the_room_and_moves_smoothly():
    for seed in range(5):
        postures = choreograph(np.random.default_rng(seed), 630)
        assert postures.shape == (630, len(JOINTS))
        assert (np.abs(postures[:, :2]) <= np.array(SPACE) + 1e-9).all()
        steps = np.abs(np.diff(postures, axis=0))
        assert steps[:, 0].max() < 0.12  # metres a frame
        turns = (np.diff(postures[:, JOINTS.index("yaw")]) + np.pi) % (2 * np.pi) - np.pi
        assert max(np.abs(turns).max(), steps[:, 4:].max()) < 0.8  # radians a frame
        assert np.abs(postures[:, 4:]).max() < 3.0
    assert (
        choreograph(np.random.default_rng(0), 50) == choreograph(np.random.default_rng(0), 630)[:50]
    ).all()


def test_each_sequence_has_a_light_of_its_own():
    means = [dance.simulate_sequence(0, number, 2, 32)[0].mean((0, 1, 2)) for number in range(5)]
    assert np.ptp(means, axis=0).min() > 10
