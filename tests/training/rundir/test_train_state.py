"""When training is finished."""

import pytest

from noisin_pyro.training import Config, Inference, Optimization
from noisin_pyro.training.rundir.train_state import TrainState


@pytest.mark.parametrize(
    ("annealing", "valid", "finished"),
    [
        (None, [2.0, 1.0, 3.0], False),
        (None, [2.0, 1.0, 3.0, 3.0], True),
        (4, [2.0, 1.0, 3.0, 3.0, 3.0], False),  # of these, one is after annealing
        (4, [2.0, 1.0, 3.0, 3.0, 3.0, 3.0], True),
        (4, [2.0, 1.0, 3.0, 3.0, 0.5, 3.0], False),
        (4, [2.0, 1.0, 3.0, 3.0, 0.5, 3.0, 3.0], True),
        (8, [1.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0], True),  # the maximum number of epochs
    ],
)
def test_the_patience_begins_after_annealing(annealing: int | None, valid: list[float], finished: bool) -> None:
    state = TrainState([{"valid_nats": nats, "seconds": 1.0} for nats in valid])
    optimization = Optimization(epochs=9, patience=2)
    config = Config(inference=Inference("mean-field", kl_annealing=annealing), optimization=optimization)
    assert state.is_finished(config) == finished
