"""`Training.fit` calls a function after each epoch, which looks at the run and may end it."""

from pathlib import Path

import numpy as np
import pytest

from svg.runs.metrics_log import read_metrics
from svg.training.loop import Training
from tests.support.processes import free_port, start
from tests.support.runs import assert_same, assert_same_run, changed, make_config, weights


@pytest.fixture(scope="module")
def whole(data_root, tmp_path_factory):
    """Return the configuration of two epochs of one step, and the run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    config = make_config(data_root, run, norm="batch", epoch_size=1, batch_size=2, validate_sequences=2)
    return config, Training(config).fit()


def test_it_gets_each_line_of_the_log_and_the_weights_of_that_moment(whole, tmp_path):
    """The start of a run that takes over weights included. What a drawing function returns ends nothing."""
    config, origin = whole
    config = changed(config, init_from=str(origin), log_dir=str(tmp_path / "run"))
    rows, taken = [], []

    def note(metrics, model):
        assert not model.training and all(weight.requires_grad for weight in model.parameters())
        rows.append(metrics)
        taken.append({name: value.clone() for name, value in model.state_dict().items()})
        return rows

    run = Training(config).fit(on_epoch=note)
    assert rows == read_metrics(run)
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (1, 1), (2, 2)]
    assert_same(taken[0], weights(origin, "best"))
    assert_same(taken[2], weights(run, "last"))


@pytest.mark.parametrize("end", [np.True_, FileNotFoundError("mine.png")])
def test_what_it_ends_is_resumed_as_if_it_had_never_stopped(whole, tmp_path, end):
    """It predicts with the model, whose batch norms learn nothing from that."""
    config = changed(whole[0], log_dir=str(tmp_path / "run"))

    def look(metrics, model):
        model.predict(np.zeros((2, 3, 64, 64), np.uint8), np.zeros((4, 4)), n_future=3)
        if isinstance(end, Exception):
            raise end
        return end

    if isinstance(end, Exception):
        with pytest.raises(FileNotFoundError) as raised:
            Training(config).fit(on_epoch=look)
        assert raised.value is end  # and not the line that explains an error of the run's own files
    else:
        Training(config).fit(on_epoch=look)
    assert [row["step"] for row in read_metrics(Path(config.train.log_dir))] == [1]
    resumed = Training(config, resume=True).fit(on_epoch=lambda metrics, model: False)
    assert_same_run(resumed, whole[1])


def test_a_training_that_was_ended_goes_on_in_the_same_process(whole, tmp_path):
    training = Training(changed(whole[0], log_dir=str(tmp_path / "run")))
    training.fit(on_epoch=lambda metrics, model: True)
    assert_same_run(training.fit(), whole[1])


ENDED = """
import sys, torch
from pathlib import Path
from svg.runs.checkpoint import load_config
from svg.training.loop import Training
from tests.support.runs import changed
torch.set_num_threads(1)
training = Training(changed(load_config(Path(sys.argv[1])), log_dir=sys.argv[2]))
training.fit(on_epoch=lambda metrics, model: print("called") or True)
print(training.progress.step)
"""


@pytest.mark.slow
def test_it_is_called_in_the_main_process_and_ends_all(whole, tmp_path):
    port = free_port()
    processes = [start(ENDED, [str(whole[1]), str(tmp_path / "run")], rank, port) for rank in range(2)]
    printed = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), printed
    assert [output.count("called\n") for output, _ in printed] == [1, 0]
    assert [output.splitlines()[-1] for output, _ in printed] == ["1", "1"]
