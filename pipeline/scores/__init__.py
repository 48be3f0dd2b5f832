"""Scores of pairs: images and captions to numbers, and conditions on these numbers."""
