"""Decoding of recordings of motion sensors."""
