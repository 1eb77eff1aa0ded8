"""Cameras: which recordings show the same episode, and which of them are taken."""

from pathlib import Path

import pytest

from data_tools import __main__ as svg_data
from data_tools import layout
from data_tools.converters import videos
from data_tools.converters.cameras import camera_order, choose_camera, find_cameras
from data_tools.errors import InputError
from tests.support.recordings import contents, shared_case, write_pictures, write_table


def product(form: str, cameras: tuple[str, ...], episodes: int) -> list[str]:
    return [form.format(camera=camera, episode=episode) for camera in cameras for episode in range(episodes)]


CERTAIN = [
    ("videos/{camera}/episode_{episode:06d}", ("observation.images.top", "observation.images.wrist")),
    (
        "videos/chunk-000/{camera}/episode_{episode}",
        ("observation.images.laptop", "observation.images.phone"),
    ),
    ("ep{episode}/{camera}", ("top", "wrist")),
    ("ep{episode}/images/{camera}", ("cam_high", "cam_left_wrist")),
    ("{episode}/{camera}", ("camera_0", "camera_1")),
    ("ep{episode}_{camera}", ("cam0", "cam1")),
    ("{camera}_ep{episode}", ("cam0", "cam1")),
    ("episode_{episode}_{camera}", ("cam_high", "cam_low")),
    ("{camera}/{episode}", ("rgb", "depth")),
    ("{camera}/{episode}", ("image_aux1", "image_main")),
]
UNCERTAIN = [
    ("{camera}/{episode}", ("monday", "tuesday")),
    ("ep{episode}/{camera}", ("azure", "zed")),
    ("ep{episode}/MP4/{camera}", ("18026681", "22008760")),
    ("ep{episode}_{camera}", ("top", "wrist")),
    ("{camera}_{episode}", ("left", "right")),
]


@pytest.mark.parametrize(
    ("form", "cameras", "certain"),
    [(*case, True) for case in CERTAIN] + [(*case, False) for case in UNCERTAIN],
)
def test_cameras_are_found_and_episodes_kept_together(form, cameras, certain):
    names = product(form, cameras, 5)
    found = find_cameras(names, [""] * len(names))
    assert (found.names, found.certain) == (sorted(cameras), certain)
    episodes = [shot.episode for shot in found.shots]
    assert episodes[:5] == episodes[5:] and len(set(episodes)) == 5
    assert [shot.camera for shot in found.shots] == [cameras[0]] * 5 + [cameras[1]] * 5
    assert choose_camera(found, None) == (min(found.names, key=camera_order) if certain else None)


@pytest.mark.parametrize(
    "names",
    [
        ["a", "b", "c/d"],
        ["push_left_0", "push_right_0", "push_left_1", "push_right_1"],
        [f"rgb_{number}" for number in range(5)],
        ["camera/0", "camera/1", "camera/2"],
        [f"traj_{shard}/{number}" for shard in (0, 256) for number in range(9)],
    ],
)
def test_recordings_of_no_cameras(names):
    found = find_cameras(names, [""] * len(names))
    assert found.names == [] and len({shot.episode for shot in found.shots}) == len(names)


def test_splits_are_no_cameras():
    names = ["0", "1", "2", "0", "1", "2"]
    found = find_cameras(names, ["train"] * 3 + ["test"] * 3)
    assert found.names == [] and len({shot.episode for shot in found.shots}) == 6


def test_the_usual_camera_stands_still_and_sees_colours():
    assert sorted(["a_depth", "b_wrist", "c", "A_Hand"], key=camera_order) == [
        "c",
        "A_Hand",
        "a_depth",
        "b_wrist",
    ]


def splits_of_episodes(root: Path) -> dict[str, set[str]]:
    """Return the splits in which each episode has sequences, by the name of its folder."""
    splits: dict[str, set[str]] = {}
    for row in layout.read_index(root).itertuples():
        splits.setdefault(Path(row.path).parent.name, set()).add(row.split)
    return splits


