"""Real recordings, where they are at hand (they belong to their authors and are not part of the project)."""

import numpy as np
import pytest

from data_tools import __main__ as svg_data
from data_tools import folders, layout, poses, tables
from data_tools.index import build_index
from experiments import evaluate, render, rollout, train
from svg.runs.checkpoint import load_config
from svg.sequences import SequenceDataset
from tests.support import tfrecords
from tests.support.places import RECORDINGS


@pytest.mark.slow
@pytest.mark.skipif(
    not (RECORDINGS / "bair_sequence.npz").exists(), reason=f"no real recordings in {RECORDINGS}"
)
def test_real_bair_frames_train_and_roll_out_to_the_end(tmp_path):
    """One real sequence with actions, in the course's layout; 2 -> 28 from a model trained on 2 -> 4."""
    recording = np.load(RECORDINGS / "bair_sequence.npz")
    for split, camera in (("train", "image_aux1"), ("validate", "image_main"), ("test", "image_main")):
        folder = tmp_path / "data" / split / "traj_0_to_255.tfrecords" / "0"
        folders.write_sequence(folder, recording[camera], recording["action"], None)
    build_index(tmp_path / "data", "bair sample")
    item = tables.read_conditions(folder, 30)["actions"]
    np.testing.assert_array_equal(item, recording["action"])
    np.testing.assert_allclose(
        layout.read_info(tmp_path / "data").mean, recording["action"].mean(0, dtype=np.float64), rtol=1e-6
    )
    flags = """--model dcgan --width 0.1 --norm group --g_dim 16 --z_dim 4 --rnn_size 16 --n_future 4
    --n_eval 6
--batch_size 4     --niter 2 --epoch_size 5 --conditions actions --kl_anneal_cyclical --kl_anneal_cycle 1
    --tfr_decay_step 0.5 --device cpu"""
    run = tmp_path / "run"
    assert train.main([*flags.split(), "--data_root", str(tmp_path / "data"), "--log_dir", str(run)]) == 0
    assert evaluate.main([str(run), "--n_sample", "2", "--n_future", "28"]) == 0
    assert render.main([str(run), "--n_future", "28"]) == 0
    assert (run / "figures" / "test_best.gif").exists()


@pytest.mark.skipif(
    not (RECORDINGS / "bair_sequence.npz").exists(), reason=f"no real recordings in {RECORDINGS}"
)
def test_real_bair_sequence_from_tfrecord_to_dataset(tmp_path):
    """TFRecord -> sequences -> packed -> Dataset: every pixel and float as recorded, from both cameras."""
    recording = np.load(RECORDINGS / "bair_sequence.npz")
    cameras = {name: recording[name] for name in ("image_aux1", "image_main")}
    features = tfrecords.bair_features(cameras, recording["action"], None)
    for name in ("train/traj_0_to_255", "test/traj_0_to_255"):
        tfrecords.write_shard(tmp_path / "softmotion30_44k" / f"{name}.tfrecords", [features])
    flags = ["--camera", "both", "--validate_shards", "0", "--workers", "1"]
    assert svg_data.main(["bair", str(tmp_path / "softmotion30_44k"), str(tmp_path / "out"), *flags]) == 0
    for camera, frames in cameras.items():
        assert (
            svg_data.main(
                ["pack", str(tmp_path / "out" / camera), str(tmp_path / "packed" / camera), "--workers", "1"]
            )
            == 0
        )
        for root in (tmp_path / "out", tmp_path / "packed"):
            item = SequenceDataset(root / camera, "test", 30)[0]
            np.testing.assert_array_equal(item["frames"], frames)
            np.testing.assert_array_equal(item["conditions"], recording["action"])


@pytest.mark.slow
@pytest.mark.skipif(not (RECORDINGS / "bridge_rlds").exists(), reason=f"no real recordings in {RECORDINGS}")
def test_real_bridge_episodes_train_and_render(tmp_path, capsys):
    """The genuine RLDS file is converted, sound, packed, trained on and rendered; 10 frames an episode."""
    data, run = tmp_path / "data", tmp_path / "run"
    assert svg_data.main(["rlds", str(RECORDINGS / "bridge_rlds"), str(data), "--workers", "1"]) == 0
    assert svg_data.main(["check", str(data), "--workers", "1"]) == 0
    assert "no problem in 25 sequences, 250 frames" in capsys.readouterr().out
    assert svg_data.main(["pack", str(data), str(tmp_path / "packed"), "--workers", "1"]) == 0
    flags = """--recurrence spatial --model dcgan --width 0.1 --norm group --g_dim 16 --z_dim 4 --rnn_size 16
--n_future 8     --n_eval 10 --batch_size 4 --niter 2 --epoch_size 3 --device cpu"""
    assert train.main([*flags.split(), "--data_root", str(tmp_path / "packed"), "--log_dir", str(run)]) == 0
    assert render.main([str(run)]) == 0
    assert (run / "figures" / "test_best.gif").exists()
    assert load_config(run).model.condition_dim == 14


@pytest.mark.slow
@pytest.mark.skipif(
    not (RECORDINGS / "dance_sequences.npz").exists(), reason=f"no real recordings in {RECORDINGS}"
)
def test_real_person_from_poses(tmp_path):
    """Recordings in the layout of the course are sound, train and roll out; a condition is the next pose."""
    recording, root = np.load(RECORDINGS / "dance_sequences.npz"), tmp_path / "data"
    for split, number in (("train", 1), ("test", 4)):
        frames, skeletons = recording[f"seq{number}_image"][:120], recording[f"seq{number}_pose"][:119]
        poses.write_sequence(
            root, split, "0", frames, np.concatenate([skeletons[:1], skeletons])
        )  # pose[j] is of image[j + 1]
    build_index(root)
    assert svg_data.main(["check", str(root), "--workers", "1"]) == 0
    item = SequenceDataset(root, "test", 120)[0]
    np.testing.assert_array_equal(item["conditions"][:-1], recording["seq4_pose"][:119])
    bones = (item["conditions"].min(-1) < 200)[
        20:100
    ]  # light pixels are seen under a skeleton that lies beside the dark figure
    brightness = {
        shift: np.mean(
            [
                item["frames"][20 + time + 1 + shift][bone].mean()
                for time, bone in enumerate(bones)
                if bone.any()
            ]
        )
        for shift in (-6, 0, 6)
    }
    assert brightness[0] < 0.9 * min(brightness[-6], brightness[6])
    flags = """--model pose_cvae --levels 4 --g_dim 16 --pose_dim 8 --fusion_dim 16 --z_dim 4 --anchor --blend
--n_past 1     --n_future 4 --n_eval 120 --far_start 0.5 --augment 0.3 --batch_size 4 --niter 1 --epoch_size 5
    --tfr 0 --device cpu"""
    run = tmp_path / "run"
    assert train.main([*flags.split(), "--data_root", str(root), "--log_dir", str(run)]) == 0
    assert rollout.main([str(run), "--submission"]) == 0
    assert len((run / "rollout" / "submission.csv").read_text().splitlines()) == 121
