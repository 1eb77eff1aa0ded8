"""Validation: the shards of several processes add up to the scores that one process would take."""

import dataclasses

import numpy as np
import pytest

from svg.evaluation import EvaluationOptions
from svg.evaluation.protocols import OWN, PROTOCOLS
from svg.evaluation.scoring import evaluate
from svg.models.freezing import freeze
from svg.processes import World
from svg.training import validation as validation_module
from svg.training.loop import Training
from svg.training.validation import Validation
from tests.support.runs import changed


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_shards_add_up_to_the_scores_of_one_process(small_config, monkeypatch, size):
    """Five sequences in batches of two; of five processes two have none."""
    monkeypatch.setattr(validation_module, "BATCH_SIZE", 2)
    training = Training(changed(small_config, batch_size=2))
    model = training.learner.model
    assert training.validation_data is not None
    validations = [
        Validation(training.validation_data, training.config, World(rank, size)) for rank in range(size)
    ]
    scores = np.sum([validation.score_shard(model) for validation in validations], axis=0)
    protocol = dataclasses.replace(PROTOCOLS[OWN], n_sample=0).for_run(2, 4)
    options = EvaluationOptions(batch_size=2)
    result = evaluate(freeze(model, "float32"), training.validation_data, protocol, options)
    for column, (method, metric) in enumerate(validation_module.SCORES):
        assert (scores[:, column] == result.per_sequence(method, metric)).all()
    assert training.score() == {
        f"val_{method}_{metric}": float(result.per_sequence(method, metric).mean())
        for method, metric in validation_module.SCORES
    }


def test_only_the_first_sequences_are_scored(small_config):
    training = Training(changed(small_config, validate_sequences=3))
    assert training.validation is not None
    assert training.validation.score_shard(training.learner.model).shape == (3, 4)
