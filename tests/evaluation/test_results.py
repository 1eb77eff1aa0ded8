"""Results on disk and in tables; runs side by side."""

import dataclasses
import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import InputError
from svg.evaluation.comparison import Comparison
from svg.evaluation.intervals import bootstrap_interval
from svg.evaluation.protocols import PROTOCOLS
from svg.evaluation.results import Evaluation, Setting, load_evaluation
from svg.evaluation.tables import Table, number

SEQUENCES, FRAMES = 6, 3


def made_up(
    seed: int = 0, gain: float = 0.0, methods=("copy", "rec", "pred", "pred_best", "pred_mean"), **changes
) -> Evaluation:
    """Scores that are no model's; `gain` is added to the PSNR of all methods but copying."""
    random, rows = np.random.default_rng(seed), []
    for method in methods:
        for sequence in range(SEQUENCES):
            for frame in range(1, FRAMES + 1):
                noise = random.normal(0, 0.5)
                psnr = 15.0 + sequence if method == "copy" else 25 + sequence + gain + noise
                ssim = 0.7 if method == "copy" else 0.9 + 0.01 * noise
                rows.append((f"{sequence:02d}", method, frame, psnr, ssim, 0.002))
    scores = pd.DataFrame(rows, columns=["sequence", "method", "frame", "psnr", "ssim", "mse"])
    samples = scores[scores["method"] == "copy"][["sequence", "frame"]].assign(
        pairwise_mse=0.0009, error_mse=0.0036, rank=1.0
    )
    protocol = dataclasses.replace(PROTOCOLS["own"], n_past=2, n_future=FRAMES, n_sample=10)
    setting = Setting("data", "test", SEQUENCES, 1, "float32 on cpu", "run", {"torch": "2"})
    return dataclasses.replace(
        Evaluation(protocol, setting, scores, samples.reset_index(drop=True)), **changes
    )


def test_averages():
    result = made_up()
    values = result.scores[result.scores["method"] == "pred"].groupby("sequence")["psnr"].mean().to_numpy()
    np.testing.assert_allclose(result.per_sequence("pred", "psnr"), values)
    low, high = bootstrap_interval(values)
    assert result.mean("pred", "psnr").mean == pytest.approx(values.mean())
    assert (result.mean("pred", "psnr").low, result.mean("pred", "psnr").high) == (
        pytest.approx(low),
        pytest.approx(high),
    )
    mean, low, high = result.curve("copy", "psnr")
    assert mean.tolist() == [17.5] * 3 and (low < 17.5).all() and (high > 17.5).all()


def test_sample_statistics():
    found = made_up().sample_statistics()
    assert found["spread"].mean == pytest.approx(0.03) and found["calibration"].mean == pytest.approx(0.25)
    assert found["rank"].mean == 1 and found["outermost"].mean == 1
    assert made_up(samples=None).sample_statistics() == {}


def test_text():
    text = made_up().report()
    assert "pred (best of 10)" in text and "copy the last frame" in text and "6 futures" not in text
    assert "2 given, 3 predicted" in text
    assert "samples too alike (spread / error 0.25 [0.25, 0.25], ideal 1)" in text
    assert "truth outside all samples in 100 [100, 100] % of frames (ideal 9 %)" in text
    line = next(line for line in text.splitlines() if line.startswith("pred (mean latent)"))
    assert line.split()[3] == f"{made_up().mean('pred', 'psnr').mean:.2f}" and line.split()[-1].startswith(
        "+"
    )


def test_round_trip(tmp_path):
    result = made_up()
    path = result.save(tmp_path, "test")
    written = json.loads(path.read_text())
    assert written["methods"]["rec"]["psnr"]["mean"] == pytest.approx(result.mean("rec", "psnr").mean)
    assert (
        len(written["methods"]["rec"]["ssim"]["per_frame_low"]) == FRAMES
        and written["setting"]["precision"] == "float32 on cpu"
    )
    again = load_evaluation(tmp_path, "test")
    assert (
        again.report() == result.report()
        and again.setting == result.setting
        and again.protocol == result.protocol
    )
    assert again.sequences == ["00", "01", "02", "03", "04", "05"]  # no numbers
    assert load_evaluation(tmp_path, "train") is None


