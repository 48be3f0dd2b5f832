"""Checkpoint and prompt to images."""
