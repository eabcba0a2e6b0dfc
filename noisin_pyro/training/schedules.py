"""The learning rate of each epoch, from the validations before it, and the weight of a guide's KL.

A function of the log alone: it has no state that a checkpoint would have to keep. (``torch.optim.lr_scheduler`` has,
and warns where a run goes on right before a scheduler's step.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

FULL_EPOCHS = 4  # of the paper's schedule for WikiText-2 (section 4)
DIVISOR = 1.2  # the published paper's


def rate(schedule: str, start: float, valid_nats: Sequence[float], divisor: float | None = None) -> float:
    """The learning rate of the epoch after those whose validations are given.

    Args:
        schedule: ``"fixed"``; ``"halve"``: half of the epoch's before, in every epoch after the fourth (the paper,
            section 4, WikiText-2); ``"divide"``: by ``divisor`` (default: 1.2) after each epoch that is not better in
            validation than all before it (the published paper).
        start: rate of the first epoch.
        valid_nats: what validation found after each epoch done, in order.
    """
    if schedule == "halve":
        return start * 0.5 ** max(0, len(valid_nats) + 1 - FULL_EPOCHS)
    if schedule == "divide":
        worse = sum(nats >= min(valid_nats[:epoch]) for epoch, nats in enumerate(valid_nats) if epoch > 0)
        return start * (divisor or DIVISOR) ** -worse
    return start


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Take ``value`` as the learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = value
    for state in optimizer.state.values():
        if "eta" in state:  # averaged SGD reads its rate here, and would follow a step late
            state["eta"].fill_(value)


def kl_weight(annealing: int | None, epoch: int) -> float:
    """What the guide's KL counts in an epoch (the first is 1): it rises in equal steps to 1 in epoch ``annealing``."""
    return 1.0 if annealing is None else min(1.0, epoch / annealing)
