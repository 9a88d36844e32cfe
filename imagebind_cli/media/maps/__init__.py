"""Decoding of files with one number per pixel."""
