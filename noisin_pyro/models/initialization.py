"""Weights at the start of training. Models begin as torch's do; here is the published paper's way."""

from __future__ import annotations

import math

from torch import nn

from noisin_pyro.models.sequence_model import LanguageModel, SequenceModel


def initialize_as_published(model: SequenceModel) -> None:
    """Draw the weights of ``model`` anew: embeddings (tied ones too) U(±0.1), others U(±1/√H), every bias 0.

    Spreads and an emission's scale stay as they are.

    Source: Dieng et al. (2018), their experiments. The draft says of its own only that it matters greatly.
    """
    bound = 1.0 / math.sqrt(model.rnn.hidden_size)
    for name, parameter in model.named_parameters():
        kind = name.rpartition(".")[2]
        if kind.startswith("bias"):
            nn.init.zeros_(parameter)
        elif kind.startswith("weight"):
            nn.init.uniform_(parameter, -bound, bound)
    if isinstance(model, LanguageModel):
        nn.init.uniform_(model.embedding.weight, -0.1, 0.1)
