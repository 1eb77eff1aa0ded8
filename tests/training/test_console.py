"""What a training says of itself, in words that are worked out by hand."""

import pytest

from svg.config import Config
from svg.sequences import SequenceDataset
from svg.training import console
from svg.training.console import Forecast, epoch_line, in_words, worse_than_start
from tests.support.runs import changed

GIVEN = "actions and true positions of the future"


def said(config: Config, step: int = 0) -> dict[str, str]:
    """Return the first lines by their first words."""
    root, data = config.data.data_root, config.data
    training = SequenceDataset(root, "train", data.n_past + data.n_future, data.conditions)
    validation = SequenceDataset(root, "validate", data.n_eval, data.conditions)
    lines = console.start(config, training, validation, 1_234_567, "cpu (2 threads, bfloat16)", step)
    return {line[:10].strip(): line[10:] for line in lines}


def test_the_start_says_with_what_it_trains(small_config):
    config = changed(small_config, niter=300, epoch_size=600, batch_size=12)
    assert said(config) == {
        "data": f"{config.data.data_root}: 12 training, 5 validation sequences; "
        f"2 frames given with {GIVEN}, 4 predicted",
        "model": "1,234,567 weights on cpu (2 threads, bfloat16)",
        "training": "300 epochs of 600 steps of 12 clips",
        "schedule": "beta 0.0001 throughout (no KL annealing); teacher forcing 1 throughout",
        "scores": "PSNR in dB in validation: rec has seen the true frames, pred has not; "
        "*: the best pred so far, which is kept",
    }
    config = changed(config, accumulate=3, max_minutes=6.0, validate_sequences=3)
    assert (
        said(config, 7)["training"]
        == "300 epochs of 600 steps of 36 clips, 6 minutes at most; 7 steps are done"
    )
    assert ": 12 training, 3 of 5 validation sequences;" in said(config)["data"]


def test_validation_of_other_lengths_is_told(small_config):
    """`--n_eval 10` validates on 8 frames."""
    config = changed(small_config, n_future=10, n_eval=10)
    expected = f"; 2 frames given with {GIVEN}, 10 predicted; 8 in validation: "
    expected += "--n_eval 10 counts the given ones, 12 would predict 10"
    assert said(config)["data"].endswith(expected)
    assert said(changed(config, n_eval=12))["data"].endswith(f"; 2 frames given with {GIVEN}, 10 predicted")
    assert "; 2 frames given, 10 predicted" in said(changed(config, conditions="none"))["data"]


def test_without_validation_the_newest_weights_are_the_best(small_config):
    training = SequenceDataset(small_config.data.data_root, "train", 6)
    lines = console.start(small_config, training, None, 1, "cpu", 0)
    assert (
        ": 12 training, no validation sequences; 2 frames" in lines[0]
        and "*: the newest weights, kept as the best" in lines[4]
    )


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {"kl_anneal": "monotonic", "niter": 300},
            "beta rises from 0 to 0.0001 in 150 epochs (monotonic KL annealing)",
        ),
        (
            {
                "kl_anneal": "cyclical",
                "niter": 300,
                "kl_anneal_cycle": 4,
                "kl_anneal_ratio": 2.0,
                "beta": 0.01,
            },
            "beta rises from 0 to 0.01 in 37.5 epochs, 4 times (cyclical KL annealing)",
        ),
        ({"tfr": 0.0}, "no teacher forcing"),
        ({"tfr": 0.5}, "teacher forcing 0.5 throughout"),
        (
            {"tfr": 1.0, "tfr_start_decay_epoch": 150, "tfr_decay_step": 0.01},
            "teacher forcing 1 to epoch 151, then 0.01 less each epoch, down to 0",
        ),
    ],
)
def test_schedules_in_words(small_config, flags, expected):
    assert expected in said(changed(small_config, **flags))["schedule"].split("; ")


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (0.5, "30 seconds"),
        (2, "2.0 minutes"),
        (12.4, "12 minutes"),
        (150, "2.5 hours"),
        (2880, "2.0 days"),
        (18_000, "12 days"),
    ],
)
def test_times_in_words(minutes, expected):
    assert in_words(minutes) == expected


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(console.time, "monotonic", lambda: self.now)

    def steps(self, forecast: Forecast, numbers: range, seconds: float) -> list[str]:
        """Return the lines printed during these steps, the first being `numbers.start` + 1."""
        lines = []
        for number in numbers:
            self.now += seconds
            lines += forecast.after_step(number + 1, (self.now - 100) / 60)
        return lines


