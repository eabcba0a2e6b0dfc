"""A run's numbers are read as they were written."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from noisin_pyro.inference import Evaluation
from noisin_pyro.training.result import evaluation_as_dict, evaluation_from_dict, read

RESULTS = Path(__file__).parents[2] / "results"
MEAN = Evaluation("mean", "predictor", 4.0, 0.0, 0.1, 100, 0)


@pytest.mark.parametrize(
    "evaluation",
    [
        MEAN,
        replace(MEAN, method="importance", kind="bound", pareto_k=0.5, unreliable=0.25, effective_samples=12.5),
        replace(MEAN, method="particle-filter", kind="estimate", effective_samples=80.0, resamplings=3.0),
    ],
)
def test_every_number_is_read_as_written(evaluation: Evaluation) -> None:
    assert evaluation_from_dict(json.loads(json.dumps(evaluation_as_dict(evaluation), allow_nan=False))) == evaluation


def test_non_finite_numbers_are_null() -> None:
    evaluation = replace(MEAN, nats_per_step=math.inf, standard_error=math.nan, pareto_k=math.inf)
    content = json.loads(json.dumps(evaluation_as_dict(evaluation), allow_nan=False))
    assert content["nats_per_step"] is content["perplexity"] is content["standard_error"] is content["pareto_k"] is None
    again = evaluation_from_dict(content)
    assert again is not None and math.isnan(again.standard_error) and again.pareto_k is None


def test_results_without_the_newer_fields_are_read() -> None:
    content = json.loads((RESULTS / "ptb" / "learned" / "result.json").read_text())
    assert "pareto_k" not in content["test"]
    result = read(RESULTS / "ptb" / "learned", "perplexity")
    assert result.test.nats_per_step == content["test"]["nats_per_step"]
    assert result.ensemble is not None and result.ensemble.effective_samples is None


@pytest.mark.parametrize(("key", "value"), [("pareto_k", "high"), ("resamplings", True), ("num_steps", None)])
def test_other_kinds_are_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key.replace("_", " ")):
        evaluation_from_dict(evaluation_as_dict(MEAN) | {key: value})
