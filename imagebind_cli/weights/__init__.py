"""Weights: found, read, fetched, and what they are of."""
