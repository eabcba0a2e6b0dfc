"""Draws from the posterior of a model's hidden states, γ and weights, for ArviZ. Start at ``sample``."""
