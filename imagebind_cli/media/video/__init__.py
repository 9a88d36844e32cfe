"""Decoding of videos: clips by time."""
