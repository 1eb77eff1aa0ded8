"""Scores of the validation split, of which every process takes its shard."""

import dataclasses

import numpy as np

from ..config import Config, DataConfig
from ..evaluation import EvaluationOptions
from ..evaluation.protocols import OWN, PROTOCOLS, Protocol
from ..evaluation.scoring import evaluate
from ..models.freezing import freeze
from ..models.predictor import Predictor
from ..processes import World
from ..sequences import SequenceDataset, evaluated

BATCH_SIZE = 16
"""The least number of sequences that are scored at a time."""
SCORES = [("rec", "psnr"), ("rec", "ssim"), ("pred", "psnr"), ("pred", "ssim")]
"""Method and metric of each score; ``pred`` is predicted with the mean latent."""


def validation_protocol(data: DataConfig) -> Protocol:
    """Return the protocol of validation: the mean latent alone, and as many frames as ``--n_eval`` says."""
    protocol = dataclasses.replace(PROTOCOLS[OWN], n_sample=0)
    return protocol.for_run(data.n_past, data.n_eval - data.n_past)


class Validation:
    """The first ``--validate_sequences`` of the validation split, scored by all processes together.

    Each process scores every so many batches, the same batches as a single process would. Its scores are put
    in the order of the sequences before they are averaged: the result does not depend on the number of
    processes.
    """

    def __init__(self, dataset: SequenceDataset, config: Config, world: World):
        self._config = config
        self._world = world
        self._batch_size = max(config.train.batch_size, BATCH_SIZE)
        self._total = evaluated(dataset, config.train.validate_sequences)
        batches = np.arange(self._total) // self._batch_size
        self._numbers = np.flatnonzero(batches % world.size == world.rank)
        self._dataset = dataset.subset(self._numbers)

    def score_shard(self, model: Predictor) -> np.ndarray:
        """Return the scores of all sequences [N,4], zero where they are another process's."""
        scores = np.zeros((self._total, len(SCORES)))
        if not len(self._numbers):
            return scores
        protocol = validation_protocol(self._config.data)
        frozen = freeze(model, self._config.train.precision)
        result = evaluate(frozen, self._dataset, protocol, EvaluationOptions(self._batch_size))
        for column, (method, metric) in enumerate(SCORES):
            scores[self._numbers, column] = result.per_sequence(method, metric)
        return scores

    def average(self, scores: np.ndarray) -> dict[str, float]:
        """Return the mean of each score over all processes' sequences: ``val_rec_psnr`` and so on."""
        scores = self._world.sum(scores)  # exact, as all but one of the summands are zero
        return {
            f"val_{method}_{metric}": float(np.ascontiguousarray(scores[:, column]).mean())
            for column, (method, metric) in enumerate(SCORES)
        }