def check_two_cameras(source: Path, out: Path, capsys) -> None:
    for camera in ("usual", "wrist", "all"):
        flags = [] if camera == "usual" else ["--camera", camera]
        assert svg_data.main(["frames", str(source), str(out / camera), "--workers", "1", *flags]) == 0
        printed = capsys.readouterr().out
        named = (
            "note: camera observation.images.top is taken, not observation.images.wrist; choose "
            "with --camera NAME" in printed
        )
        assert named == (camera == "usual") and "not read" not in printed
    usual, wrist, both = (
        layout.read_index(out / camera)["path"].tolist() for camera in ("usual", "wrist", "all")
    )
    assert len(usual) == len(wrist) == 4 and set(both) == {*usual, *wrist}
    assert all("/observation.images.top/" in path for path in usual)
    assert wrist == [path.replace("top", "wrist") for path in usual]  # the same split for the same episode
    episodes = splits_of_episodes(out / "all")
    assert len(episodes) == 4 and all(len(splits) == 1 for splits in episodes.values())


def test_the_case_of_two_cameras(tmp_path, capsys):
    check_two_cameras(shared_case("two_cameras"), tmp_path, capsys)


def test_the_cameras_of_an_episode_stay_together_and_one_is_chosen(tmp_path, capsys):
    for shade, name in enumerate(
        product("in/{camera}/ep{episode}", ("observation.images.wrist", "observation.images.top"), 4)
    ):
        write_pictures(tmp_path / name, 3, shade)
    check_two_cameras(tmp_path / "in", tmp_path, capsys)


def test_recordings_that_may_be_cameras_stay_together_and_are_all_taken(tmp_path, capsys):
    for name in product("in/{camera}/{episode}", ("monday", "tuesday"), 4):
        write_pictures(tmp_path / name, 3)
    assert svg_data.main(["frames", str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert (
        "recordings of the same names under monday, tuesday stay in one split; if these are cameras"
        in printed
    )
    episodes = splits_of_episodes(tmp_path / "out")
    assert len(layout.read_index(tmp_path / "out")) == 8 and all(
        len(splits) == 1 for splits in episodes.values()
    )
    videos.convert(tmp_path / "in", tmp_path / "one", workers=1, camera="tues")  # a part of the name will do
    assert all("/tuesday/" in path for path in layout.read_index(tmp_path / "one")["path"])


def test_cameras_within_splits(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for name in product("{episode}/{camera}", ("top", "wrist"), count):
            write_pictures(tmp_path / "in" / split / name, 3)
    videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    assert layout.read_index(tmp_path / "out")["path"].tolist() == [
        *(f"train/{number}/top/0" for number in range(3)), *(f"test/{number}/top/0" for number in range(2)),
    ]  # fmt: skip


def test_an_episode_without_the_camera_is_named(tmp_path):
    for name in product("in/ep{episode}/{camera}", ("top", "wrist"), 4)[1:]:
        write_pictures(tmp_path / name, 3)
    report = videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    assert report.written == 3
    assert "camera top has no recording of 1 episodes, which are not used (first: ep0/wrist)" in report.notes


def test_a_camera_that_there_is_not(tmp_path):
    for name in product("in/ep{episode}/{camera}", ("top", "wrist"), 3):
        write_pictures(tmp_path / name, 3)
    with pytest.raises(InputError, match="--camera: found left, expected one of top, wrist, all"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1, camera="left")
    with pytest.raises(
        InputError, match="--camera: found top, expected no camera, as no episode has several"
    ):
        videos.convert(tmp_path / "in" / "ep0" / "top", tmp_path / "out", workers=1, camera="top")
    assert not (tmp_path / "out").exists()


def test_cameras_share_the_tables_of_their_episode(tmp_path):
    for name in product("in/ep{episode}/{camera}", ("top", "wrist"), 3):
        write_pictures(tmp_path / name, 4)
    for episode in range(3):
        write_table(tmp_path / "in" / f"ep{episode}" / "actions.csv", 4)
    report = videos.convert(tmp_path / "in", tmp_path / "out", workers=1, camera="all")
    assert (layout.read_index(tmp_path / "out")["action_dim"] == 2).all()
    assert report.notes == []


def test_another_camera_is_another_recipe(tmp_path):
    for name in product("in/ep{episode}/{camera}", ("top", "wrist"), 3):
        write_pictures(tmp_path / name, 3)
    videos.convert(tmp_path / "in", tmp_path / "out", workers=1)
    before = contents(tmp_path / "out")
    with pytest.raises(InputError, match="nothing was changed"):
        videos.convert(tmp_path / "in", tmp_path / "out", workers=1, camera="wrist")
    assert contents(tmp_path / "out") == before
