"""Putting translated faces back into the frame."""
