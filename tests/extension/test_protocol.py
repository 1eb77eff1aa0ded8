"""A protocol from outside the package decides what ``svg-evaluate --protocol`` does."""

import json

import numpy as np
import pytest

from experiments import evaluate
from svg.evaluation.protocols import PROTOCOLS, Protocol
from svg.evaluation.results import load_evaluation
from svg.sequences import SequenceDataset
from tests.extension.runs import tiny_run
from tests.support import references


def test_evaluate(data_root, tmp_path, capsys):
    run = tiny_run(data_root, tmp_path / "run")
    from tests.extension import short_protocol  # noqa: F401  (registers it)

    try:
        assert evaluate.main([str(run), "--protocol", "short"]) == 0
    finally:
        del PROTOCOLS["short"]
    printed = capsys.readouterr().out
    assert "protocol   short (an example of the tests)" in printed
    assert "frames     2 given, 3 predicted" in printed and "pred (best of 2)" in printed
    assert "best       the sampled future with the best mean PSNR, for all metrics" in printed
    values = json.loads((run / "evaluation" / "test_short.json").read_text())
    assert values["protocol"]["n_sample"] == 2
    dataset = SequenceDataset(data_root, "test", 5)
    clips = [dataset[n]["frames"].transpose(0, 3, 1, 2) / 255.0 for n in range(len(dataset))]
    expected = [[references.psnr_apart(clip[2 + frame], clip[1]) for frame in range(3)] for clip in clips]
    result = load_evaluation(run, "test_short")
    np.testing.assert_allclose(result.array("copy", "psnr"), expected, rtol=1e-4)


def test_an_impossible_protocol():
    with pytest.raises(ValueError, match="protocol x: found psnr 'median', expected together or apart"):
        Protocol("x", "nowhere", psnr="median")