def test_an_evaluation_without_samples_leaves_none_behind(tmp_path):
    made_up().save(tmp_path, "test")
    made_up(samples=None).save(tmp_path, "test")
    assert (
        not (tmp_path / "evaluation" / "test_samples.csv").exists()
        and load_evaluation(tmp_path, "test").samples is None
    )


def test_numbers():
    assert (
        number(-0.001, ".2f") == "0.00" == number(0.004, "+.2f").replace("+", "")
        and number(0.005, "#.3g") == "0.00500"
    )
    assert number(404.0, "#.3g") == "404" and number(-1.5, "+.2f") == "-1.50" and number(0.0, ".0%") == "0%"
    assert number(np.inf, ".2f") == "inf"


def test_infinities_round_trip(tmp_path):
    result = made_up()
    result.scores.loc[result.scores["method"] == "rec", "psnr"] = np.inf
    text = result.save(tmp_path, "test").read_text()
    assert (
        json.loads(text)["methods"]["rec"]["psnr"]["mean"] == "inf"
        and "NaN" not in text
        and "Infinity" not in text
    )
    again = load_evaluation(tmp_path, "test")
    assert (
        again.mean("rec", "psnr").mean == np.inf
        and "inf [inf, inf]" in again.report()
        and "nan" not in again.report()
    )


def test_a_single_sequence_has_no_interval():
    result = made_up()
    one = result.scores[result.scores["sequence"] == "00"].reset_index(drop=True)
    single = dataclasses.replace(result, scores=one, samples=result.samples[:FRAMES])
    assert "[" not in single.table().text() and "inf" not in single.report()


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("test.json", lambda text: text[:100], "damaged"),
        (
            "test.json",
            lambda text: text.replace('"schema_version": 2', '"schema_version": 9'),
            "schema version 9",
        ),
        ("test.json", lambda text: text.replace('"schema_version": 2,', ""), "schema version None"),
        (
            "test.csv",
            lambda text: text.replace("0.002", "0.003"),
            "it is not the one that test.json belongs to",
        ),
        ("test.json", lambda text: text.replace('"n_sample"', '"n_samples"'), "damaged"),
        ("test.csv", lambda text: text[: len(text) // 2], "damaged"),
        ("test.csv", lambda text: text.replace("psnr", "x"), "damaged"),
        ("test_samples.csv", lambda text: "", "damaged"),
    ],
)
def test_damaged_results(tmp_path, name, change, expected):
    made_up().save(tmp_path, "test")
    path = tmp_path / "evaluation" / name
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=expected) as error:
        load_evaluation(tmp_path, "test")
    assert str(path) in str(error.value) and "svg-evaluate" in str(error.value)


def forge(folder, change_table=lambda rows: rows, **changes) -> None:
    """Writes an evaluation whose table of scores or JSON says something else, with the right checksum."""
    made_up().save(folder, "test")
    table, path = folder / "evaluation" / "test.csv", folder / "evaluation" / "test.json"
    text = (
        "\n".join(
            ",".join(row)
            for row in change_table([line.split(",") for line in table.read_text().splitlines()])
        )
        + "\n"
    )
    table.write_text(text)
    values = json.loads(path.read_text())
    values["files"]["test.csv"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(values | changes))


