"""A small trained run for the tests of extensions."""

from pathlib import Path

from experiments import train

FLAGS = """--recurrence spatial --model dcgan --width 0.1 --norm group --g_dim 8 --z_dim 2 --rnn_size 8
--feedback feature --tfr 0 --n_past 2 --n_future 4 --n_eval 6 --batch_size 4 --niter 1 --epoch_size 2
--device cpu"""


def tiny_run(data_root: Path | str, folder: Path, *flags: str) -> Path:
    """Train for two steps and return the run folder."""
    command = [*FLAGS.split(), *flags, "--data_root", str(data_root), "--log_dir", str(folder)]
    assert train.main(command) == 0
    return folder
