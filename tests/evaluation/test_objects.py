"""Scores of objects: parts of frames, averages worked out by hand, files, comparison, whole evaluations."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import torch

from data_tools.errors import InputError
from data_tools.truth import ARM, SHADOW
from svg.evaluation.comparison import Comparison
from svg.evaluation.judge import CELL, cell_centres, correction, locate, outlines
from svg.evaluation.object_tables import FRAME_COLUMNS, PARTS, TRUTH, ObjectScores
from svg.evaluation.objects import ObjectTruth, frame_parts
from svg.evaluation.results import load_evaluation
from tests.evaluation.test_results import FRAMES, SEQUENCES, made_up


def truth_of(labels: np.ndarray, is_pushed: list[bool]) -> ObjectTruth:
    """Return the truth of one frame with these labels; nothing of it but labels and pushes is right."""
    count = len(is_pushed)
    empty = torch.zeros(1)
    return ObjectTruth(
        torch.from_numpy(labels)[None, None],
        empty,
        empty,
        empty,
        torch.ones(1, count, dtype=torch.bool),
        empty,
        np.zeros(1),
        torch.tensor(is_pushed)[None, None],
        empty,
    )


def test_parts_of_a_frame_by_hand():
    labels = np.array(
        [
            [0, 0, ARM, ARM, ARM, 0, 0],
            [0, 0, ARM, ARM, ARM, 0, 0],
            [0, 0, ARM, ARM, ARM, SHADOW, SHADOW],
            [0, 3, 3, 0, 0, 0, SHADOW],
            [0, 3, 3, 0, 0, 4, 4],
        ],
        np.uint8,
    )
    parts = frame_parts(truth_of(labels, [True, False]))
    picture = np.full(labels.shape, "rest", dtype="<U10")
    for name, pixels in parts.items():
        picture[pixels[0, 0].numpy()] = name
    assert (np.stack([pixels[0, 0].numpy() for pixels in parts.values()]).sum(0) == 1).all()
    e, i, s, r = "arm_edge", "arm_inside", "shadow", "rest"
    expected = [
        [r, e, e, i, e, e, r],
        [r, e, e, i, e, e, r],
        [r, e, e, e, e, e, s],
        [r, "pushed", "pushed", e, e, e, s],
        [r, "pushed", "pushed", r, r, "still", "still"],
    ]
    assert picture.tolist() == expected


def test_outline_by_hand():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 1:7] = True  # the second is empty
    found = outlines(masks, torch.tensor([[3.0, 4.0], [3.0, 4.0]]), torch.tensor([0.03, 0.06]))
    np.testing.assert_allclose(found[0], [18 / 50, -2 / 5, 3 / 5, -2 / 5, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(found[1], [0, 0, 0, 0, 0, 2], rtol=1e-6)


def test_centres_are_means_of_the_cells_nearby():
    cells = cell_centres(16, torch.device("cpu"))
    assert cells[0].tolist() == [0.5, 0.5] and cells[17].tolist() == [CELL + 0.5, CELL + 0.5]
    heat = torch.full((256,), -100.0)
    heat[5 * 16 + 7] = heat[5 * 16 + 8] = 0.0  # cells of equal heat beside each other
    heat[200] = 5.0  # far away: not counted
    offsets = torch.zeros(2, 256)
    offsets[1, 5 * 16 + 7] = 1.0
    found = locate(heat, offsets, cells[5 * 16 + 7])
    np.testing.assert_allclose(found, [15.5, 11.0], atol=1e-5)


def test_a_correction_is_learned_from_small_errors_alone():
    found = torch.tensor([[10.0, 10.0], [10.0, 10.0]])
    true = torch.tensor([[11.0, 9.5], [15.0, 10.0]])
    np.testing.assert_allclose(correction(found, true), [[0.7, -0.35], [0, 0]], rtol=1e-6)


# ------------------------------------------------------------------------------------------ averages


def objects_table(rows: list[tuple]) -> pd.DataFrame:
    columns = ["sequence", "method", "frame", "object", "pushed", "found", "mm", "iou"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(area=30, seen=1.0, pixels=table["mm"] / 10)


def frames_table(methods=("pred", TRUTH), sequences=2, frames=2, hand=2.0) -> pd.DataFrame:
    rows = [
        (f"{n:02d}", method, f + 1) for method in methods for n in range(sequences) for f in range(frames)
    ]
    table = pd.DataFrame(rows, columns=["sequence", "method", "frame"])
    known = {"objects": 3, "hidden": 1, "hand_mm": hand, "error_rest": 0.25}
    return table.assign(**dict.fromkeys(FRAME_COLUMNS, 0.0) | known)


@pytest.fixture
def scores() -> ObjectScores:
    rows = [
        ("00", "pred", 1, 0, 1, 1, 10.0, 0.5),
        ("00", "pred", 1, 1, 1, 0, np.nan, 0.0),  # not found
        ("00", "pred", 2, 0, 1, 1, 30.0, 0.25),
        ("00", "pred", 2, 1, 0, 1, 3.0, 1.0),  # still
        ("01", "pred", 2, 0, 0, 1, 5.0, 0.75),
        ("01", TRUTH, 2, 0, 0, 1, 1.0, 1.0),
        ("00", TRUTH, 1, 0, 1, 1, 2.0, 0.9),
        ("00", TRUTH, 1, 1, 1, 1, 4.0, 0.9),
    ]
    return ObjectScores(objects_table(rows), frames_table())


def test_averages_by_hand(scores):
    np.testing.assert_array_equal(scores.array("pred", "pushed_mm"), [[10, 30], [np.nan, np.nan]])
    np.testing.assert_array_equal(scores.array("pred", "pushed_vanished"), [[0.5, 0], [np.nan, np.nan]])
    np.testing.assert_array_equal(scores.array("pred", "still_mm"), [[np.nan, 3], [np.nan, 5]])
    np.testing.assert_array_equal(scores.per_sequence("pred", "pushed_mm"), [20, np.nan])
    np.testing.assert_allclose(scores.per_sequence("pred", "pushed_iou"), [0.25, np.nan])
    assert scores.mean("pred", "pushed_vanished").mean == pytest.approx(1 / 3)
    assert scores.mean("pred", "still_mm").mean == 4  # of two sequences
    assert (scores.mean("pred", "still_mm").low, scores.mean("pred", "still_mm").high) == (3, 5)
    assert scores.mean("pred", "hand_mm").mean == 2
    assert np.isnan(ObjectScores(scores.objects[:3], scores.frames).mean("pred", "still_mm").mean)
    mean, low, high = scores.curve("pred", "still_mm")
    np.testing.assert_array_equal(mean, [np.nan, 4])
    assert low[1] == 3 and high[1] == 5


def test_tables_and_words(scores):
    pushed, still, parts = scores.tables(1)
    assert pushed.header[0] == "pushed objects" and [row[0] for row in pushed.rows] == [
        "pred (mean latent)",
        "true frames",
    ]
    assert pushed.rows[0][1:] == ["20.0", "2.00", "0.250", "33.3%", "2.0 [2.0, 2.0]"]
    assert still.rows[0][1] == "4.0 [3.0, 5.0]"
    assert [row[0] for row in parts.rows] == ["pred (mean latent)", "share of the pixels"]
    assert parts.header[1:] == list(PARTS.values()) and parts.rows[0][-1] == "0.250 [0.250, 0.250]"
    words = scores.in_words()
    assert words["judge"].startswith("on the true frames its median error is 2.0 mm")
    assert words["at the end"].startswith(
        "median error of pushed objects in frame 2: pred (mean latent) 30.0 mm, 0"
    )
    assert words["left out"].startswith("33% of the objects (4 of 12 in all frames)")


def with_objects(error: float, seed: int = 0):
    """Return a made-up evaluation whose objects are so many mm off, more from sequence to sequence."""
    names = [f"{n:02d}" for n in range(SEQUENCES)]
    rows = [
        (name, method, frame + 1, 0, int(number != 2), 1, (error if method == "pred" else 1) + number, 0.5)
        for method in ("copy", "pred", TRUTH)
        for number, name in enumerate(names)
        for frame in range(FRAMES)
    ]
    rows[0] = (*rows[0][:5], 0, np.nan, 0.0)  # one of those of copying is not found
    frames = frames_table(("copy", "pred", TRUTH), SEQUENCES, FRAMES, hand=error)
    return dataclasses.replace(made_up(seed), objects=ObjectScores(objects_table(rows), frames))


def test_files_hold_all_of_it(tmp_path):
    evaluation = with_objects(5.0)
    evaluation.save(tmp_path, "test")
    folder = tmp_path / "evaluation"
    assert {path.name for path in folder.iterdir()} == {
        "test.json", "test.csv", "test_samples.csv", "test_objects.csv", "test_parts.csv",
    }  # fmt: skip
    again = load_evaluation(tmp_path, "test")
    assert again.report() == evaluation.report()
    values = json.loads((folder / "test.json").read_text())["objects"]
    assert values["methods"]["pred"]["pushed_mm"]["mean"] == pytest.approx(5 + (0 + 1 + 3 + 4 + 5) / 5)
    made_up().save(tmp_path, "test")  # without objects: theirs are gone
    assert load_evaluation(tmp_path, "test").objects is None and not (folder / "test_parts.csv").exists()


def test_a_damaged_table_of_objects_is_named(tmp_path):
    evaluation = with_objects(5.0)
    evaluation.objects.objects.loc[3, "mm"] = np.nan  # although it is found
    evaluation.save(tmp_path, "test")
    with pytest.raises(InputError, match=r"test_objects.csv: damaged \(row 5: found mm ,"):
        load_evaluation(tmp_path, "test")


def test_comparison_is_paired_and_leaves_out_sequences_without_such_objects():
    comparison = Comparison({"a": with_objects(5.0), "b": with_objects(7.0)})
    rows = comparison.rows.set_index(["run", "method", "metric"])
    better = rows.loc["b", "pred", "pushed_mm"]
    assert better["difference"] == better["difference_low"] == better["difference_high"] == 2
    assert better["p"] == pytest.approx(2 / 2**5)  # of five of the six sequences
    assert rows.loc["b", "pred", "still_mm"]["difference"] == 2
    assert rows.loc["all", "copy", "pushed_mm"]["mean"] == pytest.approx(1 + (0 + 1 + 3 + 4 + 5) / 5)
    titles = [table.header[0] for table in comparison.tables()]
    assert titles[2:4] == ["pushed objects", "difference to a, pushed objects"] and len(titles) == 8
    assert "objects" in comparison.notes()
    assert len(Comparison({"a": with_objects(5.0), "b": made_up()}).tables()) == 2