def with_cell(row: int, column: int, text: str):
    """A change of one cell of a table; row 0 is the header."""
    return lambda rows: [
        [*cells[:column], text, *cells[column + 1 :]] if n == row else cells for n, cells in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda rows: [[cell.replace("pred_best", "magic") for cell in row] for row in rows],
            "found the method 'magic', expected",
        ),
        (with_cell(3, 3, "1e308"), r"row 4: found psnr 1e\+308, expected a number up to 1e\+09 or inf"),
        (
            lambda rows: [rows[0], *([*row[:3], "1e308", "1e308", "-1e308"] for row in rows[1:])],
            r"row 2: found psnr 1e\+308",
        ),
        (with_cell(3, 3, "nan"), "row 4: found psnr nan"),
        (with_cell(2, 4, ""), "row 3: found ssim , expected"),
        (with_cell(2, 4, "True"), "row 3: found ssim True"),
        (with_cell(2, 2, "1"), "row 3: not the sequence and frame that copy has there"),
        (with_cell(30, 0, "00"), "row 31: not the sequence and frame that rec has there"),
        (
            lambda rows: [*rows, rows[-1]],
            "found 19 scores of pred_mean, expected 18: 3 of each of 6 sequences",
        ),
        (lambda rows: [row for row in rows if row[1] != "copy"], "found no scores of copy"),
        (lambda rows: rows[:1], "found no scores of copy"),
        (lambda rows: [[*row[:3], *row[4:]] for row in rows], "found no column psnr"),
    ],
)
def test_scores_that_nobody_could_have_taken(tmp_path, change, expected):
    forge(tmp_path, change)
    with warnings.catch_warnings(), pytest.raises(InputError, match=expected) as error:
        warnings.simplefilter("error")
        load_evaluation(tmp_path, "test")
    assert str(tmp_path / "evaluation" / "test.csv") in str(error.value) and "run svg-evaluate again" in str(
        error.value
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"distances": {"magic": {"fvd": 1.0}}}, "found the method 'magic'"),
        ({"distances": {"pred": {"fvd": 1e308}}}, r"pred: found fvd 1e\+308"),
        ({"distances": {"pred": {"fvd": None}}}, "pred: found fvd"),
        ({"distances": [1]}, "damaged"),
    ],
)
def test_distances_that_nobody_could_have_taken(tmp_path, changes, expected):
    forge(tmp_path, **changes)
    with pytest.raises(InputError, match=expected) as error:
        load_evaluation(tmp_path, "test")
    assert str(tmp_path / "evaluation" / "test.json") in str(error.value)


def test_a_forged_table_that_says_the_same_is_taken(tmp_path):
    forge(tmp_path)
    assert load_evaluation(tmp_path, "test").report() == made_up().report()


def test_comparison():
    results = {"a": made_up(0), "b": made_up(0, gain=1.0), "c": made_up(5)}
    rows = Comparison(results).rows.set_index(["run", "method", "metric"])
    better = rows.loc["b", "pred", "psnr"]
    assert better["difference"] == pytest.approx(1) == better["difference_low"] == better["difference_high"]
    assert better["p"] == pytest.approx(2 * 2 / 2**SEQUENCES)  # all signs alike; two other runs
    assert rows.loc["c", "pred", "psnr"]["p"] > 0.05 and rows.loc["b", "pred", "mse"]["difference"] == 0
    assert np.isnan(rows.loc["a", "pred", "psnr"]["difference"]) and ("all", "copy", "psnr") in rows.index
    means, differences = Comparison(results).tables()
    assert [row[0] for row in means.rows][:3] == [
        "copy the last frame",
        "a: rec (posterior)",
        "b: rec (posterior)",
    ]
    assert differences.header[0] == "difference to a" and len(differences.rows) == 2 * 3
    row = next(row for row in differences.rows if row[0] == "b: pred (mean latent)")
    assert row[1] == "+1.00 [+1.00, +1.00], p 0.0625" and "nan" not in differences.text() + means.text()


def test_what_cannot_be_compared():
    first = made_up()
    longer = dataclasses.replace(first.protocol, n_past=3)
    with pytest.raises(
        InputError, match=r"b and a: found frames 3 given.* name a --protocol that says how many"
    ):
        Comparison({"a": first, "b": dataclasses.replace(first, protocol=longer)})
    fewer = first.scores[first.scores["sequence"] != "00"]
    elsewhere = first.scores.assign(ssim=first.scores["ssim"] + 0.01)  # sequences of the same names
    for scores in (fewer, elsewhere):
        with pytest.raises(InputError, match="b and a were not scored on the same sequences"):
            Comparison({"a": first, "b": dataclasses.replace(first, scores=scores)})
    other_lpips = dataclasses.replace(first.protocol, lpips="vgg")
    with pytest.raises(InputError, match=r"found lpips version 0\.1, vgg"):
        Comparison({"a": first, "b": dataclasses.replace(first, protocol=other_lpips)})


