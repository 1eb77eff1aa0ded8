"""Real recordings, where they are at hand (they belong to their authors and are not part of the project)."""

from pathlib import Path

import numpy as np
import pytest

from data_tools import folders, layout
from data_tools.index import build_index
from experiments import evaluate, render, train

RECORDINGS = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.mark.skipif(not (RECORDINGS / "bair_sequence.npz").exists(), reason=f"no real recordings in {RECORDINGS}")
def test_real_bair_frames_train_and_roll_out_to_the_end(tmp_path):
    """One real sequence with actions, in the course's layout; 2 -> 28 from a model trained on 2 -> 4."""
    recording = np.load(RECORDINGS / "bair_sequence.npz")
    for split, camera in (("train", "image_aux1"), ("validate", "image_main"), ("test", "image_main")):
        folder = tmp_path / "data" / split / "traj_0_to_255.tfrecords" / "0"
        folders.write_sequence(folder, recording[camera], recording["action"], None)
    build_index(tmp_path / "data", "bair sample")
    item = folders.read_conditions(folder, 30)["actions"]
    np.testing.assert_array_equal(item, recording["action"])
    np.testing.assert_allclose(layout.read_info(tmp_path / "data").mean, recording["action"].mean(0, dtype=np.float64), rtol=1e-6)
    flags = """--model dcgan --width 0.1 --norm group --g_dim 16 --z_dim 4 --rnn_size 16 --n_future 4 --n_eval 6 --batch_size 4
    --niter 2 --epoch_size 5 --conditions actions --kl_anneal_cyclical --kl_anneal_cycle 1
    --tfr_decay_step 0.5 --device cpu"""
    run = tmp_path / "run"
    assert train.main([*flags.split(), "--data_root", str(tmp_path / "data"), "--log_dir", str(run)]) == 0
    assert evaluate.main([str(run), "--n_sample", "2", "--n_future", "28"]) == 0
    assert render.main([str(run), "--n_future", "28"]) == 0
    assert (run / "figures" / "test_best.gif").exists()
