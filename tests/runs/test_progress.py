"""The progress of a run: its JSON, files of earlier releases, and values that no training writes."""

import json

import pytest

from svg.runs.progress import EpochSums, Progress

VALUES = {
    "step": 7,
    "minutes": 1.5,
    "best_psnr": 21.25,
    "sums": {"counted": 2, "skipped": 1, "loss": 0.5, "mse": 0.25, "kl": 3.0, "grad_norm": 4.0},
    "skipped_in_a_row": 1,
    "circumstances": {"threads": 2},
    "flags": {"lr": 0.002},
}


def test_values_are_read_and_written_alike():
    """The order of the keys is part of the file's bytes."""
    progress = Progress.from_values(VALUES)
    assert progress.sums == EpochSums(counted=2, skipped=1, loss=0.5, mse=0.25, kl=3.0, grad_norm=4.0)
    assert json.dumps(progress.to_values()) == json.dumps(VALUES)


def test_an_earlier_release_wrote_less():
    progress = Progress.from_values({"step": 7, "minutes": 1, "best_psnr": None})
    assert progress == Progress(step=7, minutes=1, best_psnr=None)
    assert progress.sums.steps == 0 and progress.sums.means() == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", -1),
        ("step", 1.0),
        ("step", True),
        ("minutes", float("nan")),
        ("best_psnr", "21"),
        ("sums", {"counted": 1}),
        ("sums", VALUES["sums"] | {"counted": 1.5}),
        ("sums", VALUES["sums"] | {"loss": float("inf")}),
        ("skipped_in_a_row", None),
        ("flags", []),
        ("another", 1),
    ],
)
def test_what_no_training_writes_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Progress.from_values(VALUES | {name: value})


@pytest.mark.parametrize("values", [None, [], {}, {"step": 1, "minutes": 0.0}])
def test_values_without_a_step_are_refused(values):
    with pytest.raises(ValueError, match="found no step"):
        Progress.from_values(values)


def test_means_are_of_the_steps_that_count():
    sums = EpochSums(skipped=1)
    sums.add({"loss": 1.0, "mse": 2.0, "kl": 3.0, "grad_norm": 4.0})
    sums.add({"loss": 3.0, "mse": 2.0, "kl": 1.0, "grad_norm": 0.0})
    assert sums.means() == {"loss": 2.0, "mse": 2.0, "kl": 2.0, "grad_norm": 2.0}
    assert sums.steps == 3
