"""Decoding only: bytes to arrays, and what was read. No modality, no model, no normalisation."""