def test_undefined_differences_are_shown():
    first, second = made_up(), made_up()
    for result, sequence in ((first, "00"), (second, "01")):
        result.scores.loc[
            (result.scores["method"] == "pred") & (result.scores["sequence"] == sequence), "psnr"
        ] = np.inf
    comparison = Comparison({"a": first, "b": second})
    row = next(row for row in comparison.tables()[1].rows if row[0] == "b: pred (mean latent)")
    assert row[1] == "undefined, p 1.0000" and "nan" not in comparison.tables()[1].text()


def test_only_shared_metrics_are_compared():
    first = made_up()
    more = dataclasses.replace(first, scores=first.scores.assign(lpips=0.1))
    assert Comparison({"a": more, "b": first}).metrics == ["psnr", "ssim", "mse"]


def test_scores_that_are_no_numbers(tmp_path):
    result = made_up()
    result.scores.loc[4, "psnr"] = np.nan
    with pytest.raises(InputError, match=r"the scores of sequence 01 \(copy\) are no numbers"):
        result.save(tmp_path, "test")
    assert not list(tmp_path.iterdir())


def test_names_that_look_like_nothing(tmp_path):
    result = made_up()
    named = result.scores.assign(sequence=result.scores["sequence"].replace({"00": "NA", "01": "null"}))
    dataclasses.replace(result, scores=named).save(tmp_path, "test")
    assert load_evaluation(tmp_path, "test").sequences[:2] == ["NA", "null"]


def test_distances_have_rows_of_their_own():
    distances = pd.DataFrame({"fvd": {"copy": 300.0, "pred_sample": 120.0}})
    table = made_up(distances=distances).table()
    rows = {row[0]: row for row in table.rows}
    assert (
        table.header[4] == "FVD"
        and rows["copy the last frame"][4] == "300.0"
        and rows["rec (posterior)"][4] == ""
    )
    assert rows["pred (one sample)"][1:] == ["", "", "", "120.0", ""]


def test_tables():
    table = Table(["", "PSNR dB"], [["a_b & 5 %", "1.00"], ["x | <y>", "22.00"]])
    assert table.text().splitlines() == ["           PSNR dB", "a_b & 5 %     1.00", "x | <y>      22.00"]
    assert table.markdown().splitlines() == [
        "|  | PSNR dB |",
        "| --- | ---: |",
        "| a_b & 5 % | 1.00 |",
        r"| x \| <y> | 22.00 |",
    ]
    latex = table.latex().splitlines()
    assert (
        latex[0] == r"\begin{tabular}{lr}"
        and r"a\_b \& 5 \% & 1.00 \\" in latex
        and r"x \textbar{} \textless{}y\textgreater{} & 22.00 \\" in latex
        and latex[-1] == r"\end{tabular}"
    )
    assert "<td>x | &lt;y&gt;</td>" in table.html()


def test_every_table_says_what_predictions_were_given():
    """Before how they were scored; runs that were given different things are told apart."""
    told = "actions and true positions of the future"

    def given(conditions: str) -> Evaluation:
        result = made_up()
        return dataclasses.replace(result, setting=dataclasses.replace(result.setting, conditions=conditions))

    lines = given(told).report().splitlines()
    assert lines[2] == f"conditions {told}" and lines[1].startswith("frames     2 given")
    assert list(given(told).in_words())[:3] == ["protocol", "frames", "conditions"]
    assert made_up().in_words()["conditions"].startswith("not recorded by an earlier release")
    same = Comparison({"a": given(told), "b": given(told)})
    assert same.in_words()["conditions"] == told
    assert same.rows.set_index("run")["conditions"].to_dict() == {"all": "", "a": told, "b": told}
    other = Comparison({"a": given(told), "b": given("actions alone")})
    assert other.in_words()["conditions"] == f"a: {told}; b: actions alone"
    assert other.rows.set_index("run")["conditions"].to_dict() == {"all": "", "a": told, "b": "actions alone"}
