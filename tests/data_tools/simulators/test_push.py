"""The simulator: what is on disk, what an action does, and images against values worked out by hand."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_tools import conversion, folders, layout, png, tables, truth
from data_tools.errors import InputError
from data_tools.simulators import push
from tests.support.recordings import contents, sequence_files

mujoco = pytest.importorskip("mujoco")

from data_tools.simulators import pusher as pushing  # noqa: E402
from data_tools.simulators import raycast  # noqa: E402
from data_tools.simulators.pusher import Pusher, PushingPolicy  # noqa: E402
from data_tools.simulators.raycast import Camera, Light, Renderer, Surfaces  # noqa: E402
from svg.sequences import SequenceDataset  # noqa: E402

SMALL = {"image_width": 16, "frames": 6}


# ------------------------------------------------------------------------------------------------------- disk


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_workers(tmp_path):
    push.simulate(tmp_path / "one", 4, workers=1, **SMALL)
    push.simulate(tmp_path / "two", 4, workers=2, **SMALL)
    assert sequence_files(tmp_path / "one") == sequence_files(tmp_path / "two")
    push.simulate(tmp_path / "other", 4, seed=1, workers=1, **SMALL)
    assert sequence_files(tmp_path / "one") != sequence_files(tmp_path / "other")


def test_what_is_on_disk(tmp_path):
    report = push.simulate(tmp_path, 10, workers=1, **SMALL)
    assert (report.written, report.present) == (10, 0)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*"))
    assert len(names) == 10 and sorted(name.split("/")[1] for name in names) == [
        f"{n:05d}" for n in range(10)
    ]
    assert [len(list((tmp_path / split).iterdir())) for split in layout.SPLITS] == [8, 1, 1]
    folder = tmp_path / names[0]
    sequence = push.simulate_sequence(0, int(folder.name), 6, 16)
    frames, actions, positions = sequence.frames, sequence.actions, sequence.positions
    conditions = tables.read_conditions(folder, 6)
    np.testing.assert_array_equal(conditions["actions"], actions)
    np.testing.assert_array_equal(conditions["positions"], positions)
    assert actions.shape == (6, 4) and positions.shape == (6, 3)
    for path, frame in zip(folders.frame_paths(folder), frames, strict=True):
        np.testing.assert_array_equal(png.read_frame(path, (16, 16, 3)), frame)


def test_shares_are_exact_and_a_longer_list_begins_with_the_shorter_one():
    shares = (0.8, 0.1, 0.1)
    splits = conversion.assign_splits(300, shares)
    assert [splits.count(split) for split in layout.SPLITS] == [240, 30, 30]
    assert conversion.assign_splits(3, shares) == ["train", "validate", "test"] == splits[:3]
    assert conversion.assign_splits(20, (1, 0, 0)) == ["train"] * 20


def test_a_rerun_completes_what_is_missing_and_nothing_else(tmp_path):
    push.simulate(tmp_path, 4, workers=1, **SMALL)
    whole, sequences = contents(tmp_path), sequence_files(tmp_path)
    lost = tmp_path / "train" / "00003"
    half_written = lost.with_name(".00003.12345.svg-part")
    lost.rename(half_written)
    (half_written / "5.png").unlink()
    kept = (tmp_path / "train" / "00000").stat().st_mtime_ns
    report = push.simulate(tmp_path, 4, workers=1, **SMALL)
    assert (report.written, report.present) == (1, 3)
    assert contents(tmp_path) == whole
    assert (tmp_path / "train" / "00000").stat().st_mtime_ns == kept
    report = push.simulate(tmp_path, 6, workers=1, **SMALL)
    assert (report.written, report.present) == (2, 4)
    assert sequences.items() <= sequence_files(tmp_path).items()


@pytest.mark.slow
def test_an_interrupt_leaves_whole_sequences_and_the_same_command_continues(tmp_path):
    root, flags = (
        tmp_path / "cut",
        ["--sequences", "400", "--image_width", "16", "--frames", "10", "--workers", "2"],
    )
    command = [sys.executable, "-m", "data_tools", "simulate", str(root), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not list(root.glob("*/0*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in errors
    done = list(root.glob("*/*"))
    assert 0 < len(done) < 400 and all(len(list(folder.glob("*.png"))) == 10 for folder in done)
    push.simulate(root, 30, image_width=16, frames=10, workers=1)
    push.simulate(tmp_path / "whole", 30, image_width=16, frames=10, workers=1)
    assert sequence_files(tmp_path / "whole").items() <= sequence_files(root).items()


def test_other_settings_in_the_same_root_are_refused_and_nothing_is_lost(tmp_path):
    push.simulate(tmp_path, 1, workers=1, **SMALL)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"simulation.json: found seed 0, expected 1"):
        push.simulate(tmp_path, 1, seed=1, workers=1, **SMALL)
    with pytest.raises(InputError, match="frames"):
        push.simulate(tmp_path, 1, workers=1, image_width=16, frames=7)
    assert contents(tmp_path) == before
    (tmp_path / "simulation.json").unlink()
    with pytest.raises(InputError, match=r"sequences of another origin \(no simulation.json\)"):
        push.simulate(tmp_path, 1, workers=1, **SMALL)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("sequences", 0), ("seed", -1), ("frames", 1), ("workers", 0), ("image_width", 66),
        ("image_width", 8),
        ("splits", (0.5, 0.1, 0.1)), ("splits", (1.2, -0.1, -0.1)), ("splits", (float("nan"), 0.5, 0.5)),
    ],
)  # fmt: skip
def test_bad_values_name_the_flag(tmp_path, flag, value):
    values = {"sequences": 1, "workers": 1, **SMALL, flag: value}
    with pytest.raises(InputError, match=f"--{flag}"):
        push.simulate(tmp_path / "new", **values)
    assert not (tmp_path / "new").exists()


def test_without_mujoco_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(InputError, match=r"pip install 'svg-push\[sim\]'"):
        push.simulate(tmp_path / "new", 1)
    assert not (tmp_path / "new").exists()


def test_help_does_not_wait_for_mujoco():
    code = "import sys, data_tools.simulators.push; sys.exit('mujoco' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_run_simulates_indexes_and_reports(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    push.add_arguments(parser)
    flags = ["--sequences", "3", "--image_width", "16", "--frames", "12", "--workers", "1"]
    push.run(parser.parse_args([str(tmp_path / "data"), *flags]))
    index = layout.read_index(tmp_path / "data")
    assert list(index["split"]) == ["train", "validate", "test"] and set(index["frames"]) == {12}
    assert "of the 3" in capsys.readouterr().out
    assert json.loads((tmp_path / "data" / "simulation.json").read_text())["frames"] == 12


# ---------------------------------------------------------------------------------------------------- physics


def test_actions_move_the_hand_and_nothing_leaves_the_table():
    errors, moved, table = [], 0, np.array(pushing.TABLE)
    for number in range(10):
        generator = np.random.default_rng([5, number])
        pusher = Pusher(generator)
        policy = PushingPolicy(pusher, generator)
        first, actions, farthest = pusher.object_positions, [], 0.0
        assert pushing.OBJECTS[0] <= len(first) <= pushing.OBJECTS[1]
        for _ in range(30):
            before = pusher.position
            actions.append(policy.act())
            pusher.step(actions[-1])
            errors.append(np.abs(pusher.position[:2] - before[:2] - actions[-1][:2]).max())
            assert (np.abs(pusher.position[:2]) < np.array(pushing.REACH) + 0.01).all()
            objects = pusher.object_positions
            assert (
                (np.abs(objects[:, :2]) < table).all()
                and (objects[:, 2] > 0.01).all()
                and (objects[:, 2] < 0.25).all()
            )
            farthest = max(farthest, np.linalg.norm((objects - first)[:, :2], axis=1).max())
        moved += farthest >= push.MOVED
        np.testing.assert_array_equal(actions[0::2], actions[1::2])  # each one is held for two frames
        assert not pusher.data.warning.number.any()
    assert np.median(errors) < 0.002 and np.percentile(errors, 95) < 0.006
    assert moved >= 8


def empty_scene(monkeypatch) -> Pusher:
    monkeypatch.setattr(pushing, "OBJECTS", (1, 1))
    pusher = Pusher(np.random.default_rng(3))
    first = pusher.model.body_jntadr[pusher.model.body("object0").id]
    pusher.data.qpos[pusher.model.jnt_qposadr[first]] = 0.3  # to the right-hand end, out of the way
    pusher.data.qpos[:2] = -0.1, 0
    return pusher


def test_the_four_numbers_of_an_action(monkeypatch):
    pusher = empty_scene(monkeypatch)
    x, y, z = pusher.position
    pusher.step([0.04, -0.03, 0, 0])
    np.testing.assert_allclose(pusher.position, [x + 0.04, y - 0.03, z], atol=0.003)
    pusher.step([0, 0, 3, 0])  # 0.012 + 0.09 m high, at 0.045 m a frame
    assert pusher.position[2] == pytest.approx(0.012 + 0.045, abs=0.003)
    pusher.step([0, 0, 3, 0])
    pusher.step([0, 0, 3, 0])
    assert pusher.position[2] == pytest.approx(0.102, abs=0.003)
    pusher.step([0, 0, 1, 0])
    pusher.step([0, 0, 1, 0])
    assert pusher.position[2] == pytest.approx(0.042, abs=0.003)
    assert pusher.data.qpos[3:5] == pytest.approx([0.030, 0.030], abs=0.002)
    pusher.step([0, 0, 1, 1])
    assert pusher.data.qpos[3:5] == pytest.approx([0.011, 0.011], abs=0.002)
    before = pusher.position
    pusher.step([1, 0, 1, 1])  # brought to the largest step
    assert pusher.position[0] - before[0] == pytest.approx(0.05, abs=0.004)
    with pytest.raises(ValueError, match="4 finite numbers"):
        pusher.step([0, 0, np.nan, 0])


def test_objects_start_apart_at_rest_and_away_from_the_hand():
    for number in range(20):
        pusher = Pusher(np.random.default_rng([9, number]))
        contacts = pusher.data.contact
        table = pusher.model.geom("table").id
        touching = (contacts.geom[:, 0] != table) & (contacts.geom[:, 1] != table) & (contacts.dist < 0)
        assert not touching.any()
        before = pusher.object_positions
        pusher.step(np.zeros(4))
        assert np.abs(pusher.object_positions - before).max() < 0.002


# ------------------------------------------------------------------------------------------------------ image

# A table of albedo (0.8, 0.6, 0.4) and a ball of radius 0.1 m, 0.3 m above it; the light 2 m above the
# origin.
LIGHT = Light(position=(0.0, 0.0, 2.0), diffuse=0.5, ambient=0.25)
ALBEDO, BALL = np.array([0.8, 0.6, 0.4]), np.array([0.1, 0.9, 0.2])


def tiny_renderer(camera: Camera, width: int = 64, ball: str = "0 0 0.3") -> tuple[Renderer, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(
        f"""<mujoco><worldbody><geom type="plane" size="0 0 1" group="0"/>
        <body pos="{ball}"><freejoint/><geom type="sphere" size="0.1" group="1"/></body>
        </worldbody></mujoco>"""
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    colors = np.array([ALBEDO, BALL], np.float32)
    surfaces = Surfaces(colors, colors, np.zeros((2, 3), np.float32), np.zeros(2, np.float32))
    return Renderer(model, data, surfaces, width, camera, LIGHT), data


def pixel_of(point: tuple[float, float, float], camera: Camera, width: int) -> tuple[int, int]:
    """Return row and column by the pinhole formula, for a camera that looks in the yz plane."""
    offset = np.subtract(point, camera.position)
    view = np.subtract(camera.target, camera.position)
    tilt = np.arctan2(-view[2], view[1])
    depth = offset[1] * np.cos(tilt) - offset[2] * np.sin(tilt)
    upward = offset[1] * np.sin(tilt) + offset[2] * np.cos(tilt)
    focal = width / 2 / np.tan(np.radians(camera.field_of_view) / 2)
    return int(width / 2 - focal * upward / depth), int(width / 2 + focal * offset[0] / depth)


def test_lambert_and_shadow_on_a_plane():
    camera = Camera(position=(0, -1.2, 1.0), target=(0, 0, 0), field_of_view=60)
    renderer, data = tiny_renderer(camera, 128)
    image = renderer.render(data)
    # 0.5 m to the side: l has length sqrt(4.25), n . l = 2 / sqrt(4.25), and the light is weaker by 4 / 4.25.
    lit = ALBEDO * (0.25 + 0.5 * 2 / np.sqrt(4.25) * 4 / 4.25)
    np.testing.assert_allclose(image[pixel_of((0.5, 0, 0), camera, 128)], 255 * lit, atol=1.5)
    # The ball's shadow: rays touching it leave the light at asin(0.1 / 1.7) from the vertical and land 0.1179
    # m out.
    edge = 2 * np.tan(np.arcsin(0.1 / 1.7))
    np.testing.assert_allclose(
        image[pixel_of((edge - 0.02, 0, 0), camera, 128)], 255 * ALBEDO * 0.25, atol=1.5
    )
    assert image[pixel_of((edge + 0.02, 0, 0), camera, 128)][0] > 255 * 0.8 * 0.7


def test_lambert_on_a_ball():
    camera = Camera(position=(0, 0, 1.3), target=(0, 1e-6, 0), field_of_view=20)
    renderer, data = tiny_renderer(camera)
    # Its top is 1.6 m below the light and faces it: 4 / 1.6^2 of the strength at the origin.
    np.testing.assert_allclose(
        renderer.render(data)[32, 32], 255 * BALL * np.minimum(0.25 + 0.5 * 4 / 1.6**2, 1 / BALL), atol=2
    )


def test_silhouette_of_a_ball():
    camera = Camera(position=(0, -1, 0.3), target=(0, 0, 0.3), field_of_view=30)
    renderer, data = tiny_renderer(camera, 128)
    image = renderer.render(data).astype(float)
    green = image[..., 1] > 1.6 * image[..., 0]
    radius = 64 * np.tan(np.arcsin(0.1 / 1)) / np.tan(np.radians(15))  # 24.0 pixels
    assert np.sqrt(green.sum() / np.pi) == pytest.approx(radius, rel=0.02)
    rows, columns = np.nonzero(green)
    assert rows.mean() == pytest.approx(63.5, abs=0.5) and columns.mean() == pytest.approx(63.5, abs=0.5)


def test_casting_only_what_changed_gives_the_image_of_casting_everything(monkeypatch):
    generator = np.random.default_rng(1)
    pusher = Pusher(generator)
    policy = PushingPolicy(pusher, generator)
    renderer = Renderer(pusher.model, pusher.data, pusher.surfaces)
    touched = raycast._touched
    for _ in range(8):
        pusher.step(policy.act())
        quick = renderer.render(pusher.data)
        monkeypatch.setattr(raycast, "_touched", lambda cones, centres, radius: np.ones(len(cones[1]), bool))
        np.testing.assert_array_equal(quick, renderer.render(pusher.data))
        monkeypatch.setattr(raycast, "_touched", touched)


def test_the_arm_moves_in_the_picture_and_casts_a_shadow():
    frames = push.simulate_sequence(2, 0, 12, 64).frames
    assert frames.shape == (12, 64, 64, 3) and frames.dtype == np.uint8
    dark = (frames.max(-1) < 90).mean((1, 2))
    assert (dark > 0.02).all() and (dark < 0.4).all()
    assert (np.abs(np.diff(frames.astype(int), axis=0)).max((1, 2, 3)) > 60).all()


def test_width_that_the_tiles_do_not_fit():
    with pytest.raises(ValueError, match="multiple of 4"):
        tiny_renderer(Camera(), width=30)


# ---------------------------------------------------------------------------------- state, labels, projection


def scene(number: int = 1) -> tuple[Pusher, PushingPolicy, Renderer]:
    generator = np.random.default_rng([0, number])
    pusher = Pusher(generator)
    policy = PushingPolicy(pusher, generator)
    return (
        pusher,
        policy,
        Renderer(pusher.model, pusher.data, pusher.surfaces, light=raycast.random_light(generator)),
    )


def test_a_saved_state_leads_to_the_same_states_bit_for_bit():
    pusher, policy, _ = scene()
    for _ in range(5):
        pusher.step(policy.act())
    state = pusher.save()
    actions = [policy.act() for _ in range(10)]
    ends = []
    for _ in range(2):
        pusher.restore(state)
        for action in actions:
            pusher.step(action)
        ends.append((pusher.save(), pusher.object_positions))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    np.testing.assert_array_equal(ends[0][1], ends[1][1])
    assert not np.array_equal(ends[0][0], state)


def test_labels_are_those_of_rays_through_the_middle_of_pixels():
    """An independent second opinion: one ray of MuJoCo a pixel, which meets what most of the pixel shows."""
    pusher, policy, renderer = scene()
    rays = raycast.camera_rays(Camera(), 64, 64).reshape(-1, 3)
    for _ in range(6):
        pusher.step(policy.act())
    image, labels = renderer.render_with_labels(pusher.data, pusher.labels, truth.SHADOW)
    np.testing.assert_array_equal(image, renderer.render(pusher.data))
    geom = np.full(64 * 64, -1, np.int32)
    distance, normal = np.zeros(64 * 64), np.zeros(3 * 64 * 64)
    groups = np.array([1, 1, 0, 0, 0, 0], np.uint8)
    eye = np.array(Camera().position)
    mujoco.mj_multiRay(
        pusher.model,
        pusher.data,
        eye,
        rays.ravel(),
        groups,
        1,
        -1,
        geom,
        distance,
        normal,
        64 * 64,
        mujoco.mjMAXVAL,
    )
    expected = np.where(geom < 0, 0, pusher.labels[geom]).reshape(64, 64)
    seen = np.where(labels == truth.SHADOW, 0, labels)
    assert (seen == expected).mean() > 0.98  # they differ at edges alone
    assert set(np.unique(expected)) == set(np.unique(seen))
    # The shadow lies where the picture is darker than without arm and objects.
    still = renderer._static_image  # of the same light
    empty = raycast._from_tiles(still, 64, 64).astype(int)
    darker = (empty - image).mean(-1) > 5
    assert (darker[labels == truth.SHADOW]).mean() > 0.95
    assert darker[labels == truth.STILL].mean() < 0.05  # at the edges of shadows


def test_projection_is_the_way_of_the_rays():
    camera, generator = Camera(), np.random.default_rng(0)
    rays = raycast.camera_rays(camera, 48, 64)
    rows, columns = generator.integers(0, 48, 20), generator.integers(0, 64, 20)
    points = np.array(camera.position) + rays[rows, columns] * generator.uniform(0.3, 2, (20, 1))
    np.testing.assert_allclose(camera.project(points, 48, 64), np.stack([columns, rows], -1), atol=1e-9)
    for point, pixel in zip(points, np.stack([columns, rows], -1), strict=True):
        np.testing.assert_allclose(camera.unproject(pixel, 48, 64, point[2]), point, atol=1e-9)


def test_places_of_hand_and_objects():
    pusher, _, _ = scene()
    others = pusher.object_positions[1:]
    height = pusher.object_positions[0, 2]
    pusher.place_object(0, np.array([0.1, -0.05]))
    pusher.place_hand(np.array([-0.2, 0.1]))
    np.testing.assert_array_equal(pusher.object_positions[0], [0.1, -0.05, height])
    np.testing.assert_array_equal(pusher.object_positions[1:], others)
    np.testing.assert_array_equal(pusher.position, [-0.2, 0.1, pushing.LOW])


def test_radii_hold_the_footprints_and_headings_turn_with_the_object():
    for number in range(8):
        pusher, _, _ = scene(number)
        for body, radius in zip(pusher._objects, pusher.object_radii, strict=True):
            geom = pusher.model.body_geomadr[body]
            a, b, _ = pusher.model.geom_size[geom]
            kinds = mujoco.mjtGeom
            expected = {
                kinds.mjGEOM_BOX: np.hypot(a, b),
                kinds.mjGEOM_SPHERE: a,
                kinds.mjGEOM_CYLINDER: a,
                kinds.mjGEOM_CAPSULE: a + b,
                kinds.mjGEOM_ELLIPSOID: max(a, b),
            }[kinds(pusher.model.geom_type[geom])]
            assert radius == pytest.approx(expected)
        joint = pusher.model.jnt_qposadr[pusher.model.body_jntadr[pusher._objects[0]]]
        before = pusher.object_headings[0]
        turn = np.empty(4)
        mujoco.mju_axisAngle2Quat(turn, np.array([0.0, 0.0, 1.0]), 0.3)
        turned = np.empty(4)
        mujoco.mju_mulQuat(turned, turn, pusher.data.qpos[joint + 3 : joint + 7].copy())
        pusher.data.qpos[joint + 3 : joint + 7] = turned
        mujoco.mj_kinematics(pusher.model, pusher.data)
        assert np.sin(pusher.object_headings[0] - before - 0.3) == pytest.approx(0, abs=1e-9)


# ------------------------------------------------------------------------------------------------------ truth


@pytest.mark.slow
def test_truth_comes_along_and_changes_nothing_else(tmp_path):
    push.simulate(tmp_path / "plain", 4, workers=1, **SMALL)
    push.simulate(tmp_path / "told", 4, workers=2, truth=True, **SMALL)
    plain, told = contents(tmp_path / "plain"), contents(tmp_path / "told")
    extra = {name for name in told if name.startswith("truth/")}
    assert told.keys() - extra == plain.keys()
    assert all(plain[name] == told[name] for name in plain if name.startswith(layout.SPLITS))
    dataset = SequenceDataset(tmp_path / "told", "train", 2)
    again = dataset.truth(1, 2, 5)
    expected = push.simulate_sequence(0, 3, 6, 16, with_truth=True).truth  # 1 validates and 2 tests
    np.testing.assert_array_equal(again.segmentation, expected.segmentation[2:5])
    np.testing.assert_array_equal(again.poses, expected.poses[2:5])


def test_poses_are_those_of_the_physics():
    sequence = push.simulate_sequence(0, 1, 6, 16, with_truth=True)
    pusher, policy, _ = scene()
    for step in range(6):
        np.testing.assert_array_equal(
            sequence.truth.poses[step, :, :3], pusher.object_positions.astype(np.float32)
        )
        np.testing.assert_allclose(np.linalg.norm(sequence.truth.poses[step, :, 3:], axis=1), 1, rtol=1e-6)
        pusher.step(policy.act())


def test_truth_of_a_stopped_simulation_is_written_again(tmp_path):
    push.simulate(tmp_path, 3, workers=1, truth=True, **SMALL)
    whole = contents(tmp_path)
    shutil.rmtree(tmp_path / "train" / "00000")
    (tmp_path / "truth" / "train" / "00000" / "2.png").unlink()
    push.simulate(tmp_path, 3, workers=1, truth=True, **SMALL)
    assert contents(tmp_path) == whole
