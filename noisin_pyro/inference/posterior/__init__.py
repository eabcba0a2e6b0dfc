"""Posterior draws of hidden states, γ and weights, for ArviZ."""
