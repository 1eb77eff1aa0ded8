"""LeRobot data sets: sets that the package itself wrote, sets written by hand, damage, and the way there and
back.

``lerobot_sets/`` was written by lerobot 0.4.4. Each of its pictures shows its frame's number in eight white
or black blocks of the lowest rows, the lowest bit first; the state is (episode, frame, 0.5), the action
(frame / 10, -episode, frame mod 4, 1).
"""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
av = pytest.importorskip("av")

import pyarrow.parquet as pq  # noqa: E402

from data_tools import __main__ as svg_data  # noqa: E402
from data_tools import layout  # noqa: E402
from data_tools.converters import lerobot  # noqa: E402
from data_tools.converters.lerobot_files import read_info  # noqa: E402
from data_tools.errors import InputError  # noqa: E402
from data_tools.export import export_lerobot  # noqa: E402
from data_tools.store import opened_store  # noqa: E402

SETS = Path(__file__).parent / "lerobot_sets"


def shown_numbers(frames: np.ndarray) -> list[int]:
    """Return the numbers that pictures [T,64,64,3] of the sets, stretched, show."""
    bits = frames[:, 60, 4::8].mean(-1) > 127
    return (bits @ (1 << np.arange(8))).tolist()


def read_all(root: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    store = opened_store(root, split)
    sequences = []
    for number, length in enumerate(store.lengths.tolist()):
        frames = np.empty((length, *store.frame_size), np.uint8)
        store.read_frames(number, 0, frames)
        sequences.append((frames, store.read_conditions(number)))
    return sequences


@pytest.mark.parametrize(
    ("name", "camera", "lengths"),
    [
        ("image10", "top", [5, 6, 7]),
        ("image10", "wrist", [5, 6, 7]),
        ("video30", "front", [8, 9, 10]),
        ("video30", "observation.images.top", [8, 9, 10]),
        ("video30", "wrist", [8, 9, 10]),
    ],
)
def test_sets_of_the_package_itself(tmp_path, name, camera, lengths):
    selection, report = lerobot.convert(
        SETS / name, tmp_path / "out", camera, fit="stretch", shares=(1, 0, 0), workers=1
    )
    assert selection.camera == f"observation.images.{camera.rpartition('.')[2]}"
    assert report.written == 3 and not report.left_out
    for episode, (frames, conditions) in enumerate(read_all(tmp_path / "out", "train")):
        length = lengths[episode]
        times = np.arange(length)
        assert shown_numbers(frames) == times.tolist()
        actions = np.stack([0.1 * times, -episode + 0 * times, times % 4, 1 + 0 * times], 1)
        states = np.stack([episode + 0 * times, times, 0.5 + 0 * times], 1)
        np.testing.assert_array_equal(conditions, np.concatenate([actions, states], 1).astype(np.float32))


def test_fewer_frames_a_second(tmp_path):
    lerobot.convert(
        SETS / "video30",
        tmp_path / "out",
        "top",
        fps=10,
        sum_actions=True,
        fit="stretch",
        shares=(1, 0, 0),
        workers=1,
    )
    frames, conditions = read_all(tmp_path / "out", "train")[0]
    assert shown_numbers(frames) == [0, 3, 6]
    np.testing.assert_allclose(conditions[:, 0], [0.0 + 0.1 + 0.2, 0.3 + 0.4 + 0.5, 0.6 + 0.7], rtol=1e-6)
    np.testing.assert_array_equal(conditions[:, 5], [0, 3, 6])
    with pytest.raises(InputError, match="--fps: found 7, expected a rate of which the source's, 30"):
        lerobot.convert(SETS / "video30", tmp_path / "other", fps=7, workers=1)


def test_the_command_says_what_it_takes_and_leaves(tmp_path, capsys):
    words = ["lerobot", str(SETS / "video30"), str(tmp_path), "--workers", "1", "--splits", "1", "0", "0"]
    assert svg_data.main(words) == 0
    text = capsys.readouterr().out
    assert "camera observation.images.front, actions action, states observation.state" in text
    assert "note: cameras that are not read: observation.images.top, observation.images.wrist" in text
    assert "3 sequences written, 0 were there already" in text
    assert svg_data.main(words) == 0
    assert "0 sequences written, 3 were there already" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ version 2.1


def write_film(path: Path, numbers: range, fps: int) -> None:
    """Write a video whose pictures show their numbers as those of the sets do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in numbers:
            picture = np.full((48, 64, 3), 30, np.uint8)
            picture[40:] = np.repeat([255 * (number >> bit & 1) for bit in range(8)], 8)[:, None]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture
def version_2(tmp_path: Path) -> Path:
    """Three episodes of 6, 7 and 8 frames, each in files of its own; the last two validate."""
    root = tmp_path / "old"
    (root / "meta").mkdir(parents=True)
    features = {
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "observation.images.cam": {"dtype": "video", "shape": [48, 64, 3], "names": None},
        "frame_index": {"dtype": "int64", "shape": [1], "names": None},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    }
    info = {
        "codebase_version": "v2.1",
        "fps": 15,
        "features": features,
        "chunks_size": 2,
        "splits": {"train": "0:1", "val": "1:3"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    lines = []
    for episode in range(3):
        length = 6 + episode
        lines.append(json.dumps({"episode_index": episode, "tasks": ["push"], "length": length}))
        table = pa.table(
            {
                "action": [[episode, time] for time in range(length)],
                "frame_index": list(range(length)),
                "episode_index": [episode] * length,
            }
        )
        chunk = f"chunk-{episode // 2:03d}"
        path = root / "data" / chunk / f"episode_{episode:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        film = root / "videos" / chunk / "observation.images.cam" / f"episode_{episode:06d}.mp4"
        write_film(film, range(length), 15)
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_version_2_1_with_its_own_splits(version_2, tmp_path):
    lerobot.convert(version_2, tmp_path / "out", fit="stretch", workers=1)
    index = layout.read_index(tmp_path / "out")
    assert index["split"].tolist() == ["train", "validate", "validate"]
    assert layout.read_info(tmp_path / "out").source == "LeRobot v2.1, observation.images.cam"
    for split, episodes in (("train", [0]), ("validate", [1, 2])):
        for episode, (frames, conditions) in zip(episodes, read_all(tmp_path / "out", split), strict=True):
            times = list(range(6 + episode))
            assert shown_numbers(frames) == times
            assert conditions.tolist() == [[episode, time] for time in times]


# ----------------------------------------------------------------------------------------------------- damage


DATA = "data/chunk-000/episode_000001.parquet"
FILM = "videos/chunk-000/observation.images.cam/episode_000001.mp4"


def edit_info(root: Path, **values) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def shorten_film(root: Path) -> None:
    write_film(root / FILM, range(3), 15)


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (
            lambda root: (root / "meta/info.json").unlink(),
            "found no meta/info.json, expected the folder",
        ),
        (lambda root: (root / "meta/info.json").write_text("{"), "info.json: damaged"),
        (
            lambda root: edit_info(root, codebase_version="v9"),
            "found version 'v9', expected one of v2.0",
        ),
        (lambda root: edit_info(root, fps=0), "damaged .fps 0.0"),
        (lambda root: edit_info(root, data_path="../{episode_index}"), "leads out of the data set"),
        (
            lambda root: edit_info(root, data_path="{episode_index.__class__}"),
            "names an unknown episode",
        ),
        (
            lambda root: (root / "meta/episodes.jsonl").write_text('{"episode_index": 1e99, "length": 3}'),
            "damaged",
        ),
        (
            lambda root: (root / DATA).write_bytes(b"PAR1"),
            "1.parquet: cannot be read",
        ),
        (lambda root: (root / DATA).unlink(), "1.parquet: cannot be read"),
        (
            lambda root: (root / FILM).write_bytes(b"x"),
            "cannot be",
        ),
        (shorten_film, "episode_000001.mp4: ends at frame 3, expected 7"),
        (
            lambda root: shutil.copy(root / "data/chunk-000/episode_000000.parquet", root / DATA),
            "episode 1: found 0 rows, expected frames 0 to 6",
        ),
    ],
)
def test_damage_is_one_line(version_2, tmp_path, harm, expected):
    harm(version_2)
    with pytest.raises(InputError, match=expected) as caught:
        lerobot.convert(version_2, tmp_path / "out", workers=1)
    assert "\n" not in str(caught.value)


def test_damaged_episodes_can_be_left_out(version_2, tmp_path):
    shorten_film(version_2)
    _, report = lerobot.convert(version_2, tmp_path / "out", workers=1, skip_damaged=True)
    assert report.written == 2 and "episode_000001.mp4: ends at frame 3" in report.left_out[0]


def test_unknown_choices_are_answered_with_the_known_ones(version_2, tmp_path):
    for changes, expected in (
        ({"camera": "left"}, "--camera: found left, expected one of observation.images.cam"),
        ({"state_keys": ["pose"]}, "--state_key: found pose, expected none or some of action, frame_index"),
    ):
        with pytest.raises(InputError, match=expected):
            lerobot.convert(version_2, tmp_path / "out", workers=1, **changes)


# ----------------------------------------------------------------------------------------------------- export


@pytest.mark.slow
def test_every_pixel_and_number_comes_back(data_root, tmp_path, capsys):
    assert svg_data.main(["export", str(data_root), str(tmp_path / "le"), "--fps", "5"]) == 0
    assert "22 episodes written as a LeRobot data set, version v3.0" in capsys.readouterr().out
    info = read_info(tmp_path / "le")
    assert info.splits == {"train": range(0, 12), "validate": range(12, 17), "test": range(17, 22)}
    lerobot.convert(tmp_path / "le", tmp_path / "back", workers=1)
    for split in layout.SPLITS:
        there, back = read_all(data_root, split), read_all(tmp_path / "back", split)
        assert len(there) == len(back)
        for (frames, conditions), (frames_back, conditions_back) in zip(there, back, strict=True):
            np.testing.assert_array_equal(frames, frames_back)
            np.testing.assert_array_equal(conditions, conditions_back)


@pytest.mark.slow
def test_the_statistics_are_those_of_all_numbers(data_root, tmp_path):
    export_lerobot(data_root, tmp_path / "le", fps=5)
    table = pq.read_table(tmp_path / "le/data/chunk-000/file-000.parquet")
    statistics = json.loads((tmp_path / "le/meta/stats.json").read_text())
    actions = np.array(table.column("action").to_pylist())
    for name, expected in (
        ("min", actions.min(0)),
        ("max", actions.max(0)),
        ("mean", actions.mean(0)),
        ("std", actions.std(0)),
    ):
        np.testing.assert_allclose(statistics["action"][name], expected, rtol=1e-6)
    assert statistics["action"]["count"] == [len(actions)] == [22 * 15]
    assert table.column("index").to_pylist() == list(range(22 * 15))
    pixels = np.concatenate(
        [
            np.asarray(Image.open(io.BytesIO(cell["bytes"]))).reshape(-1, 3)
            for cell in table.column("observation.images.camera").to_pylist()
        ]
    )
    np.testing.assert_allclose(
        np.ravel(statistics["observation.images.camera"]["mean"]), pixels.mean(0) / 255, rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_videos_are_near_and_in_order(data_root, tmp_path, codec):
    export_lerobot(data_root, tmp_path / "le", fps=30, video=codec)
    lerobot.convert(tmp_path / "le", tmp_path / "back", workers=1)
    for split in layout.SPLITS:
        for (frames, conditions), (near, same) in zip(
            read_all(data_root, split), read_all(tmp_path / "back", split), strict=True
        ):
            np.testing.assert_array_equal(conditions, same)
            distance = np.abs(frames[:, None].astype(float) - near[None]).mean((2, 3, 4))
            assert (np.diag(distance) < 12).all()


def test_what_cannot_be_exported(data_root, pose_root, tmp_path):
    with pytest.raises(InputError, match="found poses"):
        export_lerobot(pose_root, tmp_path / "le")
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="is there already"):
        export_lerobot(data_root, tmp_path / "there")
    with pytest.raises(InputError, match="--fps: found 0"):
        export_lerobot(data_root, tmp_path / "le", fps=0)
    assert not (tmp_path / "le").exists()