def test_the_time_is_told_after_twenty_measured_steps_and_once(monkeypatch):
    """Half a second each, the first 60 seconds: 999 of 0.5 s and 60 s are 9.3 minutes."""
    clock, forecast = Clock(monkeypatch), Forecast(1000, 0.0)
    assert clock.steps(forecast, range(1), 60.0) == []
    assert clock.steps(forecast, range(1, 20), 0.5) == []
    assert clock.steps(forecast, range(20, 100), 0.5) == ["expected  9.3 minutes in all, 0.5 seconds a step"]
    assert (
        forecast.after_epoch(100, (clock.now - 100) / 60) == []
    )  # a score that takes no time changes nothing
    clock.now += 99 * 0.5  # one that takes as long as its epoch: 1000 steps of 1 s and the first minute
    assert forecast.after_epoch(100, (clock.now - 100) / 60) == [
        "expected  18 minutes in all, 1 seconds a step"
    ]


def test_a_training_of_more_than_a_day_is_warned_of_after_half_a_minute(monkeypatch):
    """The published sizes on a CPU: 180,000 steps of 6 s are 12.5 days."""
    clock, forecast = Clock(monkeypatch), Forecast(180_000, 0.0)
    expected, note = clock.steps(forecast, range(10), 6.0)
    assert expected == "expected  12 days in all, 6 seconds a step"
    assert note.startswith("note: 12 days is long. --max_minutes 600 ends after ten hours; a smaller --width")
    assert "@quickstart.args" in note
    clock, forecast = Clock(monkeypatch), Forecast(180_000, 600.0)
    assert clock.steps(forecast, range(10), 6.0) == [
        "expected  600 minutes (--max_minutes), about 6000 steps"
    ]


def test_a_line_of_an_epoch():
    values = {
        "epoch": 3, "step": 100, "minutes": 0.52, "loss": 0.010854, "mse": 0.010734, "kl": 1.14,
        "beta": 1e-4, "tfr": 0.5, "val_rec_psnr": 22.957, "val_pred_psnr": 21.594, "frames_per_second": 622.4,
        "skipped": 0, "lr": 0.1,
    }  # fmt: skip
    assert epoch_line(values, is_best=True) == (
        "epoch   3 step    100    0.5 min  loss 0.01085 mse 0.01073 kl 1.14 beta 1.0e-04 tfr 0.50 rec 22.96 "
        "pred 21.59 frames/s 622 *"
    )
    line = epoch_line(values | {"skipped": 2}, is_best=False)
    assert line.endswith("frames/s 622  2 steps skipped, not finite")


def test_the_verdict_on_a_training_that_made_it_worse(tmp_path):
    def verdict(*scores: float | None) -> str | None:
        lines = [
            {"epoch": number, "step": number} | {"val_pred_psnr": score}
            for number, score in enumerate(scores)
            if score
        ]
        return worse_than_start(tmp_path, lines, 0.01)

    worse = "the best epoch, 2, has pred 27.50 dB, the start 28.00 dB"
    expected = f"{tmp_path}: training did not improve on the start: {worse}"
    assert verdict(28.0, 27.0, 27.5, 27.2).startswith(expected)
    assert verdict(28.0, 27.0, 28.1) is None and verdict(None, 27.0) is None
    assert "no epoch was trained, the start 28.00 dB" in verdict(28.0)
